//! The verb `prune`: what a retention policy lets go is removed, in each storage by itself.
//!
//! ```text
//! plan_prune   Catalog + policy ─> what is kept, by which rule, and what goes    plan.rs
//!              and a look at the storages: locks, what a crash left              look.rs
//! expired_on_arrival   what a copy to a storage would bring in vain              arrivals.rs
//! apply_prune  extend locks, finish what crashed, then folder by folder          apply.rs
//!              claim, pruned.json, look again, manifest.json, the rest           removal.rs
//! ```
//!
//! A crash at any point leaves a backup that is listed and whole, or a folder that is not listed
//! and says by its `pruned.json` that nobody needs it: see docs/pruning.md.

mod apply;
mod arrivals;
mod look;
mod plan;
pub(crate) mod removal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::{BackupId, Catalog, Error, Manifest, RetentionPolicy, Storage};

pub use apply::{PruneReport, PrunedBackup, StorageReport, apply_prune};
pub use arrivals::expired_on_arrival;

/// By what a job's backups are pruned.
pub struct PruneRules<'a> {
    /// The job.
    pub job: &'a str,
    /// Which backups are kept.
    pub policy: &'a dyn RetentionPolicy,
    /// What time it is.
    pub now: Timestamp,
    /// This host. The caller holds the job's lock on it, so that a claim which a prune of this
    /// host left is a dead one's.
    pub host: String,
    /// What becomes of backups of another source than the newest one's.
    pub foreign: Foreign,
    /// At most so many backups go in one run; if there are more, none does.
    pub max_delete: Option<usize>,
    /// Storages in which every object is locked, and for how many days: the locks of what is kept
    /// are extended when less than half of that is left.
    pub lock_days: BTreeMap<String, u32>,
}

/// What becomes of backups of another source than the newest one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// If one of them is to go, nothing goes.
    Refuse,
    /// They stay, and the others are judged as if they were not there.
    Keep,
    /// They are judged like the others.
    Adopt,
}

/// What would be done.
#[derive(Debug)]
pub struct PrunePlan {
    /// The job.
    pub job: String,
    /// Each storage by itself.
    pub storages: Vec<StoragePlan>,
    /// Why nothing of it may be done.
    pub refused: Option<Error>,
    pub(crate) now: Timestamp,
    pub(crate) host: String,
}

/// What would be done in one storage.
#[derive(Debug)]
pub struct StoragePlan {
    /// Its name.
    pub storage: String,
    /// Why nothing is removed here: it could not be read, or not in full.
    pub problem: Option<Error>,
    /// Its backups, oldest first.
    pub backups: Vec<Judged>,
    /// Folders that an earlier prune did not get to the end with. They are not listed.
    pub unfinished: Vec<BackupId>,
}

/// A backup in one storage, and what becomes of it there.
#[derive(Debug)]
pub struct Judged {
    /// Which one.
    pub id: BackupId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Whether its parts are all there, and its last verification did not fail.
    pub good: bool,
    /// Until when its lock is to be extended.
    pub extend_lock: Option<Timestamp>,
    /// Whether it came from another source than the newest backup.
    pub foreign: bool,
    pub(crate) manifest: Manifest,
    /// An earlier prune began to remove it and came no further.
    pub(crate) half_pruned: bool,
    /// Marks of readers that must be dead.
    pub(crate) dead_readers: Vec<String>,
}

/// What becomes of a backup in one storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these reasons.
    Keep(Vec<String>),
    /// It goes, for this reason.
    Delete(String),
    /// It would go, and stays for now.
    Skip {
        /// Why it would go.
        expired: String,
        /// Why it stays.
        because: String,
    },
}

impl Judged {
    /// Stored bytes of its parts.
    pub fn bytes(&self) -> u64 {
        self.manifest.stored_bytes()
    }
}

impl PrunePlan {
    /// The backups that would be removed somewhere.
    pub fn deletions(&self) -> BTreeSet<BackupId> {
        let all = self.storages.iter().flat_map(|storage| &storage.backups);
        all.filter(|one| matches!(one.verdict, Verdict::Delete(_))).map(|one| one.id).collect()
    }
}

/// Decides what becomes of each backup of a job in each of the `storages`, of which `catalog`
/// tells everything that they hold of the job. Nothing is changed.
///
/// Of a storage that the catalog could not read in full nothing would be removed.
pub async fn plan_prune(
    catalog: &Catalog,
    storages: &[Arc<dyn Storage>],
    rules: &PruneRules<'_>,
) -> PrunePlan {
    let mut plan = plan::judge(catalog, rules);
    look::look(&mut plan, storages, rules).await;
    plan::spare_unread(&mut plan);
    plan.refused = plan::refusal(&plan, rules);
    plan
}
