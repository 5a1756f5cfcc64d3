//! A database as a stream: pg_dump's custom format, uncompressed, read as it flows past.

mod options;
#[cfg(test)]
mod tests;

use std::process::Stdio;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Findings, Result, Source, SourceStream};
use bytes::Bytes;

pub use options::{DumpOptions, LOCK_WAIT_TIMEOUT, STALL_TIMEOUT};

use crate::archive::ArchiveReader;
use crate::client::ClientChild;
use crate::output::Output;
use crate::{ClientTools, Connection, Server};

const STAGE: &str = "pg_dump";

/// One database, dumped by pg_dump in its custom format without compression.
///
/// What it promises beyond [`Source`]: the stream ends with `Ok(None)` only when pg_dump ended
/// well *and* the archive was read to its last block on the way. Its findings hold the exact
/// row count of every table, counted in the bytes themselves. A stream that is dropped early
/// takes its pg_dump with it.
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
    options: DumpOptions,
}

impl PgDump {
    /// Dumps the database that `server` was connected to, with the tools chosen for it.
    pub fn new(server: &Server, options: DumpOptions) -> Self {
        Self { tools: server.tools().clone(), connection: server.connection().clone(), options }
    }
}

#[async_trait]
impl Source for PgDump {
    fn name(&self) -> &str {
        STAGE
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        Ok(Box::new(self.start()?))
    }
}

impl PgDump {
    fn start(&self) -> Result<DumpStream> {
        let mut command = self.connection.command(&self.tools.pg_dump())?;
        command.args(["--format=custom", "--compress=0", "--no-password"]);
        command.args(self.options.arguments());
        let mut child = command.spawn(STAGE, Stdio::null())?;
        let stdout = child
            .take_stdout()
            .ok_or_else(|| Error::failed(STAGE, "was started without its output"))?;
        let output = Output::new(stdout, STAGE, self.options.stall_timeout)?;
        Ok(DumpStream {
            child,
            output,
            archive: ArchiveReader::new(),
            findings: Findings::default(),
        })
    }
}

/// A running pg_dump.
struct DumpStream {
    child: ClientChild,
    output: Output,
    archive: ArchiveReader,
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
        self.findings = Findings {
            inventory: summary.inventory(),
            archive_version: Some(summary.archive_version()),
            notes: notes(&ending.stderr),
        };
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
