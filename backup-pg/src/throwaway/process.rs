//! Child processes: started with their output in a file, watched, signalled, waited for.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_core::Result;
use rustix::process::{Pid, Signal, kill_process};

use super::cannot;

/// How often a child is looked at while it is waited for.
pub(super) const POLL: Duration = Duration::from_millis(20);

pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let output =
        File::options().create(true).append(true).open(log).map_err(|e| cannot("write", log, e))?;
    let errors = output.try_clone().map_err(|e| cannot("write", log, e))?;
    let program = PathBuf::from(command.get_program());
    command.stdout(output).stderr(errors).spawn().map_err(|e| {
        cannot("start", &program, e)
            .next_step("the server's user must be able to run it: not below /root, say")
    })
}

/// Ends the server, waits until it is gone, and removes its folder.
const LAST_WILL: &str = r#"
read -r _
kill -QUIT "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ "$tries" -lt "$3" ]; do
    sleep 0.1 2>/dev/null || sleep 1
    tries=$((tries + 1))
done
kill -KILL "$1" 2>/dev/null
rm -rf -- "$2""#;

/// How often the watcher looks whether the server is gone, every tenth of a second.
const LOOKS: u32 = 300;

/// A shell that waits for the end of our side of a pipe, which comes however we die. `folder` is
/// the server's, with everything in it.
pub(super) fn watch(server: &Child, folder: &Path) -> Option<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LAST_WILL, "sh", &server.id().to_string()]);
    command.arg(folder).arg(LOOKS.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").process_group(0).spawn().ok()
}

/// Kills a child and forgets it.
pub(super) fn dismiss(child: Option<Child>) {
    if let Some(mut child) = child {
        child.kill().ok();
        child.wait().ok();
    }
}

pub(super) fn send(child: &mut Child, signal: Signal) {
    // Once it was waited for, its id may be somebody else's.
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

pub(super) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => sleep(POLL),
            _ => return None,
        }
    }
}
