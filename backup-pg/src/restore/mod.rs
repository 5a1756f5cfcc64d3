//! Restores an archive as it streams in: pg_restore as a sink.
//!
//! Nothing of it can be seen before [`commit`](backup_core::SinkWriter::commit). A database
//! that doesn't exist yet is made under a working name and renamed as the very last step, after
//! everything was compared with the archive. An existing one has to be empty and is filled in
//! one transaction. In both cases the end of the archive is held back until commit, and
//! pg_restore can't finish without it: whoever decodes and checks the bytes on their way here
//! has its say first.
//!
//! Architecture invariants: children are ended *before* their input is closed, because psql
//! takes the end of its input for the end of its work; and only a database that this writer made is ever dropped.

mod compare;
mod preflight;
mod report;
mod rewrite;
mod run;
mod target;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Result, Sink, SinkWriter};

use crate::database::TablespaceMap;
use crate::{Connection, Globals, ToolSearch};

pub use report::RestoreReport;
pub use target::WORKING_PREFIX;
use target::Target;
use writer::RestoreWriter;

/// The stage that errors of a restore name.
const STAGE: &str = "pg_restore";

/// How long the server may take for the rest once it has all bytes (indexes, constraints), and
/// for each statement of the comparison.
pub const RESTORE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How a restore is done.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The backup's globals: roles and memberships that the server misses are created from it.
    pub globals: Option<Globals>,
    /// What becomes of tablespaces.
    pub tablespaces: TablespaceMap,
    /// Everything belongs to the role that restores, and nobody gets rights on it.
    pub no_owners: bool,
    /// Gather statistics for the planner at the end.
    pub analyze: bool,
    /// See [`RESTORE_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            globals: None,
            tablespaces: TablespaceMap::default(),
            no_owners: false,
            analyze: true,
            timeout: RESTORE_TIMEOUT,
        }
    }
}

/// Restores the archive that is written to it into one database.
///
/// The database of the connection is made when it does not exist, with the encoding, locale and
/// properties that the archive records. One that exists has to be empty, and keeps its own.
///
/// Whether the server can be reached and the database suits is found out in `begin`; what the
/// archive needs (roles, tablespaces, client tools) as soon as its table of contents is there.
///
/// ```no_run
/// use backup_core::Sink;
/// use backup_pg::{PgRestore, RestoreOptions, ToolSearch};
/// # async fn example(archive: bytes::Bytes) -> backup_core::Result<()> {
/// let target = "postgresql://postgres@/claims_restored".parse()?;
/// let restore = PgRestore::new(target, ToolSearch::default(), RestoreOptions::default());
/// let mut writer = restore.begin("claims").await?;
/// writer.write(archive).await?;
/// writer.commit().await?;
/// println!("{:?}", restore.report());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PgRestore {
    connection: Connection,
    search: ToolSearch,
    options: RestoreOptions,
    report: Arc<Mutex<Option<RestoreReport>>>,
}

impl PgRestore {
    /// Restores into the database that `connection` names.
    pub fn new(connection: Connection, search: ToolSearch, options: RestoreOptions) -> Self {
        Self { connection, search, options, report: Arc::default() }
    }

    /// What was restored by the last commit; `None` before one succeeded. Clones share it.
    pub fn report(&self) -> Option<RestoreReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for PgRestore {
    fn name(&self) -> &str {
        STAGE
    }

    /// The key names the archive in nothing but messages of others; the database is that of the
    /// connection.
    ///
    /// # Errors
    /// `Refused` when the database exists and holds something.
    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let target = Target::find(&self.connection, &self.search).await?;
        let (search, options) = (self.search.clone(), self.options.clone());
        Ok(Box::new(RestoreWriter::new(target, search, options, self.report.clone())))
    }
}
