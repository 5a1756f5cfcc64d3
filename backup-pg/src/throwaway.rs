//! A PostgreSQL server made for one purpose and gone afterwards: the demo's, a drill's, a test's.
//!
//! Everything here blocks; from async code call it inside `spawn_blocking`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use rustix::process::{Signal, getuid};
use secrecy::{ExposeSecret as _, SecretString};

use account::{Account, unprivileged_account};
use folder::claim_folder;
use process::{POLL, dismiss, send, spawn, wait_for, watch};

mod account;
mod cluster;
mod folder;
mod leftovers;
mod process;

pub use leftovers::{ScratchFolder, sweep};

const STAGE: &str = "throwaway server";
/// The server's superuser, whoever runs it.
const SUPERUSER: &str = "postgres";
/// The port of a server that listens on its socket only, where nobody else can hold it.
const SOCKET_PORT: u16 = 5432;
/// A free port can be taken between finding and using it, and what a killed server leaves
/// behind takes a moment to go: so often a start is tried.
const START_ATTEMPTS: u32 = 10;
const RETRY_AFTER: Duration = Duration::from_millis(500);
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// So much of the server's log goes into an error.
const LOG_TAIL_LINES: usize = 8;

/// How a [`ThrowawayServer`] is made.
#[derive(Debug, Clone)]
pub struct ThrowawayOptions {
    /// Listen on a free port of 127.0.0.1 too, not only on the socket. Needs a password.
    pub tcp: bool,
    /// The superuser's password (scram-sha-256). Without one, whoever can enter the socket's
    /// folder is trusted: the server's own user and root.
    pub password: Option<SecretString>,
    /// The cluster's locale, as `initdb --locale` takes it; the encoding is UTF8.
    pub locale: String,
    /// Further settings of postgresql.conf; a later one wins over an earlier and over ours.
    pub settings: Vec<(String, String)>,
}

impl Default for ThrowawayOptions {
    fn default() -> Self {
        Self { tcp: false, password: None, locale: "C".into(), settings: Vec::new() }
    }
}

/// How a server is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Disconnects everybody, writes a checkpoint, ends.
    Fast,
    /// Ends at once; the next start recovers from the write-ahead log.
    Immediate,
    /// SIGKILL to the server's first process, as a crash would.
    Kill,
}

/// A running PostgreSQL server in a folder of its own; dropping it ends it and removes the folder.
///
/// Should this process die without dropping it, a small watcher ends the server and removes the
/// folder. What is left when the watcher was killed, too, is found by [`sweep`], if the folder is
/// a [`ScratchFolder`]. Started by root, the server runs as an unprivileged user, who owns the folder.
///
/// ```no_run
/// use backup_pg::throwaway::{ThrowawayOptions, ThrowawayServer};
/// # fn main() -> backup_core::Result<()> {
/// let server = ThrowawayServer::start(
///     "/usr/lib/postgresql/15/bin".as_ref(),
///     "/tmp/my-scratch-server".as_ref(),
///     &ThrowawayOptions::default(),
/// )?;
/// println!("psql '{}'", server.connection_string("postgres"));
/// server.stop()
/// # }
/// ```
#[derive(Debug)]
pub struct ThrowawayServer {
    bin_dir: PathBuf,
    folder: PathBuf,
    user: Option<Account>,
    options: ThrowawayOptions,
    port: u16,
    running: Option<Running>,
}

/// The server's first process, and the one that ends it should we die.
#[derive(Debug)]
struct Running {
    server: Child,
    watcher: Option<Child>,
}

impl ThrowawayServer {
    /// Makes a cluster in `folder` with the `initdb` and `postgres` of `bin_dir`, starts it and
    /// waits until it accepts connections.
    ///
    /// `folder` must be missing or empty; it becomes the server's and is removed with it.
    ///
    /// # Errors
    /// `Refused` when the folder holds something, `Usage` for TCP without a password, otherwise
    /// `Failed` with the end of the server's log. Nothing is left behind.
    pub fn start(bin_dir: &Path, folder: &Path, options: &ThrowawayOptions) -> Result<Self> {
        if options.tcp && options.password.is_none() {
            return Err(Error::usage(STAGE, "a server on a TCP port needs a password"));
        }
        let user = if getuid().is_root() { Some(unprivileged_account()?) } else { None };
        claim_folder(folder, user)?;
        // From here on dropping `made` removes the folder.
        let mut made = Self {
            bin_dir: bin_dir.to_path_buf(),
            folder: fs::canonicalize(folder).map_err(|e| cannot("find", folder, e))?,
            user,
            options: options.clone(),
            port: SOCKET_PORT,
            running: None,
        };
        made.initialise()?;
        if options.tcp {
            made.start_on_a_free_port()?;
        } else {
            made.start_up()?;
        }
        Ok(made)
    }

    /// Starts the server again after [`shut_down`](Self::shut_down) or a crash, on the same port
    /// and data. Does nothing while it runs.
    pub fn start_up(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        self.shut_down(Shutdown::Immediate)?;
        let mut attempt = 1;
        loop {
            match self.start_once() {
                Err(error) if attempt < START_ATTEMPTS && may_pass(&error) => sleep(RETRY_AFTER),
                result => return result,
            }
            attempt += 1;
        }
    }

    /// Ends the server and keeps its folder, so that it can start again.
    pub fn shut_down(&mut self, how: Shutdown) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        dismiss(running.watcher.take());
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
            Shutdown::Kill => Signal::KILL,
        };
        send(&mut running.server, signal);
        if wait_for(&mut running.server, STOP_TIMEOUT).is_some() {
            return Ok(());
        }
        send(&mut running.server, Signal::KILL);
        wait_for(&mut running.server, STOP_TIMEOUT);
        let limit = STOP_TIMEOUT.as_secs();
        Err(Error::failed(STAGE, format!("it did not end within {limit} s and was killed")))
    }

    /// Ends the server and removes its folder.
    ///
    /// # Errors
    /// When it had to be killed, or when the folder could not be removed.
    pub fn stop(mut self) -> Result<()> {
        let ended = self.shut_down(Shutdown::Fast);
        let removed = fs::remove_dir_all(&self.folder);
        ended?;
        removed.map_err(|e| cannot("remove", &self.folder, e))
    }

    /// A URL of `database` for the superuser, by TCP where it listens there, else by the socket.
    /// **It carries the password.**
    pub fn connection_string(&self, database: &str) -> String {
        let database = percent_encoded(database);
        let password = match &self.options.password {
            Some(secret) => format!(":{}", percent_encoded(secret.expose_secret())),
            None => String::new(),
        };
        let port = self.port;
        if self.options.tcp {
            return format!("postgresql://{SUPERUSER}{password}@127.0.0.1:{port}/{database}");
        }
        let socket = percent_encoded(&self.socket_folder().to_string_lossy());
        format!("postgresql://{SUPERUSER}{password}@/{database}?host={socket}&port={port}")
    }

    /// The port: of 127.0.0.1 with TCP, and in the socket's name in any case.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket; only the server's user and root can enter it.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The cluster's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file the server writes its log to.
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The process id of the server's first process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.server.id())
    }

    /// The folder of the server's programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Whether the server's first process is alive.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|r| matches!(r.server.try_wait(), Ok(None)))
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        let mut attempt = 1;
        loop {
            self.port = free_port()?;
            match self.start_once() {
                Err(error) if attempt < START_ATTEMPTS && port_was_taken(&error) => attempt += 1,
                result => return result,
            }
        }
    }

    fn start_once(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data_dir()).arg("-p").arg(self.port.to_string());
        let server = spawn(&mut command, &self.log())?;
        let watcher = watch(&server, &self.folder);
        let running = self.running.insert(Running { server, watcher });
        let deadline = Instant::now() + START_TIMEOUT;
        let pid_file = self.folder.join("data/postmaster.pid");
        let mut ended = None;
        while ended.is_none() && Instant::now() < deadline {
            if says_ready(&pid_file, running.server.id()) {
                return Ok(());
            }
            sleep(POLL);
            ended = running.server.try_wait().map_err(|e| cannot("wait for", &self.bin_dir, e))?;
        }
        // The cause of the failure is worth more than one of the ending.
        self.shut_down(Shutdown::Immediate).ok();
        Err(failed("the server did not start", ended, &self.log()))
    }

    /// A program of `bin_dir`, run as the server's user with none of the caller's environment
    /// (`PGDATA`, `PGPORT` and the like would steer it) and outside its process group, so that
    /// a Ctrl-C at the terminal leaves the order of ending to the caller.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_MESSAGES", "C");
        command.current_dir(&self.folder).stdin(Stdio::null()).process_group(0);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl Drop for ThrowawayServer {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Immediate).ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

fn free_port() -> Result<u16> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Error::failed(STAGE, "no free port on 127.0.0.1").caused_by(e))
}

/// The server writes its state into the eighth line of this file once it accepts connections.
fn says_ready(pid_file: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else { return false };
    let mut lines = text.lines().map(str::trim);
    let ours = lines.next().and_then(|line| line.parse().ok()) == Some(pid);
    ours && lines.nth(6).is_some_and(|state| state == "ready" || state == "standby")
}

fn port_was_taken(error: &Error) -> bool {
    error.causes().iter().any(|cause| cause.contains("Address already in use"))
}

/// After a kill the last of the old server's processes may hold its memory or port a little longer.
fn may_pass(error: &Error) -> bool {
    let shared = "pre-existing shared memory block";
    port_was_taken(error) || error.causes().iter().any(|cause| cause.contains(shared))
}

fn failed(what: &str, status: Option<ExitStatus>, log: &Path) -> Error {
    let how = status.map_or_else(|| "timed out".to_owned(), |status| status.to_string());
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
    Error::failed(STAGE, format!("{what} ({how})")).caused_by(std::io::Error::other(tail))
}

fn cannot(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::failed(STAGE, format!("cannot {verb} {}", path.display())).caused_by(error)
}

/// What a URL's parts may hold besides letters and digits stays; the rest becomes `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
