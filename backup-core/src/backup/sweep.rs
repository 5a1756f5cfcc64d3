//! What crashed runs left, and what of it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::claim::{self, Hold};
use super::{BackupPlan, SWEEP_GRACE};
use crate::pipeline::{Context, Limits, within};
use crate::{BackupId, ObjectInfo, Result, Storage, layout};

/// Removes what crashed runs left, in all storages at once. Failing to is told, and no reason
/// not to back up. A storage that could not be listed just before is not asked again.
pub(super) async fn sweep_leftovers(
    plan: &BackupPlan,
    unreachable: &[String],
    context: &Context,
) -> Result<()> {
    let Ok(age) = jiff::SignedDuration::try_from(plan.timeout.saturating_add(SWEEP_GRACE)) else {
        return Ok(());
    };
    let Ok(before) = plan.started.checked_sub(age) else { return Ok(()) };
    let sweeps = plan.storages.iter().map(|storage| async move {
        let name = storage.name();
        if unreachable.iter().any(|other| other == name) {
            context.warn(&format!("storage {name} could not be swept: it can't be listed"));
            return;
        }
        let swept = sweep(storage, &plan.job, before, plan.started, plan.limits, context);
        let swept = within(name, plan.limits.commit, swept);
        if let Err(error) = swept.await {
            context.warn(&format!("storage {name} could not be swept: {error}"));
        }
    });
    join_all(sweeps).await;
    Ok(())
}

/// Removes the folders of runs that crashed before `before`, and leftovers of that age, of one
/// job or ("") of all.
///
/// Touches only what is unlisted and so old that its run must have ended: a run ends within
/// its job's timeout, of which its claim knows best. Each folder it removes is told. A folder
/// that lacks nothing but its manifest stays: its data can be restored by hand.
pub(crate) async fn sweep(
    storage: &Arc<dyn Storage>,
    job: &str,
    before: Timestamp,
    now: Timestamp,
    limits: Limits,
    context: &Context,
) -> Result<()> {
    let objects = storage.list(job).await?;
    let mut folders: BTreeMap<(BackupId, &str), BTreeMap<&str, &ObjectInfo>> = BTreeMap::new();
    for object in &objects {
        if let Some((job, id, name)) = layout::parse_key(&object.key) {
            folders.entry((id, job)).or_default().insert(name, object);
        }
    }
    folders.retain(|_, files| !files.contains_key(layout::MANIFEST));
    // A run of another host may have a longer timeout: its unfinished uploads are as old as it.
    let mut untouched = before;
    for ((id, job), files) in &folders {
        if files.contains_key(layout::CLAIM)
            && let Some(since) = claim::live_since(storage, &id.folder(job), None, now).await?
        {
            untouched = untouched.min(since);
        }
    }
    storage.sweep(job, untouched).await?;
    for ((id, job), files) in folders {
        let old: Vec<_> = files.into_values().filter(|object| object.modified < before).collect();
        if id.started() < before && !old.is_empty() {
            sweep_folder(storage, &id.folder(job), &old, now, limits, context).await?;
        }
    }
    Ok(())
}

/// Removes what is old in one unlisted folder, unless somebody is at work there.
async fn sweep_folder(
    storage: &Arc<dyn Storage>,
    folder: &str,
    old: &[&ObjectInfo],
    now: Timestamp,
    limits: Limits,
    context: &Context,
) -> Result<()> {
    let name = storage.name();
    if storage.stat(&format!("{folder}/{}", layout::SHA256SUMS)).await?.is_some() {
        context.warn(&format!(
            "{folder} in storage {name} looks complete but its manifest is missing; restore it \
             by hand with its {} or remove it",
            layout::RESTORE_NOTE
        ));
        return Ok(());
    }
    let Some(hold) = Hold::take(storage, folder, None, "sweep", now, limits).await? else {
        return Ok(());
    };
    let removed = remove_old(storage, folder, old).await;
    hold.release(context).await;
    if removed? {
        context.warn(&format!("storage {name}: removed what a crashed run left: {folder}"));
    }
    Ok(())
}

/// Removes files of a folder that is held; says whether it did.
async fn remove_old(storage: &Arc<dyn Storage>, folder: &str, old: &[&ObjectInfo]) -> Result<bool> {
    // A listing may lag behind: what is listed by now is nobody's to sweep.
    if storage.stat(&format!("{folder}/{}", layout::MANIFEST)).await?.is_some() {
        return Ok(false);
    }
    let claim = format!("{folder}/{}", layout::CLAIM);
    for object in old.iter().filter(|object| object.key != claim) {
        storage.delete(&object.key).await?;
    }
    Ok(true)
}
