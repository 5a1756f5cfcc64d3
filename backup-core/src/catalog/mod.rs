//! What backups there are: read from the storages themselves, never from a local database.

mod listing;
mod manifests;
mod query;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

pub use query::Query;

use crate::layout::BackupId;
use crate::{Error, ErrorKind, Manifest, Result, Storage};
use manifests::Told;

/// How far ahead of this host's clock an id may be and still count as the latest.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// The backups in a set of storages, oldest first.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Every backup that at least one storage lists.
    pub backups: Vec<CatalogEntry>,
    /// What could not be read: a storage, a manifest. Never silently left out.
    pub problems: Vec<Problem>,
    /// The storages that could not be asked what they hold. Each is one of the problems, too.
    pub unreachable: Vec<String>,
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
    /// The storages that say that they don't.
    pub missing_in: Vec<String>,
    /// The storages of which it is not known: they could not be asked, or the manifest that
    /// they list could not be read.
    pub unknown_in: Vec<String>,
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
    /// Whether a pin lies beside it: see [`CatalogEntry::is_pinned`].
    pub pinned: bool,
    /// The marks of those that read it, also those that a crash left.
    pub readers: Vec<ReaderSeen>,
    /// Whether somebody began to remove it and came no further than to say so: it is whole.
    pub half_pruned: bool,
}

/// The mark of somebody who reads a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderSeen {
    /// Its file name.
    pub file: String,
    /// When it was left, by the storage's clock.
    pub left: Timestamp,
}

impl CatalogEntry {
    /// The folder of this backup in each of its storages.
    pub fn folder(&self) -> String {
        self.id.folder(&self.manifest.job)
    }

    /// Whether it is pinned: a pin beside any copy counts for all of them.
    pub fn is_pinned(&self) -> bool {
        self.copies.iter().any(|copy| copy.pinned)
    }

    /// The key of one of its files.
    pub fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.folder())
    }
}

impl Catalog {
    /// Reads everything that the storages hold, of one job or of all.
    pub async fn load(storages: &[Arc<dyn Storage>], job: Option<&str>) -> Self {
        Self::query(storages, &Query { job, ..Query::default() }).await
    }

    /// Reads what `query` asks for. All storages are asked at the same time; each that does not
    /// answer is one of the [`Catalog::problems`], after some minutes at most.
    pub async fn query(storages: &[Arc<dyn Storage>], query: &Query<'_>) -> Self {
        let mut catalog = Self::default();
        let listings = storages.iter().map(|storage| listing::list(storage.as_ref(), query));
        let mut answered = Vec::new();
        for (storage, listing) in storages.iter().zip(join_all(listings).await) {
            match listing {
                Ok(listing) => answered.push((storage, listing)),
                Err(error) => {
                    let storage = storage.name().to_owned();
                    catalog.unreachable.push(storage.clone());
                    catalog.problems.push(Problem { storage, error });
                }
            }
        }
        let selected = query.select(answered.iter().flat_map(|(_, listing)| listing.keys()));
        let reads = answered.into_iter().map(|(storage, mut listing)| {
            listing.retain(|key, _| selected.contains(key));
            manifests::read_all(storage, listing)
        });
        catalog.merge(join_all(reads).await, storages);
        catalog
    }

    /// Puts together what the storages told, each backup's copies in the order of the storages.
    fn merge(&mut self, told: Vec<Told>, storages: &[Arc<dyn Storage>]) {
        let mut merged: BTreeMap<(BackupId, String), CatalogEntry> = BTreeMap::new();
        let mut unread: BTreeSet<(BackupId, String, String)> = BTreeSet::new();
        for told in told {
            self.problems.extend(told.problems);
            for ((job, id), copy) in told.copies {
                self.problems.extend(add_copy(merged.entry((id, job)), id, copy));
            }
            let storage = told.storage;
            unread.extend(told.unread.into_iter().map(|(job, id)| (id, job, storage.clone())));
        }
        for ((id, job), mut entry) in merged {
            for storage in storages.iter().map(|storage| storage.name().to_owned()) {
                let unread = unread.contains(&(id, job.clone(), storage.clone()));
                if unread || self.unreachable.contains(&storage) {
                    entry.unknown_in.push(storage);
                } else if !entry.copies.iter().any(|copy| copy.storage == storage) {
                    entry.missing_in.push(storage);
                }
            }
            self.backups.push(entry);
        }
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
        let horizon = listing::horizon();
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
fn add_copy(
    known: Entry<'_, (BackupId, String), CatalogEntry>,
    id: BackupId,
    copy: StoredCopy,
) -> Option<Problem> {
    let entry = known.or_insert_with(|| CatalogEntry {
        id,
        manifest: copy.manifest.clone(),
        manifest_json: copy.manifest_json.clone(),
        copies: Vec::new(),
        missing_in: Vec::new(),
        unknown_in: Vec::new(),
    });
    let (storage, same) = (copy.storage.clone(), entry.manifest_json == copy.manifest_json);
    entry.copies.push(copy);
    if same {
        return None;
    }
    let message = format!("that of {id} is not the one in storage {}", entry.copies[0].storage);
    let error = Error::damaged("manifest", message)
        .next_step("verify the backup: it tells which of the two was altered");
    Some(Problem { storage, error })
}
