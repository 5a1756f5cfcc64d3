//! What backups there are: read from the storages themselves, never from a local database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::layout::{self, BackupId};
use crate::object::{StoredObject, read_small};
use crate::{Error, ErrorKind, Manifest, ObjectInfo, Result, Storage};

/// How far ahead of this host's clock an id may be and still count as the latest.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// The backups in a set of storages, oldest first.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Every backup that at least one storage lists.
    pub backups: Vec<CatalogEntry>,
    /// What could not be read: a storage, a manifest. Never silently left out.
    pub problems: Vec<Problem>,
}

/// Something that the catalog could not read.
#[derive(Debug)]
pub struct Problem {
    /// Which storage.
    pub storage: String,
    /// Why.
    pub error: Error,
}

/// One backup and where it lies.
#[derive(Debug)]
pub struct CatalogEntry {
    /// Its id.
    pub id: BackupId,
    /// Its manifest, as the first storage that has it tells.
    pub manifest: Manifest,
    /// The manifest's bytes as stored, for its authentication.
    pub manifest_json: Vec<u8>,
    /// The storages that list it.
    pub copies: Vec<StoredCopy>,
    /// The reachable storages that don't.
    pub missing_in: Vec<String>,
}

/// A backup in one storage.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCopy {
    /// The storage's name.
    pub storage: String,
    /// The manifest as this storage has it. Copies that differ are a problem of the catalog.
    pub manifest: Manifest,
    /// Its bytes.
    pub manifest_json: Vec<u8>,
    /// Parts that are not there, or not with their recorded size.
    pub damaged_parts: Vec<String>,
    /// File names of proofs that lie beside it.
    pub proofs: Vec<String>,
}

impl CatalogEntry {
    /// The folder of this backup in each of its storages.
    pub fn folder(&self) -> String {
        self.id.folder(&self.manifest.job)
    }

    /// The key of one of its files.
    pub fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.folder())
    }
}

impl Catalog {
    /// Reads what the storages hold, of one job or of all.
    pub async fn load(storages: &[Arc<dyn Storage>], job: Option<&str>) -> Self {
        let mut merged: BTreeMap<(BackupId, String), CatalogEntry> = BTreeMap::new();
        let mut problems = Vec::new();
        let mut reachable = Vec::new();
        for storage in storages {
            match read_storage(storage, job).await {
                Ok((entries, unreadable)) => {
                    reachable.push(storage.name().to_owned());
                    problems.extend(unreadable);
                    for entry in entries {
                        problems.extend(merge(&mut merged, entry));
                    }
                }
                Err(error) => problems.push(Problem { storage: storage.name().to_owned(), error }),
            }
        }
        let mut backups: Vec<CatalogEntry> = merged.into_values().collect();
        for entry in &mut backups {
            let has = |name: &String| entry.copies.iter().any(|copy| copy.storage == *name);
            entry.missing_in = reachable.iter().filter(|name| !has(name)).cloned().collect();
        }
        Self { backups, problems }
    }

    /// The backup with this id, or the newest for `latest`.
    ///
    /// An id more than a day ahead of this host's clock is the latest only when all are: one
    /// run on a host with a wrong clock must not stand in front of the real ones for years.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none; [`ErrorKind::Unchecked`] when there is none
    /// among what could be read, but not everything could, and for `latest` also when a newer
    /// one may hide in what could not be read; [`ErrorKind::Usage`] when several jobs have a
    /// backup of this id, or, for `latest`, any backup.
    pub fn find(&self, wanted: &str) -> Result<&CatalogEntry> {
        if wanted == "latest" {
            return self.latest();
        }
        let id: BackupId = wanted.parse()?;
        let candidates: Vec<&CatalogEntry> =
            self.backups.iter().filter(|entry| entry.id == id).collect();
        match candidates[..] {
            [entry] => Ok(entry),
            [] => Err(self.not_found(wanted)),
            _ => Err(Error::usage("catalog", format!("several jobs have a backup {wanted}"))
                .next_step("name the job with --job")),
        }
    }

    fn latest(&self) -> Result<&CatalogEntry> {
        let Some(newest) = self.backups.last() else { return Err(self.not_found("latest")) };
        if let Some(problem) = self.problems.first() {
            let message = format!(
                "storage {} could not be read in full: {}, so a newer backup may exist",
                problem.storage, problem.error
            );
            return Err(Error::new(ErrorKind::Unchecked, "catalog", message)
                .next_step("make it readable, or name the backup's id"));
        }
        let jobs: BTreeSet<&str> = self.backups.iter().map(|e| &*e.manifest.job).collect();
        if jobs.len() > 1 {
            let jobs = jobs.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::usage("catalog", format!("several jobs have backups: {jobs}"))
                .next_step("name the job with --job"));
        }
        let now = Timestamp::now();
        let horizon = now.checked_add(CLOCK_TOLERANCE).unwrap_or(now);
        let past = self.backups.iter().rev().find(|entry| entry.id.started() <= horizon);
        Ok(past.unwrap_or(newest))
    }

    fn not_found(&self, wanted: &str) -> Error {
        let Some(problem) = self.problems.first() else {
            return Error::new(
                ErrorKind::NotFound,
                "catalog",
                format!("there is no backup {wanted}"),
            )
            .next_step("`marb-backup list` shows what there is");
        };
        Error::new(
            ErrorKind::Unchecked,
            "catalog",
            format!(
                "no backup {wanted} was found, but storage {} could not be read in full: {}",
                problem.storage, problem.error
            ),
        )
        .next_step("make the storage readable, then try again")
    }
}

/// Adds a storage's copy to what the others have. Their manifests must be the same; which of
/// them is damaged, `verify` tells.
fn merge(
    merged: &mut BTreeMap<(BackupId, String), CatalogEntry>,
    entry: CatalogEntry,
) -> Option<Problem> {
    let key = (entry.id, entry.manifest.job.clone());
    let Some(known) = merged.get_mut(&key) else {
        merged.insert(key, entry);
        return None;
    };
    let storage = entry.copies.first()?.storage.clone();
    let first = known.copies.first()?.storage.clone();
    known.copies.extend(entry.copies);
    if known.manifest_json == entry.manifest_json {
        return None;
    }
    let message = format!("that of {} is not the one in storage {first}", known.id);
    let error = Error::damaged("manifest", message)
        .next_step("verify the backup: it tells which of the two was altered");
    Some(Problem { storage, error })
}

type Read = (Vec<CatalogEntry>, Vec<Problem>);

/// One storage's backups. An object listing is read once; it also tells which parts are there.
async fn read_storage(storage: &Arc<dyn Storage>, job: Option<&str>) -> Result<Read> {
    let objects = storage.list(job.unwrap_or("")).await?;
    let mut folders: BTreeMap<(BackupId, &str), BTreeMap<&str, &ObjectInfo>> = BTreeMap::new();
    for object in &objects {
        if let Some((job, id, name)) = layout::parse_key(&object.key) {
            folders.entry((id, job)).or_default().insert(name, object);
        }
    }
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    for ((id, job), files) in folders {
        // Without a manifest it is not a backup: a run that failed or is still going on.
        if !files.contains_key(layout::MANIFEST) {
            continue;
        }
        match read_manifest(storage, id, job).await {
            Ok((manifest, manifest_json)) => entries.push(CatalogEntry {
                id,
                copies: vec![copy_in(storage.name(), &manifest, &manifest_json, &files)],
                manifest,
                manifest_json,
                missing_in: Vec::new(),
            }),
            Err(error) => problems.push(Problem { storage: storage.name().to_owned(), error }),
        }
    }
    Ok((entries, problems))
}

async fn read_manifest(
    storage: &Arc<dyn Storage>,
    id: BackupId,
    job: &str,
) -> Result<(Manifest, Vec<u8>)> {
    let key = format!("{}/{}", id.folder(job), layout::MANIFEST);
    let stored = StoredObject::unchecked(Arc::clone(storage), key.clone());
    let json = read_small(&stored).await.map_err(|error| name_manifest(&key, error))?;
    let manifest = Manifest::from_json(&json).map_err(|error| match error.kind() {
        // A bad name is a wrong usage only where somebody typed it.
        ErrorKind::Usage => name_manifest(&key, error).with_kind(ErrorKind::Damaged),
        _ => name_manifest(&key, error),
    })?;
    if manifest.id != id.to_string() || manifest.job != job {
        return Err(Error::damaged("manifest", format!("{key} belongs to another backup")));
    }
    Ok((manifest, json))
}

/// The same failure, with the key of the manifest that it is about.
fn name_manifest(key: &str, error: Error) -> Error {
    if error.message().contains(key) {
        return error;
    }
    let message = format!("{key}: {}", error.message());
    let named = Error::new(error.kind(), error.stage().to_owned(), message);
    let named = match error.advice() {
        Some(advice) => named.next_step(advice),
        None => named,
    };
    named.caused_by(error)
}

fn copy_in(
    storage: &str,
    manifest: &Manifest,
    manifest_json: &[u8],
    files: &BTreeMap<&str, &ObjectInfo>,
) -> StoredCopy {
    let whole = |file: &str, bytes: u64| files.get(file).is_some_and(|found| found.bytes == bytes);
    let damaged = manifest.parts.iter().filter(|part| !whole(&part.file, part.bytes));
    let proofs =
        files.keys().filter_map(|name| name.strip_prefix(layout::PROOFS)?.strip_prefix('/'));
    StoredCopy {
        storage: storage.to_owned(),
        manifest: manifest.clone(),
        manifest_json: manifest_json.to_vec(),
        damaged_parts: damaged.map(|part| part.file.clone()).collect(),
        proofs: proofs.map(str::to_owned).collect(),
    }
}
