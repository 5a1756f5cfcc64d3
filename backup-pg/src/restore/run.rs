//! pg_restore at work: alone, or writing SQL that psql runs.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::STAGE;
use super::spool::STANDARD_INPUT;
use crate::client::{ClientChild, ClientCommand, TIED_FILE};
use crate::{ClientTools, Connection};

/// Bytes carried from pg_restore to psql at a time.
const CARRY_BYTES: usize = 256 * 1024;

/// pg_restore's settings stand within so many bytes from its start.
const PRELUDE_BYTES: usize = 16 * 1024;

/// The setting that pg_restore 17 brought and servers up to 16 refuse.
const NEW_SETTING: &[u8] = b"\nSET transaction_timeout = 0;\n";
const NEW_SETTING_SINCE: u32 = 17;

/// pg_restore's own wish: to wait for locks for ever.
const NO_LOCK_TIMEOUT: &[u8] = b"\nSET lock_timeout = 0;\n";

/// How long the other child is waited for when one of the two failed.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);

/// What a run is told.
pub(super) struct Orders<'a> {
    pub tools: &'a ClientTools,
    pub connection: &'a Connection,
    pub server_major: u32,
    /// All or nothing: for a database that can't be dropped when it fails.
    pub single_transaction: bool,
    pub no_tablespaces: bool,
    pub no_owners: bool,
    /// Drop what is there before it is made anew.
    pub clean: bool,
    /// How many sessions restore at the same time; more than one only from a file.
    pub jobs: usize,
    /// The archive as a file that can be sought in. Without, its bytes are written.
    pub spooled: Option<File>,
}

impl Orders<'_> {
    /// Whether this pg_restore sets something at login that the server does not know, so that
    /// its SQL has to pass through our hands.
    pub fn need_psql(&self) -> bool {
        needs_psql(self.tools, self.server_major)
    }
}

/// Whether this pg_restore's SQL needs a change before this server takes it.
pub(super) fn needs_psql(tools: &ClientTools, server_major: u32) -> bool {
    tools.version().major >= NEW_SETTING_SINCE && server_major < NEW_SETTING_SINCE
}

/// The children of one restore. The order of the fields is the order in which they end when it
/// is dropped: psql, pg_restore, and only then their inputs.
pub(super) struct Run {
    psql: Option<ClientChild>,
    work: Work,
}

enum Work {
    /// With a file to read, the end of its input would be the end of the work.
    Alone {
        restore: ClientChild,
        stdin: Option<ChildStdin>,
        reads_file: bool,
    },
    Script(Script),
}

impl Run {
    /// Starts the children.
    pub fn start(orders: Orders<'_>) -> Result<Self> {
        if orders.need_psql() { Self::start_with_psql(orders) } else { Self::start_alone(orders) }
    }

    fn start_alone(mut orders: Orders<'_>) -> Result<Self> {
        let mut command = orders.connection.command(&orders.tools.pg_restore())?;
        command.arg("--no-password");
        if orders.single_transaction {
            command.arg("--single-transaction");
        }
        if orders.jobs > 1 && orders.spooled.is_some() {
            command.arg(format!("--jobs={}", orders.jobs));
        }
        common_arguments(&mut command, &orders);
        let spooled = orders.spooled.take();
        let reads_file = spooled.is_some();
        let mut restore = match spooled {
            Some(file) => {
                command.arg(TIED_FILE);
                command.spawn_tied(STAGE, file)?
            }
            None => command.spawn(STAGE, Stdio::piped())?,
        };
        let stdin = restore.take_stdin();
        Ok(Self { psql: None, work: Work::Alone { restore, stdin, reads_file } })
    }

    fn start_with_psql(orders: Orders<'_>) -> Result<Self> {
        let mut command = orders.connection.command(&orders.tools.psql())?;
        command.args(["-X", "-q", "--no-password", "--set=ON_ERROR_STOP=1"]);
        command.args(["--output=/dev/null", "--file=-"]);
        let mut psql = command.spawn("psql", Stdio::piped())?;
        let Some(to) = psql.take_stdin() else {
            return Err(Error::failed(STAGE, "was started without its pipes"));
        };
        let script = Script::start(orders, to, None)?;
        Ok(Self { psql: Some(psql), work: Work::Script(script) })
    }

    /// Hands the next bytes of the archive over.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let taken = match &mut self.work {
            Work::Alone { stdin: Some(stdin), .. } => stdin.write_all(bytes).await.is_ok(),
            Work::Alone { stdin: None, .. } => false,
            Work::Script(script) => script.write(bytes).await,
        };
        if taken { Ok(()) } else { Err(self.why_it_ended().await) }
    }

    /// Ends the input and waits until everything is done. Returns what was said meanwhile.
    pub async fn finish(&mut self, limit: Duration) -> Result<String> {
        let (script, psql) = match (&mut self.work, &mut self.psql) {
            (Work::Script(script), Some(psql)) => (script, psql),
            (Work::Script(_), None) => return Err(Error::failed("psql", "was not started")),
            (Work::Alone { restore, stdin, reads_file }, _) => {
                if !*reads_file {
                    drop(stdin.take());
                }
                let ending = restore.ending_within(limit).await?;
                return Ok(restore.judge(ending)?.stderr);
            }
        };
        let Some(open_input) = script.finish().await else {
            return Err(self.why_it_ended().await);
        };
        // Only now, with pg_restore's word that this was all, may psql see the end.
        let said = match script.restore.success().await {
            Ok(ending) => ending.stderr,
            Err(error) => {
                psql.abort();
                return Err(error);
            }
        };
        drop(open_input);
        let ending = psql.ending_within(limit).await?;
        Ok(said + &psql.judge(ending)?.stderr)
    }

    /// Ends the children now, before their input: they must not take its end for success.
    pub fn abort(&mut self) {
        if let Some(psql) = &mut self.psql {
            psql.abort();
        }
        match &mut self.work {
            Work::Alone { restore, stdin, .. } => {
                restore.abort();
                *stdin = None;
            }
            Work::Script(script) => script.abort(),
        }
    }

    async fn why_it_ended(&mut self) -> Error {
        match &mut self.work {
            Work::Alone { restore, .. } => why_restore_ended(restore).await,
            Work::Script(script) => match &mut self.psql {
                Some(psql) => script.why_it_ended(psql).await,
                None => why_restore_ended(&mut script.restore).await,
            },
        }
    }
}

async fn why_restore_ended(restore: &mut ClientChild) -> Error {
    match restore.ending_within(ECHO_TIMEOUT).await {
        Ok(ending) if ending.status.success() => {
            Error::failed(STAGE, "ended before the archive did")
        }
        Ok(ending) => restore.failure(&ending),
        Err(error) => error,
    }
}

/// pg_restore that writes SQL into psql's input. Whoever started psql ends it, first.
pub(super) struct Script {
    pub restore: ClientChild,
    stdin: Option<ChildStdin>,
    /// Hands psql's input back at the end of pg_restore's output, *open*.
    carrier: JoinHandle<Result<ChildStdin>>,
}

impl Script {
    /// Starts pg_restore; its SQL goes to `psql_input`, and waits for locks as long as
    /// `lock_timeout` says, or as pg_restore itself does.
    pub fn start(
        mut orders: Orders<'_>,
        psql_input: ChildStdin,
        lock_timeout: Option<Duration>,
    ) -> Result<Self> {
        let filter = Filter { without_new_setting: orders.need_psql(), lock_timeout };
        let mut command = ClientCommand::new(&orders.tools.pg_restore(), orders.connection)?;
        command.arg("--file=-");
        if orders.single_transaction {
            // pg_restore writes the COMMIT, as its last word. psql's own --single-transaction
            // would commit at the end of its input: half the data, when this process is killed.
            command.arg("--single-transaction");
        }
        common_arguments(&mut command, &orders);
        let input = match orders.spooled.take() {
            Some(file) => {
                command.arg(STANDARD_INPUT);
                file.into()
            }
            None => Stdio::piped(),
        };
        let mut restore = command.spawn(STAGE, input)?;
        let Some(from) = restore.take_stdout() else {
            return Err(Error::failed(STAGE, "was started without its pipes"));
        };
        let carrier = tokio::spawn(carry(from, psql_input, filter));
        let stdin = restore.take_stdin();
        Ok(Self { restore, stdin, carrier })
    }

    /// Hands the next bytes of the archive over; whether pg_restore took them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes).await.is_ok(),
            None => false,
        }
    }

    /// Ends the input and waits until psql has all the SQL. Its input comes back open.
    pub async fn finish(&mut self) -> Option<ChildStdin> {
        drop(self.stdin.take());
        (&mut self.carrier).await.ok()?.ok()
    }

    /// Ends pg_restore before its input does.
    pub fn abort(&mut self) {
        self.carrier.abort();
        self.restore.abort();
        self.stdin = None;
    }

    /// The error of the child that failed first: psql, for pg_restore then fails at its pipe.
    pub async fn why_it_ended(&mut self, psql: &mut ClientChild) -> Error {
        match psql.ending_within(ECHO_TIMEOUT).await {
            Ok(ending) => match psql.judge(ending) {
                Err(error) => error,
                Ok(_) => Error::failed("psql", "ended before the archive did"),
            },
            // It waits for more: then it was pg_restore.
            Err(_) => why_restore_ended(&mut self.restore).await,
        }
    }
}

fn common_arguments(command: &mut ClientCommand, orders: &Orders<'_>) {
    command.arg("--exit-on-error");
    if orders.no_tablespaces {
        command.arg("--no-tablespaces");
    }
    if orders.clean {
        command.args(["--clean", "--if-exists"]);
    }
    if orders.no_owners {
        command.args(["--no-owner", "--no-privileges"]);
    }
}

/// What is changed of pg_restore's SQL on its way to psql.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filter {
    /// Take out the one setting that the server does not know.
    pub without_new_setting: bool,
    /// How long a statement may wait for a lock; pg_restore would wait for ever.
    pub lock_timeout: Option<Duration>,
}

impl Filter {
    fn apply(self, prelude: Vec<u8>) -> Vec<u8> {
        let mut sql = prelude;
        if self.without_new_setting {
            sql = without_new_setting(sql);
        }
        let Some(limit) = self.lock_timeout else { return sql };
        let end = first_object(&sql).unwrap_or(sql.len().min(PRELUDE_BYTES));
        if let Some(at) = memchr::memmem::find(&sql[..end], NO_LOCK_TIMEOUT) {
            let ours = format!("\nSET lock_timeout = {};\n", limit.as_millis());
            sql.splice(at..at + NO_LOCK_TIMEOUT.len(), ours.into_bytes());
        }
        sql
    }
}

/// Carries SQL from pg_restore to psql, without the one setting that the server does not know.
/// At the end psql's input comes back open: psql takes its end for the end of its work.
async fn carry(mut from: ChildStdout, mut to: ChildStdin, filter: Filter) -> Result<ChildStdin> {
    let broken = |e| Error::from_io("psql", e);
    let mut prelude = Vec::new();
    let mut chunk = vec![0; CARRY_BYTES];
    let mut in_prelude = true;
    loop {
        let count = from.read(&mut chunk).await.map_err(broken)?;
        let bytes = chunk.get(..count).unwrap_or_default();
        if !in_prelude {
            if count == 0 {
                return Ok(to);
            }
            to.write_all(bytes).await.map_err(broken)?;
            continue;
        }
        prelude.extend_from_slice(bytes);
        if count == 0 || prelude_is_over(&prelude) {
            to.write_all(&filter.apply(std::mem::take(&mut prelude))).await.map_err(broken)?;
            in_prelude = false;
        }
        if count == 0 {
            return Ok(to);
        }
    }
}

/// Where the first object starts, which pg_restore announces in a comment.
fn first_object(sql: &[u8]) -> Option<usize> {
    let announced = [&b"\n-- Name: "[..], b"\n-- Data for Name: "];
    announced.iter().filter_map(|start| memchr::memmem::find(sql, start)).min()
}

fn prelude_is_over(sql: &[u8]) -> bool {
    sql.len() >= PRELUDE_BYTES || first_object(sql).is_some()
}

fn without_new_setting(mut sql: Vec<u8>) -> Vec<u8> {
    let end = first_object(&sql).unwrap_or(sql.len().min(PRELUDE_BYTES));
    if let Some(at) = memchr::memmem::find(&sql[..end], NEW_SETTING) {
        sql.drain(at + 1..at + NEW_SETTING.len());
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_goes_and_only_from_the_prelude() {
        let filtered = |sql: &str| String::from_utf8(without_new_setting(sql.into())).unwrap();
        let line = "SET transaction_timeout = 0;\n";
        let body = format!("--\n-- Name: a; Type: TABLE\n--\nCOPY a FROM stdin;\n{line}\\.\n");
        let prelude = format!("--\n\nSET lock_timeout = 0;\n{line}SET x = 1;\n\n{body}");
        let wanted = format!("--\n\nSET lock_timeout = 0;\nSET x = 1;\n\n{body}");
        assert_eq!(filtered(&prelude), wanted);
        let without = format!("--\nSET x = 1;\n{body}");
        assert_eq!(filtered(&without), without, "data keeps the line");
        let filter =
            Filter { without_new_setting: true, lock_timeout: Some(Duration::from_secs(9)) };
        let limited = filter.apply(prelude.into());
        let wanted = wanted.replacen("lock_timeout = 0", "lock_timeout = 9000", 1);
        assert_eq!(String::from_utf8(limited).unwrap(), wanted);
        assert!(!prelude_is_over(b"--\n-- PostgreSQL database dump\n"));
        assert!(prelude_is_over(body.as_bytes()) && prelude_is_over(&[b' '; PRELUDE_BYTES]));
    }
}
