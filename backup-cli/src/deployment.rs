//! What is to be backed up, where to and with which keys: the configuration, made usable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::pipeline::Policy;
use backup_core::{Catalog, Error, Problem, Query, ReaderMarks, Result, Storage, Unopened};
use backup_pg::ToolSearch;

use crate::config::{Config, Environment, JobConfig, ObjectsConfig, PostgresConfig};
use crate::wiring;

/// The entry point for an application: a configuration and an environment, and the verbs on
/// them. Owns neither process nor terminal; may exist several times.
#[derive(Debug, Clone)]
pub struct Deployment {
    config: Config,
    environment: Environment,
    marks: ReaderMarks,
}

impl Deployment {
    /// Takes a configuration and the environment it may refer to; reads the `.env` file that
    /// the configuration names.
    ///
    /// # Errors
    /// When that file can't be read.
    pub fn new(config: Config, environment: Environment) -> Result<Self> {
        let environment = match &config.env_file {
            Some(path) => environment.with_env_file(path)?,
            None => environment,
        };
        Ok(Self { config, environment, marks: ReaderMarks::default() })
    }

    /// Counts the marks that it leaves beside backups while it reads them among `marks`, so that
    /// who ends the process can [wait](ReaderMarks::settled) for them to be gone.
    #[must_use]
    pub fn with_marks(mut self, marks: ReaderMarks) -> Self {
        self.marks = marks;
        self
    }

    pub(crate) fn marks(&self) -> &ReaderMarks {
        &self.marks
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The environment.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Where locks and confirmations are kept.
    pub fn state_dir(&self) -> PathBuf {
        let is_root = rustix::process::geteuid().is_root();
        let default = || self.environment.default_state_dir(is_root);
        self.config.state_dir.clone().unwrap_or_else(default)
    }

    /// Where PostgreSQL's client programs are looked for.
    pub fn tool_search(&self) -> ToolSearch {
        ToolSearch {
            configured: self.config.postgres_bin_dir.clone(),
            path: self.environment.path(),
            extra: Vec::new(),
        }
    }

    /// A job by its name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when there is none.
    pub fn job(&self, name: &str) -> Result<&JobConfig> {
        self.config.job.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.config.job.keys().map(String::as_str).collect();
            Error::usage("config", format!("there is no job {name:?}"))
                .next_step(format!("the config has: {}", known.join(", ")))
        })
    }

    /// The database that a job backs up.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when there is no such job, or it
    /// backs up none.
    pub fn database_of(&self, job: &str) -> Result<&PostgresConfig> {
        self.job(job)?.postgres.as_ref().ok_or_else(|| {
            Error::usage("config", format!("job {job:?} backs up no database"))
                .next_step("name a job that has a `postgres` key")
        })
    }

    /// Opens one storage; what is written there is kept as `job` says.
    ///
    /// # Errors
    /// When it isn't configured, its URL or an option is wrong, or a secret can't be fetched.
    pub async fn storage(&self, name: &str, job: Option<&str>) -> Result<Arc<dyn Storage>> {
        let storage = self.config.storage.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.config.storage.keys().map(String::as_str).collect();
            Error::usage("config", format!("there is no storage {name:?}"))
                .next_step(format!("the config has: {}", known.join(", ")))
        })?;
        wiring::storage(name, storage, &self.objects(name, job), self.environment()).await
    }

    /// How objects are kept in a storage, as `job` says and behind it the storage.
    pub(crate) fn objects(&self, storage: &str, job: Option<&str>) -> ObjectsConfig {
        let general = self.config.storage.get(storage).map(|storage| &storage.objects);
        let general = general.cloned().unwrap_or_default();
        let job = job.and_then(|job| self.config.job.get(job));
        match job.and_then(|job| job.objects.get(storage)) {
            Some(ours) => ours.over(&general),
            None => general,
        }
    }

    /// Opens the storages of a job, to be written as it says, or all of them. Those of this host
    /// come first: of several copies the nearest is read.
    ///
    /// # Errors
    /// As [`Deployment::storage`], and when there is none at all.
    pub async fn storages(&self, job: Option<&str>) -> Result<Vec<Arc<dyn Storage>>> {
        let mut storages = Vec::new();
        for name in self.names_by_distance(job)? {
            storages.push(self.storage(name, job).await?);
        }
        Ok(storages)
    }

    /// Opens the storages that a run of `job` writes to. One that can't be opened is there as an
    /// [`Unopened`] where `policy` can do without it: it is missed, and told, like one that is
    /// down.
    ///
    /// # Errors
    /// As [`Deployment::storages`], when fewer can be opened than the policy requires.
    pub(crate) async fn storages_to_fill(
        &self,
        job: &str,
        policy: Policy,
    ) -> Result<Vec<Arc<dyn Storage>>> {
        let names = self.names_by_distance(Some(job))?;
        let mut spare = names.len() - policy.required(names.len());
        let mut storages: Vec<Arc<dyn Storage>> = Vec::new();
        for name in names {
            match self.storage(name, Some(job)).await {
                Ok(storage) => storages.push(storage),
                Err(error) if spare > 0 => {
                    spare -= 1;
                    storages.push(Arc::new(Unopened::new(name, error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(storages)
    }

    fn names_by_distance(&self, job: Option<&str>) -> Result<Vec<&String>> {
        let mut names: Vec<&String> = match job.and_then(|job| self.config.job.get(job)) {
            Some(job) => job.storages.iter().collect(),
            None => self.config.storage.keys().collect(),
        };
        if names.is_empty() {
            return Err(Error::usage("config", "there is no storage")
                .next_step("add a [storage.NAME] to the config, or name one with --from URL"));
        }
        let is_near = |name: &String| {
            self.config.storage.get(name).is_some_and(|storage| storage.url.starts_with("file:"))
        };
        names.sort_by_key(|name| !is_near(name));
        Ok(names)
    }

    /// Opens every storage that can be opened: what is wrong with one must not keep a backup from
    /// being read from another.
    ///
    /// # Errors
    /// When not one can be opened.
    pub(crate) async fn readable_storages(&self) -> Result<(Vec<Arc<dyn Storage>>, Vec<Problem>)> {
        self.openable_storages(None).await
    }

    /// The same of a job's storages, to be written as it says, or of all.
    pub(crate) async fn openable_storages(
        &self,
        job: Option<&str>,
    ) -> Result<(Vec<Arc<dyn Storage>>, Vec<Problem>)> {
        let (mut open, mut problems) = (Vec::new(), Vec::new());
        for name in self.names_by_distance(job)? {
            match self.storage(name, job).await {
                Ok(storage) => open.push(storage),
                Err(error) => problems.push(Problem { storage: name.clone(), error }),
            }
        }
        if open.is_empty() {
            return problems.pop().map_or(Ok((open, Vec::new())), |problem| Err(problem.error));
        }
        Ok((open, problems))
    }

    /// What backups there are: those that `query` asks for.
    ///
    /// # Errors
    /// When the configuration is wrong. A storage that can't be read is one of the catalog's
    /// problems, not an error.
    pub async fn catalog(&self, query: &Query<'_>) -> Result<Catalog> {
        // All of them: `sync` may have brought copies to storages that the job does not name.
        let (storages, problems) = self.readable_storages().await?;
        let mut catalog = Catalog::query(&storages, query).await;
        catalog.unreachable.extend(problems.iter().map(|problem| problem.storage.clone()));
        catalog.problems.extend(problems);
        for entry in &mut catalog.backups {
            // A storage that the job does not name is no place where its backups are missing.
            if let Some(job) = self.config.job.get(&entry.manifest.job) {
                entry.missing_in.retain(|storage| job.storages.contains(storage));
                entry.unknown_in.retain(|storage| job.storages.contains(storage));
            }
        }
        Ok(catalog)
    }

    /// A file of the state folder.
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.state_dir().join(Path::new(name))
    }
}
