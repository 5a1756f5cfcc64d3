//! Every prerequisite, with the fix for each that is missing.

mod files;
mod left;
mod restore;
mod sudo;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{Error, Result, Storage, StoredObject, Transform, read_small};
use bytes::Bytes;

use crate::Deployment;
use crate::config::{ObjectsConfig, PostgresConfig, Value};
use crate::lock::JobLock;
use crate::wiring::{self, Ability};

/// How a prerequisite stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// As it should be.
    Good,
    /// Backups work, but something will hurt one day.
    Warning,
    /// A backup or a restore would fail.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked at: `job database`, `storage local`.
    pub subject: String,
    /// How it stands.
    pub condition: Condition,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// All findings, in the order they were made.
#[derive(Debug, Clone, Default)]
pub struct Diagnosis {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The worst condition.
    pub fn worst(&self) -> Condition {
        self.findings.iter().map(|f| f.condition).max().unwrap_or(Condition::Good)
    }

    fn good(&mut self, subject: &str, detail: impl Into<String>) {
        self.add(subject, Condition::Good, detail.into(), None);
    }

    fn warning(&mut self, subject: &str, detail: impl Into<String>, fix: impl Into<String>) {
        self.add(subject, Condition::Warning, detail.into(), Some(fix.into()));
    }

    fn bad(&mut self, subject: &str, error: &Error) {
        let causes = error.causes();
        let detail = if causes.is_empty() {
            error.to_string()
        } else {
            format!("{error} ({})", causes.join(": "))
        };
        self.add(subject, Condition::Bad, detail, error.advice().map(str::to_owned));
    }

    fn add(&mut self, subject: &str, condition: Condition, detail: String, fix: Option<String>) {
        self.findings.push(Finding { subject: subject.to_owned(), condition, detail, fix });
    }
}

/// Programs that RESTORE.md uses, and the packages they come in.
const STOCK_PROGRAMS: [(&str, &str); 3] =
    [("gpg", "gnupg"), ("zstd", "zstd"), ("sha256sum", "coreutils")];

impl Deployment {
    /// Looks at everything a backup and a restore need. Changes nothing but a probe object in
    /// each storage, which it removes again.
    pub async fn diagnose(&self, context: &Context) -> Diagnosis {
        let mut diagnosis = Diagnosis::default();
        self.examine_state(&mut diagnosis);
        self.examine_keys(&mut diagnosis).await;
        let jobs = &self.config().job;
        if jobs.is_empty() || jobs.values().any(|job| job.postgres.is_some()) {
            self.examine_tools(&mut diagnosis).await;
        }
        for (name, job) in jobs {
            if context.cancel.is_cancelled() {
                return diagnosis;
            }
            if let Some(postgres) = &job.postgres {
                self.examine_database(name, postgres, &mut diagnosis).await;
            }
            if let Some(files) = &job.files {
                self.examine_files(name, files, &mut diagnosis).await;
            }
        }
        for name in self.config().storage.keys() {
            self.examine_storage(name, &mut diagnosis).await;
        }
        self.examine_restore(&mut diagnosis).await;
        self.examine_drill_server(&mut diagnosis).await;
        self.examine_stock_programs(&mut diagnosis);
        diagnosis
    }

    fn examine_state(&self, diagnosis: &mut Diagnosis) {
        let folder = self.state_dir();
        match JobLock::take(&folder, "doctor") {
            Ok(_) => diagnosis.good("state folder", folder.display().to_string()),
            Err(error) => diagnosis.bad("state folder", &error),
        }
    }

    async fn examine_keys(&self, diagnosis: &mut Diagnosis) {
        if self.config().job.values().all(|job| !job.encrypt) && !self.config().job.is_empty() {
            diagnosis.warning(
                "encryption",
                "no job is encrypted",
                "remove `encrypt = false` where the data is not public",
            );
            return;
        }
        self.examine_passphrase_file(diagnosis);
        match self.try_keys().await {
            Ok(labels) => {
                diagnosis.good("encryption", format!("works; opened by {}", labels.join(", ")))
            }
            Err(error) => return diagnosis.bad("encryption", &error),
        }
        for warning in self.key_warnings().await.unwrap_or_default() {
            diagnosis.warning("keys", warning.message, warning.fix);
        }
        match self.key_is_confirmed().await {
            Ok(true) => diagnosis.good("key off this host", "confirmed"),
            Ok(false) => diagnosis.warning(
                "key off this host",
                "nobody has confirmed that the key exists anywhere else; it would burn with this host",
                "keep a copy elsewhere, then type it from there: marb-backup doctor --confirm-key",
            ),
            Err(error) => diagnosis.bad("key off this host", &error),
        }
    }

    fn examine_passphrase_file(&self, diagnosis: &mut Diagnosis) {
        let Some(Value::File(from)) = &self.config().encryption.passphrase else { return };
        let Ok(metadata) = std::fs::metadata(&from.file) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            diagnosis.warning(
                "passphrase file",
                format!("{} can be read by others (mode {mode:04o})", from.file.display()),
                format!("chmod 600 {}", from.file.display()),
            );
        }
    }

    /// Encrypts a few bytes the way a backup would, and opens them where that is possible here.
    async fn try_keys(&self) -> Result<Vec<String>> {
        const PROBE: &[u8] = b"probe";
        let keys = self.keys().await?;
        let mut sealed = Vec::new();
        keys.encryption()?.encode(&mut &PROBE[..], &mut sealed)?;
        if let Some(transform) = keys.passphrase_transform() {
            let mut plain = Vec::new();
            transform.decode(&mut &sealed[..], &mut plain)?;
        }
        Ok(keys.labels())
    }

    async fn examine_tools(&self, diagnosis: &mut Diagnosis) {
        match self.tool_search().installed().await {
            Ok(found) if found.is_empty() => diagnosis.bad(
                "client programs",
                &Error::refused(
                    "client programs",
                    "no complete set of pg_dump, pg_dumpall, pg_restore and psql is here",
                )
                .next_step("install postgresql-client, or set postgres_bin_dir"),
            ),
            Ok(found) => {
                let versions: BTreeSet<String> =
                    found.iter().map(|t| t.version().to_string()).collect();
                let versions: Vec<String> = versions.into_iter().collect();
                diagnosis.good("client programs", format!("PostgreSQL {}", versions.join(", ")));
            }
            Err(error) => diagnosis.bad("client programs", &error),
        }
    }

    async fn examine_database(
        &self,
        name: &str,
        postgres: &PostgresConfig,
        diagnosis: &mut Diagnosis,
    ) {
        let subject = format!("job {name}");
        let server = match self.connect(&postgres.url, "database").await {
            Ok(server) => server,
            Err(error) => return diagnosis.bad(&subject, &error),
        };
        diagnosis.good(
            &subject,
            format!(
                "{} at {}, server {}, pg_dump {}",
                server.database(),
                server.name(),
                server.version(),
                server.tools().version()
            ),
        );
        if server.is_standby() {
            diagnosis.warning(
                &subject,
                "the server is a standby: a long dump may be cancelled by its recovery",
                "raise max_standby_streaming_delay there, or dump the primary",
            );
        }
        left::examine(&subject, &server, diagnosis).await;
        if postgres.globals && !server.reads_role_passwords() {
            diagnosis.warning(
                &subject,
                format!(
                    "{} may not read role passwords: they will not be in the backup",
                    server.user()
                ),
                "back up as a superuser, or keep the passwords elsewhere",
            );
        }
    }

    async fn examine_storage(&self, name: &str, diagnosis: &mut Diagnosis) {
        let subject = format!("storage {name}");
        match self.probe_storage(name).await {
            Ok(abilities) => {
                for one in abilities {
                    let condition = match one.remedy {
                        _ if one.fatal => Condition::Bad,
                        Some(_) => Condition::Warning,
                        None => Condition::Good,
                    };
                    diagnosis.add(&subject, condition, one.message, one.remedy);
                }
            }
            Err(error) => diagnosis.bad(&subject, &error),
        }
    }

    async fn probe_storage(&self, name: &str) -> Result<Vec<Ability>> {
        let config = &self.config().storage[name];
        // Without a lock: this object is to go again.
        let plain = ObjectsConfig { object_lock: None, ..config.objects.clone() };
        let storage = wiring::storage(name, config, &plain, self.environment()).await?;
        let mut abilities = try_object(storage).await?;
        // Every job's wishes, so that what the storage can't do shows before a backup needs it.
        let jobs = self.config().job.values();
        let mut wishes: Vec<_> = jobs.filter_map(|job| job.objects.get(name)).collect();
        wishes.dedup();
        let merged: Vec<ObjectsConfig> = match wishes.is_empty() {
            true => vec![config.objects.clone()],
            false => wishes.into_iter().map(|wish| wish.over(&config.objects)).collect(),
        };
        for objects in merged {
            abilities.extend(wiring::probe(name, config, &objects, self.environment()).await?);
        }
        Ok(abilities)
    }

    fn examine_stock_programs(&self, diagnosis: &mut Diagnosis) {
        let path = self.environment().path().unwrap_or_default();
        let present = |program: &str| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        let missing: Vec<_> =
            STOCK_PROGRAMS.iter().filter(|(program, _)| !present(program)).collect();
        if missing.is_empty() {
            diagnosis.good("restore by hand", "gpg, zstd and sha256sum are here");
            return;
        }
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        diagnosis.warning(
            "restore by hand",
            format!("{} is not here; RESTORE.md would need it", programs.join(", ")),
            format!("apt-get install {}", packages.join(" ")),
        );
    }
}

/// Writes, reads and removes a small object. Only the writing must work: backups can be read
/// and pruned from elsewhere.
async fn try_object(storage: Arc<dyn Storage>) -> Result<Vec<Ability>> {
    let started = jiff::Timestamp::now().as_millisecond();
    let key = format!("doctor/probe-{started}-{}", std::process::id());
    let body = Bytes::from_static(b"written by marb-backup doctor; may be deleted");
    storage.create_new(&key, body.clone()).await?;
    let read = read_small(&StoredObject::unchecked(Arc::clone(&storage), key.clone())).await;
    let read = match (read, storage.list("doctor").await) {
        (Ok(bytes), Ok(_)) => Ok(bytes),
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
    };
    let removed = storage.delete(&key).await;
    let able = |message: String, remedy: Option<&str>| Ability {
        message,
        remedy: remedy.map(str::to_owned),
        fatal: false,
    };
    let may_not =
        |what: &str, error: &Error| format!("an object was written, but not {what}: {error}");
    match (read, removed) {
        (Ok(bytes), _) if bytes != body => Err(Error::damaged(
            format!("storage {}", storage.name()),
            "gave other bytes than were written",
        )),
        (Ok(_), Ok(())) => {
            Ok(vec![able("an object was written, read, listed and removed".to_owned(), None)])
        }
        (Err(error), _) => {
            let remedy = "verify and restore with other credentials; if these should do, give them the right to read and list";
            Ok(vec![able(may_not("read and listed", &error), Some(remedy))])
        }
        (_, Err(error)) => {
            let remedy =
                "prune with other credentials; if these should do, give them the right to delete";
            Ok(vec![able(may_not("removed", &error), Some(remedy))])
        }
    }
}
