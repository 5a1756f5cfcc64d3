//! What the catalog can't tell: locks, and folders that an earlier prune did not finish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::{Judged, PrunePlan, PruneRules, StoragePlan, Verdict};
use crate::pipeline::within;
use crate::{BackupId, Error, Protection, Result, Storage, Versioned, layout};

/// Longest time a storage may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Most backups of one storage that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;

pub(super) async fn look(
    plan: &mut PrunePlan,
    storages: &[Arc<dyn Storage>],
    rules: &PruneRules<'_>,
) {
    // A storage without a backup may hold what an earlier prune left.
    let known: BTreeSet<String> = plan.storages.iter().map(|one| one.storage.clone()).collect();
    let empty = storages.iter().filter(|storage| !known.contains(storage.name()));
    plan.storages.extend(empty.map(|storage| StoragePlan {
        storage: storage.name().to_owned(),
        problem: None,
        backups: Vec::new(),
        unfinished: Vec::new(),
    }));
    let order = |name: &str| storages.iter().position(|storage| storage.name() == name);
    plan.storages.sort_by_key(|one| order(&one.storage));
    let looks = plan.storages.iter_mut().map(|one| async move {
        let storage = storages.iter().find(|storage| storage.name() == one.storage);
        let Some(storage) = storage else {
            // It could not be opened, which is the catalog's to tell.
            return;
        };
        if one.problem.is_some() {
            return;
        }
        match unfinished(storage.as_ref(), rules.job).await {
            Ok(found) => one.unfinished = found,
            Err(error) => {
                one.problem = Some(error);
                return;
            }
        }
        look_at_locks(one, storage.as_ref(), rules).await;
    });
    join_all(looks).await;
}

/// Folders without a manifest that say that they are being removed.
async fn unfinished(storage: &dyn Storage, job: &str) -> Result<Vec<BackupId>> {
    let objects = within(storage.name(), ANSWER_TIMEOUT, storage.list(job)).await?;
    let mut folders: BTreeMap<BackupId, (bool, bool)> = BTreeMap::new();
    for object in &objects {
        if let Some((of, id, name)) = layout::parse_key(&object.key)
            && of == job
        {
            let (listed, pruned) = folders.entry(id).or_default();
            *listed |= name == layout::MANIFEST;
            *pruned |= name == layout::PRUNED;
        }
    }
    let unfinished = folders.into_iter().filter(|(_, (listed, pruned))| *pruned && !*listed);
    Ok(unfinished.map(|(id, _)| id).collect())
}

async fn look_at_locks(plan: &mut StoragePlan, storage: &dyn Storage, rules: &PruneRules<'_>) {
    let Some(versioned) = storage.versioned() else { return };
    let days = rules.lock_days.get(storage.name()).copied();
    let job = rules.job;
    let concerned = plan.backups.iter_mut().filter(|one| match one.verdict {
        Verdict::Delete(_) => true,
        Verdict::Keep(_) | Verdict::Skip { .. } => days.is_some(),
    });
    let looks = concerned.map(|one| async move {
        let key = format!("{}/{}", one.id.folder(job), layout::MANIFEST);
        let protection = protection_of(versioned, storage.name(), &key).await;
        apply_protection(one, protection, days, rules.now);
    });
    stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect::<Vec<()>>().await;
}

/// What protects an object; `None` where nothing can, because no versions are kept there.
async fn protection_of(
    versioned: &dyn Versioned,
    storage: &str,
    key: &str,
) -> Result<Option<Protection>> {
    // Without versions there are no locks, and no need of a right to ask for them.
    if within(storage, ANSWER_TIMEOUT, versioned.versions(key)).await?.is_empty() {
        return Ok(None);
    }
    within(storage, ANSWER_TIMEOUT, versioned.protection(key, None)).await.map(Some)
}

fn apply_protection(
    one: &mut Judged,
    protection: Result<Option<Protection>>,
    days: Option<u32>,
    now: Timestamp,
) {
    let because = match &protection {
        Ok(None) => None,
        Ok(Some(found)) => protected_by(found, now),
        Err(error) => Some(untold(error)),
    };
    if let (Verdict::Delete(expired), Some(because)) = (&one.verdict, because) {
        one.verdict = Verdict::Skip { expired: expired.clone(), because };
        return;
    }
    if let (Verdict::Keep(_), Ok(Some(found)), Some(days)) = (&one.verdict, &protection, days) {
        one.extend_lock = extension(found, days, now);
    }
}

fn untold(error: &Error) -> String {
    format!("it can't be told whether it is locked: {error}")
}

fn protected_by(protection: &Protection, now: Timestamp) -> Option<String> {
    let locked = protection.locked_until.filter(|until| *until > now);
    match (locked, protection.held) {
        (Some(until), _) => Some(format!("locked until {}", until.strftime("%Y-%m-%d %H:%M UTC"))),
        (None, true) => Some("held (a legal hold)".to_owned()),
        (None, false) => None,
    }
}

/// Until when to lock what is kept: when less than half of the days are left.
fn extension(protection: &Protection, days: u32, now: Timestamp) -> Option<Timestamp> {
    let whole = SignedDuration::from_hours(i64::from(days).checked_mul(24)?);
    let half = now.checked_add(whole / 2).ok()?;
    let enough = protection.locked_until.is_some_and(|until| until >= half);
    if enough { None } else { now.checked_add(whole).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_extended_when_half_of_it_is_over() {
        let now: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
        let until = |time: Option<&str>| {
            let locked_until = time.map(|time| time.parse().unwrap());
            let found = extension(&Protection { locked_until, held: false }, 30, now);
            found.map(|until| until.to_string())
        };
        let whole = Some("2026-12-22T02:00:00Z".to_owned());
        assert_eq!(until(None), whole);
        assert_eq!(until(Some("2026-12-07T01:59:59Z")), whole);
        assert_eq!(until(Some("2026-12-07T02:00:00Z")), None);
        assert_eq!(until(Some("2027-12-07T02:00:00Z")), None);
    }
}
