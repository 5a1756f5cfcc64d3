//! `adopt`: what the old scripts wrote becomes backups of a job.
//!
//! Each old dump, and each archive of configuration files, is read to its end first. What is
//! whole is stored as it is, with a manifest; what is not is named and stays where it is. The
//! originals are only ever read.

mod files;
mod held;
mod look;

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::pipeline::{self, Context, Limits, Policy};
use backup_core::{
    BackupId, BackupPlan, Discard, Error, ErrorKind, InMemory, LEGACY, PartPlan, PartRole, Result,
    Storage, take_over,
};
use jiff::tz::TimeZone;

use crate::config::DEFAULT_TIMEOUT;
use crate::keys::Keys;
use crate::lock::JobLock;
use crate::{Deployment, FileSource, TOOL, wiring};

pub use files::{OldFile, old_files};
use held::HeldFiles;
use look::Looked;

/// Compression of what lies beside an old file, where no job says.
const COMPRESSION: &str = "zstd";

/// What is taken over, and where to.
#[derive(Debug, Clone)]
pub struct AdoptOptions {
    /// The folder of the old scripts.
    pub folder: PathBuf,
    /// The job whose backups the dumps become.
    pub job: String,
    /// The job whose backups the archives of configuration files become.
    pub files_job: Option<String>,
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
    /// It is none of the files that can be.
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
        self.refuse_job_of_a_database(options)?;
        let keys = self.keys().await?;
        let mut dumps = self.adopting_job(&options.job, options, context).await?;
        let mut configs = match &options.files_job {
            Some(job) => Some(self.adopting_job(job, options, context).await?),
            None => None,
        };
        let mut adoption = Adoption { files: Vec::new() };
        for file in old_files(&options.folder, &options.time_zone)? {
            let job = if file.is_config { configs.as_mut() } else { Some(&mut dumps) };
            let fate = match job {
                Some(job) => {
                    let adopting = Adopting { deployment: self, options, keys: &keys };
                    adopting.fate(&file, job, context).await
                }
                None => Err(without_job()),
            };
            let fate = match fate {
                Ok(fate) => fate,
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => Fate::Failed(error),
            };
            adoption.files.push((file, fate));
        }
        Ok(adoption)
    }

    /// The slots of one job are no place for dumps and files of the same nights: the dump would
    /// go where the files are the newer.
    fn refuse_job_of_a_database(&self, options: &AdoptOptions) -> Result<()> {
        let Some(name) = &options.files_job else { return Ok(()) };
        let has_database =
            self.config().job.get(name).is_some_and(|config| config.postgres.is_some());
        if *name != options.job && !has_database {
            return Ok(());
        }
        Err(Error::usage("adopt", format!("job {name:?} is that of a database"))
            .next_step("name a job with `files` alone as --files-job"))
    }

    async fn adopting_job(
        &self,
        name: &str,
        options: &AdoptOptions,
        context: &Context,
    ) -> Result<AdoptingJob> {
        let lock = match options.apply {
            true => Some(JobLock::take(&self.state_dir(), name)?),
            false => None,
        };
        let storage = self.storage(&options.storage, Some(name)).await?;
        let held = HeldFiles::look(self, &storage, name, context).await?;
        Ok(AdoptingJob { name: name.to_owned(), storage, held, _lock: lock })
    }
}

/// Why an archive of configuration files stays when no job is named for such.
fn without_job() -> Error {
    Error::usage("file", "it holds configuration files, and no job is named for them")
        .next_step("name a job with `files` alone: --files-job NAME")
}

/// A job that old files are taken over into.
struct AdoptingJob {
    name: String,
    storage: Arc<dyn Storage>,
    held: HeldFiles,
    _lock: Option<JobLock>,
}

struct Adopting<'a> {
    deployment: &'a Deployment,
    options: &'a AdoptOptions,
    keys: &'a Keys,
}

impl Adopting<'_> {
    async fn fate(&self, file: &OldFile, job: &mut AdoptingJob, context: &Context) -> Result<Fate> {
        let name = file.name.clone();
        let read =
            pipeline::Flow::new(name, Arc::new(FileSource::new(&file.path)), Arc::new(Discard));
        let stored = pipeline::run(read, &context.without_progress()).await?.read;
        if stored.bytes == 0 {
            return Err(Error::damaged("file", "it is empty")
                .next_step("whatever wrote it failed; use another backup"));
        }
        if let Some(id) = job.held.find(&stored.sha256)? {
            return Ok(Fate::There(id));
        }
        let sha256 = stored.sha256.clone();
        let looked = match self.look(file, &job.name, stored, context).await? {
            Ok(looked) => looked,
            Err(other) => return Ok(Fate::Other(other)),
        };
        if !self.options.apply {
            return Ok(Fate::Whole);
        }
        let plan = self.plan(file, job, &looked)?;
        let report = take_over(plan, &looked.legacy, job.held.used(), context).await?;
        let id = report.manifest.backup_id()?;
        job.held.add(sha256, id);
        Ok(Fate::Adopted(id))
    }

    fn plan(&self, file: &OldFile, into: &AdoptingJob, looked: &Looked) -> Result<BackupPlan> {
        let job = self.deployment.config().job.get(&into.name);
        let labels = self.keys.labels();
        let encrypt = job.map_or(!labels.is_empty(), |job| job.encrypt);
        let compression = job.map_or(COMPRESSION, |job| &job.compression);
        let mut transforms = Vec::new();
        transforms.extend(wiring::compression(compression)?);
        if encrypt {
            transforms.push(Arc::new(self.keys.encryption()?) as _);
        }
        Ok(BackupPlan {
            job: into.name.clone(),
            kind: LEGACY.to_owned(),
            tool: format!("other scripts (taken over by {TOOL})"),
            host: wiring::host_name(),
            source: looked.source.clone(),
            app_version: None,
            postgres: looked.postgres.clone(),
            parts: meta(file)?,
            transforms,
            keys: if encrypt { labels } else { Vec::new() },
            authenticate: self.keys.signer(),
            storages: vec![Arc::clone(&into.storage)],
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

/// What the scripts wrote about a file goes with it.
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
