//! A database as a stream: pg_dump's custom format, uncompressed, read as it flows past.

mod options;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::Stdio;

use async_trait::async_trait;
use backup_core::{
    DumpFilters, Error, ErrorKind, Findings, Inventory, Result, Source, SourceStream,
};
use bytes::Bytes;

pub use settings::with_recorded_settings;

pub use options::{DumpOptions, LOCK_WAIT_TIMEOUT, STALL_TIMEOUT};

use crate::archive::{ArchiveReader, RowKey, Toc};
use crate::client::ClientChild;
use crate::output::Output;
use crate::{ClientTools, Connection, Psql, Server};

const STAGE: &str = "pg_dump";

/// One database, dumped by pg_dump in its custom format without compression.
///
/// What it promises beyond [`Source`]: the stream ends with `Ok(None)` only when pg_dump ended
/// well *and* the archive was read to its last block on the way. Its findings hold the exact
/// row count of every table, counted in the bytes themselves, and a digest of its rows under a
/// key of this dump alone. A stream that is dropped early takes its pg_dump with it.
///
/// ```no_run
/// use backup_core::Source;
/// use backup_pg::{Connection, DumpOptions, PgDump, Server, ToolSearch};
/// # async fn example() -> backup_core::Result<()> {
/// let connection: Connection = "postgresql://marb@db.example/claims".parse()?;
/// let server = Server::connect(&connection, &ToolSearch::default()).await?;
/// let mut stream = PgDump::new(&server, DumpOptions::default()).open().await?;
/// while let Some(chunk) = stream.next_chunk().await? {
///     println!("{} bytes", chunk.len());
/// }
/// println!("{} tables", stream.findings().inventory.tables.len());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PgDump {
    tools: ClientTools,
    connection: Connection,
    encoding: String,
    options: DumpOptions,
    like: Option<(RowKey, BTreeMap<String, String>)>,
}

impl PgDump {
    /// Dumps the database that `server` was connected to, with the tools chosen for it.
    pub fn new(server: &Server, options: DumpOptions) -> Self {
        Self {
            tools: server.tools().clone(),
            connection: server.connection().clone(),
            encoding: server.encoding().to_owned(),
            options,
            like: None,
        }
    }

    /// Makes digests that can be compared with those of `recorded`: under its key, over text that
    /// the server writes with its settings. Without digests there, they are made as ever.
    ///
    /// # Errors
    /// As [`RowKey::of`].
    pub fn comparable_with(self, recorded: &Inventory) -> Result<Self> {
        let settings = recorded.row_digests.as_ref().map(|made| made.settings.clone());
        let like = RowKey::of(recorded)?.zip(settings);
        Ok(Self { like, ..self })
    }

    /// Starts it, as [`Source::open`] does.
    ///
    /// # Errors
    /// When the server can't be reached, or pg_dump can't be started.
    pub async fn begin(&self) -> Result<DumpStream> {
        let Some((key, settings)) = &self.like else {
            let connection = &self.connection;
            if !self.options.row_digests {
                return self.start(connection, ArchiveReader::new(), BTreeMap::new());
            }
            let in_force = settings::ask(&Psql::new(&self.tools, connection)).await?;
            let archive = ArchiveReader::new().with_row_key(RowKey::random());
            return self.start(connection, archive, in_force);
        };
        let connection = settings::with_recorded_settings(&self.connection, settings);
        let in_force = settings::ask(&Psql::new(&self.tools, &connection)).await?;
        self.start(&connection, ArchiveReader::new().with_row_key(key.clone()), in_force)
    }
}

#[async_trait]
impl Source for PgDump {
    fn name(&self) -> &str {
        STAGE
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        Ok(Box::new(self.begin().await?))
    }
}

impl PgDump {
    fn start(
        &self,
        connection: &Connection,
        archive: ArchiveReader,
        in_force: BTreeMap<String, String>,
    ) -> Result<DumpStream> {
        let mut command = connection.command(&self.tools.pg_dump())?;
        command.env(settings::TIME_ZONE_VARIABLE, settings::TIME_ZONE);
        command.args(["--format=custom", "--compress=0", "--no-password"]);
        command.arg(format!("--encoding={}", self.encoding));
        command.args(self.options.arguments());
        let mut child = command.spawn(STAGE, Stdio::null())?;
        let stdout = child
            .take_stdout()
            .ok_or_else(|| Error::failed(STAGE, "was started without its output"))?;
        let output = Output::new(stdout, STAGE, self.options.stall_timeout)?;
        Ok(DumpStream {
            child,
            output,
            archive,
            settings: in_force,
            filters: self.options.filters.clone(),
            toc: None,
            findings: Findings::default(),
        })
    }
}

/// A running pg_dump.
pub struct DumpStream {
    child: ClientChild,
    output: Output,
    archive: ArchiveReader,
    settings: BTreeMap<String, String>,
    filters: DumpFilters,
    toc: Option<Toc>,
    findings: Findings,
}

#[async_trait]
impl SourceStream for DumpStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        match self.output.next_chunk().await? {
            Some(chunk) => {
                self.archive.feed(&chunk)?;
                Ok(Some(chunk))
            }
            None => {
                self.end().await?;
                Ok(None)
            }
        }
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

impl DumpStream {
    /// The archive's table of contents, once the stream ended well; once.
    pub fn take_toc(&mut self) -> Option<Toc> {
        self.toc.take()
    }

    /// The exit status first: it knows why an archive is cut off.
    async fn end(&mut self) -> Result<()> {
        let ending = self.child.success().await?;
        let summary = std::mem::take(&mut self.archive).finish().map_err(|error| {
            Error::failed(STAGE, "ended well, but its archive is not whole")
                .next_step(
                    "run it again; if it repeats, the client tools are broken: install them anew",
                )
                .with_kind(if error.kind() == ErrorKind::Unchecked {
                    ErrorKind::Unchecked
                } else {
                    ErrorKind::Failed
                })
                .caused_by(error)
        })?;
        let mut inventory = summary.inventory();
        inventory.filters = Some(std::mem::take(&mut self.filters));
        if let Some(digests) = &mut inventory.row_digests {
            digests.settings = std::mem::take(&mut self.settings);
        }
        self.findings = Findings {
            inventory,
            archive_version: Some(summary.archive_version()),
            notes: notes(&ending.stderr),
        };
        self.toc = Some(summary.into_toc());
        Ok(())
    }
}

/// What pg_dump's warnings mean for the reader of a manifest. The manifest is public and the
/// warnings name tables: they go to the log as they are and into the notes in general words.
fn notes(stderr: &str) -> Vec<String> {
    const COLLATION: &str = "collation version mismatch";
    let mut notes = Vec::new();
    if stderr.contains(COLLATION) {
        notes.push("the server's collation library is not the one the database was made with: its text indexes may need REINDEX".to_owned());
    }
    let other = stderr
        .lines()
        .filter(|line| line.contains("warning:") || line.contains("WARNING:"))
        .filter(|line| !line.contains(COLLATION))
        .count();
    if other > 0 {
        notes.push(format!("pg_dump gave {other} warnings; the log of the run has their text"));
    }
    for line in stderr.lines() {
        tracing::warn!(program = STAGE, "{line}");
    }
    notes
}
