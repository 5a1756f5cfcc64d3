//! Bringing a database back, from a backup or from a plain file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::{self, Context, Flow, Limits};
use backup_core::{CatalogEntry, Error, ErrorKind, Origin, PartRole, Result};
use backup_pg::{COMMIT_TIMEOUT, Globals, PgRestore, RestoreReport, TablespaceMap};

use crate::config::Value;
use crate::{Content, Deployment, ForeignFile};

/// Longest time the server may take for one chunk: a trigger, a lock, a slow disk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

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
    /// Go on though nothing proves who wrote the backup.
    pub accept_unsigned: bool,
}

impl RestoreOptions {
    /// The ordinary way, into the database that `target` names.
    pub fn into_database(target: Value) -> Self {
        Self {
            target,
            globals: true,
            tablespaces: Vec::new(),
            no_tablespaces: false,
            accept_unsigned: false,
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
    /// Roles that were made.
    pub roles_created: Vec<String>,
    /// What one must know, a line each.
    pub notes: Vec<String>,
}

impl Deployment {
    /// Restores a backup. Nothing can be seen of it before everything was checked.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the manifest isn't ours or the database holds something;
    /// otherwise the first cause. The target is as it was before.
    pub async fn restore(
        &self,
        entry: &CatalogEntry,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestoreSummary> {
        let reader = self.reader(entry, context).await?;
        let dump = reader.manifest().part(PartRole::Database).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "restore", "the backup holds no database")
        })?;
        let contents = reader.contents(context).await?;
        // With a wrong passphrase the contents can't be opened: that is "could not check". A
        // signature that is wrong though the key is right is a forgery.
        let keys = self.keys().await?;
        let authenticate = keys.authenticate();
        match reader.origin(authenticate.as_deref()).await? {
            Origin::Proven => {}
            // Who uses no keys at all has nothing that could prove it.
            Origin::Unsigned if keys.is_empty() && !reader.manifest().is_encrypted() => {}
            unproven if options.accept_unsigned => {
                context.warn(&format!("going on as told, though {}", unproven.error().message()));
            }
            unproven => return Err(unproven.error()),
        }
        let globals = match reader.manifest().part(PartRole::Globals) {
            Some(part) if options.globals => {
                Some(globals(&reader.read_part(part, Some(&contents), context).await?)?)
            }
            _ => None,
        };
        let sink = self.sink(options, globals).await?.with_cancel(context.cancel.clone());
        let flow = reader.flow(dump, Some(&contents), Arc::new(sink.clone()))?;
        run(flow, context).await.map_err(|error| reader.advise(error))?;
        Ok(summary(entry.id.to_string(), report(&sink)?))
    }

    /// Restores a pg_dump archive from a plain file, through whatever layers lie around it.
    ///
    /// # Errors
    /// As [`Deployment::restore`]; [`ErrorKind::Usage`] when the file holds something else.
    pub async fn restore_file(
        &self,
        path: &Path,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestoreSummary> {
        let decoders = self.keys().await?.decoders();
        let file = ForeignFile::recognise(path, &decoders, context).await?;
        if file.content != Content::Archive {
            return Err(cannot_restore(&file));
        }
        let sink = self.sink(options, None).await?.with_cancel(context.cancel.clone());
        let flow = file.flow(&decoders, Arc::new(sink.clone()))?;
        run(flow, context).await?;
        let mut summary = summary(path.display().to_string(), report(&sink)?);
        summary.notes.push("a plain file carries no roles; those it needs were there".to_owned());
        if !file.has_checksum() {
            summary.notes.push(
                "the file carries no checksum: a changed byte inside a value would not be noticed"
                    .to_owned(),
            );
        }
        Ok(summary)
    }

    async fn sink(&self, options: &RestoreOptions, globals: Option<Globals>) -> Result<PgRestore> {
        let target = self.connection(&options.target, "target").await?;
        let tablespaces = TablespaceMap {
            ignore: options.no_tablespaces,
            renamed: options.tablespaces.iter().cloned().collect(),
        };
        let options = backup_pg::RestoreOptions { globals, tablespaces, ..Default::default() };
        Ok(PgRestore::new(target, self.tool_search(), options))
    }
}

async fn run(flow: Flow, context: &Context) -> Result<()> {
    // The rest after the last byte (indexes, constraints, the comparison) takes long.
    let limits = Limits { sink_stall: CHUNK_TIMEOUT, commit: COMMIT_TIMEOUT, ..Limits::default() };
    pipeline::run(Flow { limits, ..flow }, context).await.map(|_| ())
}

fn report(sink: &PgRestore) -> Result<RestoreReport> {
    let missing = || Error::failed("restore", "it ended without a report; please report this");
    sink.report().ok_or_else(missing)
}

fn globals(sql: &[u8]) -> Result<Globals> {
    let text = std::str::from_utf8(sql).map_err(|e| {
        Error::damaged("globals", "the globals part is not UTF-8")
            .next_step("restore with --no-globals and create the roles by hand")
            .caused_by(e)
    })?;
    Globals::read(text)
}

fn cannot_restore(file: &ForeignFile) -> Error {
    let path = file.path.display();
    let (what, next_step) = match file.content {
        Content::Sql => ("SQL text", "load it with psql -X -1 -v ON_ERROR_STOP=1 -f FILE"),
        Content::TarArchive => (
            "a pg_dump archive in tar format",
            "load it with pg_restore --exit-on-error -d DATABASE FILE",
        ),
        Content::Archive | Content::Unknown => (
            "no pg_dump archive",
            "name a file that pg_dump --format=custom wrote, whatever compressed or encrypted it",
        ),
    };
    Error::usage("restore", format!("{path} holds {what}")).next_step(next_step)
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
        roles_created: report.created_roles,
        notes,
    }
}
