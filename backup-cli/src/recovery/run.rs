//! A recovery, step by step, with the time that each took.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_core::Result;
use backup_core::pipeline::Context;
use backup_files::FilesTarget;
use secrecy::SecretString;

use super::plan::{PlannedJob, RecoverOptions, RecoveryPlan};
use crate::config::{
    Argv, Config, DEFAULT_HEALTH_TIMEOUT, DEFAULT_HOOK_TIMEOUT, RestoreConfig, Value,
};
use crate::health::Health;
use crate::hooks::Hooks;
use crate::swapping::url;
use crate::{Deployment, FilesRestoreOptions, RestoreOptions};

/// Where the configuration is among the files of a host, below its root.
const CONFIG_PATH: &str = "etc/marb-backup/config.toml";
/// The variable that a migration finds its database in.
const DATABASE_URL: &str = "DATABASE_URL";

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
        let mut done = Recovered { missing: plan.missing.clone(), ..Recovered::default() };
        for job in &plan.jobs {
            self.recover_database(job, options, &mut done, told, context).await?;
        }
        for job in plan.jobs.iter().filter(|job| job.has_files) {
            self.recover_files(job, options, &mut done, told, context).await?;
        }
        let surroundings = self.surroundings(plan, options, &mut done)?;
        if let Some(config) = surroundings {
            self.bring_up(&config, plan, &mut done, told, context).await?;
        }
        done.took = started.elapsed();
        Ok(done)
    }

    async fn recover_database(
        &self,
        job: &PlannedJob,
        options: &RecoverOptions,
        done: &mut Recovered,
        told: &(dyn Fn(&RecoveredStep) + Sync),
        context: &Context,
    ) -> Result<()> {
        let Some((name, target)) = &job.database else { return Ok(()) };
        let started = Instant::now();
        context.step(&format!("restoring database {name}"));
        let how = RestoreOptions {
            accept_unsigned: options.accept_unsigned,
            ..RestoreOptions::into_database(target.clone())
        };
        let summary = self.restore(&job.entry, &how, context).await?;
        let what = format!(
            "database {name} from {} of job {}: {} tables, {} rows compared, {} roles made",
            job.entry.id,
            job.entry.manifest.job,
            summary.tables_compared,
            summary.rows_compared,
            summary.roles_created.len()
        );
        done.cannot_log_in.extend(summary.cannot_log_in);
        done.notes.extend(summary.notes);
        done.step(what, started, told);
        Ok(())
    }

    async fn recover_files(
        &self,
        job: &PlannedJob,
        options: &RecoverOptions,
        done: &mut Recovered,
        told: &(dyn Fn(&RecoveredStep) + Sync),
        context: &Context,
    ) -> Result<()> {
        let Some(target) = &options.files else { return Ok(()) };
        let started = Instant::now();
        let how = FilesRestoreOptions {
            target: target.clone(),
            paths: Vec::new(),
            accept_unsigned: options.accept_unsigned,
        };
        let report = self.restore_files(&job.entry, &how, context).await?.report;
        let what = format!(
            "files from {} of job {}: {} made, {} replaced, {} as they were",
            job.entry.id, job.entry.manifest.job, report.created, report.replaced, report.unchanged
        );
        let aside = report.kept_aside.into_iter();
        done.notes.extend(aside.map(|path| format!("what was replaced is kept as {path}")));
        done.unset.extend(report.unset);
        done.step(what, started, told);
        Ok(())
    }

    /// What surrounds the application: of the configuration that was given, else of the one
    /// that came back with the files.
    fn surroundings(
        &self,
        plan: &RecoveryPlan,
        options: &RecoverOptions,
        done: &mut Recovered,
    ) -> Result<Option<RestoreConfig>> {
        if !is_empty(&self.config().restore) {
            return Ok(Some(self.config().restore.clone()));
        }
        let root = options.files.as_ref().filter(|_| plan.jobs.iter().any(|job| job.has_files));
        // What lies in a folder to be looked at is not where the services run.
        let Some(FilesTarget::InPlace(root)) = root else { return Ok(None) };
        let path: PathBuf = root.join(Path::new(CONFIG_PATH));
        if !path.exists() {
            return Ok(None);
        }
        let config = Config::read(&path)?;
        done.notes.push(format!("hooks and health check are those of {}", path.display()));
        Ok(Some(config.restore).filter(|restore| !is_empty(restore)))
    }

    async fn bring_up(
        &self,
        config: &RestoreConfig,
        plan: &RecoveryPlan,
        done: &mut Recovered,
        told: &(dyn Fn(&RecoveredStep) + Sync),
        context: &Context,
    ) -> Result<()> {
        let limit = config.hook_timeout.unwrap_or(DEFAULT_HOOK_TIMEOUT);
        let hooks = Hooks::new(limit, config.directory.clone());
        let mut databases = plan.jobs.iter().filter_map(|job| job.database.as_ref());
        match (databases.next(), databases.next()) {
            (Some((_, target)), None) => {
                let migrating = self.with_database(hooks.clone(), target).await?;
                run_all(&migrating, "migrate", &config.migrate, done, told, context).await?;
            }
            _ if config.migrate.is_empty() => {}
            // Of several nobody can tell which is meant.
            _ => done.migrations_skipped = true,
        }
        run_all(&hooks, "start", &config.start, done, told, context).await?;
        if let Some(health) = &config.health {
            let started = Instant::now();
            context.step("waiting for the application");
            let limit = health.timeout.unwrap_or(DEFAULT_HEALTH_TIMEOUT);
            Health::new(&health.url, limit)?.wait(&context.cancel).await?;
            done.healthy = Some(true);
            done.step("the application is healthy".to_owned(), started, told);
        }
        Ok(())
    }

    async fn with_database(&self, hooks: Hooks, target: &Value) -> Result<Hooks> {
        let text: SecretString = target.fetch("target", self.environment()).await?;
        let hooks = match url::password(&text) {
            Some(password) => hooks.hiding(password),
            None => hooks,
        };
        Ok(hooks.with_variable(DATABASE_URL, text))
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

    fn step(&mut self, what: String, started: Instant, told: &(dyn Fn(&RecoveredStep) + Sync)) {
        let step = RecoveredStep { what, took: started.elapsed() };
        told(&step);
        self.steps.push(step);
    }
}

async fn run_all(
    hooks: &Hooks,
    key: &str,
    all: &[Argv],
    done: &mut Recovered,
    told: &(dyn Fn(&RecoveredStep) + Sync),
    context: &Context,
) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    for argv in all {
        context.step(&format!("{key}: {}", argv.first().map_or("", String::as_str)));
        hooks.run(key, argv, &context.cancel).await?;
    }
    done.step(format!("hooks: {key}"), started, told);
    Ok(())
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
        let options = RecoverOptions { files: Some(files), ..RecoverOptions::default() };
        let mut done = Recovered::default();
        let found = deployment.surroundings(&plan(), &options, &mut done).unwrap();
        (found.map(|restore| restore.start), done.notes)
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
