//! What a drill found: everything that its page, its JSON and its proof tell.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// What came of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The backup came back, and everything that was compared is equal.
    Passed,
    /// Something is not as it was backed up, or a check of the user's is not true.
    Failed,
    /// It could not be told.
    NotProven,
}

/// A drill, from beginning to end.
#[derive(Debug, Clone, Serialize)]
pub struct DrillReport {
    /// What came of it.
    pub verdict: Verdict,
    /// Why it did not pass, the worst first.
    pub problems: Vec<Problem>,
    /// What was restored.
    pub backup: BackupFacts,
    /// Where to.
    pub place: PlaceFacts,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Name and version of the program.
    pub tool: String,
    /// Host that ran it.
    pub host: String,
    /// How long each step took.
    pub times: Times,
    /// Whether the restore came to its end; nothing is compared when it did not.
    pub restored: bool,
    /// Every table.
    pub tables: Vec<TableResult>,
    /// The large objects; `None` when it did not come to that, or the backup has none.
    pub large_objects: Option<TableResult>,
    /// The definitions of all objects.
    pub schema: SchemaResult,
    /// The user's own checks.
    pub checks: Vec<CheckResult>,
    /// What one must know, a line each.
    pub notes: Vec<String>,
    /// What could not be removed, and how to; `None` when nothing is left of the drill.
    pub left_behind: Option<String>,
    /// Where the proof lies now.
    pub proofs: Vec<StoredProof>,
}

/// Why a drill did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it is a difference (or a check that failed), and not something that could not be
    /// done.
    pub is_failure: bool,
    /// What is wrong. Names what it is about.
    pub text: String,
    /// The same for the proof, which tells nothing about the data.
    pub public: String,
    /// What to do.
    pub next_step: Option<String>,
}

/// The backup that was restored.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BackupFacts {
    /// Its id.
    pub id: String,
    /// The job that made it.
    pub job: String,
    /// The database it is of.
    pub database: String,
    /// The server that was on.
    pub server: String,
    /// Version of that server.
    pub server_version: Option<String>,
    /// Version of the pg_dump that read it.
    pub pg_dump: Option<String>,
    /// The application's version at that time.
    pub app_version: Option<String>,
    /// When the backup began.
    pub started: Option<Timestamp>,
    /// When it was complete.
    pub finished: Option<Timestamp>,
    /// The program that made it.
    pub tool: String,
    /// Bytes of the dump, compressed and encrypted, as it lies in a storage.
    pub stored_bytes: u64,
    /// Bytes of the dump itself.
    pub plain_bytes: u64,
    /// SHA-256 of the dump as it is stored.
    pub sha256: String,
    /// What proves who made it.
    pub origin: String,
    /// The storage that was read.
    pub read_from: String,
    /// The storages that hold it.
    pub stored_in: Vec<String>,
}

/// The server that it was restored to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PlaceFacts {
    /// Whether it was made for the drill, and is gone.
    pub throwaway: bool,
    /// Its name, or where its socket was.
    pub server: String,
    /// Its version.
    pub server_version: String,
    /// The database that was made there, and is gone.
    pub database: String,
    /// Version of the pg_restore that did it.
    pub pg_restore: String,
    /// Version of the pg_dump that read it again.
    pub pg_dump: String,
    /// Roles that were made for it.
    pub roles_created: Vec<String>,
    /// Whether owners and grants were restored, too.
    pub with_owners: bool,
}

/// How long each step took. In JSON: seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Times {
    /// Making and starting the server, or connecting to it.
    #[serde(serialize_with = "seconds")]
    pub prepare: Duration,
    /// From the first byte asked for to the database with all its indexes and statistics.
    #[serde(serialize_with = "seconds")]
    pub restore: Duration,
    /// Of these the ones in which it waited for bytes: download, decryption, decompression.
    #[serde(serialize_with = "seconds")]
    pub waiting: Duration,
    /// Of these the ones in which the server took rows.
    #[serde(serialize_with = "seconds")]
    pub loading: Duration,
    /// Of these the rest: indexes, constraints, counting the rows, statistics.
    #[serde(serialize_with = "seconds")]
    pub finishing: Duration,
    /// Reading the restored database again and comparing it.
    #[serde(serialize_with = "seconds")]
    pub compare: Duration,
    /// The user's checks.
    #[serde(serialize_with = "seconds")]
    pub checks: Duration,
    /// Removing database and server.
    #[serde(serialize_with = "seconds")]
    pub clean_up: Duration,
}

fn seconds<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((took.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// How a comparison ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both are the same.
    Equal,
    /// They are not.
    Differs,
    /// It was not made, for this reason.
    NotCompared(String),
}

/// One table, in the backup and restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableResult {
    /// Its schema, unquoted.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// Rows in the backup, where they are known.
    pub rows: Option<u64>,
    /// Rows that came back, where they could be counted.
    pub restored_rows: Option<u64>,
    /// Whether these are as many.
    pub count: Outcome,
    /// Whether each row is the same.
    pub content: Outcome,
}

impl TableResult {
    /// Its name for people.
    pub fn label(&self) -> String {
        if self.schema.is_empty() {
            self.name.clone()
        } else {
            format!("{}.{}", self.schema, self.name)
        }
    }

    /// Whether something about it differs.
    pub fn differs(&self) -> bool {
        self.count == Outcome::Differs || self.content == Outcome::Differs
    }
}

/// The definitions: tables, views, functions, indexes, constraints, and all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SchemaResult {
    /// Objects that were compared.
    pub compared: usize,
    /// Of these the ones that PostgreSQL writes with other casts and parentheses after a restore.
    pub rewritten: usize,
    /// What differs.
    pub differences: Vec<SchemaDifference>,
    /// Why nothing was compared; `None` when it was.
    pub not_compared: Option<String>,
}

/// An object whose definition differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaDifference {
    /// Which: `INDEX public.claims_payer_idx`.
    pub object: String,
    /// Its definition in the backup; `None` when it has none there.
    pub backup: Option<String>,
    /// The one that came back; `None` when it is missing.
    pub restored: Option<String>,
}

/// One of the user's checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Its SQL.
    pub sql: String,
    /// What came of it.
    pub outcome: CheckOutcome,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// It is true.
    Passed,
    /// It gave something else.
    Failed(String),
    /// It could not be run.
    Error(String),
    /// The drill did not come to it.
    NotRun,
}

/// A proof that was stored, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredProof {
    /// The storage.
    pub storage: String,
    /// The proof's file name.
    pub file: String,
    /// Why it is not there.
    pub error: Option<String>,
}

impl DrillReport {
    /// The user's checks that were run.
    pub fn checks_run(&self) -> usize {
        self.checks.iter().filter(|check| check.outcome != CheckOutcome::NotRun).count()
    }

    /// The user's checks that are true.
    pub fn checks_passed(&self) -> usize {
        self.checks.iter().filter(|check| check.outcome == CheckOutcome::Passed).count()
    }

    /// Tables whose every row was compared.
    pub fn tables_exact(&self) -> usize {
        self.tables.iter().filter(|table| table.content == Outcome::Equal).count()
    }

    /// Tables of which the rows were counted and are as many.
    pub fn tables_counted(&self) -> usize {
        self.tables.iter().filter(|table| table.count == Outcome::Equal).count()
    }

    /// Rows that came back in tables that were compared.
    pub fn rows(&self) -> u64 {
        let compared = self.tables.iter().filter(|table| table.count == Outcome::Equal);
        compared.filter_map(|table| table.restored_rows).sum()
    }
}
