//! What crashed runs left, and what of it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::claim::{self, Hold, Purpose};
use super::{BackupPlan, SWEEP_GRACE};
use crate::pipeline::{Context, Limits, within};
use crate::{BackupId, ObjectInfo, Result, Storage, layout};

/// So far back a run looks for leftovers each time: further than from one run of a daily, weekly
/// or monthly job to the next, with the age that a leftover must have.
const REACH: SignedDuration = SignedDuration::from_hours(24 * 40);

/// Removes what crashed runs left, in all storages at once. Failing to is told, and no reason
/// not to back up. A storage that could not be listed just before is not asked again.
///
/// Each run looks into the months that [`REACH`] reaches, and the first that succeeds in a month
/// into all of them: so the listing does not grow with the number of backups.
pub(super) async fn sweep_leftovers(
    plan: &BackupPlan,
    newest: Option<BackupId>,
    unreachable: &[String],
    context: &Context,
) -> Result<()> {
    let Ok(age) = SignedDuration::try_from(plan.timeout.saturating_add(SWEEP_GRACE)) else {
        return Ok(());
    };
    let Ok(before) = plan.started.checked_sub(age) else { return Ok(()) };
    let folders = &folders_to_sweep(&plan.job, newest, plan.started, before);
    let sweeps = plan.storages.iter().map(|storage| async move {
        let name = storage.name();
        if unreachable.iter().any(|other| other == name) {
            context.warn(&format!("storage {name} could not be swept: it can't be listed"));
            return;
        }
        let swept = sweep(storage, folders, before, plan.started, plan.limits, context);
        let swept = within(name, plan.limits.commit, swept);
        if let Err(error) = swept.await {
            context.warn(&format!("storage {name} could not be swept: {error}"));
        }
    });
    join_all(sweeps).await;
    Ok(())
}

/// The whole job's folder, or those of the months in reach.
fn folders_to_sweep(
    job: &str,
    newest: Option<BackupId>,
    now: Timestamp,
    before: Timestamp,
) -> Vec<String> {
    let this_month = layout::month_folder(job, now);
    if newest.is_none_or(|newest| newest.month_folder(job) != this_month) {
        return vec![job.to_owned()];
    }
    let day = SignedDuration::from_hours(24);
    let mut months = BTreeSet::new();
    // Only what is older than `before` is ever swept.
    let mut time = before.checked_sub(REACH).unwrap_or(before);
    while time < before {
        months.insert(layout::month_folder(job, time));
        time = time.checked_add(day).unwrap_or(before);
    }
    months.insert(layout::month_folder(job, before));
    months.into_iter().collect()
}

/// Removes the folders of runs that crashed before `before`, and leftovers of that age, below
/// `folders`: those of months, of a job, or ("") all.
///
/// Touches only what is unlisted and so old that its run must have ended: a run ends within
/// its job's timeout, of which its claim knows best. Each folder it removes is told. A folder
/// that lacks nothing but its manifest stays, unless a prune began to remove it: its data can be
/// restored by hand.
pub(crate) async fn sweep(
    storage: &Arc<dyn Storage>,
    below: &[String],
    before: Timestamp,
    now: Timestamp,
    limits: Limits,
    context: &Context,
) -> Result<()> {
    let mut objects = Vec::new();
    for folder in below {
        objects.extend(storage.list(folder).await?);
    }
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
    for folder in below {
        storage.sweep(folder, untouched).await?;
    }
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
    let is_there = async |file: &str| -> Result<bool> {
        Ok(storage.stat(&format!("{folder}/{file}")).await?.is_some())
    };
    // What somebody meant to remove is free to go, however complete it still is.
    if is_there(layout::SHA256SUMS).await? && !is_there(layout::PRUNED).await? {
        context.warn(&format!(
            "{folder} in storage {name} looks complete but its manifest is missing; restore it \
             by hand with its {} or remove it",
            layout::RESTORE_NOTE
        ));
        return Ok(());
    }
    let hold = Hold::take(storage, folder, None, Purpose::SWEEP, now, limits);
    let Some(hold) = hold.await? else { return Ok(()) };
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
    let tombstone = format!("{folder}/{}", layout::PRUNED);
    let mut keys: Vec<&String> = old.iter().map(|object| &object.key).collect();
    // As long as anything is left, it must not look like something worth keeping.
    keys.sort_by_key(|key| **key == tombstone);
    for key in keys.into_iter().filter(|key| **key != claim) {
        storage.delete(key).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(newest: Option<&str>, now: &str, before: &str) -> Vec<String> {
        let newest = newest.map(|id| id.parse().unwrap());
        folders_to_sweep("db", newest, now.parse().unwrap(), before.parse().unwrap())
    }

    #[test]
    fn the_first_backup_of_a_month_looks_at_everything_and_others_at_some_months() {
        let (now, before) = ("2026-03-20T02:00:00Z", "2026-03-18T02:00:00Z");
        assert_eq!(swept(None, now, before), ["db"]);
        assert_eq!(swept(Some("20260228T020000Z"), now, before), ["db"]);
        assert_eq!(swept(Some("20250319T020000Z"), now, before), ["db"], "of another year");
        assert_eq!(swept(Some("20260319T020000Z"), now, before), ["db/2026/02", "db/2026/03"]);
        let (now, before) = ("2026-01-03T02:00:00Z", "2026-01-01T02:00:00Z");
        let months = ["db/2025/11", "db/2025/12", "db/2026/01"];
        assert_eq!(swept(Some("20260102T020000Z"), now, before), months);
    }
}
