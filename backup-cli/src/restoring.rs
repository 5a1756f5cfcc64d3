//! Bringing a database back, from a backup or from a plain file.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, Error, Result, Sink};
use backup_pg::{PgRestore, Purpose, RestoreReport, Selection, TablespaceMap};

use crate::config::Value;
use crate::opened_source::OpenedSource;
use crate::{Deployment, RestoreFrom};

/// Longest time the server may take for one chunk: a trigger, a lock, a slow disk.
pub(crate) const CHUNK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How a restore is done.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The database to restore into: made when it does not exist, refused when it isn't empty.
    pub target: Value,
    /// Create roles and memberships that the server lacks.
    pub globals: bool,
    /// Old tablespace, new tablespace.
    pub tablespaces: Vec<(String, String)>,
    /// Put everything into the database's default tablespace.
    pub no_tablespaces: bool,
    /// Old role, new role: who owns and may use what the old one did.
    pub roles: Vec<(String, String)>,
    /// Everything belongs to the role that restores, and nobody gets rights on it.
    pub no_owners: bool,
    /// Leave subscriptions out, as for a copy beside the original.
    pub without_subscriptions: bool,
    /// Gather statistics for the planner at the end.
    pub analyze: bool,
    /// How many sessions restore at the same time. An archive that pg_dump compressed is then set
    /// aside in [`spool_dir`](Self::spool_dir), in a file without a name.
    pub jobs: NonZeroUsize,
    /// Where decoded bytes are set aside: for a selection, and for several jobs. `$TMPDIR` of the
    /// environment when absent, else `/tmp`.
    pub spool_dir: Option<PathBuf>,
    /// Only some tables; the target may hold others, and be in use.
    pub selection: Option<Selection>,
    /// Go on though nothing proves who wrote the backup.
    pub accept_unsigned: bool,
    /// Replace a database though the backup lacks some tables, their rows or large objects: they
    /// will be missing.
    pub accept_missing_rows: bool,
    /// What the database is made for, where it is made: for the mark that it carries meanwhile.
    pub purpose: Option<Purpose>,
    /// Go on though a replication slot or a subscription of the database breaks by it.
    pub accept_replication_break: bool,
}

impl RestoreOptions {
    /// The ordinary way, into the database that `target` names.
    pub fn into_database(target: Value) -> Self {
        Self {
            target,
            globals: true,
            tablespaces: Vec::new(),
            no_tablespaces: false,
            roles: Vec::new(),
            no_owners: false,
            without_subscriptions: false,
            analyze: true,
            jobs: NonZeroUsize::MIN,
            spool_dir: None,
            selection: None,
            accept_unsigned: false,
            accept_missing_rows: false,
            purpose: None,
            accept_replication_break: false,
        }
    }

    /// Where things go that lay in a tablespace.
    pub(crate) fn tablespace_map(&self) -> TablespaceMap {
        TablespaceMap {
            ignore: self.no_tablespaces,
            renamed: self.tablespaces.iter().cloned().collect(),
        }
    }
}

/// What a restore brought back.
#[derive(Debug)]
pub struct RestoreSummary {
    /// The backup's id, or the file.
    pub from: String,
    /// The database that holds it now.
    pub database: String,
    /// Whether it was made for this.
    pub created: bool,
    /// Tables whose rows were counted again.
    pub tables_compared: u64,
    /// Rows in them.
    pub rows_compared: u64,
    /// Tables that were not; the notes say which and why.
    pub not_compared: u64,
    /// Bytes that were set aside in a file without a name while it ran.
    pub spooled_bytes: u64,
    /// Roles that were made.
    pub roles_created: Vec<String>,
    /// Roles that cannot log in until they get a password; one of the notes says so, too.
    pub cannot_log_in: Vec<String>,
    /// What one must know, a line each.
    pub notes: Vec<String>,
}

impl Deployment {
    /// Restores a backup. Nothing can be seen of it before everything was checked.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the manifest isn't ours or the database holds something;
    /// otherwise the first cause. The target is as it was before.
    pub async fn restore(
        &self,
        entry: &CatalogEntry,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestoreSummary> {
        self.restore_from(RestoreFrom::Backup(entry), options, context).await
    }

    /// Restores a pg_dump archive from a plain file, through whatever layers lie around it.
    ///
    /// # Errors
    /// As [`Deployment::restore`]; [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when the file holds something else.
    pub async fn restore_file(
        &self,
        path: &Path,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestoreSummary> {
        self.restore_from(RestoreFrom::File(path), options, context).await
    }

    async fn restore_from(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestoreSummary> {
        let source = self.open_for_restore(from, options, context).await?;
        self.restore_source(&source, options, false, context).await
    }

    /// Restores what was opened; `in_place` over what a database holds.
    pub(crate) async fn restore_source(
        &self,
        source: &OpenedSource,
        options: &RestoreOptions,
        in_place: bool,
        context: &Context,
    ) -> Result<RestoreSummary> {
        let sink = self.restore_sink(source, options, in_place).await?;
        let sink = sink.with_cancel(context.cancel.clone());
        let into: Arc<dyn Sink> = Arc::new(sink.clone());
        let not_read = match &options.selection {
            Some(selection) => source.read_tables_into(selection, into, context).await?,
            None => source.read_into(into, context).await.map(|()| None)?,
        };
        let missing = || Error::failed("restore", "it ended without a report; please report this");
        let mut summary = summary(source.label.clone(), sink.report().ok_or_else(missing)?);
        summary.notes.extend(source.notes.iter().cloned().chain(not_read));
        Ok(summary)
    }

    /// Where the bytes go.
    pub(crate) async fn restore_sink(
        &self,
        source: &OpenedSource,
        options: &RestoreOptions,
        in_place: bool,
    ) -> Result<PgRestore> {
        let target = self.connection(&options.target, "target").await?;
        let of_environment = || self.environment().get("TMPDIR").map(PathBuf::from);
        let spool_dir = options.spool_dir.clone().or_else(of_environment);
        let options = backup_pg::RestoreOptions {
            globals: source.globals.clone(),
            tablespaces: options.tablespace_map(),
            no_owners: options.no_owners,
            roles: options.roles.iter().cloned().collect(),
            without_subscriptions: options.without_subscriptions,
            analyze: options.analyze,
            jobs: options.jobs,
            spool_dir: spool_dir.unwrap_or_else(|| PathBuf::from("/tmp")),
            expected_bytes: source.plain_bytes,
            selection: options.selection.clone(),
            in_place,
            purpose: options.purpose.clone(),
            ..Default::default()
        };
        Ok(PgRestore::new(target, self.tool_search(), options))
    }
}

fn summary(from: String, report: RestoreReport) -> RestoreSummary {
    let mut notes = report.notes;
    if !report.cannot_log_in.is_empty() {
        notes.push(format!(
            "these roles cannot log in until they get a password, which the backup does not have: {}",
            report.cannot_log_in.join(", ")
        ));
    }
    let not_compared = report.not_compared.len() as u64;
    notes.extend(report.not_compared.into_iter().map(|table| format!("not compared: {table}")));
    RestoreSummary {
        from,
        database: report.database,
        created: report.created,
        tables_compared: report.tables_compared,
        rows_compared: report.rows_compared,
        not_compared,
        spooled_bytes: report.spooled_bytes,
        roles_created: report.created_roles,
        cannot_log_in: report.cannot_log_in,
        notes,
    }
}
