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

/// A shell that waits for the end of our side of a pipe, which comes however we die.
pub(super) fn watch(server: &Child) -> Option<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read -r _; kill -QUIT \"$1\"", "sh", &server.id().to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().ok()
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
