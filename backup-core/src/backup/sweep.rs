//! What crashed runs left, and what of it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::{BackupPlan, SWEEP_GRACE, claim};
use crate::pipeline::{Context, within};
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
        let swept = within(name, plan.limits.commit, sweep(plan, storage, before, context));
        if let Err(error) = swept.await {
            context.warn(&format!("storage {name} could not be swept: {error}"));
        }
    });
    join_all(sweeps).await;
    Ok(())
}

/// Removes the folders of runs that crashed before `before`, and leftovers of that age.
///
/// Touches only what is unlisted and so old that its run must have ended: a run ends within
/// its job's timeout, of which its claim knows best. Each folder it removes is told. A folder
/// that lacks nothing but its manifest stays: its data can be restored by hand.
async fn sweep(
    plan: &BackupPlan,
    storage: &Arc<dyn Storage>,
    before: Timestamp,
    context: &Context,
) -> Result<()> {
    storage.sweep(&plan.job, before).await?;
    let objects = storage.list(&plan.job).await?;
    let mut folders: BTreeMap<(BackupId, &str), BTreeMap<&str, &ObjectInfo>> = BTreeMap::new();
    for object in &objects {
        if let Some((job, id, name)) = layout::parse_key(&object.key) {
            folders.entry((id, job)).or_default().insert(name, object);
        }
    }
    for ((id, job), files) in folders {
        let old: Vec<_> = files.values().filter(|object| object.modified < before).collect();
        if files.contains_key(layout::MANIFEST) || id.started() >= before || old.is_empty() {
            continue;
        }
        let folder = id.folder(job);
        if files.contains_key(layout::SHA256SUMS) {
            context.warn(&format!(
                "{folder} in storage {} looks complete but its manifest is missing; restore it \
                 by hand with its {} or remove it",
                storage.name(),
                layout::RESTORE_NOTE
            ));
            continue;
        }
        let claimed = files.contains_key(layout::CLAIM)
            && claim::may_be_running(storage, &folder, plan.started).await;
        // A listing may lag behind: what is listed by now is nobody's to sweep.
        let manifest = format!("{folder}/{}", layout::MANIFEST);
        if claimed || storage.stat(&manifest).await?.is_some() {
            continue;
        }
        for object in old {
            storage.delete(&object.key).await?;
        }
        let name = storage.name();
        context.warn(&format!("storage {name}: removed what a crashed run left: {folder}"));
    }
    Ok(())
}
