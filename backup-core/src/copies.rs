//! The copies of a backup that are read as one: each file from a storage that has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use crate::{CatalogEntry, Storage, StoredCopy};

/// The storages that hold the same bytes, the best first, and which of them is read. One that
/// failed is not asked first for the next object either: clones share it.
#[derive(Clone)]
pub(crate) struct Copies {
    members: Arc<[Member]>,
    reading: Arc<AtomicUsize>,
    /// Whether what was replaced or deleted may be read where it is still kept: to get the data
    /// back, but not to judge a copy.
    pub(crate) also_kept: bool,
    /// When the backup was finished, by its manifest.
    pub(crate) finished: Option<Timestamp>,
}

/// A storage, and the files that its copy lacks, or has with another size.
struct Member {
    storage: Arc<dyn Storage>,
    lacks: BTreeSet<String>,
}

impl Member {
    fn has(&self, key: &str) -> bool {
        !self.lacks.contains(key.rsplit('/').next().unwrap_or(key))
    }

    /// Whether a file may be read from it: what was replaced or deleted may still be kept.
    fn may_have(&self, key: &str) -> bool {
        self.has(key) || self.storage.versioned().is_some()
    }
}

impl Copies {
    /// Storages with a whole copy each.
    pub(crate) fn new(first: Arc<dyn Storage>, others: Vec<Arc<dyn Storage>>) -> Self {
        let whole = |storage| Member { storage, lacks: BTreeSet::new() };
        let members = std::iter::once(first).chain(others).map(whole).collect();
        Self { members, reading: Arc::default(), also_kept: false, finished: None }
    }

    /// The copies of `entry` in the `storages`, the whole ones first and then those from which
    /// the rest can be pieced together. Only copies with the very same manifest are one backup:
    /// that of the first storage with a whole copy, else the first with which every part is somewhere.
    ///
    /// `None` when no part of some manifest can be had.
    pub(crate) fn pieced(entry: &CatalogEntry, storages: &[Arc<dyn Storage>]) -> Option<Self> {
        let copy_in = |storage: &Arc<dyn Storage>| {
            entry.copies.iter().find(|copy| copy.storage == storage.name())
        };
        let mut found: Vec<(&Arc<dyn Storage>, &StoredCopy)> =
            storages.iter().filter_map(|storage| Some((storage, copy_in(storage)?))).collect();
        // Stable: among equals, the order of the storages stays.
        found.sort_by_key(|(_, copy)| !copy.damaged_parts.is_empty());
        found.iter().find_map(|(_, chosen)| {
            let same = found.iter().filter(|(_, copy)| copy.manifest_json == chosen.manifest_json);
            let members: Vec<Member> = same
                .map(|(storage, copy)| Member {
                    storage: Arc::clone(storage),
                    lacks: copy.damaged_parts.iter().cloned().collect(),
                })
                .collect();
            let somewhere = |file: &str| members.iter().any(|member| member.may_have(file));
            let complete = chosen.manifest.parts.iter().all(|part| somewhere(&part.file));
            complete.then(|| Self {
                members: members.into(),
                reading: Arc::default(),
                also_kept: true,
                finished: Some(chosen.manifest.finished),
            })
        })
    }

    /// The one that is read now.
    pub(crate) fn current(&self) -> &Arc<dyn Storage> {
        &self.members[self.reading.load(Ordering::Relaxed)].storage
    }

    /// All of them, the one that is read now first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Storage>> {
        self.in_order().map(|member| &member.storage)
    }

    fn in_order(&self) -> impl Iterator<Item = &Member> {
        let now = self.reading.load(Ordering::Relaxed);
        self.members[now..].iter().chain(&self.members[..now])
    }

    /// The storages to read a file from, the best first: one that lacks it comes last, and only
    /// if it may keep what was there before. If all lack it, they are asked all the same: what
    /// is told then is what each of them says.
    pub(crate) fn of(&self, key: &str) -> Vec<Arc<dyn Storage>> {
        let mut members: Vec<_> = self.in_order().filter(|member| member.may_have(key)).collect();
        members.sort_by_key(|member| !member.has(key));
        if members.is_empty() {
            members = self.in_order().collect();
        }
        members.into_iter().map(|member| Arc::clone(&member.storage)).collect()
    }

    /// The same, of one storage alone.
    pub(crate) fn only(&self, storage: &Arc<dyn Storage>) -> Self {
        let alone = Self::new(Arc::clone(storage), Vec::new());
        Self { also_kept: self.also_kept, finished: self.finished, ..alone }
    }

    pub(crate) fn go_on_with(&self, storage: &Arc<dyn Storage>) {
        let index = self.members.iter().position(|other| Arc::ptr_eq(&other.storage, storage));
        if let Some(index) = index {
            self.reading.store(index, Ordering::Relaxed);
        }
    }
}
