//! `rekey`: older backups under the keys of today.

use std::sync::Arc;

use backup_core::pipeline::{Context, Limits};
use backup_core::{
    BackupId, BackupReader, Catalog, CatalogEntry, Error, ErrorKind, Manifest, Origin, Part,
    PartRole, Patience, Problem, Query, RekeyPlan, RekeyReport, Result, Storage, Transform,
    clear_remains, rekey, successor,
};

use crate::config::Value;
use crate::keys::Keys;
use crate::lock::JobLock;
use crate::{Deployment, TOOL, wiring};

/// The transform that a rekeyed backup ends with.
const ENCRYPTION: &str = "openpgp";

/// How backups are encrypted anew.
#[derive(Debug, Clone, Default)]
pub struct RekeyOptions {
    /// Passphrases of former days, which open and vouch for old backups.
    pub old_passphrases: Vec<Value>,
    /// Goes on though nothing proves who wrote an old one, or nothing signs the new one.
    pub accept_unsigned: bool,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What `rekey` found and did.
#[derive(Debug, Default)]
pub struct RekeySummary {
    /// Each backup that was looked at, the oldest first.
    pub backups: Vec<RekeyedBackup>,
    /// What could not be read: whether old copies are there is not known.
    pub problems: Vec<Problem>,
}

/// What became of one backup.
#[derive(Debug)]
pub struct RekeyedBackup {
    /// Its id.
    pub id: BackupId,
    /// Its job.
    pub job: String,
    /// What became of it.
    pub fate: RekeyFate,
}

/// What became of a backup.
#[derive(Debug)]
pub enum RekeyFate {
    /// It is under the keys of today already.
    Current,
    /// It is not encrypted.
    Unencrypted,
    /// It would be encrypted anew.
    Wanted,
    /// It was.
    Done(RekeyReport),
    /// It could not be; it is as it was.
    Failed(Error),
}

/// The keys of today, and with them those of former days.
struct Rings {
    today: Keys,
    all: Keys,
}

impl Deployment {
    /// Encrypts a backup (an id, or `latest`) anew, or with `None` every one, of one job or of
    /// all. See [`backup_core::rekey`](fn@backup_core::rekey).
    ///
    /// # Errors
    /// [`ErrorKind::Unchecked`] when the keys here can't open what they would encrypt, since
    /// nothing could be read back; when there is no such backup; when interrupted. What is
    /// wrong with a backup is in the summary.
    pub async fn rekey(
        &self,
        wanted: Option<&str>,
        job: Option<&str>,
        options: &RekeyOptions,
        context: &Context,
    ) -> Result<RekeySummary> {
        let rings = self.rings(options).await?;
        refuse_unopenable(&rings.today)?;
        // All of the job: what an earlier run made of a backup is among them.
        let query = Query { job, ..Query::default() };
        let catalog = context.cancel.guard(self.catalog(&query)).await?;
        let ids: Vec<&CatalogEntry> = match wanted {
            Some(wanted) => vec![catalog.find(wanted)?],
            None => catalog.backups.iter().collect(),
        };
        let mut summary = RekeySummary::default();
        for entry in ids {
            let job = entry.manifest.job.clone();
            let done = self.rekey_one(entry, &catalog, &rings, options, context).await;
            let fate = match done {
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                done => done.unwrap_or_else(RekeyFate::Failed),
            };
            summary.backups.push(RekeyedBackup { id: entry.id, job, fate });
        }
        summary.problems = catalog.problems;
        Ok(summary)
    }

    async fn rings(&self, options: &RekeyOptions) -> Result<Rings> {
        let mut all = self.keys().await?;
        for value in &options.old_passphrases {
            let text = value.fetch("old passphrase", self.environment()).await?;
            all = all.with_old_passphrase(&text)?;
        }
        Ok(Rings { today: self.keys().await?, all })
    }

    async fn rekey_one(
        &self,
        entry: &CatalogEntry,
        catalog: &Catalog,
        rings: &Rings,
        options: &RekeyOptions,
        context: &Context,
    ) -> Result<RekeyFate> {
        if !entry.manifest.is_encrypted() {
            return Ok(RekeyFate::Unencrypted);
        }
        refuse_unknown_shape(&entry.manifest)?;
        let storages = self.storages_for(&entry.manifest.job).await?;
        if self.is_current(entry, &storages, &rings.today, context).await? {
            if !options.dry_run && entry.manifest.rekeyed.is_some() {
                let _lock = JobLock::take(&self.state_dir(), &entry.manifest.job)?;
                let whole = having_all(entry, &storages);
                clear_remains(&entry.manifest, &whole, &wiring::host_name(), context).await?;
            }
            return Ok(RekeyFate::Current);
        }
        if options.dry_run {
            // Whether it could be: a key that is missing shows now.
            let reader = BackupReader::best(entry, &storages, rings.all.decoders())?;
            context.cancel.guard(reader.contents(context)).await?;
            return Ok(RekeyFate::Wanted);
        }
        let _lock = JobLock::take(&self.state_dir(), &entry.manifest.job)?;
        let trusted = rings.all.authenticate();
        let plan = RekeyPlan {
            entry,
            successor: successor(catalog, entry),
            storages: &storages,
            decoders: rings.all.decoders(),
            reading_back: rings.today.decoders(),
            trusted: trusted.as_deref(),
            transforms: self.transforms_for(&entry.manifest, &rings.today)?,
            keys: rings.today.labels(),
            sign: rings.today.signer(),
            accept_unsigned: options.accept_unsigned,
            tool: TOOL.to_owned(),
            host: wiring::host_name(),
            limits: Limits::default(),
            patience: Patience::default(),
        };
        rekey(&plan, context).await.map(RekeyFate::Done)
    }

    /// Every storage that can be opened, to be written as the job says.
    async fn storages_for(&self, job: &str) -> Result<Vec<Arc<dyn Storage>>> {
        let (open, _) = self.readable_storages().await?;
        let mut storages = Vec::new();
        for storage in open {
            storages.push(self.storage(storage.name(), Some(job)).await?);
        }
        Ok(storages)
    }

    /// Whether the keys of today open the backup, all of them, nobody else's do, and they vouch
    /// for it.
    async fn is_current(
        &self,
        entry: &CatalogEntry,
        storages: &[Arc<dyn Storage>],
        today: &Keys,
        context: &Context,
    ) -> Result<bool> {
        let labels = today.labels();
        let encrypted = entry.manifest.parts.iter().filter(|part| !part.keys.is_empty());
        if encrypted.into_iter().any(|part| !same_keys(part, &labels)) {
            return Ok(false);
        }
        let reader = BackupReader::best(entry, storages, today.decoders())?;
        // Every passphrase has the same label.
        let opened = context.cancel.guard(reader.contents(&context.without_progress())).await;
        match opened {
            Err(error) if error.kind() == ErrorKind::Unchecked => return Ok(false),
            opened => opened?,
        };
        let known = today.authenticate();
        match reader.origin(known.as_deref()).await {
            Ok(Origin::Proven) => Ok(true),
            Ok(Origin::Unsigned) => Ok(today.signer().is_none()),
            // A former key may tell; if not, the refusal says so.
            Ok(Origin::NoKey) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Refused => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The job's compression, or what the old backup has, and the encryption of today.
    fn transforms_for(&self, old: &Manifest, today: &Keys) -> Result<Vec<Arc<dyn Transform>>> {
        let of_job = self.config().job.get(&old.job).map(|job| job.compression.clone());
        let first = || old.parts.first().and_then(|part| part.transforms.first());
        let of_old = || first().filter(|name| *name != ENCRYPTION).cloned();
        let word = of_job.or_else(of_old).unwrap_or_else(|| "none".to_owned());
        let mut transforms: Vec<Arc<dyn Transform>> = Vec::new();
        transforms.extend(wiring::compression(&word)?);
        transforms.push(Arc::new(today.encryption()?));
        Ok(transforms)
    }
}

/// What could not be read back must not be written: a public key that belongs to nobody would
/// cost every backup.
fn refuse_unopenable(today: &Keys) -> Result<()> {
    const PROBE: &[u8] = b"probe";
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());
    today.encryption()?.encode(&mut &PROBE[..], &mut sealed)?;
    let decoder = today.decoders().get(ENCRYPTION)?;
    match decoder.decode(&mut &sealed[..], &mut opened) {
        Ok(()) if opened == PROBE => Ok(()),
        other => {
            let message = "the keys at hand can't open what [encryption] would write, so nothing \
                           could be read back";
            let error = Error::new(ErrorKind::Unchecked, "rekey", message)
                .next_step("give the private key of a recipient with --secret-key");
            Err(match other {
                Err(cause) => error.caused_by(cause),
                Ok(()) => error,
            })
        }
    }
}

/// Only what `backup` writes is written anew: every part encrypted, as the last step.
fn refuse_unknown_shape(manifest: &Manifest) -> Result<()> {
    let last = |part: &Part| part.transforms.last().is_some_and(|name| name == ENCRYPTION);
    let known = |part: &Part| last(part) && part.role != PartRole::Other;
    match manifest.parts.iter().find(|part| !known(part)) {
        None => Ok(()),
        Some(part) => Err(Error::new(
            ErrorKind::Unchecked,
            "rekey",
            format!("this version does not know how {} was made", part.file),
        )
        .next_step("use the version that made the backup, or a newer one")),
    }
}

fn same_keys(part: &Part, labels: &[String]) -> bool {
    let (mut theirs, mut ours) = (part.keys.clone(), labels.to_vec());
    theirs.sort_unstable();
    ours.sort_unstable();
    theirs == ours
}

/// The storages whose copy has all parts.
fn having_all(entry: &CatalogEntry, storages: &[Arc<dyn Storage>]) -> Vec<Arc<dyn Storage>> {
    let whole = |storage: &&Arc<dyn Storage>| {
        let copy = entry.copies.iter().find(|copy| copy.storage == storage.name());
        copy.is_some_and(|copy| copy.damaged_parts.is_empty())
    };
    storages.iter().filter(whole).cloned().collect()
}
