//! A transaction that psql carries out and judges itself: it ends at its first failure, and
//! changes nothing when what we know is no longer so.
//!
//! The server's messages may be in any language, so outcomes are told by their code.

use std::time::Duration;

use backup_core::{Error, Result};

use super::STAGE;
use crate::Psql;

/// A commit that was reported must survive a crash, also on a server that takes it lightly.
const DURABLE: &str = "select set_config('synchronous_commit', \
    case current_setting('synchronous_commit') when 'off' then 'local' \
    else current_setting('synchronous_commit') end, false) as durable \\gset\n";

/// What became of a [`Transaction`]. An error of `run` beside it means that nobody knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was committed.
    Done,
    /// A condition did not hold: nothing was changed.
    Changed,
    /// The server refused a statement: nothing was changed.
    Failed { code: String, message: String },
}

impl Outcome {
    /// Another session got in between; what it did can be seen now.
    pub fn is_race(&self) -> bool {
        // "tuple concurrently updated" has no code of its own; a deadlock; a serialisation failure.
        matches!(self, Self::Failed { code, .. } if ["XX000", "40P01", "40001"].contains(&&code[..]))
    }

    /// The error for whoever needs it done.
    pub fn done(self, what: &str) -> Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Changed => Err(Error::failed(
                STAGE,
                format!("{what}: something else changed the databases meanwhile"),
            )
            .next_step(
                "look at the databases and their comments with psql's \\l+, then try again",
            )),
            Self::Failed { message, .. } => Err(Error::failed(STAGE, format!("{what}: {message}"))),
        }
    }
}

/// Statements that are committed together or not at all.
pub(super) struct Transaction {
    text: String,
}

impl Transaction {
    /// An empty one, whose statements wait so long for a lock.
    pub fn begin(lock: Duration) -> Self {
        let text = format!(
            "set lock_timeout = {};\n{DURABLE}\\set ON_ERROR_STOP off\n",
            lock.as_millis().max(1)
        );
        Self { text }.step("begin isolation level read committed read write")
    }

    /// Adds a statement.
    #[must_use]
    pub fn step(mut self, sql: &str) -> Self {
        self.text.push_str(sql);
        self.text.push_str(
            "\n;\n\\if :ERROR\n\\echo failed :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE\n\\quit\n\\endif\n",
        );
        self
    }

    /// Goes on only if this expression is true, now that the statements before have their locks.
    #[must_use]
    pub fn only_if(mut self, condition: &str) -> Self {
        self.text.push_str(&format!(
            "select ({condition}) is true as kept \\gset\n\
             \\if :ERROR\n\\echo failed :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE\n\\quit\n\\endif\n\
             \\if :kept\n\\else\n\\echo changed\n\\quit\n\\endif\n",
        ));
        self
    }

    /// Runs and commits it.
    ///
    /// # Errors
    /// When psql or its connection ended early: it may have been committed or not.
    pub async fn run(self, psql: &Psql) -> Result<Outcome> {
        let text = self.step("commit").text;
        let answer = psql.query_text(&format!("{text}\\echo done\n")).await?;
        if answer == "done" {
            return Ok(Outcome::Done);
        }
        if answer == "changed" {
            return Ok(Outcome::Changed);
        }
        match answer.strip_prefix("failed ").and_then(|rest| rest.split_once(' ')) {
            Some((code, message)) => {
                Ok(Outcome::Failed { code: code.to_owned(), message: message.to_owned() })
            }
            None => Err(Error::failed(STAGE, "psql did not say what became of a transaction")),
        }
    }
}
