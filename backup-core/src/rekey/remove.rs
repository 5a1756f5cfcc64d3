//! Removing the copy that a new one has taken the place of.

use std::sync::Arc;

use jiff::Timestamp;

use super::RekeyPlan;
use crate::backup::claim::Hold;
use crate::copy::read_if_there;
use crate::layout::{CLAIM, MANIFEST, SHA256SUMS};
use crate::pipeline::{Context, Limits, within};
use crate::{BackupId, CatalogEntry, Error, ErrorKind, Manifest, Result, Storage};

/// What became of the old copy in a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldCopy {
    /// It is gone.
    Removed,
    /// It is locked until then, so it stays beside the new one; `None` as long as somebody holds
    /// it. A later run removes it.
    Locked(Option<Timestamp>),
}

/// Removes the old copy from `storage`: the manifest first, so that it is never half-listed,
/// then the checksum list, so that what is left never looks complete.
pub(super) async fn remove(
    plan: &RekeyPlan<'_>,
    storage: &Arc<dyn Storage>,
    context: &Context,
) -> Result<OldCopy> {
    let (entry, now) = (plan.entry, Timestamp::now());
    if let Some(lock) = context.cancel.guard(lock_on(entry, storage, plan.limits, now)).await? {
        return Ok(lock);
    }
    let folder = entry.folder();
    let hold =
        Hold::take(storage, &folder, Some(&entry.manifest), "rekey", now, plan.limits).await?;
    let hold = hold.ok_or_else(|| {
        let message = format!("somebody is at work in {folder} of storage {}", storage.name());
        Error::new(ErrorKind::Locked, "rekey", message).next_step("run it again later")
    })?;
    let removed = remove_held(entry, storage, &folder, plan.limits).await;
    hold.release(context).await;
    removed.map(|()| OldCopy::Removed)
}

async fn remove_held(
    entry: &CatalogEntry,
    storage: &Arc<dyn Storage>,
    folder: &str,
    limits: Limits,
) -> Result<()> {
    let known = entry.copies.iter().find(|copy| copy.storage == storage.name());
    let there = read_if_there(storage, &format!("{folder}/{MANIFEST}")).await?;
    match (there, known) {
        (None, _) => {}
        (Some(there), Some(known)) if there == known.manifest_json => {}
        (Some(_), _) => {
            let message = format!("{folder} in storage {} has changed meanwhile", storage.name());
            return Err(Error::refused("rekey", message).next_step("run it again"));
        }
    }
    remove_files(storage, folder, limits).await
}

async fn remove_files(storage: &Arc<dyn Storage>, folder: &str, limits: Limits) -> Result<()> {
    let (name, limit) = (storage.name(), limits.sink_stall);
    for file in [MANIFEST, SHA256SUMS] {
        within(name, limit, storage.delete(&format!("{folder}/{file}"))).await?;
    }
    let (inside, claim) = (format!("{folder}/"), format!("{folder}/{CLAIM}"));
    let objects = within(name, limit, storage.list(folder)).await?;
    for object in objects.iter().filter(|o| o.key.starts_with(&inside) && o.key != claim) {
        within(name, limit, storage.delete(&object.key)).await?;
    }
    Ok(())
}

/// What keeps a file of the copy from being deleted.
async fn lock_on(
    entry: &CatalogEntry,
    storage: &Arc<dyn Storage>,
    limits: Limits,
    now: Timestamp,
) -> Result<Option<OldCopy>> {
    let Some(versioned) = storage.versioned() else { return Ok(None) };
    let files = entry.manifest.parts.iter().map(|part| part.file.as_str()).chain([MANIFEST]);
    let mut latest = None;
    for file in files {
        let key = entry.key(file);
        let asked = versioned.protection(&key, None);
        let found = match within(storage.name(), limits.sink_stall, asked).await {
            Err(gone) if gone.kind() == ErrorKind::NotFound => continue,
            found => found?,
        };
        if found.held {
            return Ok(Some(OldCopy::Locked(None)));
        }
        latest = latest.max(found.locked_until.filter(|until| *until > now));
    }
    Ok(latest.map(|until| OldCopy::Locked(Some(until))))
}

/// Removes what a removal that was killed left of the backup that `new` was made of: files
/// without a manifest. Says in how many storages there was something.
///
/// # Errors
/// When it can't be looked for or removed.
pub async fn clear_remains(
    new: &Manifest,
    storages: &[Arc<dyn Storage>],
    context: &Context,
) -> Result<usize> {
    let Some(rekeyed) = &new.rekeyed else { return Ok(0) };
    let folder = rekeyed.from.parse::<BackupId>()?.folder(&new.job);
    let (limits, inside) = (Limits::default(), format!("{folder}/"));
    let mut cleared = 0;
    for storage in storages {
        let look = within(storage.name(), limits.sink_stall, storage.list(&folder));
        let objects = context.cancel.guard(look).await?;
        let mut objects =
            objects.iter().filter(|object| object.key.starts_with(&inside)).peekable();
        if objects.peek().is_none() || objects.any(|object| object.key.ends_with(MANIFEST)) {
            continue;
        }
        let now = Timestamp::now();
        let Some(hold) = Hold::take(storage, &folder, None, "rekey", now, limits).await? else {
            continue;
        };
        let listed = read_if_there(storage, &format!("{folder}/{MANIFEST}")).await;
        let removed = match listed {
            Ok(None) => remove_files(storage, &folder, limits).await.map(|()| cleared += 1),
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        hold.release(context).await;
        removed?;
    }
    Ok(cleared)
}
