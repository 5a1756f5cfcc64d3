//! Runs SQL through psql: every libpq parameter and every way to log in works as in pg_dump.

use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, Result};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{ClientChild, too_slow};
use crate::{ClientTools, Connection};

const STAGE: &str = "psql";

/// How long one call may take by default, connecting included.
///
/// Longer than the kernel tries to reach a silent host (127 s), so that a second host of the
/// connection gets its turn.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(180);

/// How long a statement waits for a lock before it gives up.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than the statement the call as a whole may take: time to log in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is taken, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Where commits are answered before they are on disk, ours wait for the disk: what we were told
/// is done must not be undone by a crash of the server.
const LOCAL_COMMIT: &str = "do $$ begin if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'local', false); end if; end $$;";

/// A way to run SQL on one database.
///
/// Each call is a psql process and a session of its own, so that nothing (settings, temporary
/// tables, transactions) carries over. Dropping a call's future cancels its query and ends its
/// process. Every session starts with an empty `search_path` (names are schema-qualified, and
/// nobody can slip in functions of his own) and with `client_encoding` UTF8.
#[derive(Debug, Clone)]
pub struct Psql {
    tools: ClientTools,
    connection: Connection,
    limit: Duration,
}

impl Psql {
    /// For this connection's database.
    pub fn new(tools: &ClientTools, connection: &Connection) -> Self {
        Self { tools: tools.clone(), connection: connection.clone(), limit: QUERY_TIMEOUT }
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { connection: self.connection.with_database(name), ..self.clone() }
    }

    /// The same with another limit for each call; [`QUERY_TIMEOUT`] otherwise.
    #[must_use]
    pub fn with_timeout(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The connection it uses.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs a query that returns one row with one JSON value, and reads that value.
    ///
    /// ```no_run
    /// # async fn example(psql: &backup_pg::Psql) -> backup_core::Result<()> {
    /// let names: Vec<String> = psql
    ///     .query_json("select coalesce(json_agg(datname), '[]') from pg_catalog.pg_database")
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the server can't be reached or refuses, or the answer is something else.
    pub async fn query_json<T: DeserializeOwned>(&self, sql: &str) -> Result<T> {
        let answer = self.query_text(sql).await?;
        serde_json::from_str(&answer).map_err(|e| {
            Error::failed(STAGE, "the server's answer is not what was asked for").caused_by(e)
        })
    }

    /// Runs a query and returns what psql prints in unaligned, tuples-only mode.
    ///
    /// # Errors
    /// When the server can't be reached or refuses, or the answer isn't UTF-8.
    pub async fn query_text(&self, sql: &str) -> Result<String> {
        let mut answer = self.run(sql).await?;
        if answer.last() == Some(&b'\n') {
            answer.pop();
        }
        String::from_utf8(answer)
            .map_err(|e| Error::failed(STAGE, "the server's answer is not UTF-8").caused_by(e))
    }

    /// Runs statements, one after the other, until one fails.
    ///
    /// Each is a transaction of its own unless `sql` says `BEGIN`. psql reads the text: a
    /// backslash outside quotes starts one of its commands.
    ///
    /// # Errors
    /// When the server can't be reached, or a statement fails: those before it stay done.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.run(sql).await.map(drop)
    }

    async fn run(&self, sql: &str) -> Result<Vec<u8>> {
        let whole = self.limit + LOGIN_TIMEOUT;
        let mut child = self.start()?;
        match timeout(whole, converse(&mut child, &self.script(sql))).await {
            Ok(answer) => answer,
            Err(_) => {
                child.abort();
                Err(too_slow(STAGE, "no answer came", whole)
                    .next_step("check the network and the server; connect_timeout= in the connection limits the wait for one host"))
            }
        }
    }

    fn start(&self) -> Result<ClientChild> {
        // The environment's PGCLIENTENCODING must not count here, and neither the user's own.
        let connection = self.connection.with_public("client_encoding", "UTF8");
        let mut command = connection.command(&self.tools.psql())?;
        command.args(["-X", "-q", "-A", "-t", "--no-password", "--set=ON_ERROR_STOP=1"]);
        command.spawn(STAGE, Stdio::piped())
    }

    fn script(&self, sql: &str) -> String {
        format!(
            "set statement_timeout = {};\nset lock_timeout = {};\nset search_path = '';\n\
             set standard_conforming_strings = on;\n{LOCAL_COMMIT}\n{sql}\n;\n",
            self.limit.as_millis(),
            LOCK_TIMEOUT.min(self.limit).as_millis(),
        )
    }
}

/// Writes the script while reading the answer, then waits for the end.
async fn converse(child: &mut ClientChild, script: &str) -> Result<Vec<u8>> {
    let (Some(mut stdin), Some(stdout)) = (child.take_stdin(), child.take_stdout()) else {
        return Err(Error::failed(STAGE, "was started without its pipes"));
    };
    let send = async {
        // psql stops reading at the first error; its exit says why.
        let _ = stdin.write_all(script.as_bytes()).await;
        drop(stdin);
    };
    let mut answer = Vec::new();
    let mut limited = stdout.take(MAX_ANSWER_BYTES as u64 + 1);
    let ((), read) = tokio::join!(send, limited.read_to_end(&mut answer));
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(Error::failed(
            STAGE,
            format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"),
        ));
    }
    child.success().await?;
    read.map_err(|e| Error::failed(STAGE, "the answer can't be read").caused_by(e))?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
