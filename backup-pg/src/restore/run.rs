//! pg_restore at work: alone, or writing SQL that psql runs.

use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::STAGE;
use crate::client::{ClientChild, ClientCommand};
use crate::{ClientTools, Connection};

/// Bytes carried from pg_restore to psql at a time.
const CARRY_BYTES: usize = 256 * 1024;

/// pg_restore's settings stand within so many bytes from its start.
const PRELUDE_BYTES: usize = 16 * 1024;

/// The setting that pg_restore 17 brought and servers up to 16 refuse.
const NEW_SETTING: &[u8] = b"\nSET transaction_timeout = 0;\n";
const NEW_SETTING_SINCE: u32 = 17;

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
}

/// The children of one restore. The order of the fields is the order in which they end when it
/// is dropped: psql, pg_restore, and only then their inputs.
pub(super) struct Run {
    psql: Option<PsqlEnd>,
    restore: ClientChild,
    stdin: Option<ChildStdin>,
}

struct PsqlEnd {
    child: ClientChild,
    /// Hands psql's input back at the end of pg_restore's output, *open*.
    carrier: JoinHandle<Result<ChildStdin>>,
}

impl Run {
    /// Starts the children.
    pub fn start(orders: &Orders<'_>) -> Result<Self> {
        let through_psql = orders.tools.version().major >= NEW_SETTING_SINCE
            && orders.server_major < NEW_SETTING_SINCE;
        if through_psql { Self::start_with_psql(orders) } else { Self::start_alone(orders) }
    }

    fn start_alone(orders: &Orders<'_>) -> Result<Self> {
        let mut command = orders.connection.command(&orders.tools.pg_restore())?;
        command.arg("--no-password");
        if orders.single_transaction {
            command.arg("--single-transaction");
        }
        common_arguments(&mut command, orders);
        let mut restore = command.spawn(STAGE, Stdio::piped())?;
        let stdin = restore.take_stdin();
        Ok(Self { psql: None, restore, stdin })
    }

    fn start_with_psql(orders: &Orders<'_>) -> Result<Self> {
        let mut command = orders.connection.command(&orders.tools.psql())?;
        command.args(["-X", "-q", "--no-password", "--set=ON_ERROR_STOP=1"]);
        command.args(["--output=/dev/null", "--file=-"]);
        let mut psql = command.spawn("psql", Stdio::piped())?;
        let mut command = ClientCommand::new(&orders.tools.pg_restore(), orders.connection)?;
        command.arg("--file=-");
        if orders.single_transaction {
            // pg_restore writes the COMMIT, as its last word. psql's own --single-transaction
            // would commit at the end of its input: half the data, when this process is killed.
            command.arg("--single-transaction");
        }
        common_arguments(&mut command, orders);
        let mut restore = command.spawn(STAGE, Stdio::piped())?;
        let (Some(from), Some(to)) = (restore.take_stdout(), psql.take_stdin()) else {
            return Err(Error::failed(STAGE, "was started without its pipes"));
        };
        let carrier = tokio::spawn(carry(from, to));
        let stdin = restore.take_stdin();
        Ok(Self { psql: Some(PsqlEnd { child: psql, carrier }), restore, stdin })
    }

    /// Hands the next bytes of the archive over.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why_it_ended().await),
        }
    }

    /// Ends the input and waits until everything is done. Returns what was said meanwhile.
    pub async fn finish(&mut self, limit: Duration) -> Result<String> {
        drop(self.stdin.take());
        let Some(psql) = &mut self.psql else {
            let ending = self.restore.ending_within(limit).await?;
            return Ok(self.restore.judge(ending)?.stderr);
        };
        let carried = (&mut psql.carrier).await;
        let Ok(Ok(open_input)) = carried else { return Err(self.why_it_ended().await) };
        // Only now, with pg_restore's word that this was all, may psql see the end.
        let said = match self.restore.success().await {
            Ok(ending) => ending.stderr,
            Err(error) => {
                psql.child.abort();
                return Err(error);
            }
        };
        drop(open_input);
        let ending = psql.child.ending_within(limit).await?;
        Ok(said + &psql.child.judge(ending)?.stderr)
    }

    /// Ends the children now, before their input: they must not take its end for success.
    pub fn abort(&mut self) {
        if let Some(psql) = &mut self.psql {
            psql.child.abort();
            psql.carrier.abort();
        }
        self.restore.abort();
        self.stdin = None;
    }

    /// The error of the child that failed first: psql, for pg_restore then fails at its pipe.
    async fn why_it_ended(&mut self) -> Error {
        if let Some(psql) = &mut self.psql
            && let Ok(ending) = psql.child.ending_within(ECHO_TIMEOUT).await
        {
            return match psql.child.judge(ending) {
                Err(error) => error,
                Ok(_) => Error::failed("psql", "ended before the archive did"),
            };
        }
        match self.restore.ending_within(ECHO_TIMEOUT).await {
            Ok(ending) if ending.status.success() => {
                Error::failed(STAGE, "ended before the archive did")
            }
            Ok(ending) => self.restore.failure(&ending),
            Err(error) => error,
        }
    }
}

fn common_arguments(command: &mut ClientCommand, orders: &Orders<'_>) {
    command.arg("--exit-on-error");
    if orders.no_tablespaces {
        command.arg("--no-tablespaces");
    }
    if orders.no_owners {
        command.args(["--no-owner", "--no-privileges"]);
    }
}

/// Carries SQL from pg_restore to psql, without the one setting that the server does not know.
/// At the end psql's input comes back open: psql takes its end for the end of its work.
async fn carry(mut from: ChildStdout, mut to: ChildStdin) -> Result<ChildStdin> {
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
            to.write_all(&without_new_setting(std::mem::take(&mut prelude)))
                .await
                .map_err(broken)?;
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
        assert!(!prelude_is_over(b"--\n-- PostgreSQL database dump\n"));
        assert!(prelude_is_over(body.as_bytes()) && prelude_is_over(&[b' '; PRELUDE_BYTES]));
    }
}
