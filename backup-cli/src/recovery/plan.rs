//! What a recovery would bring back, and what is in its way.

use std::collections::BTreeMap;

use backup_core::pipeline::Context;
use backup_core::{BackupReader, Catalog, CatalogEntry, Error, ErrorKind, PartRole, Query, Result};
use backup_files::FilesTarget;
use secrecy::{ExposeSecret, SecretString};

use crate::config::Value;
use crate::files_restore::refuse_unknown_root;
use crate::swapping::url;
use crate::{Deployment, SwapTarget};

/// How a deployment is brought back.
#[derive(Debug, Clone, Default)]
pub struct RecoverOptions {
    /// Only this job.
    pub job: Option<String>,
    /// A database of the new server, as a role that may create databases and roles. Without it
    /// each job's own `postgres.url` counts.
    pub to: Option<Value>,
    /// Where files go.
    pub files: Option<FilesTarget>,
    /// Go on though nothing proves who wrote a backup.
    pub accept_unsigned: bool,
}

/// What a recovery brings back, in its order.
#[derive(Debug)]
pub struct RecoveryPlan {
    /// The jobs: databases first.
    pub jobs: Vec<PlannedJob>,
    /// Jobs of the configuration that no storage has a backup of: they do not come back. Empty
    /// where one job was asked for.
    pub missing: Vec<String>,
}

/// The newest backup of a job, and where its parts go.
#[derive(Debug)]
pub struct PlannedJob {
    /// The backup.
    pub entry: CatalogEntry,
    /// The database it is restored into: its name, and the connection to it.
    pub(super) database: Option<(String, Value)>,
    /// Whether it brings roles.
    pub has_globals: bool,
    /// Whether it brings files.
    pub has_files: bool,
}

impl PlannedJob {
    /// The database it is restored into.
    pub fn database(&self) -> Option<&str> {
        self.database.as_ref().map(|(name, _)| name.as_str())
    }
}

impl Deployment {
    /// Finds the newest backup of each job in all storages, makes sure that each is ours and can
    /// be opened, and that nothing is in the way of any. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when a manifest is forged, a database that a backup would be
    /// restored into holds something, or files of a legacy backup would go in place; [`ErrorKind::Unchecked`] when a key is missing or a storage
    /// can't be read, since a newer backup may be there; [`ErrorKind::NotFound`] when there is
    /// no backup.
    pub async fn plan_recovery(
        &self,
        options: &RecoverOptions,
        context: &Context,
    ) -> Result<RecoveryPlan> {
        context.step("looking for the newest backups");
        let mut entries = context.cancel.guard(self.newest(options.job.as_deref())).await?;
        // Databases first: the services that files describe need them.
        entries.sort_by_key(|entry| entry.manifest.part(PartRole::Database).is_none());
        let missing = match options.job {
            Some(_) => Vec::new(),
            None => self.without_backup(&entries),
        };
        let mut jobs = Vec::new();
        for entry in entries {
            context.step(&format!("checking {} of job {}", entry.id, entry.manifest.job));
            let reader = self.reader(&entry, context).await?;
            context.cancel.guard(self.prove(&reader, options, context)).await?;
            jobs.push(self.place(entry, options).await?);
        }
        refuse_same_database(&jobs)?;
        for job in &jobs {
            if let Some((name, target)) = &job.database {
                let target = SwapTarget::Url(target.clone());
                if context.cancel.guard(self.is_in_use(&target)).await? {
                    return Err(in_the_way(name, job));
                }
            }
        }
        Ok(RecoveryPlan { jobs, missing })
    }

    /// The newest backup of each job.
    async fn newest(&self, job: Option<&str>) -> Result<Vec<CatalogEntry>> {
        let query = Query { job, limit: Some(1), ..Query::default() };
        let Catalog { backups, problems, .. } = self.catalog(&query).await?;
        let mut by_job: BTreeMap<String, Catalog> = BTreeMap::new();
        for entry in backups {
            let job = entry.manifest.job.clone();
            by_job.entry(job).or_default().backups.push(entry);
        }
        if let Some(problem) = problems.into_iter().next() {
            let message = format!(
                "storage {} could not be read in full: {}, so a newer backup may exist",
                problem.storage, problem.error
            );
            return Err(Error::new(ErrorKind::Unchecked, "recover", message)
                .next_step("make it readable, or leave it out: name the others with --from URL"));
        }
        if by_job.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "recover", "there is no backup")
                .next_step("name the storage that holds them with --from URL: the folder above that of the job"));
        }
        let mut newest = Vec::new();
        for (_, mut catalog) in by_job {
            let id = catalog.find("latest")?.id;
            newest.extend(catalog.backups.drain(..).find(|entry| entry.id == id));
        }
        Ok(newest)
    }

    /// The jobs of the configuration that none of these is of.
    fn without_backup(&self, entries: &[CatalogEntry]) -> Vec<String> {
        let is_there = |job: &&String| entries.iter().any(|entry| entry.manifest.job == **job);
        self.config().job.keys().filter(|job| !is_there(job)).cloned().collect()
    }

    /// Opens what can be opened, and then asks whose it is: with a wrong key every signature
    /// looks forged.
    async fn prove(
        &self,
        reader: &BackupReader,
        options: &RecoverOptions,
        context: &Context,
    ) -> Result<()> {
        reader.contents(context).await?;
        self.check_origin(reader, options.accept_unsigned, context).await
    }

    /// Where the parts of a backup go.
    async fn place(&self, entry: CatalogEntry, options: &RecoverOptions) -> Result<PlannedJob> {
        let manifest = &entry.manifest;
        let has_files = manifest.part(PartRole::Files).is_some();
        if has_files && options.files.is_none() {
            let message = format!("job {} holds files, and it is not said where to", manifest.job);
            return Err(Error::usage("recover", message).next_step(
                "say --in-place to put them where they were, --config-out DIR to look at them \
                 first, or --job NAME for another job alone",
            ));
        }
        if let Some(target) = options.files.as_ref().filter(|_| has_files) {
            let next = "put all files into a folder with --config-out DIR, look, and copy them; or \
                        recover the other jobs one by one with --job NAME";
            refuse_unknown_root(manifest, target, "recover", next)?;
        }
        let database = match manifest.part(PartRole::Database) {
            None => None,
            Some(_) => {
                let name = manifest.source.database.clone();
                let target = self.target(&manifest.job, &name, options).await?;
                Some((name, target))
            }
        };
        let has_globals = manifest.part(PartRole::Globals).is_some();
        Ok(PlannedJob { entry, database, has_globals, has_files })
    }

    /// The connection to the database `name`, on the server that is said or the job's own.
    async fn target(&self, job: &str, name: &str, options: &RecoverOptions) -> Result<Value> {
        let Some(to) = &options.to else {
            let config = self.config().job.get(job).and_then(|job| job.postgres.as_ref());
            return config.map(|postgres| postgres.url.clone()).ok_or_else(|| {
                Error::usage("recover", format!("it is not said where database {name:?} goes"))
                    .next_step("name the new server with --to postgresql://user@host/postgres")
            });
        };
        let text: SecretString = to.fetch("target", self.environment()).await?;
        let text = url::with_database(&text, name)?;
        Ok(Value::Literal(text.expose_secret().to_owned()))
    }
}

/// Two jobs of two servers may have had databases of one name.
fn refuse_same_database(jobs: &[PlannedJob]) -> Result<()> {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for job in jobs {
        let Some(name) = job.database() else { continue };
        if let Some(other) = taken.insert(name, &job.entry.manifest.job) {
            let message = format!(
                "jobs {other} and {} both hold a database {name:?}",
                job.entry.manifest.job
            );
            return Err(Error::refused("recover", message)
                .next_step("recover them one by one with --job NAME, onto different servers"));
        }
    }
    Ok(())
}

fn in_the_way(name: &str, job: &PlannedJob) -> Error {
    let (id, job) = (job.entry.id, &job.entry.manifest.job);
    Error::refused("recover", format!("database {name:?} is there already, and holds something"))
        .next_step(format!(
            "if an earlier recovery made it, go on with the other jobs: --job NAME; to replace it, \
             `marb-backup restore {id} --job {job} --to URL --swap`"
        ))
}
