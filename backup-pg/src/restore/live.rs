//! A restore into a database that is in use: one transaction, compared inside, committed last.
//!
//! pg_restore writes SQL, and psql runs it in a session that is ours: what came back is compared
//! with the archive while nobody else can see it, and only then this process says `COMMIT`. If it
//! is killed before that, psql finds the end of its input, leaves, and the server rolls back.

use std::time::Duration;

use backup_core::{Error, Result};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::STAGE;
use super::run::{Orders, Script};
use crate::client::{ClientChild, too_slow};
use crate::psql::LOCK_TIMEOUT;

/// The longest answer that is taken, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How long the server may take to say what went wrong.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);

/// psql with an open transaction.
pub(super) struct Transaction {
    /// Ends before its input does when this is dropped: the order of the fields.
    psql: ClientChild,
    script: Option<Script>,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What no answer contains.
    mark: String,
    limit: Duration,
}

impl Transaction {
    /// Logs in and begins. With `repeatable` it sees no rows that others add meanwhile.
    pub async fn begin(orders: &Orders<'_>, repeatable: bool, limit: Duration) -> Result<Self> {
        let connection = orders.connection.with_public("client_encoding", "UTF8");
        let mut command = connection.command(&orders.tools.psql())?;
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "--no-password",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ]);
        let mut psql = command.spawn("psql", std::process::Stdio::piped())?;
        let (Some(input), Some(output)) = (psql.take_stdin(), psql.take_stdout()) else {
            return Err(Error::failed(STAGE, "was started without its pipes"));
        };
        let now = jiff::Timestamp::now().as_nanosecond();
        let mut transaction = Self {
            psql,
            script: None,
            input: Some(input),
            output: BufReader::new(output),
            mark: format!("end of the answer {now:x}"),
            limit,
        };
        let isolation = if repeatable { "REPEATABLE READ" } else { "READ COMMITTED" };
        let settings = format!(
            "BEGIN ISOLATION LEVEL {isolation};\nset search_path = '';\nset standard_conforming_strings = on;\n\
             set statement_timeout = 0;\nset idle_in_transaction_session_timeout = 0;\nset lock_timeout = {};",
            LOCK_TIMEOUT.as_millis()
        );
        transaction.query_text(&settings).await?;
        Ok(transaction)
    }

    /// Runs statements and returns what psql prints.
    pub async fn query_text(&mut self, sql: &str) -> Result<String> {
        let asked = format!("{sql}\n;\n\\echo {}\n", self.mark);
        let limit = self.limit;
        match timeout(limit, self.converse(&asked)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(None)) => Err(self.why_it_ended().await),
            Ok(Err(Some(error))) => Err(error),
            Err(_) => Err(too_slow(STAGE, "no answer came", limit)),
        }
    }

    /// Runs a query that returns one JSON value.
    pub async fn query_json<T: DeserializeOwned>(&mut self, sql: &str) -> Result<T> {
        let answer = self.query_text(sql).await?;
        serde_json::from_str(&answer).map_err(|e| {
            Error::failed(STAGE, "the server's answer is not what was asked for").caused_by(e)
        })
    }

    /// `Err(None)` when psql ended: its exit says why.
    async fn converse(&mut self, asked: &str) -> Result<String, Option<Error>> {
        let Some(input) = &mut self.input else { return Err(None) };
        input.write_all(asked.as_bytes()).await.map_err(|_| None)?;
        let mut answer = String::new();
        loop {
            let before = answer.len();
            match self.output.read_line(&mut answer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(None),
            }
            if answer[before..].trim_end() == self.mark {
                answer.truncate(before);
                answer.truncate(answer.trim_end_matches('\n').len());
                return Ok(answer);
            }
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Some(Error::failed(STAGE, "the server's answer is too long")));
            }
        }
    }

    /// Starts pg_restore; its SQL goes into the transaction.
    pub async fn start_script(&mut self, orders: Orders<'_>) -> Result<()> {
        // What setval and the like answer is read by nobody.
        self.query_text("\\o /dev/null").await?;
        let Some(input) = self.input.take() else { return Err(self.why_it_ended().await) };
        self.script = Some(Script::start(orders, input, Some(LOCK_TIMEOUT))?);
        Ok(())
    }

    /// Hands the next bytes of the archive to pg_restore.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.script {
            Some(script) => script.write(bytes).await,
            None => false,
        };
        if written { Ok(()) } else { Err(self.why_it_ended().await) }
    }

    /// Waits until pg_restore wrote everything and psql ran it. Returns what it warned of.
    pub async fn finish_script(&mut self) -> Result<String> {
        let Some(script) = &mut self.script else { return Err(self.why_it_ended().await) };
        let Some(input) = script.finish().await else { return Err(self.why_it_ended().await) };
        self.input = Some(input);
        let said = match &mut self.script {
            Some(script) => script.restore.success().await?.stderr,
            None => String::new(),
        };
        self.script = None;
        // The archive's own encoding is set by now; names here are UTF-8.
        self.query_text("\\o\nset client_encoding = 'UTF8';\nset search_path = '';").await?;
        Ok(said)
    }

    /// Makes everything visible.
    ///
    /// # Errors
    /// When the server refuses, or nobody knows whether it did it: the message says so.
    pub async fn commit(mut self) -> Result<String> {
        let committed = self.query_text("COMMIT").await;
        if let Err(error) = committed {
            return Err(Error::failed(
                STAGE,
                "the server did not say whether it committed the restore; all of it is there, or nothing",
            )
            .next_step("look into the database before you use it or restore again")
            .caused_by(error));
        }
        drop(self.input.take());
        let ending = self.psql.ending().await?;
        Ok(self.psql.judge(ending)?.stderr)
    }

    /// Ends everything; the server rolls back.
    pub fn abort(&mut self) {
        self.psql.abort();
        if let Some(script) = &mut self.script {
            script.abort();
        }
        self.input = None;
    }

    /// The error of the child that failed first: psql, for pg_restore then fails at its pipe.
    async fn why_it_ended(&mut self) -> Error {
        if let Some(script) = &mut self.script {
            return script.why_it_ended(&mut self.psql).await;
        }
        match self.psql.ending_within(ECHO_TIMEOUT).await {
            Ok(ending) => match self.psql.judge(ending) {
                Err(error) => error,
                Ok(_) => Error::failed("psql", "ended before the restore did"),
            },
            Err(error) => error,
        }
    }
}
