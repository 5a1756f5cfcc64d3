//! `adopt`: what the old scripts wrote becomes backups of a job.
//!
//! Each old dump is read to its end first. What is whole is stored as it is, with a manifest; what
//! is not is named and stays where it is. The originals are only ever read.

mod files;
mod held;

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::pipeline::{self, Context, Limits, Policy};
use backup_core::{
    BackupId, BackupPlan, Decoders, Digest, Discard, Error, ErrorKind, InMemory, LEGACY,
    LegacyFile, PASSPHRASE_KEY, PartContents, PartPlan, PartRole, PostgresVersions, Result,
    SourceIdentity, Storage, take_over,
};
use backup_pg::{ArchiveCheck, ArchiveSummary};
use jiff::tz::TimeZone;

use crate::config::DEFAULT_TIMEOUT;
use crate::keys::Keys;
use crate::lock::JobLock;
use crate::{Content, Deployment, FileSource, ForeignFile, TOOL, wiring};

pub use files::{OldFile, old_files};
use held::HeldFiles;

/// Compression of what lies beside the dump, where no job says.
const COMPRESSION: &str = "zstd";
/// Who can open a dump that the passphrase does not, where no recipient is configured.
const PRIVATE_KEY: &str = "private key";

/// What is taken over, and where to.
#[derive(Debug, Clone)]
pub struct AdoptOptions {
    /// The folder of the old scripts.
    pub folder: PathBuf,
    /// The job whose backups they become.
    pub job: String,
    /// Name of the storage.
    pub storage: String,
    /// Where the old host's clock stood: file names hold local time.
    pub time_zone: TimeZone,
    /// Do it, not only look.
    pub apply: bool,
}

/// What becomes of one old file.
#[derive(Debug)]
pub enum Fate {
    /// It can be taken over.
    Whole,
    /// It was taken over as this backup.
    Adopted(BackupId),
    /// It is a backup already, whole in that storage.
    There(BackupId),
    /// It is none of the dumps that can be.
    Other(&'static str),
    /// It can't be taken over.
    Failed(Error),
}

/// What was found in the folder, oldest first.
#[derive(Debug)]
pub struct Adoption {
    /// Each old file and what becomes of it.
    pub files: Vec<(OldFile, Fate)>,
}

impl Deployment {
    /// Looks at what the old scripts wrote, all of it, and takes over what is whole when told so.
    ///
    /// # Errors
    /// When the folder or the storage can't be read, or when interrupted. What is wrong with a
    /// single file is its fate.
    pub async fn adopt(&self, options: &AdoptOptions, context: &Context) -> Result<Adoption> {
        let _lock = match options.apply {
            true => Some(JobLock::take(&self.state_dir(), &options.job)?),
            false => None,
        };
        let storage = self.storage(&options.storage, Some(&options.job)).await?;
        let keys = self.keys().await?;
        let mut held = HeldFiles::look(self, &storage, &options.job, context).await?;
        let mut adoption = Adoption { files: Vec::new() };
        for file in old_files(&options.folder, &options.time_zone)? {
            let looked = Looking { deployment: self, options, keys: &keys, storage: &storage };
            let fate = match looked.fate(&file, &mut held, context).await {
                Ok(fate) => fate,
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => Fate::Failed(error),
            };
            adoption.files.push((file, fate));
        }
        Ok(adoption)
    }
}

struct Looking<'a> {
    deployment: &'a Deployment,
    options: &'a AdoptOptions,
    keys: &'a Keys,
    storage: &'a Arc<dyn Storage>,
}

impl Looking<'_> {
    async fn fate(&self, file: &OldFile, held: &mut HeldFiles, context: &Context) -> Result<Fate> {
        if file.is_config {
            return Ok(Fate::Other("holds configuration files, no database"));
        }
        let name = file.name.clone();
        let read =
            pipeline::Flow::new(name, Arc::new(FileSource::new(&file.path)), Arc::new(Discard));
        let stored = pipeline::run(read, &context.without_progress()).await?.read;
        if stored.bytes == 0 {
            return Err(Error::damaged("file", "it is empty")
                .next_step("whatever wrote it failed; use another backup"));
        }
        if let Some(id) = held.find(&stored.sha256)? {
            return Ok(Fate::There(id));
        }
        let legacy = match self.read(file, stored, context).await? {
            Ok(legacy) => legacy,
            Err(other) => return Ok(Fate::Other(other)),
        };
        if !self.options.apply {
            return Ok(Fate::Whole);
        }
        let plan = self.plan(file, &legacy.1)?;
        let sha256 = legacy.0.stored.sha256.clone();
        let report = take_over(plan, &legacy.0, held.used(), context).await?;
        let id = report.manifest.backup_id()?;
        held.add(sha256, id);
        Ok(Fate::Adopted(id))
    }

    /// Reads a dump through all its layers to its end; `Err` inside when it is none.
    async fn read(
        &self,
        file: &OldFile,
        stored: Digest,
        context: &Context,
    ) -> Result<std::result::Result<(LegacyFile, ArchiveSummary), &'static str>> {
        let decoders = self.keys.decoders();
        let foreign = ForeignFile::recognise(&file.path, &decoders, context).await?;
        match foreign.content {
            Content::Archive => {}
            Content::Sql => return Ok(Err("is SQL text: load it with psql")),
            Content::TarArchive => return Ok(Err("is an archive in tar format: use pg_restore")),
            Content::Unknown => {
                return Err(Error::damaged("file", "what it holds is no pg_dump archive")
                    .next_step("whatever wrote it failed; use another backup"));
            }
        }
        self.refuse_plaintext(&foreign)?;
        let archive = ArchiveCheck::new();
        let read =
            pipeline::run(foreign.flow(&decoders, Arc::new(archive.clone()))?, context).await?;
        let summary = archive.summary().ok_or_else(|| Error::failed("file", "was not read"))?;
        let mut notes = vec![format!("taken over from {}, which other scripts wrote", file.name)];
        if !foreign.has_checksum() && !summary.has_checksum() {
            notes
                .push("nothing around the dump would have shown a byte that changed before".into());
        }
        let legacy = LegacyFile {
            file: file.name.clone(),
            role: PartRole::Database,
            transforms: foreign.layers.iter().rev().map(|&layer| layer.to_owned()).collect(),
            keys: self.who_can_open(&foreign, context).await,
            source: Arc::new(FileSource::new(&file.path)),
            stored,
            plain: PartContents {
                name: file.plain_name.clone(),
                bytes: read.written.bytes,
                sha256: read.written.sha256,
                inventory: summary.inventory(),
            },
            notes,
        };
        Ok(Ok((legacy, summary)))
    }

    /// What is not encrypted must not leave this host by accident.
    fn refuse_plaintext(&self, foreign: &ForeignFile) -> Result<()> {
        let config = self.deployment.config();
        let stays = config
            .storage
            .get(&self.options.storage)
            .is_none_or(|storage| storage.url.starts_with("file:"));
        let allowed = config.job.get(&self.options.job).is_some_and(|job| job.allow_plaintext);
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

    fn plan(&self, file: &OldFile, summary: &ArchiveSummary) -> Result<BackupPlan> {
        let job = self.deployment.config().job.get(&self.options.job);
        let labels = self.keys.labels();
        let encrypt = job.map_or(!labels.is_empty(), |job| job.encrypt);
        let compression = job.map_or(COMPRESSION, |job| &job.compression);
        let mut transforms = Vec::new();
        transforms.extend(wiring::compression(compression)?);
        if encrypt {
            transforms.push(Arc::new(self.keys.encryption()?) as _);
        }
        let header = &summary.toc().header;
        Ok(BackupPlan {
            job: self.options.job.clone(),
            kind: LEGACY.to_owned(),
            tool: format!("other scripts (taken over by {TOOL})"),
            host: wiring::host_name(),
            source: SourceIdentity { database: header.database.clone(), ..Default::default() },
            app_version: None,
            postgres: Some(PostgresVersions {
                server: number_of(&header.server_version),
                pg_dump: number_of(&header.dump_version),
                archive: Some(summary.archive_version()),
            }),
            parts: meta(file)?,
            transforms,
            keys: if encrypt { labels } else { Vec::new() },
            authenticate: self.keys.signer(),
            storages: vec![Arc::clone(self.storage)],
            policy: Policy::All,
            timeout: DEFAULT_TIMEOUT,
            limits: Limits::default(),
            adopt: true,
            notes: Vec::new(),
            rekeyed: None,
            started: file.time,
        })
    }
}

/// `15.18` of `15.18 (Debian 15.18-0+deb12u1)`.
fn number_of(version: &str) -> String {
    version.split_whitespace().next().unwrap_or_default().to_owned()
}

/// What the scripts wrote about the dump goes with it.
fn meta(file: &OldFile) -> Result<Vec<PartPlan>> {
    let Some(path) = &file.meta else { return Ok(Vec::new()) };
    let text = std::fs::read(path).map_err(|e| {
        Error::new(ErrorKind::Unchecked, "file", format!("{} can't be read", path.display()))
            .next_step("let this user read it")
            .caused_by(e)
    })?;
    Ok(vec![PartPlan {
        name: format!("{}.meta", file.plain_name),
        role: PartRole::Other,
        source: Arc::new(InMemory::new("meta", text)),
        estimated_bytes: None,
    }])
}
