//! A server's process: started in a folder of its own, watched, ended with all it started.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use super::cannot;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);
/// How often a start is tried: between our choice of a port and its use another may take it.
const START_ATTEMPTS: u32 = 3;
/// How much of a server's log an error shows.
const SHOWN_LINES: usize = 12;

/// A program that runs until it is told to end.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    command: Command,
    child: Option<Child>,
    watcher: Option<Child>,
    folder: TempDir,
    /// Files elsewhere that the program leaves behind when it is killed.
    litter: Vec<PathBuf>,
}

/// A folder that only we can enter.
pub(super) fn new_folder() -> Result<TempDir> {
    TempDir::with_prefix("marb-test-").map_err(|e| cannot("no temporary folder").caused_by(e))
}

impl Process {
    /// Prepares `program` to run with its output in a log in `folder`.
    pub(super) fn new(name: &'static str, program: &Path, folder: TempDir) -> Result<Self> {
        let open = || File::options().create(true).append(true).open(folder.path().join("log"));
        let opened = open().and_then(|output| Ok((output.try_clone()?, output)));
        let (output, errors) = opened.map_err(|e| cannot("no log").caused_by(e))?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(output).stderr(errors).current_dir(folder.path());
        // Some write their own logs to the temporary folder, whatever they are told.
        command.env("TMPDIR", folder.path());
        Ok(Self { name, command, child: None, watcher: None, folder, litter: Vec::new() })
    }

    /// The command line and environment, until the start.
    pub(super) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    pub(super) fn removes_at_the_end(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.litter.extend(files);
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process's id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it and waits until `ready` says so.
    pub(super) async fn start<F>(&mut self, ready: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let child = self.command.spawn();
        let child =
            child.map_err(|e| cannot(format!("cannot start {}", self.name)).caused_by(e))?;
        self.watcher = watch(&child, self.folder.path(), &self.litter);
        self.child = Some(child);
        let deadline = Instant::now() + READY_TIMEOUT;
        while !ready().await {
            let ended = self.child.as_mut().is_none_or(|c| !matches!(c.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.kill();
                return Err(self.not_ready(ended));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn not_ready(&self, ended: bool) -> Error {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        let what = if ended { "ended early" } else { "was not ready in time" };
        cannot(format!("{} {what}; the end of its log:\n{last}", self.name))
    }

    /// Asks it to end, as a service manager would, and kills what is left of it.
    pub(super) async fn end(&mut self) -> Result<()> {
        if let Some(pid) = self.pid().and_then(as_pid) {
            kill_process(pid, Signal::TERM)
                .map_err(|e| cannot(format!("cannot end {}", self.name)).caused_by(e))?;
            let deadline = Instant::now() + END_TIMEOUT;
            while let Some(Ok(None)) = self.child.as_mut().map(Child::try_wait) {
                if Instant::now() > deadline {
                    break;
                }
                sleep(POLL).await;
            }
        }
        self.kill();
        Ok(())
    }

    /// Kills it and what it started, and removes its litter.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Sessions of sshd survive it; stopped first, it cannot start another one meanwhile.
            signal(child.id(), Signal::STOP);
            for descendant in descendants(child.id()) {
                signal(descendant, Signal::KILL);
            }
            child.kill().ok();
            child.wait().ok();
        }
        if let Some(mut watcher) = self.watcher.take() {
            watcher.kill().ok();
            watcher.wait().ok();
        }
        for file in &self.litter {
            std::fs::remove_file(file).ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A shell that waits for the end of our side of a pipe, which comes however we die.
fn watch(server: &Child, folder: &Path, litter: &[PathBuf]) -> Option<Child> {
    let script = "read -r _; kill -KILL \"$1\"; shift; sleep 0.2; rm -rf -- \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh", &server.id().to_string()]).arg(folder).args(litter);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // What ends our group, Ctrl-C say, must not end the watcher before its work.
    command.current_dir("/").process_group(0).spawn().ok()
}

fn descendants(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = as_pid(pid) {
        kill_process(pid, signal).ok();
    }
}

fn as_pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// A server that `come_up` brought up, on other ports where the first were taken.
pub(super) async fn started<S, F>(
    prepare: impl Fn() -> Result<S>,
    come_up: impl Fn(S) -> F,
) -> Result<S>
where
    F: Future<Output = Result<S>>,
{
    let mut attempt = 1;
    loop {
        match come_up(prepare()?).await {
            Err(_) if attempt < START_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// `N` addresses that nobody listens on, all different.
pub(super) fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut held = Vec::with_capacity(N);
    let mut addresses = [anywhere; N];
    for address in &mut addresses {
        let bound = TcpListener::bind(anywhere).and_then(|l| Ok((l.local_addr()?, l)));
        let (free, listener) = bound.map_err(|e| cannot("no free port").caused_by(e))?;
        *address = free;
        // Held until all are found, else the same could come twice.
        held.push(listener);
    }
    Ok(addresses)
}
