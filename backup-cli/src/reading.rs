//! Reading backups back (`show`, `cat`), and plain files (`verify FILE`).

use std::path::Path;
use std::sync::Arc;

use backup_core::pipeline::{self, Context};
use backup_core::{BackupReader, CatalogEntry, Contents, Error, Inventory, Result, Sink};
use backup_files::{Dialect, FilesCheck};
use backup_pg::ArchiveCheck;

use crate::sql_check::SqlCheck;
use crate::{Content, Deployment, ForeignFile};

impl Deployment {
    /// Opens the best copy of a backup; another one stands by. `context` hears when it is needed.
    ///
    /// # Errors
    /// When no storage has all of it, or a configured key can't be read.
    pub async fn reader(&self, entry: &CatalogEntry, context: &Context) -> Result<BackupReader> {
        // Whatever is read from here on, a prune leaves alone meanwhile.
        Ok(self.unmarked_reader(entry, context).await?.marked(self.marks(), "read").await)
    }

    /// The same with the backup's contents: the mark is left while these are read.
    pub(crate) async fn reader_with_contents(
        &self,
        entry: &CatalogEntry,
        context: &Context,
    ) -> Result<(BackupReader, Contents)> {
        let reader = self.unmarked_reader(entry, context).await?;
        let marking = reader.clone().marked(self.marks(), "read");
        let (marked, contents) = tokio::join!(marking, reader.contents(context));
        Ok((marked, contents?))
    }

    async fn unmarked_reader(
        &self,
        entry: &CatalogEntry,
        context: &Context,
    ) -> Result<BackupReader> {
        let ((storages, _), keys) = (self.readable_storages().await?, self.keys().await?);
        Ok(BackupReader::best(entry, &storages, keys.decoders())?.telling(context))
    }

    /// Reads a plain file through all its layers, and its archive to the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn verify_file(&self, path: &Path, context: &Context) -> Result<FileCheck> {
        let decoders = self.keys().await?.decoders();
        let file = ForeignFile::recognise(path, &decoders, context).await?;
        let archive = ArchiveCheck::new();
        let files = FilesCheck::new(Dialect::Stock);
        let text = SqlCheck::default();
        let sink: Arc<dyn Sink> = match file.content {
            Content::Archive => Arc::new(archive.clone()),
            Content::Files => Arc::new(files.clone()),
            _ => Arc::new(text.clone()),
        };
        let outcome = pipeline::run(file.flow(&decoders, sink)?, context).await?;
        let (what, unchecked) = match file.content {
            Content::Archive => ("a pg_dump archive", None),
            Content::Files => ("a tar archive of files", None),
            Content::Sql => text.judge()?,
            Content::TarArchive => {
                ("a pg_dump archive in tar format", Some("this program does not read its entries"))
            }
            Content::Unknown if outcome.written.bytes == 0 => return Err(empty(path)),
            Content::Unknown => ("something else", Some("this program does not know its format")),
        };
        let of_files = |files| Inventory { files: Some(files), ..Inventory::default() };
        Ok(FileCheck {
            checksummed: file.has_checksum(),
            inventory: archive
                .summary()
                .map(|summary| summary.inventory())
                .or_else(|| files.contents().map(of_files)),
            plain_bytes: outcome.written.bytes,
            what,
            unchecked,
            file,
        })
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
