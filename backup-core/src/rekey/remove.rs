//! Removing the copy that a new one has taken the place of.

use std::sync::Arc;

use jiff::Timestamp;

use super::RekeyPlan;
use crate::backup::claim::Purpose;
use crate::copy::read_if_there;
use crate::layout::{MANIFEST, PIN, PRUNED};
use crate::pipeline::{Context, Limits, within};
use crate::prune::removal::{Folder, Removal};
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

/// Removes the old copy from `storage`, in the way of a prune. `pin_carried` says whether the new
/// one has its pin.
pub(super) async fn remove(
    plan: &RekeyPlan<'_>,
    storage: &Arc<dyn Storage>,
    pin_carried: bool,
    context: &Context,
) -> Result<OldCopy> {
    let (entry, now) = (plan.entry, Timestamp::now());
    if let Some(lock) = context.cancel.guard(lock_on(entry, storage, plan.limits, now)).await? {
        return Ok(lock);
    }
    refuse_changed(entry, storage).await?;
    let manifest = Some(&entry.manifest);
    let folder = folder(storage, entry.id, &entry.manifest.job, manifest, &plan.host, context);
    match (Folder { pin_carried, ..folder }).remove().await? {
        Removal::Done { .. } => Ok(OldCopy::Removed),
        Removal::Left(why) => {
            let message = format!("{} stays in storage {}: {why}", entry.id, storage.name());
            Err(Error::new(ErrorKind::Locked, "rekey", message).next_step("run it again later"))
        }
    }
}

fn folder<'a>(
    storage: &'a Arc<dyn Storage>,
    id: BackupId,
    job: &str,
    manifest: Option<&'a Manifest>,
    host: &'a str,
    context: &'a Context,
) -> Folder<'a> {
    Folder {
        storage,
        id,
        path: id.folder(job),
        manifest,
        host,
        purpose: Purpose::rekey(host),
        pin_carried: false,
        now: Timestamp::now(),
        context,
    }
}

async fn refuse_changed(entry: &CatalogEntry, storage: &Arc<dyn Storage>) -> Result<()> {
    let known = entry.copies.iter().find(|copy| copy.storage == storage.name());
    let there = read_if_there(storage, &entry.key(MANIFEST)).await?;
    match (there, known) {
        (None, _) => Ok(()),
        (Some(there), Some(known)) if there == known.manifest_json => Ok(()),
        (Some(_), _) => {
            let (id, name) = (entry.id, storage.name());
            let message = format!("{id} in storage {name} has changed meanwhile");
            Err(Error::refused("rekey", message).next_step("run it again"))
        }
    }
}

/// What is pinned stays pinned: the pin of the old copy goes to the new one, under its id. Says
/// whether there was one.
pub(super) async fn carry_pin(
    entry: &CatalogEntry,
    new: BackupId,
    storage: &Arc<dyn Storage>,
    limits: Limits,
) -> Result<bool> {
    let Some(pin) = read_if_there(storage, &entry.key(PIN)).await? else { return Ok(false) };
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
    within(storage.name(), limits.commit, created).await.map(|_| true)
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
    let id: BackupId = rekeyed.from.parse()?;
    let path = id.folder(&new.job);
    let mut cleared = 0;
    for storage in storages {
        let (pruned, manifest) = (format!("{path}/{PRUNED}"), format!("{path}/{MANIFEST}"));
        if !context.cancel.guard(has(storage, &pruned)).await? || has(storage, &manifest).await? {
            continue;
        }
        let folder = folder(storage, id, &new.job, None, host, context);
        if matches!(folder.finish().await?, Removal::Done { .. }) {
            cleared += 1;
        }
    }
    Ok(cleared)
}

async fn has(storage: &Arc<dyn Storage>, key: &str) -> Result<bool> {
    let found = within(storage.name(), Limits::default().sink_stall, storage.stat(key)).await?;
    Ok(found.is_some())
}
