//! A recovery, step by step, with the time that each took.

use std::time::{Duration, Instant};

use backup_core::Result;
use backup_core::pipeline::Context;
use backup_files::FilesTarget;

use super::plan::{PlannedJob, RecoverOptions, RecoveryPlan};
use crate::config::{
    Argv, Config, DEFAULT_HEALTH_TIMEOUT, DEFAULT_HOOK_TIMEOUT, RestoreConfig, Value,
};
use crate::health::Health;
use crate::hooks::{DATABASE_URL, Hooks};
use crate::{Deployment, FilesRestoreOptions, RestoreOptions};

/// Where the configuration is among the files of a host, below its root.
const CONFIG_PATH: &str = "etc/marb-backup/config.toml";

/// What was brought back.
#[derive(Debug, Default)]
pub struct Recovered {
    /// What was done, in order.
    pub steps: Vec<RecoveredStep>,
    /// Roles that cannot log in until they get a password: the backup has none.
    pub cannot_log_in: Vec<String>,
    /// Jobs of the configuration that there was no backup of.
    pub missing: Vec<String>,
    /// Owners, ACLs and other attributes of files that could not be set, a line each.
    pub unset: Vec<String>,
    /// Whether there were migrations and they did not run: they do when exactly one database
    /// comes back.
    pub migrations_skipped: bool,
    /// What one must know, a line each.
    pub notes: Vec<String>,
    /// Whether the application said that it works; `None` when there was nobody to ask.
    pub healthy: Option<bool>,
    /// From the first step to the last.
    pub took: Duration,
}

/// One step, and how long it took.
#[derive(Debug, Clone)]
pub struct RecoveredStep {
    /// What it was.
    pub what: String,
    /// How long it took.
    pub took: Duration,
}

impl Deployment {
    /// Brings everything of the plan back: databases with their roles, then files, then the
    /// hooks `migrate` and `start` of the configuration (the one that was given, or the one
    /// among the files that came back), then asks the application whether it works.
    ///
    /// # Errors
    /// The first cause. What was done before it stays, and `told` has heard of it: each step is
    /// told when it ended.
    pub async fn recover(
        &self,
        plan: &RecoveryPlan,
        options: &RecoverOptions,
        told: &(dyn Fn(&RecoveredStep) + Sync),
        context: &Context,
    ) -> Result<Recovered> {
        let started = Instant::now();
        let done = Recovered { missing: plan.missing.clone(), ..Recovered::default() };
        let mut recovery = Recovery { deployment: self, plan, options, told, context, done };
        recovery.run().await?;
        Ok(Recovered { took: started.elapsed(), ..recovery.done })
    }
}

/// A recovery at work, and what it has done so far.
struct Recovery<'a> {
    deployment: &'a Deployment,
    plan: &'a RecoveryPlan,
    options: &'a RecoverOptions,
    told: &'a (dyn Fn(&RecoveredStep) + Sync),
    context: &'a Context,
    done: Recovered,
}

impl Recovery<'_> {
    async fn run(&mut self) -> Result<()> {
        for job in &self.plan.jobs {
            if let Some((name, target)) = &job.database {
                self.bring_database(job, name, target).await?;
            }
        }
        if let Some(target) = &self.options.files {
            for job in self.plan.jobs.iter().filter(|job| job.has_files) {
                self.bring_files(job, target).await?;
            }
        }
        match self.surroundings()? {
            Some(config) => self.bring_up(&config).await,
            None => Ok(()),
        }
    }

    async fn bring_database(&mut self, job: &PlannedJob, name: &str, target: &Value) -> Result<()> {
        let started = Instant::now();
        self.context.step(&format!("restoring database {name}"));
        let how = RestoreOptions {
            accept_unsigned: self.options.accept_unsigned,
            ..RestoreOptions::into_database(target.clone())
        };
        let summary = self.deployment.restore(&job.entry, &how, self.context).await?;
        let what = format!(
            "database {name} from {} of job {}: {} tables, {} rows compared, {} roles made",
            job.entry.id,
            job.entry.manifest.job,
            summary.tables_compared,
            summary.rows_compared,
            summary.roles_created.len()
        );
        self.done.cannot_log_in.extend(summary.cannot_log_in);
        self.done.notes.extend(summary.notes);
        self.ended(what, started);
        Ok(())
    }

    async fn bring_files(&mut self, job: &PlannedJob, target: &FilesTarget) -> Result<()> {
        let started = Instant::now();
        let how = FilesRestoreOptions {
            target: target.clone(),
            paths: Vec::new(),
            accept_unsigned: self.options.accept_unsigned,
        };
        let report = self.deployment.restore_files(&job.entry, &how, self.context).await?.report;
        let what = format!(
            "files from {} of job {}: {} made, {} replaced, {} as they were",
            job.entry.id, job.entry.manifest.job, report.created, report.replaced, report.unchanged
        );
        let aside = report.kept_aside.into_iter();
        self.done.notes.extend(aside.map(|path| format!("what was replaced is kept as {path}")));
        self.done.unset.extend(report.unset);
        self.ended(what, started);
        Ok(())
    }

    /// What surrounds the application: of the configuration that was given, else of the one
    /// that came back with the files.
    fn surroundings(&mut self) -> Result<Option<RestoreConfig>> {
        let given = &self.deployment.config().restore;
        if !is_empty(given) {
            return Ok(Some(given.clone()));
        }
        let has_files = self.plan.jobs.iter().any(|job| job.has_files);
        // What lies in a folder to be looked at is not where the services run.
        let Some(FilesTarget::InPlace(root)) = self.options.files.as_ref().filter(|_| has_files)
        else {
            return Ok(None);
        };
        let path = root.join(CONFIG_PATH);
        if !path.exists() {
            return Ok(None);
        }
        let config = Config::read(&path)?;
        let note = format!("hooks and health check are those of {}", path.display());
        self.done.notes.push(note);
        Ok(Some(config.restore).filter(|restore| !is_empty(restore)))
    }

    async fn bring_up(&mut self, config: &RestoreConfig) -> Result<()> {
        let limit = config.hook_timeout.unwrap_or(DEFAULT_HOOK_TIMEOUT);
        let hooks = Hooks::new(limit, config.directory.clone());
        let mut databases = self.plan.jobs.iter().filter_map(|job| job.database.as_ref());
        match (databases.next(), databases.next()) {
            (Some((_, target)), None) => {
                let url = target.fetch("target", self.deployment.environment()).await?;
                let migrating = hooks.clone().for_database(&[DATABASE_URL], &url);
                self.run_hooks(&migrating, "migrate", &config.migrate).await?;
            }
            _ if config.migrate.is_empty() => {}
            // Of several nobody can tell which is meant.
            _ => self.done.migrations_skipped = true,
        }
        self.run_hooks(&hooks, "start", &config.start).await?;
        if let Some(health) = &config.health {
            let started = Instant::now();
            self.context.step("waiting for the application");
            let limit = health.timeout.unwrap_or(DEFAULT_HEALTH_TIMEOUT);
            Health::new(&health.url, limit)?.wait(&self.context.cancel).await?;
            self.done.healthy = Some(true);
            self.ended("the application is healthy".to_owned(), started);
        }
        Ok(())
    }

    async fn run_hooks(&mut self, hooks: &Hooks, key: &str, all: &[Argv]) -> Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        for argv in all {
            let program = argv.first().map_or("", String::as_str);
            self.context.step(&format!("{key}: {program}"));
            hooks.run(key, argv, &self.context.cancel).await?;
        }
        self.ended(format!("hooks: {key}"), started);
        Ok(())
    }

    fn ended(&mut self, what: String, started: Instant) {
        let step = RecoveredStep { what, took: started.elapsed() };
        (self.told)(&step);
        self.done.steps.push(step);
    }
}

impl Recovered {
    /// Whether everything is back, and as it was.
    pub fn is_complete(&self) -> bool {
        self.cannot_log_in.is_empty()
            && self.missing.is_empty()
            && self.unset.is_empty()
            && !self.migrations_skipped
    }
}

fn is_empty(restore: &RestoreConfig) -> bool {
    restore.migrate.is_empty() && restore.start.is_empty() && restore.health.is_none()
}

#[cfg(test)]
mod tests {
    use backup_core::{CatalogEntry, Manifest};

    use super::*;
    use crate::config::Environment;

    /// A plan that brings files.
    fn plan() -> RecoveryPlan {
        let json = serde_json::json!({
            "format": 1, "id": "20261122T020000Z", "job": "site", "kind": "files",
            "started": "2026-11-22T02:00:00Z", "finished": "2026-11-22T02:00:09Z",
            "tool": "test 1", "host": "here", "source": { "database": "" }, "parts": [],
        });
        let json = json.to_string().into_bytes();
        let manifest = Manifest::from_json(&json).unwrap();
        let entry = CatalogEntry {
            id: manifest.backup_id().unwrap(),
            manifest,
            manifest_json: json,
            copies: Vec::new(),
            missing_in: Vec::new(),
            unknown_in: Vec::new(),
        };
        let job = PlannedJob { entry, database: None, has_globals: false, has_files: true };
        RecoveryPlan { jobs: vec![job], missing: Vec::new() }
    }

    fn found(config: Config, files: FilesTarget) -> (Option<Vec<Argv>>, Vec<String>) {
        let deployment = Deployment::new(config, Environment::new([])).unwrap();
        let mut recovery = Recovery {
            deployment: &deployment,
            plan: &plan(),
            options: &RecoverOptions { files: Some(files), ..RecoverOptions::default() },
            told: &|_| {},
            context: &Context::default(),
            done: Recovered::default(),
        };
        let found = recovery.surroundings().unwrap();
        (found.map(|restore| restore.start), recovery.done.notes)
    }

    #[test]
    fn hooks_are_those_given_else_those_that_came_back_in_place() {
        let root = tempfile::tempdir().unwrap();
        let config = |name: &str| format!("[restore]\nstart = [['{name}']]\n");
        let started_by = |name: &str| Some(vec![vec![name.to_owned()]]);
        let target = || FilesTarget::InPlace(root.path().to_owned());
        assert_eq!(found(Config::default(), target()), (None, Vec::new()), "none came back");

        let folder = root.path().join("etc/marb-backup");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), config("came-back")).unwrap();
        let (hooks, notes) = found(Config::default(), target());
        assert_eq!(hooks, started_by("came-back"));
        assert!(notes[0].contains("config.toml"), "{notes:?}");
        let folder = FilesTarget::Folder(root.path().to_owned());
        assert_eq!(found(Config::default(), folder).0, None, "only to be looked at");
        let given = Config::parse(&config("given")).unwrap();
        assert_eq!(found(given, target()).0, started_by("given"));
    }
}
