//! Hooks: programs of the user's that run around a restore. No shell, a time limit each, their
//! output in the log.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::swapping::url;

/// How long a hook may take to end after SIGTERM before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long a killed hook may take to disappear.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How long the output of a hook that ended may stay open before it is given up.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Longest line of output that is kept, in bytes.
const LINE_BYTES: u64 = 1024;
/// Lines of output that a failure shows.
const LINES_SHOWN: usize = 20;
/// Lines of one hook's output that go into the log.
const LINES_LOGGED: usize = 2000;

/// The variable that a migration finds its database in.
pub(crate) const DATABASE_URL: &str = "DATABASE_URL";

/// What every hook runs with.
#[derive(Clone)]
pub(crate) struct Hooks {
    limit: Duration,
    directory: Option<PathBuf>,
    /// Variables besides the inherited ones. Their values are secret.
    variables: Vec<(String, SecretString)>,
    /// What must not be seen in their output.
    secrets: Vec<SecretString>,
}

impl Hooks {
    /// Hooks that may take `limit` each and run in `directory`.
    pub fn new(limit: Duration, directory: Option<PathBuf>) -> Self {
        Self { limit, directory, variables: Vec::new(), secrets: Vec::new() }
    }

    /// The same for the database at `url`, which they find in `variables`. They alone see it,
    /// never `ps` of others; in their output neither it nor its password is shown.
    #[must_use]
    pub fn for_database<S: AsRef<str>>(mut self, variables: &[S], url: &SecretString) -> Self {
        let named = variables.iter().map(|name| (name.as_ref().to_owned(), url.clone()));
        self.variables.extend(named);
        self.secrets.push(url.clone());
        self.secrets.extend(url::password(url));
        self
    }

    /// Runs one hook to its end. `key` is its name in the config.
    ///
    /// However it ends (well, too late, stopped by `cancel`, or because this future is dropped):
    /// when it had to be ended, its whole process group is. A process that a hook which ended
    /// well left behind (a daemon) stays.
    ///
    /// # Errors
    /// When it can't be started, fails, or does not end in time, with its last lines; when
    /// somebody asked for a stop.
    pub async fn run(&self, key: &str, argv: &[String], cancel: &Cancel) -> Result<()> {
        if cancel.is_cancelled() {
            return Err(cancel.error());
        }
        let mut running = self.start(key, argv)?;
        let status = tokio::select! {
            status = running.child.wait() => Ok(status),
            () = sleep(self.limit) => Err(self.too_slow(key, argv)),
            () = cancel.cancelled() => Err(cancel.error()),
        };
        match status {
            Ok(status) => {
                running.group = None;
                let status =
                    status.map_err(|e| failed(key, argv, "can't be waited for").caused_by(e))?;
                running.finish_output(key, argv).await;
                judge(key, argv, status, &running.lines())
            }
            Err(error) => {
                running.end().await;
                running.finish_output(key, argv).await;
                Err(with_lines(error, &running.lines()))
            }
        }
    }

    fn start(&self, key: &str, argv: &[String]) -> Result<Running> {
        let (program, arguments) = argv.split_first().ok_or_else(|| {
            Error::usage("config", format!("[restore]: `{key}` has an empty command"))
        })?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is ours to handle, and `kill` reaches grandchildren.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        for (name, value) in &self.variables {
            command.env(name, value.expose_secret());
        }
        let mut child = command.spawn().map_err(|e| {
            failed(key, argv, "can't be started")
                .caused_by(e)
                .next_step("check program and folder: `marb-backup doctor` looks at every hook")
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let output = Arc::new(Output { name: key.to_owned(), ..Output::default() });
        let mut readers = JoinSet::new();
        let secrets: Arc<[SecretString]> = self.secrets.as_slice().into();
        if let Some(pipe) = child.stdout.take() {
            readers.spawn(read_lines(pipe, Arc::clone(&output), Arc::clone(&secrets)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.spawn(read_lines(pipe, Arc::clone(&output), secrets));
        }
        Ok(Running { child, group, output, readers })
    }

    fn too_slow(&self, key: &str, argv: &[String]) -> Error {
        let seconds = self.limit.as_secs_f64();
        failed(key, argv, &format!("did not end within {seconds} s, so it was ended"))
            .next_step("run it by hand; raise `hook_timeout` under [restore] if it needs longer")
    }
}

/// A hook at work. Dropping it kills its process group.
struct Running {
    child: Child,
    /// Its process group; `None` once it ended.
    group: Option<Pid>,
    output: Arc<Output>,
    readers: JoinSet<()>,
}

impl Running {
    /// Asks the whole group to end, then kills it.
    async fn end(&mut self) {
        let Some(group) = self.group.take() else { return };
        // Fails only when nobody is left.
        let _ = kill_process_group(group, Signal::TERM);
        let _ = timeout(TERM_GRACE, self.child.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = timeout(KILL_GRACE, self.child.wait()).await;
    }

    /// Reads the rest of the output. A daemon that holds it open is not waited for.
    async fn finish_output(&mut self, key: &str, argv: &[String]) {
        let readers = &mut self.readers;
        let read_all = async { while readers.join_next().await.is_some() {} };
        if timeout(OUTPUT_GRACE, read_all).await.is_err() {
            // They read on, so that the process does not die of a closed pipe as long as we live.
            self.readers.detach_all();
            tracing::warn!(
                "{} left a process that still holds its output, which ends with this run: redirect it, or it may die of its next line",
                shown(key, argv)
            );
        }
    }

    fn lines(&self) -> Vec<String> {
        let kept = self.output.last.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// What a hook said.
#[derive(Default)]
struct Output {
    name: String,
    last: Mutex<VecDeque<String>>,
    logged: std::sync::atomic::AtomicUsize,
}

impl Output {
    fn take(&self, line: String) {
        let logged = self.logged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if logged < LINES_LOGGED {
            tracing::info!(hook = %self.name, "{line}");
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LINES_SHOWN {
            last.pop_front();
        }
        last.push_back(line);
    }
}

/// Reads one of the two outputs to its end, whatever bytes come.
async fn read_lines(
    pipe: impl AsyncRead + Unpin,
    output: Arc<Output>,
    secrets: Arc<[SecretString]>,
) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LINE_BYTES);
        match limited.read_until(b'\n', &mut line).await {
            Ok(1..) => output.take(scrubbed(&line, &secrets)),
            _ => return,
        }
    }
}

fn scrubbed(line: &[u8], secrets: &[SecretString]) -> String {
    let text = String::from_utf8_lossy(line);
    let known = secrets.iter().map(ExposeSecret::expose_secret).filter(|s| s.len() > 3);
    let text = known.fold(text.into_owned(), |text, secret| text.replace(secret, "***"));
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn judge(key: &str, argv: &[String], status: ExitStatus, lines: &[String]) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let error = failed(key, argv, &format!("ended with {status}"))
        .next_step("run it by hand as the same user; its output is in the log with -v");
    Err(with_lines(error, lines))
}

/// The failure with what the hook said last.
fn with_lines(error: Error, lines: &[String]) -> Error {
    if lines.is_empty() {
        return error;
    }
    error.caused_by(format!("its last words:\n    {}", lines.join("\n    ")))
}

fn failed(key: &str, argv: &[String], what: &str) -> Error {
    Error::failed("hook", format!("{} {what}", shown(key, argv)))
}

/// A hook for a message: `stop (systemctl stop app)`.
pub(crate) fn shown(key: &str, argv: &[String]) -> String {
    format!("{key} ({})", argv.join(" "))
}

#[cfg(test)]
mod tests;
