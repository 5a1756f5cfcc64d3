//! Reading backups and plain files back: `show`, `cat`, `verify`.

use std::path::Path;
use std::sync::Arc;

use backup_core::pipeline::{self, Context};
use backup_core::{
    BackupReader, CatalogEntry, Error, Inspector, Inventory, PartRole, Result, Sink, VerifyReport,
    verify,
};
use backup_pg::ArchiveCheck;
use jiff::Timestamp;

use crate::sql_check::SqlCheck;
use crate::{Content, Deployment, ForeignFile, TOOL};

impl Deployment {
    /// Opens the best copy of a backup; another one stands by. `context` hears when it is needed.
    ///
    /// # Errors
    /// When no storage has all of it, or a configured key can't be read.
    pub async fn reader(&self, entry: &CatalogEntry, context: &Context) -> Result<BackupReader> {
        let ((storages, _), keys) = (self.readable_storages().await?, self.keys().await?);
        Ok(BackupReader::best(entry, &storages, keys.decoders())?.telling(context))
    }

    /// Reads everything of every copy of a backup, and stores a proof beside each.
    ///
    /// # Errors
    /// When nothing can be opened at all. What is wrong with a copy is in its report.
    pub async fn verify(
        &self,
        entry: &CatalogEntry,
        context: &Context,
    ) -> Result<Vec<VerifyReport>> {
        let keys = self.keys().await?;
        let authenticate = keys.authenticate();
        let mut reports = Vec::new();
        for storage in self.readable_storages().await?.0 {
            if !entry.copies.iter().any(|copy| copy.storage == storage.name()) {
                continue;
            }
            let started = Timestamp::now();
            let reader = BackupReader::new(entry, storage, keys.decoders());
            let report = verify(&reader, authenticate.as_deref(), &inspector, context).await;
            keep_proof(&reader, &report, started, context).await;
            reports.push(report);
        }
        Ok(reports)
    }

    /// Reads a plain file through all its layers, and its archive to the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn verify_file(&self, path: &Path, context: &Context) -> Result<FileCheck> {
        let decoders = self.keys().await?.decoders();
        let file = ForeignFile::recognise(path, &decoders, context).await?;
        let archive = ArchiveCheck::new();
        let text = SqlCheck::default();
        let sink: Arc<dyn Sink> = match file.content {
            Content::Archive => Arc::new(archive.clone()),
            _ => Arc::new(text.clone()),
        };
        let outcome = pipeline::run(file.flow(&decoders, sink)?, context).await?;
        let (what, unchecked) = match file.content {
            Content::Archive => ("a pg_dump archive", None),
            Content::Sql => text.judge()?,
            Content::TarArchive => {
                ("a pg_dump archive in tar format", Some("this program does not read its entries"))
            }
            Content::Unknown if outcome.written.bytes == 0 => return Err(empty(path)),
            Content::Unknown => ("something else", Some("this program does not know its format")),
        };
        Ok(FileCheck {
            checksummed: file.has_checksum(),
            inventory: archive.summary().map(|summary| summary.inventory()),
            plain_bytes: outcome.written.bytes,
            what,
            unchecked,
            file,
        })
    }
}

/// Stores the record of a verification. Failing to is told; the result stands.
async fn keep_proof(
    reader: &BackupReader,
    report: &VerifyReport,
    started: Timestamp,
    context: &Context,
) {
    if let Err(error) = backup_core::store_proof(reader, report, started, TOOL).await {
        context.warn(&format!("the proof can't be stored in {}: {error}", report.storage));
    }
}

fn empty(path: &Path) -> Error {
    Error::damaged("file", format!("{} holds nothing", path.display()))
        .next_step("whatever wrote it failed; use another backup")
}

/// What was found in a plain file whose layers are whole.
#[derive(Debug)]
pub struct FileCheck {
    /// The file and its layers.
    pub file: ForeignFile,
    /// Bytes under all layers.
    pub plain_bytes: u64,
    /// What lies under them, in words.
    pub what: &'static str,
    /// Why it can't be told whether that is complete; `None` when it is.
    pub unchecked: Option<&'static str>,
    /// Whether something around it would have shown a changed byte. Without, only its
    /// structure was checked.
    pub checksummed: bool,
    /// What is inside, of an archive.
    pub inventory: Option<Inventory>,
}

/// Looks into the parts that have a structure.
fn inspector(role: PartRole) -> Option<Box<dyn Inspector>> {
    match role {
        PartRole::Database => Some(Box::new(ArchiveInspector(ArchiveCheck::new()))),
        _ => None,
    }
}

struct ArchiveInspector(ArchiveCheck);

impl Inspector for ArchiveInspector {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.0.clone())
    }

    fn inventory(&self) -> Option<Inventory> {
        self.0.summary().map(|summary| summary.inventory())
    }
}
