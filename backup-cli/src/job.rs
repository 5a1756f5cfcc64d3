//! Running a job: what the configuration says becomes a plan for `backup-core`.

use std::sync::Arc;

use backup_core::pipeline::{Context, Limits, Policy};
use backup_core::{BackupPlan, BackupReport, PartPlan, PartRole, Result, Source, backup};
use backup_pg::{DumpOptions, GlobalsDump, LOCK_WAIT_TIMEOUT, PgDump, STALL_TIMEOUT, Server};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use crate::config::{DEFAULT_TIMEOUT, JobConfig, PostgresConfig};
use crate::lock::JobLock;
use crate::{Deployment, TOOL, wiring};

/// Longest version of an application that is recorded, in characters.
const MAX_APP_VERSION: usize = 200;

impl Deployment {
    /// Runs a job once. `adopt` takes over a folder whose backups came from another source.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`](backup_core::ErrorKind::Locked) when another run of it is going on; otherwise the first cause.
    /// Nothing is listed then.
    pub async fn backup(&self, job: &str, adopt: bool, context: &Context) -> Result<BackupReport> {
        let config = self.job(job)?;
        let _lock = JobLock::take(&self.state_dir(), job)?;
        let plan = context.cancel.guard(self.plan(job, config, adopt, context)).await?;
        backup(plan, context).await
    }

    async fn plan(
        &self,
        name: &str,
        job: &JobConfig,
        adopt: bool,
        context: &Context,
    ) -> Result<BackupPlan> {
        let postgres = self.database_of(name)?;
        // Keys and storages first: a wrong one shows at once, not after an hour of dumping.
        let keys = self.keys().await?;
        let encryption = if job.encrypt { Some(keys.encryption()?) } else { None };
        let authenticate = keys.signer();
        if job.encrypt && authenticate.is_none() {
            context.warn(
                "nothing proves later that this backup is ours: set `signing_key` under [encryption]",
            );
        }
        let policy = job.required_storages.map_or(Policy::All, Policy::AtLeast);
        let storages = self.storages_to_fill(name, policy).await?;
        let mut transforms = Vec::new();
        transforms.extend(wiring::compression(&job.compression)?);
        transforms.extend(encryption.map(|openpgp| Arc::new(openpgp) as _));

        context.step("connecting to the database");
        let server = self.connect(&postgres.url, "database").await?;
        Ok(BackupPlan {
            job: name.to_owned(),
            kind: "logical".to_owned(),
            tool: TOOL.to_owned(),
            host: wiring::host_name(),
            source: server.identity(),
            app_version: self.app_version(job, context).await,
            postgres: Some(server.versions()),
            parts: parts(&server, postgres).await,
            transforms,
            keys: if job.encrypt { keys.labels() } else { Vec::new() },
            authenticate,
            storages,
            policy,
            timeout: job.timeout.unwrap_or(DEFAULT_TIMEOUT),
            limits: Limits { source_stall: STALL_TIMEOUT, ..Limits::default() },
            adopt,
            started: Timestamp::now(),
        })
    }

    /// The application's version. Not knowing it is no reason not to back up.
    async fn app_version(&self, job: &JobConfig, context: &Context) -> Option<String> {
        let version = job.app_version.as_ref()?;
        match version.fetch("app_version", self.environment()).await {
            Ok(version) => Some(version.expose_secret().chars().take(MAX_APP_VERSION).collect()),
            Err(error) => {
                context.warn(&format!("the application's version is not recorded: {error}"));
                None
            }
        }
    }
}

/// The dump, and the roles that own what is in it.
async fn parts(server: &Server, postgres: &PostgresConfig) -> Vec<PartPlan> {
    let mut parts = vec![PartPlan {
        name: format!("{}.dump", file_stem(server.database())),
        role: PartRole::Database,
        source: Arc::new(PgDump::new(server, dump_options(postgres))) as Arc<dyn Source>,
        estimated_bytes: server.estimate_bytes().await,
    }];
    if postgres.globals {
        parts.push(PartPlan {
            name: "globals.sql".to_owned(),
            role: PartRole::Globals,
            source: Arc::new(GlobalsDump::new(server)),
            estimated_bytes: None,
        });
    }
    parts
}

fn dump_options(postgres: &PostgresConfig) -> DumpOptions {
    DumpOptions {
        schemas: postgres.schemas.clone(),
        exclude_schemas: postgres.exclude_schemas.clone(),
        tables: postgres.tables.clone(),
        exclude_tables: postgres.exclude_tables.clone(),
        exclude_table_data: postgres.exclude_table_data.clone(),
        large_objects: postgres.large_objects,
        row_digests: postgres.row_digests,
        lock_wait_timeout: postgres.lock_wait_timeout.unwrap_or(LOCK_WAIT_TIMEOUT),
        ..DumpOptions::default()
    }
}

/// A database's name as a file name; what a file system or a shell could stumble over becomes
/// an underscore. The manifest has the real one.
fn file_stem(database: &str) -> String {
    const LONGEST: usize = 100;
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let stem: String = database.chars().map(|c| if harmless(c) { c } else { '_' }).collect();
    let mut short = String::new();
    for c in stem.trim_start_matches(['.', '-']).chars() {
        if short.len() + c.len_utf8() > LONGEST {
            break;
        }
        short.push(c);
    }
    // `globals.dump` and `contents.dump` are fine: the other parts have other extensions.
    if short.is_empty() { "database".to_owned() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_database_name_becomes_a_file_name() {
        for (name, stem) in [
            ("marb_risk_engine", "marb_risk_engine"),
            ("../../etc", "_.._etc"),
            ("a b\n\"c\"", "a_b__c_"),
            ("größe 🦀", "größe__"),
            ("...", "database"),
        ] {
            assert_eq!(file_stem(name), stem);
        }
        assert!(file_stem(&"ü".repeat(200)).len() <= 100);
    }
}
