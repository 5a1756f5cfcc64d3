//! Where a restore's bytes come from: a backup whose origin was checked, or a plain file.

use std::path::Path;
use std::sync::Arc;

use backup_core::pipeline::{self, Context, Flow, Limits};
use backup_core::{
    BackupReader, CatalogEntry, Contents, Decoders, Error, ErrorKind, Inventory, Manifest, Origin,
    Part, PartAt, PartRole, Result, Sink,
};
use backup_pg::{
    ArchiveCheck, ArchiveSummary, COMMIT_TIMEOUT, Globals, SelectedArchive, Selection,
};

use crate::restoring::{CHUNK_TIMEOUT, RestoreOptions};
use crate::{Content, Deployment, ForeignFile, RestoreFrom};

/// A pg_dump archive that can be read, more than once.
pub(crate) struct OpenedSource {
    /// The backup's id, or the file.
    pub label: String,
    /// Roles to create, where the backup has them and they are wanted.
    pub globals: Option<Globals>,
    /// Bytes of the archive, where that is known.
    pub plain_bytes: Option<u64>,
    /// What one must know about it.
    pub notes: Vec<String>,
    kind: Kind,
}

enum Kind {
    Backup {
        reader: Box<BackupReader>,
        part: Part,
        contents: Box<Contents>,
        /// The same part, where some tables are wanted and can be read without the others.
        at_any_place: Option<Arc<PartAt>>,
    },
    File {
        file: ForeignFile,
        decoders: Decoders,
    },
}

impl Deployment {
    /// Opens what a restore reads.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when nothing proves who wrote a backup, [`ErrorKind::Usage`] when a
    /// file holds something else than an archive.
    pub(crate) async fn open_source(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<OpenedSource> {
        match from {
            RestoreFrom::Backup(entry) => self.open_backup(entry, options, context).await,
            RestoreFrom::File(path) => self.open_file(path, context).await,
        }
    }

    /// The same for a restore that is to last: tells of another version of the application, and
    /// of files that the backup holds as well.
    pub(crate) async fn open_for_restore(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<OpenedSource> {
        let mut source = self.open_source(from, options, context).await?;
        let Some((reader, ..)) = source.backup() else { return Ok(source) };
        let manifest = reader.manifest();
        self.warn_of_other_version(manifest, context).await;
        if manifest.part(PartRole::Files).is_some() {
            let id = &manifest.id;
            source.notes.push(format!(
                "the backup holds files, too: marb-backup restore {id} --into FOLDER"
            ));
        }
        Ok(source)
    }

    async fn open_backup(
        &self,
        entry: &CatalogEntry,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<OpenedSource> {
        let (reader, contents) = self.reader_with_contents(entry, context).await?;
        let manifest = reader.manifest();
        let part = manifest.part(PartRole::Database).cloned();
        let part = part.ok_or_else(|| no_database(manifest))?;
        let says_where =
            contents.part(&part.name).is_some_and(|p| !p.inventory.data_blocks.is_empty());
        let tables = async {
            match options.selection {
                Some(_) if says_where => reader.at_any_place(&part, &contents).await,
                _ => Ok(None),
            }
        };
        let origin = self.check_origin(&reader, options.accept_unsigned, context);
        let (origin, tables) = tokio::join!(origin, tables);
        origin?;
        let at_any_place = match tables {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                context.warn(&format!("{}; all of it is read", error.message()));
                None
            }
            tables => tables?.map(Arc::new),
        };
        let globals = match reader.manifest().part(PartRole::Globals) {
            Some(part) if options.globals => {
                Some(globals(&reader.read_part(part, Some(&contents), context).await?)?)
            }
            _ => None,
        };
        Ok(OpenedSource {
            label: entry.id.to_string(),
            globals,
            plain_bytes: contents.part(&part.name).map(|plain| plain.bytes),
            notes: Vec::new(),
            kind: Kind::Backup {
                at_any_place,
                reader: Box::new(reader),
                part,
                contents: Box::new(contents),
            },
        })
    }

    /// Refuses a backup that nothing proves to be ours.
    ///
    /// With a wrong passphrase the contents can't be opened: that is "could not check", and is
    /// to be tried before. A signature that is wrong though the key is right is a forgery.
    pub(crate) async fn check_origin(
        &self,
        reader: &BackupReader,
        accept_unsigned: bool,
        context: &Context,
    ) -> Result<()> {
        let keys = self.keys().await?;
        let authenticate = keys.authenticate();
        match reader.origin(authenticate.as_deref()).await? {
            Origin::Proven => Ok(()),
            // Who uses no keys at all has nothing that could prove it.
            Origin::Unsigned if keys.is_empty() && !reader.manifest().is_encrypted() => Ok(()),
            unproven if accept_unsigned => {
                context.warn(&format!("going on as told, though {}", unproven.error().message()));
                Ok(())
            }
            unproven => Err(unproven.error()),
        }
    }

    async fn open_file(&self, path: &Path, context: &Context) -> Result<OpenedSource> {
        let decoders = self.keys().await?.decoders();
        let file = ForeignFile::recognise(path, &decoders, context).await?;
        if file.content != Content::Archive {
            return Err(cannot_restore(&file));
        }
        let mut notes = vec!["a plain file carries no roles; those it needs were there".to_owned()];
        if !file.has_checksum() {
            notes.push(
                "the file carries no checksum: a changed byte inside a value would not be noticed"
                    .to_owned(),
            );
        }
        Ok(OpenedSource {
            label: path.display().to_string(),
            globals: None,
            plain_bytes: None,
            notes,
            kind: Kind::File { file, decoders },
        })
    }
}

impl OpenedSource {
    /// The backup that it is, with the part that holds the archive; `None` for a plain file.
    pub fn backup(&self) -> Option<(&BackupReader, &Part, &Contents)> {
        match &self.kind {
            Kind::Backup { reader, part, contents, .. } => Some((reader, part, contents)),
            Kind::File { .. } => None,
        }
    }

    /// What the backup says is inside; `None` for a plain file.
    pub fn inventory(&self) -> Option<&Inventory> {
        match &self.kind {
            Kind::Backup { part, contents, .. } => {
                contents.part(&part.name).map(|plain| &plain.inventory)
            }
            Kind::File { .. } => None,
        }
    }

    /// Version of the server that was backed up; `None` for a plain file.
    pub fn server_version(&self) -> Option<&str> {
        match &self.kind {
            Kind::Backup { reader, .. } => {
                reader.manifest().postgres.as_ref().map(|versions| versions.server.as_str())
            }
            Kind::File { .. } => None,
        }
    }

    /// Reads all of it into `sink`, which commits only when every byte was as it should be.
    ///
    /// # Errors
    /// The first cause, with the other copies of damaged data.
    pub async fn read_into(&self, sink: Arc<dyn Sink>, context: &Context) -> Result<()> {
        match &self.kind {
            Kind::Backup { reader, part, contents, .. } => {
                let flow = reader.flow(part, Some(contents), sink)?;
                run(flow, context).await.map_err(|error| reader.advise(error))
            }
            Kind::File { file, decoders } => run(file.flow(decoders, sink)?, context).await,
        }
    }

    /// Reads some tables of it into `sink`: of a backup that allows it no more than their bytes, each
    /// checked; else all of it. Gives what one must know of what was not read.
    ///
    /// # Errors
    /// As [`OpenedSource::read_into`].
    pub async fn read_tables_into(
        &self,
        selection: &Selection,
        sink: Arc<dyn Sink>,
        context: &Context,
    ) -> Result<Option<String>> {
        let (Kind::Backup { part, at_any_place: Some(archive), .. }, Some(inventory)) =
            (&self.kind, self.inventory())
        else {
            self.read_into(sink, context).await?;
            return Ok(None);
        };
        let (archive, blocks) = (Arc::clone(archive), inventory.data_blocks.clone());
        let tables = SelectedArchive::new(archive, blocks, selection.clone());
        let name = format!("tables of {}", part.name);
        run(Flow::new(name, Arc::new(tables), sink), context).await?;
        let note = "of the backup only these tables were read, and checked; verify reads all of it";
        Ok(Some(note.to_owned()))
    }

    /// Reads and checks all of it, and keeps what it says it contains.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self, context: &Context) -> Result<ArchiveSummary> {
        let check = ArchiveCheck::new();
        self.read_into(Arc::new(check.clone()), context).await?;
        check.summary().ok_or_else(|| {
            Error::failed("restore", "it was read without a summary; please report this")
        })
    }
}

fn no_database(manifest: &Manifest) -> Error {
    let error = Error::new(ErrorKind::NotFound, "restore", "the backup holds no database");
    match manifest.part(PartRole::Files) {
        Some(_) => error.next_step("for its files say --into FOLDER, or --files --in-place"),
        None => error,
    }
}

async fn run(flow: Flow, context: &Context) -> Result<()> {
    // The rest after the last byte (indexes, constraints, the comparison) takes long.
    let limits = Limits { sink_stall: CHUNK_TIMEOUT, commit: COMMIT_TIMEOUT, ..Limits::default() };
    pipeline::run(Flow { limits, ..flow }, context).await.map(|_| ())
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
        Content::Files => (
            "a tar archive of files",
            "tar --xattrs --xattrs-include='*' --acls -xpf FILE -C FOLDER",
        ),
        Content::Archive | Content::Unknown => (
            "no pg_dump archive",
            "name a file that pg_dump --format=custom wrote, whatever compressed or encrypted it",
        ),
    };
    Error::usage("restore", format!("{path} holds {what}")).next_step(next_step)
}
