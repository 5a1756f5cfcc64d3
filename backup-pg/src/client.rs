//! Running PostgreSQL's client programs: environment, secrets, bounded stderr, certain end.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Connection;
use crate::diagnosis::{self, Scrubber};

/// How much of a child's stderr is kept from its start, and again from its end, in bytes.
const STDERR_KEPT_BYTES: usize = 32 * 1024;

/// How long a child that closed its output may take to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a pipe into a child may hold, in bytes: the most that the kernel gives to anybody.
const PIPE_BYTES: usize = 1 << 20;

/// How long an ended child's stderr may stay open (a grandchild holds it).
const STDERR_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an aborted child may take to cancel its query at the server before it is killed.
const CANCEL_GRACE: Duration = Duration::from_millis(500);

/// How long a killed child may take to disappear (it does at once, unless the kernel is stuck).
const KILL_GRACE: Duration = Duration::from_secs(2);

/// Becomes the program in `$0`, beside a watcher that waits for the end of the input and then ends
/// the process group, which is the program's own.
/// The file that came as its output becomes [`TIED_FILE`].
const TIED: &str = "exec 3<&0 4<&1 >/dev/null; { read -r _ <&3; kill -TERM 0; } 2>&1 4<&- & \
    exec \"$0\" \"$@\" 3<&- </dev/null";

/// What runs it.
const SHELL: &str = "/bin/sh";

/// Whether a child can be tied here, for who needs that later.
///
/// # Errors
/// When there is no shell.
pub(crate) fn tied_shell_is_there() -> Result<()> {
    if Path::new(SHELL).exists() {
        return Ok(());
    }
    Err(Error::failed("client tools", format!("there is no {SHELL}"))
        .next_step("install a shell (busybox will do), or restore with --jobs 1"))
}

/// The name by which a tied child opens its file, at its first byte.
pub(crate) const TIED_FILE: &str = "/dev/fd/4";

/// Section of the service file that carries the secrets that have no environment variable.
const SERVICE_NAME: &str = "marb-backup";

/// A client program that is about to run on a [`Connection`]. Its secrets are in place.
pub(crate) struct ClientCommand {
    command: Command,
    program: PathBuf,
    connection: Connection,
    service: Option<TempDir>,
}

impl ClientCommand {
    /// Called by [`Connection::command`], which knows what goes where.
    pub(crate) fn new(program: &Path, connection: &Connection) -> Result<Self> {
        let mut command = Command::new(program);
        command
            // Messages are read by `diagnosis`, and by people who search for them.
            .env("LC_ALL", "C")
            .env("PG_COLOR", "never")
            // Ctrl-C on the terminal is ours to handle, and `kill` reaches grandchildren.
            .process_group(0)
            .kill_on_drop(true);
        Ok(Self { command, program: program.into(), connection: connection.clone(), service: None })
    }

    /// Writes a service file that lives as long as the child; returns the service's name.
    pub(crate) fn hand_over_by_file(&mut self, lines: &SecretString) -> Result<String> {
        let failed = |e: std::io::Error| {
            Error::failed("connection", "the file for the connection's secrets can't be written")
                .caused_by(e)
                .next_step("check that the folder for temporary files exists and has space")
        };
        let folder = tempfile::Builder::new()
            .prefix("marb-backup-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(failed)?;
        let path = folder.path().join("pg_service.conf");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let text = format!("[{SERVICE_NAME}]\n{}", lines.expose_secret());
        file.write_all(text.as_bytes()).map_err(failed)?;
        self.command.env("PGSERVICEFILE", &path);
        self.service = Some(folder);
        Ok(SERVICE_NAME.to_owned())
    }

    /// Adds an argument. Everybody on the host can read it: never a secret.
    pub(crate) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments, as [`ClientCommand::arg`].
    pub(crate) fn args<I: AsRef<OsStr>>(
        &mut self,
        arguments: impl IntoIterator<Item = I>,
    ) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the child's environment.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.command.env(name, value);
        self
    }

    /// Starts the child with `file`, which it can open as [`TIED_FILE`] and read. Its input is a pipe of ours that it does not see: a shell beside
    /// it ends it as soon as the pipe does, that is with this process, however that ends. A child that
    /// read its work from the pipe would notice by itself; this one would go on for hours.
    pub(crate) fn spawn_tied(mut self, stage: &'static str, file: fs::File) -> Result<ClientChild> {
        let mut tied = Command::new(SHELL);
        tied.args(["-c", TIED]);
        let own = self.command.as_std();
        tied.arg(own.get_program()).args(own.get_args());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => tied.env(name, value),
                None => tied.env_remove(name),
            };
        }
        tied.process_group(0).kill_on_drop(true);
        self.command = tied;
        self.start(stage, Stdio::piped(), file.into())
    }

    /// Starts the child, with stdout and stderr piped. `stage` names it in errors.
    pub(crate) fn spawn(self, stage: &'static str, stdin: Stdio) -> Result<ClientChild> {
        self.start(stage, stdin, Stdio::piped())
    }

    fn start(mut self, stage: &'static str, stdin: Stdio, stdout: Stdio) -> Result<ClientChild> {
        self.command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|e| {
            Error::failed(stage, format!("{} can't be started", self.program.display()))
                .caused_by(e)
                .next_step("check the client tools: `marb-backup doctor` lists what it finds")
        })?;
        let stderr = child.stderr.take().map(|pipe| tokio::spawn(keep_stderr(pipe)));
        Ok(ClientChild {
            group: child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
            child,
            stage,
            stderr,
            connection: self.connection,
            _service: self.service,
        })
    }
}

/// A running client program. Dropping it ends it: query cancelled, process gone and reaped.
pub(crate) struct ClientChild {
    child: Child,
    /// Its process group; `None` once it was reaped.
    group: Option<Pid>,
    stage: &'static str,
    stderr: Option<JoinHandle<Vec<u8>>>,
    connection: Connection,
    /// Kept until the child is gone: libpq may reconnect.
    _service: Option<TempDir>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// What it wrote to stderr, without secrets; the middle is cut out of a long text.
    pub(crate) stderr: String,
}

impl ClientChild {
    /// Its standard input, once.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        let stdin = self.child.stdin.take()?;
        // The kernel's usual 64 KiB make both sides wake up sixteen times as often. It may refuse.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE_BYTES);
        Some(stdin)
    }

    /// Its standard output, once.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the end, whatever the exit status.
    ///
    /// # Errors
    /// When it does not end in time: it is killed then.
    pub(crate) async fn ending(&mut self) -> Result<Ending> {
        self.ending_within(EXIT_TIMEOUT).await
    }

    /// [`ClientChild::ending`] for a child that still has work to do.
    pub(crate) async fn ending_within(&mut self, limit: Duration) -> Result<Ending> {
        let status = match timeout(limit, self.child.wait()).await {
            Ok(status) => {
                status.map_err(|e| Error::failed(self.stage, "can't be waited for").caused_by(e))?
            }
            Err(_) => {
                self.abort();
                return Err(Error::failed(
                    self.stage,
                    format!("did not end within {} s", limit.as_secs()),
                )
                .next_step("look at what the server is doing: select * from pg_stat_activity"));
            }
        };
        self.group = None;
        Ok(Ending { status, stderr: self.collect_stderr().await })
    }

    /// Waits for the end and turns a bad exit into an error that names the cause.
    pub(crate) async fn success(&mut self) -> Result<Ending> {
        let ending = self.ending().await?;
        self.judge(ending)
    }

    /// The error for a bad exit.
    pub(crate) fn judge(&self, ending: Ending) -> Result<Ending> {
        if ending.status.success() { Ok(ending) } else { Err(self.failure(&ending)) }
    }

    /// What this ending means, with the next step.
    pub(crate) fn failure(&self, ending: &Ending) -> Error {
        match (ending.status.signal(), ending.stderr.is_empty()) {
            (Some(signal), _) => Error::failed(
                self.stage,
                format!("was ended by signal {signal} before it was done"),
            )
            .next_step("run it again; if it repeats, look for the out-of-memory killer in the kernel's log (dmesg)"),
            (None, true) => Error::failed(
                self.stage,
                format!("ended with {} and no message", ending.status),
            )
            .next_step("look into the server's log"),
            (None, false) => diagnosis::explain(self.stage, &ending.stderr, &self.connection),
        }
    }

    async fn collect_stderr(&mut self) -> String {
        let Some(mut reader) = self.stderr.take() else { return String::new() };
        let bytes = match timeout(STDERR_TIMEOUT, &mut reader).await {
            Ok(Ok(bytes)) => bytes,
            _ => {
                reader.abort();
                Vec::new()
            }
        };
        Scrubber::new(&self.connection).scrub(&String::from_utf8_lossy(&bytes))
    }

    /// Ends the child now: asks it to cancel its query, then kills it, then waits for it.
    ///
    /// Blocks for some milliseconds, at most [`CANCEL_GRACE`] and [`KILL_GRACE`].
    pub(crate) fn abort(&mut self) {
        let Some(group) = self.group.take() else { return };
        for (signal, grace) in [(Signal::INT, CANCEL_GRACE), (Signal::KILL, KILL_GRACE)] {
            // Fails only when nobody is left, which the wait finds out.
            let _ = kill_process_group(group, signal);
            if self.gone_within(grace) {
                break;
            }
        }
    }

    fn gone_within(&mut self, grace: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < grace {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

impl Drop for ClientChild {
    fn drop(&mut self) {
        self.abort();
        if let Some(reader) = self.stderr.take() {
            reader.abort();
        }
    }
}

/// Reads stderr to its end and keeps its beginning and its end.
async fn keep_stderr(mut pipe: ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    let mut cut = false;
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        if kept.len() > 2 * STDERR_KEPT_BYTES {
            let surplus = kept.len() - 2 * STDERR_KEPT_BYTES;
            kept.drain(STDERR_KEPT_BYTES..STDERR_KEPT_BYTES + surplus);
            cut = true;
        }
    }
    if cut {
        kept.splice(STDERR_KEPT_BYTES..STDERR_KEPT_BYTES, *b"\n[...]\n");
    }
    kept
}

/// The error for work that took longer than it may.
pub(crate) fn too_slow(stage: &'static str, what: &str, limit: Duration) -> Error {
    Error::new(ErrorKind::Failed, stage, format!("{what} within {} s", limit.as_secs()))
}
