//! Restores an archive as it streams in: pg_restore as a sink.
//!
//! Nothing of it can be seen before [`commit`](backup_core::SinkWriter::commit). A database
//! that doesn't exist yet is made under a working name and renamed as the very last step, after
//! everything was compared with the archive. An existing one has to be empty and is filled in
//! one transaction. One that is in use gets some tables, or all of them in place, in a transaction of
//! ours that is committed last, after the comparison. In all cases the end of the archive is held back until commit, and
//! pg_restore can't finish without it: whoever decodes and checks the bytes on their way here
//! has its say first.
//!
//! What a restore that fails leaves behind: of the data nothing, with one exception that its
//! error names (an existing database whose comparison failed or was stopped keeps what was
//! restored). *Roles stay*: those that the backup's globals made were committed before the
//! data came; they belong to the whole server, and somebody may use them by now.
//!
//! Architecture invariants: children are ended *before* their input is closed, because psql
//! takes the end of its input for the end of its work; and only a database that this writer made is ever dropped.

mod clean;
mod compare;
mod edits;
mod live;
mod parallel;
mod pieces;
mod preflight;
mod prepare;
mod present;
mod prospect;
mod report;
mod role_names;
mod run;

mod spool;
mod steps;
mod target;
#[cfg(test)]
mod tests;
mod working;
mod writer;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{Error, Result, Sink, SinkWriter};

use crate::archive::Selection;
use crate::database::TablespaceMap;
use crate::{Connection, Globals, Server, Toc, ToolSearch};

pub use clean::InPlacePlan;
pub use prospect::RestorePlan;
pub use report::RestoreReport;
use target::Target;
pub use working::{Purpose, WORKING_PREFIX, Working, WorkingMark};
use writer::RestoreWriter;

/// The stage that errors of a restore name.
const STAGE: &str = "pg_restore";

/// How long the server may take for the rest once it has all bytes (indexes, constraints), and
/// then again for the comparison and the statistics.
pub const RESTORE_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a commit may be waited for: both halves of [`RESTORE_TIMEOUT`], and an hour to log
/// in, to publish, or to clean up.
///
/// For whoever limits a commit from outside, as
/// [`Limits::commit`](backup_core::pipeline::Limits::commit) does. With less, the commit is
/// dropped before it gives up by itself, and nobody drops the unfinished database.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(2 * RESTORE_TIMEOUT.as_secs() + 60 * 60);

/// How a restore is done.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The backup's globals: roles and memberships that the server misses are created from it.
    /// They stay when the restore fails later.
    pub globals: Option<Globals>,
    /// What becomes of tablespaces.
    pub tablespaces: TablespaceMap,
    /// Everything belongs to the role that restores, and nobody gets rights on it.
    pub no_owners: bool,
    /// Old role, new role: who owns instead, is granted to, has a policy, default rights, settings
    /// in the database. Roles that others stand in for are not created.
    pub roles: BTreeMap<String, String>,
    /// Leave subscriptions out: a copy's would take changes that are meant for the original.
    pub without_subscriptions: bool,
    /// How many sessions restore at the same time. Several need a database that is made for them.
    /// They take the archive as it comes; one that pg_dump compressed is set aside in
    /// [`spool_dir`](Self::spool_dir), and checked to its end before any of them starts.
    pub jobs: NonZeroUsize,
    /// Where bytes are set aside, in a file without a name that only this user may read.
    pub spool_dir: PathBuf,
    /// Bytes of the archive, to look for space before they are set aside.
    pub expected_bytes: Option<u64>,
    /// Only some tables. A database that exists may hold others, and gets them in one transaction,
    /// compared inside; they are set aside first, and checked.
    pub selection: Option<Selection>,
    /// Into a database that others use: what the archive holds is dropped there and made anew, in
    /// one transaction, compared inside. What the archive lacks stays.
    pub in_place: bool,
    /// What the database is made for, where it is made; its mark says so until it is complete.
    pub purpose: Option<Purpose>,
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
            roles: BTreeMap::new(),
            without_subscriptions: false,
            jobs: NonZeroUsize::MIN,
            spool_dir: PathBuf::from("/tmp"),
            expected_bytes: None,
            selection: None,
            in_place: false,
            purpose: None,
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
/// Roles made from the globals then stay even if the restore fails later; data does not.
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
    cancel: Cancel,
    report: Arc<Mutex<Option<RestoreReport>>>,
}

impl PgRestore {
    /// Restores into the database that `connection` names.
    pub fn new(connection: Connection, search: ToolSearch, options: RestoreOptions) -> Self {
        let (cancel, report) = (Cancel::default(), Arc::default());
        Self { connection, search, options, cancel, report }
    }

    /// Lets a commit be stopped: while the server builds indexes, and during the comparison and
    /// ANALYZE. The children are ended, the unfinished database is dropped, and the commit
    /// returns [`Cancel::error`]. Publishing (properties and name) is not interrupted.
    ///
    /// Without it a commit runs to its end. Stopping earlier is up to the caller, by
    /// [`abort`](SinkWriter::abort).
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// What a restore in place of this archive would do to the database. Nothing is changed.
    ///
    /// # Errors
    /// `Refused` when there is no such database; that of the server when it does not answer.
    pub async fn plan_in_place(&self, toc: &Toc) -> Result<InPlacePlan> {
        let server = Server::connect(&self.connection, &self.search).await?;
        let mut restored = prepare::edited(toc, &self.options, &mut Vec::new());
        prepare::plan_in_place(&mut restored, &server).await
    }

    /// What was restored by the last commit; `None` before one succeeded. Clones share it.
    pub fn report(&self) -> Option<RestoreReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The refusal of a restore in place into nothing.
fn not_there(name: &str) -> Error {
    Error::refused(STAGE, format!("there is no database {name} to restore in place"))
        .next_step("restore without --in-place")
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
    /// `Refused` when the database exists and holds something, unless the options are for one that
    /// is in use; then when a restore in place finds none.
    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let shared = self.options.in_place || self.options.selection.is_some();
        let target = Target::find(&self.connection, &self.search, shared).await?;
        if self.options.in_place && !target.is_existing() {
            return Err(not_there(target.name()));
        }
        let (search, options) = (self.search.clone(), self.options.clone());
        let (cancel, report) = (self.cancel.clone(), self.report.clone());
        Ok(Box::new(RestoreWriter::new(target, search, options, cancel, report)))
    }
}
