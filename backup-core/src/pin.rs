//! The verbs `pin` and `unpin`: a backup that no retention removes.
//!
//! A pin is an object `pin.json` in the folder of each copy. One of them is enough: what is pinned
//! in one storage is pruned in none. Where a storage has locks, every file is held besides, so that
//! nobody else can delete them either.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::manifest::read_document;
use crate::pipeline::{Context, Limits, within};
use crate::{
    CatalogEntry, Creation, Error, ErrorKind, Result, Storage, StoredObject, layout, read_small,
};

/// The number of the newest format of a pin that this version reads and the one it writes.
pub const PIN_FORMAT: u32 = 1;

/// Who wants a backup kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Format number, [`PIN_FORMAT`].
    pub format: u32,
    /// The backup.
    pub backup: String,
    /// Why.
    pub reason: String,
    /// Who said so: a login name.
    pub by: String,
    /// On which host.
    pub host: String,
    /// When.
    pub pinned: Timestamp,
    /// Name and version of the program.
    pub tool: String,
}

/// What a pin did to one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// It is pinned now.
    Now,
    /// It was, and its reason stays as it was.
    Before,
}

/// Pins every copy of a backup in these storages; tells for each whether it could.
pub async fn pin(
    entry: &CatalogEntry,
    storages: &[Arc<dyn Storage>],
    pin: &Pin,
) -> Vec<(String, Result<Pinned>)> {
    let mut done = Vec::new();
    for storage in with_copy(entry, storages) {
        done.push((storage.name().to_owned(), pin_in(entry, storage, pin).await));
    }
    done
}

/// Takes the pins of a backup away again; tells for each storage whether it could.
pub async fn unpin(
    entry: &CatalogEntry,
    storages: &[Arc<dyn Storage>],
) -> Vec<(String, Result<()>)> {
    let mut done = Vec::new();
    for storage in with_copy(entry, storages) {
        done.push((storage.name().to_owned(), unpin_in(entry, storage).await));
    }
    done
}

/// The pin of a backup, from the first copy that has one that can be read; `None` when no copy
/// has one.
///
/// # Errors
/// When it can't be read.
pub async fn read_pin(entry: &CatalogEntry, storages: &[Arc<dyn Storage>]) -> Result<Option<Pin>> {
    let mut failed = None;
    for storage in with_copy(entry, storages) {
        let has_one = |copy: &crate::StoredCopy| copy.storage == storage.name() && copy.pinned;
        if !entry.copies.iter().any(has_one) {
            continue;
        }
        let stored = StoredObject::unchecked(Arc::clone(storage), entry.key(layout::PIN));
        let json = read_small(&stored).await;
        match json.and_then(|json| read_document(&json, "pin", PIN_FORMAT)) {
            Ok(pin) => return Ok(Some(pin)),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

fn with_copy<'s>(
    entry: &CatalogEntry,
    storages: &'s [Arc<dyn Storage>],
) -> impl Iterator<Item = &'s Arc<dyn Storage>> {
    let has =
        |storage: &Arc<dyn Storage>| entry.copies.iter().any(|copy| copy.storage == storage.name());
    storages.iter().filter(move |storage| has(storage))
}

async fn asked<T>(storage: &dyn Storage, work: impl Future<Output = Result<T>>) -> Result<T> {
    within(storage.name(), Limits::default().commit, work).await
}

async fn pin_in(entry: &CatalogEntry, storage: &Arc<dyn Storage>, pin: &Pin) -> Result<Pinned> {
    let json = serde_json::to_vec_pretty(pin)
        .map_err(|e| Error::failed("pin", "could not be written as JSON").caused_by(e))?;
    let (key, tombstone) = (entry.key(layout::PIN), entry.key(layout::PRUNED));
    let created = asked(storage.as_ref(), storage.create_new(&key, Bytes::from(json))).await?;
    // A prune writes its tombstone, then looks for a pin: one of the two sees the other.
    if asked(storage.as_ref(), storage.stat(&tombstone)).await?.is_some() {
        let message = format!("{} in storage {} is being pruned", entry.id, storage.name());
        return Err(Error::new(ErrorKind::Locked, "pin", message).next_step(
            "look with `marb-backup list` whether it is still there: if it is, the pin counts, and \
             the next `marb-backup prune --apply` puts right what a crashed one left",
        ));
    }
    hold(&entry.folder(), storage.as_ref(), true).await?;
    Ok(if created == Creation::Created { Pinned::Now } else { Pinned::Before })
}

/// The holds first: as long as one may be left, it is pinned, so that somebody comes back to it.
async fn unpin_in(entry: &CatalogEntry, storage: &Arc<dyn Storage>) -> Result<()> {
    hold(&entry.folder(), storage.as_ref(), false).await?;
    asked(storage.as_ref(), storage.delete(&entry.key(layout::PIN))).await
}

/// What became of the files of a copy that is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// All of them are held.
    All,
    /// The storage can't hold anything: it has no locks.
    NoLocks,
    /// That failed, and was told.
    Failed,
}

/// Holds the files of a copy that got its pin from another one, where the storage has locks; that
/// it can't is told, since the pin counts without, too.
pub(crate) async fn hold_pinned(
    id: &str,
    folder: &str,
    storage: &Arc<dyn Storage>,
    context: &Context,
) -> Held {
    hold(folder, storage.as_ref(), true).await.unwrap_or_else(|error| {
        context.warn(&format!(
            "{id} is pinned in storage {}, but not all of its files are held: {error}; try again \
             with `marb-backup pin {id} --reason TEXT`",
            storage.name()
        ));
        Held::Failed
    })
}

/// Sets or lifts a hold on every file that does not come and go by itself, where the storage has
/// locks.
async fn hold(folder: &str, storage: &dyn Storage, held: bool) -> Result<Held> {
    let Some(versioned) = storage.versioned() else { return Ok(Held::NoLocks) };
    let manifest = format!("{folder}/{}", layout::MANIFEST);
    if asked(storage, versioned.versions(&manifest)).await?.is_empty() {
        return Ok(Held::NoLocks);
    }
    // A bucket that keeps versions need not have locks.
    if !asked(storage, versioned.hold(&manifest, None, held)).await? {
        return Ok(Held::NoLocks);
    }
    let files = asked(storage, storage.list(folder)).await?;
    for object in files.iter().filter(|object| !layout::is_passing(&object.key)) {
        asked(storage, versioned.hold(&object.key, None, held)).await?;
    }
    Ok(Held::All)
}
