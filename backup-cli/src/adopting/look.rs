//! An old file read through all its layers to its end: what it is, and whether it is whole.

use std::sync::Arc;

use backup_core::pipeline::{self, Context};
use backup_core::{
    Decoders, Digest, Error, Inventory, LegacyFile, PASSPHRASE_KEY, PartContents, PartRole,
    PostgresVersions, Result, SourceIdentity,
};
use backup_files::{Dialect, FilesCheck};
use backup_pg::{ArchiveCheck, ArchiveSummary};

use super::{Adopting, OldFile};
use crate::{Content, FileSource, ForeignFile, wiring};

/// Who can open a file that the passphrase does not, where no recipient is configured.
const PRIVATE_KEY: &str = "private key";

/// A file that is whole.
pub(super) struct Looked {
    pub legacy: LegacyFile,
    /// As far as a file can tell it.
    pub source: SourceIdentity,
    pub postgres: Option<PostgresVersions>,
}

/// What lies under a file's layers.
struct Plain {
    digest: Digest,
    inventory: Inventory,
    source: SourceIdentity,
    postgres: Option<PostgresVersions>,
    /// Whether the content itself would show a byte that changed.
    has_checksum: bool,
}

impl Adopting<'_> {
    /// Reads a file to its end; `Err` inside when it is of a kind that can't be taken over.
    pub(super) async fn look(
        &self,
        file: &OldFile,
        job: &str,
        stored: Digest,
        context: &Context,
    ) -> Result<Result<Looked, &'static str>> {
        let decoders = self.keys.decoders();
        let foreign = ForeignFile::recognise(&file.path, &decoders, context).await?;
        let is_wanted = match foreign.content {
            Content::Archive => !file.is_config,
            Content::Files => file.is_config,
            Content::Sql if !file.is_config => return Ok(Err("is SQL text: load it with psql")),
            Content::TarArchive if !file.is_config => {
                return Ok(Err("is an archive in tar format: use pg_restore"));
            }
            Content::Sql | Content::TarArchive | Content::Unknown => false,
        };
        if !is_wanted {
            let what = if file.is_config { "tar archive of files" } else { "pg_dump archive" };
            return Err(Error::damaged("file", format!("what it holds is no {what}"))
                .next_step("whatever wrote it failed; use another backup"));
        }
        self.refuse_plaintext(&foreign, job)?;
        let plain = match file.is_config {
            false => dump(&foreign, &decoders, context).await?,
            true => files(&foreign, &decoders, context).await?,
        };
        let mut notes = vec![format!("taken over from {}, which other scripts wrote", file.name)];
        if !foreign.has_checksum() && !plain.has_checksum {
            notes.push(
                "nothing around the archive would have shown a byte that changed before".into(),
            );
        }
        let legacy = LegacyFile {
            file: file.name.clone(),
            role: if file.is_config { PartRole::Files } else { PartRole::Database },
            transforms: foreign.layers.iter().rev().map(|&layer| layer.to_owned()).collect(),
            keys: self.who_can_open(&foreign, context).await,
            source: Arc::new(FileSource::new(&file.path)),
            stored,
            plain: PartContents {
                name: file.plain_name.clone(),
                bytes: plain.digest.bytes,
                sha256: plain.digest.sha256,
                inventory: plain.inventory,
                frames: None,
            },
            notes,
        };
        Ok(Ok(Looked { legacy, source: plain.source, postgres: plain.postgres }))
    }

    /// What is not encrypted must not leave this host by accident.
    fn refuse_plaintext(&self, foreign: &ForeignFile, job: &str) -> Result<()> {
        let config = self.deployment.config();
        let stays = config
            .storage
            .get(&self.options.storage)
            .is_none_or(|storage| storage.url.starts_with("file:"));
        let allowed = config.job.get(job).is_some_and(|job| job.allow_plaintext);
        if stays || allowed || foreign.layers.contains(&"openpgp") {
            return Ok(());
        }
        Err(Error::refused("file", "it is not encrypted, and the storage is not on this host")
            .next_step("add `allow_plaintext = true` to the job, or adopt to a file:// storage"))
    }

    /// The passphrase opens it, or a private key does.
    async fn who_can_open(&self, foreign: &ForeignFile, context: &Context) -> Vec<String> {
        if !foreign.layers.contains(&"openpgp") {
            return Vec::new();
        }
        if let Some(openpgp) = self.keys.passphrase_transform() {
            let decoders = Decoders::default().with(Arc::new(openpgp));
            let decoders = wiring::codecs().into_iter().fold(decoders, Decoders::with);
            if ForeignFile::recognise(&foreign.path, &decoders, context).await.is_ok() {
                return vec![PASSPHRASE_KEY.to_owned()];
            }
        }
        let mut recipients = self.keys.labels();
        recipients.retain(|label| label != PASSPHRASE_KEY);
        if recipients.is_empty() { vec![PRIVATE_KEY.to_owned()] } else { recipients }
    }
}

async fn dump(foreign: &ForeignFile, decoders: &Decoders, context: &Context) -> Result<Plain> {
    let archive = ArchiveCheck::new();
    let read = pipeline::run(foreign.flow(decoders, Arc::new(archive.clone()))?, context).await?;
    let summary = archive.summary().ok_or_else(not_read)?;
    let database = summary.toc().header.database.clone();
    Ok(Plain {
        digest: read.written,
        inventory: summary.inventory(),
        source: SourceIdentity { database, ..SourceIdentity::default() },
        postgres: Some(versions(&summary)),
        has_checksum: summary.has_checksum(),
    })
}

/// Nothing in a tar archive tells whose files they are.
async fn files(foreign: &ForeignFile, decoders: &Decoders, context: &Context) -> Result<Plain> {
    let check = FilesCheck::new(Dialect::Stock);
    let read = pipeline::run(foreign.flow(decoders, Arc::new(check.clone()))?, context).await?;
    let contents = check.contents().ok_or_else(not_read)?;
    Ok(Plain {
        digest: read.written,
        inventory: Inventory { files: Some(contents), ..Inventory::default() },
        source: SourceIdentity::default(),
        postgres: None,
        has_checksum: false,
    })
}

fn not_read() -> Error {
    Error::failed("file", "was not read")
}

fn versions(summary: &ArchiveSummary) -> PostgresVersions {
    let header = &summary.toc().header;
    PostgresVersions {
        server: number_of(&header.server_version),
        pg_dump: number_of(&header.dump_version),
        archive: Some(summary.archive_version()),
    }
}

/// `15.18` of `15.18 (Debian 15.18-0+deb12u1)`.
fn number_of(version: &str) -> String {
    version.split_whitespace().next().unwrap_or_default().to_owned()
}
