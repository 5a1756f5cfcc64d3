//! Removing the copy that a new one has taken the place of.

use std::sync::Arc;

use jiff::Timestamp;

use super::RekeyPlan;
use crate::backup::claim::{Hold, Purpose};
use crate::copy::read_if_there;
use crate::layout::{CLAIM, MANIFEST, PIN, SHA256SUMS};
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
    let (manifest, purpose) = (Some(&entry.manifest), Purpose::rekey(&plan.host));
    let hold = Hold::take(storage, &folder, manifest, purpose, now, plan.limits).await?;
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
    let claim = format!("{folder}/{CLAIM}");
    let mut keys = within(name, limit, keys_in(storage, folder)).await?;
    keys.retain(|key| *key != claim);
    for key in keys {
        within(name, limit, storage.delete(&key)).await?;
    }
    Ok(())
}

/// The keys in a folder, and in none whose name only begins like it.
async fn keys_in(storage: &Arc<dyn Storage>, folder: &str) -> Result<Vec<String>> {
    let inside = format!("{folder}/");
    let mut keys: Vec<String> =
        storage.list(folder).await?.into_iter().map(|object| object.key).collect();
    keys.retain(|key| key.starts_with(&inside));
    Ok(keys)
}

/// What is pinned stays pinned: the pin of the old copy goes to the new one, under its id.
pub(super) async fn carry_pin(
    entry: &CatalogEntry,
    new: BackupId,
    storage: &Arc<dyn Storage>,
    limits: Limits,
) -> Result<()> {
    let Some(pin) = read_if_there(storage, &entry.key(PIN)).await? else { return Ok(()) };
    let carried = match serde_json::from_slice::<serde_json::Value>(&pin) {
        Ok(mut document) => {
            document["backup"] = new.to_string().into();
            document.to_string().into_bytes()
        }
        // A newer version's: what it means is kept, whatever it says.
        Err(_) => pin,
    };
    let key = format!("{}/{PIN}", new.folder(&entry.manifest.job));
    let created = storage.create_new(&key, carried.into());
    // One that is there already does as well.
    within(storage.name(), limits.commit, created).await.map(drop)
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
/// without a manifest. Says in how many storages there was something. `host` is the one that
/// runs this, and no other run of the job goes on there.
///
/// # Errors
/// When it can't be looked for or removed.
pub async fn clear_remains(
    new: &Manifest,
    storages: &[Arc<dyn Storage>],
    host: &str,
    context: &Context,
) -> Result<usize> {
    let Some(rekeyed) = &new.rekeyed else { return Ok(0) };
    let folder = rekeyed.from.parse::<BackupId>()?.folder(&new.job);
    let (limits, manifest) = (Limits::default(), format!("{folder}/{MANIFEST}"));
    let mut cleared = 0;
    for storage in storages {
        let look = within(storage.name(), limits.sink_stall, keys_in(storage, &folder));
        let keys = context.cancel.guard(look).await?;
        if keys.is_empty() || keys.contains(&manifest) {
            continue;
        }
        let (purpose, now) = (Purpose::rekey(host), Timestamp::now());
        let hold = Hold::take(storage, &folder, None, purpose, now, limits).await?;
        let Some(hold) = hold else { continue };
        let listed = read_if_there(storage, &manifest).await;
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
