//! Running a job: what the configuration says becomes a plan for `backup-core`.

use std::sync::Arc;
use std::time::SystemTime;

use backup_core::pipeline::{Context, Limits, Policy};
use backup_core::{BackupPlan, BackupReport, PartPlan, PartRole, Result, Source, backup};
use backup_files::FilesSource;
use backup_pg::{DumpOptions, GlobalsDump, LOCK_WAIT_TIMEOUT, PgDump, STALL_TIMEOUT, Server};
use jiff::Timestamp;

use crate::config::{DEFAULT_TIMEOUT, FilesConfig, JobConfig, PostgresConfig};
use crate::keys::Keys;
use crate::lock::JobLock;
use crate::machine::machine_identity;
use crate::{Deployment, TOOL, wiring};

/// The part that holds the files.
const FILES_PART: &str = "config.tar";

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
        // Keys and storages first: a wrong one shows at once, not after an hour of dumping.
        let keys = self.keys().await?;
        let encryption = if job.encrypt { Some(keys.encryption()?) } else { None };
        let authenticate = keys.signer();
        if job.encrypt && authenticate.is_none() {
            context.warn(
                "nothing proves later that this backup is ours: set `signing_key` under [encryption]",
            );
        }
        let notes = if job.encrypt { tell_key_warnings(&keys, context) } else { Vec::new() };
        let policy = job.required_storages.map_or(Policy::All, Policy::AtLeast);
        let storages = self.storages_to_fill(name, policy).await?;
        let mut transforms = Vec::new();
        transforms.extend(wiring::compression(&job.compression)?);
        transforms.extend(encryption.map(|openpgp| Arc::new(openpgp) as _));

        let mut parts = Vec::new();
        let server = match &job.postgres {
            Some(postgres) => {
                context.step("connecting to the database");
                let server = self.connect(&postgres.url, "database").await?;
                parts.extend(database_parts(&server, postgres).await);
                Some(server)
            }
            None => None,
        };
        parts.extend(job.files.as_ref().map(files_part));
        Ok(BackupPlan {
            job: name.to_owned(),
            kind: kind(job).to_owned(),
            tool: TOOL.to_owned(),
            host: wiring::host_name(),
            source: server.as_ref().map_or_else(machine_identity, Server::identity),
            app_version: self.app_version(job, context).await,
            postgres: server.as_ref().map(Server::versions),
            parts,
            transforms,
            keys: if job.encrypt { keys.labels() } else { Vec::new() },
            authenticate,
            storages,
            policy,
            timeout: job.timeout.unwrap_or(DEFAULT_TIMEOUT),
            limits: Limits { source_stall: STALL_TIMEOUT, ..Limits::default() },
            adopt,
            started: Timestamp::now(),
            notes,
            rekeyed: None,
        })
    }
}

/// What a manifest calls it.
fn kind(job: &JobConfig) -> &'static str {
    match (&job.postgres, &job.files) {
        (Some(_), Some(_)) => "deployment",
        (None, Some(_)) => "files",
        (_, None) => "logical",
    }
}

fn files_part(files: &FilesConfig) -> PartPlan {
    PartPlan {
        name: FILES_PART.to_owned(),
        role: PartRole::Files,
        source: Arc::new(FilesSource::new(files.selection())),
        estimated_bytes: None,
    }
}

/// Warns of keys that need care; says what of that the manifest records.
fn tell_key_warnings(keys: &Keys, context: &Context) -> Vec<String> {
    let warnings = keys.warnings(SystemTime::now());
    for warning in &warnings {
        context.warn(&format!("{}; {}", warning.message, warning.fix));
    }
    warnings.into_iter().filter_map(|warning| warning.note).collect()
}

/// The dump, and the roles that own what is in it.
async fn database_parts(server: &Server, postgres: &PostgresConfig) -> Vec<PartPlan> {
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
        filters: postgres.filters(),
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
