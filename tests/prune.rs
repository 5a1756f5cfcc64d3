//! `prune`: what goes, what stays, and what a crash leaves.

mod arrivals;
mod crashes;
mod held_copies;
pub mod history;
mod kills;
mod locks;
mod marks;
mod program;
mod safety;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    BackupId, BackupSummary, Catalog, CatalogEntry, Decision, Foreign, PIN_FORMAT, Pin, PrunePlan,
    PruneReport, PruneRules, Result, RetentionPolicy, Storage, Verdict, apply_prune, layout,
    plan_prune,
};
use backup_testkit::Memory;
use jiff::{SignedDuration, Timestamp};

use crate::copies::at;
use crate::rig::{JOB, plan_at, run_quietly, storages};

/// Keeps the newest `n` good backups and what is pinned, and nothing else.
struct KeepLast(usize);

impl RetentionPolicy for KeepLast {
    fn decide(&self, backups: &[BackupSummary], _now: Timestamp) -> Vec<Decision> {
        let mut good: Vec<BackupId> = backups.iter().filter(|b| b.good).map(|b| b.id).collect();
        good.sort_unstable_by(|a, b| b.cmp(a));
        good.truncate(self.0);
        let decide = |backup: &BackupSummary| match good.iter().position(|id| *id == backup.id) {
            Some(rank) => Decision::Keep(vec![format!("last {} of {}", rank + 1, self.0)]),
            None if backup.pinned => Decision::Keep(vec!["pinned".to_owned()]),
            None => Decision::Expire(format!("older than the last {}", self.0)),
        };
        backups.iter().map(decide).collect()
    }
}

/// The pin of somebody who wants a backup kept.
fn wanted_pin(entry: &CatalogEntry) -> Pin {
    Pin {
        format: PIN_FORMAT,
        backup: entry.id.to_string(),
        reason: "audit".to_owned(),
        by: "somebody".to_owned(),
        host: "here".to_owned(),
        pinned: at(0),
        tool: "test".to_owned(),
    }
}

/// A moment after all backups of a history.
fn later() -> Timestamp {
    at(1000)
}

/// `count` backups, a second apart.
async fn history(memories: &[&Arc<Memory>], count: i64) {
    for n in 0..count {
        run_quietly(plan_at(at(n), storages(memories))).await.unwrap();
    }
}

fn keep_last(policy: &KeepLast) -> PruneRules<'_> {
    PruneRules {
        job: JOB,
        policy,
        now: later(),
        host: "here".to_owned(),
        foreign: Foreign::Refuse,
        max_delete: None,
        lock_days: BTreeMap::new(),
    }
}

async fn planned(all: &[Arc<dyn Storage>], rules: &PruneRules<'_>) -> PrunePlan {
    plan_prune(&Catalog::load(all, Some(JOB)).await, all, rules).await
}

async fn pruned(all: &[Arc<dyn Storage>], rules: &PruneRules<'_>) -> Result<PruneReport> {
    apply_prune(&planned(all, rules).await, all, &Context::default()).await
}

/// The seconds of the backups that are listed in a storage.
async fn listed(memory: &Arc<Memory>) -> Vec<i64> {
    let catalog = Catalog::load(&storages(&[memory]), None).await;
    assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
    catalog.backups.iter().map(|entry| seconds(entry.id)).collect()
}

fn seconds(id: BackupId) -> i64 {
    id.started().as_second() - at(0).as_second()
}

/// Nothing but backups that are listed, and nothing unfinished beside them.
async fn assert_tidy(memory: &Arc<Memory>, what: &str) {
    let catalog = Catalog::load(&storages(&[memory]), None).await;
    let folders: Vec<String> = catalog.backups.iter().map(|entry| entry.folder()).collect();
    for key in memory.keys() {
        assert!(folders.iter().any(|folder| key.starts_with(folder)), "{what}: {key} is left");
        assert!(!layout::is_passing(&key), "{what}: {key} is left");
    }
}

fn verdicts(plan: &PrunePlan, storage: &str) -> Vec<(i64, String)> {
    let plan = plan.storages.iter().find(|one| one.storage == storage).unwrap();
    let told = |verdict: &Verdict| match verdict {
        Verdict::Keep(reasons) => format!("keep: {}", reasons.join(", ")),
        Verdict::Delete(reason) => format!("remove: {reason}"),
        Verdict::Skip { because, .. } => format!("skip: {because}"),
    };
    plan.backups.iter().map(|one| (seconds(one.id), told(&one.verdict))).collect()
}

#[tokio::test]
async fn what_the_policy_lets_go_goes_and_the_rest_is_whole() {
    let (here, there) = (crate::rig::memory("here"), crate::rig::memory("there"));
    history(&[&here, &there], 5).await;
    let all = storages(&[&here, &there]);
    let policy = KeepLast(2);
    let before = (here.keys(), there.keys());
    let plan = planned(&all, &keep_last(&policy)).await;
    assert_eq!((here.keys(), there.keys()), before, "a plan changes nothing");
    assert_eq!(
        verdicts(&plan, "here"),
        [
            (0, "remove: older than the last 2".to_owned()),
            (1, "remove: older than the last 2".to_owned()),
            (2, "remove: older than the last 2".to_owned()),
            (3, "keep: last 2 of 2".to_owned()),
            (4, "keep: last 1 of 2".to_owned()),
        ]
    );
    let report = apply_prune(&plan, &all, &Context::default()).await.unwrap();
    for (memory, storage) in [&here, &there].into_iter().zip(&report.storages) {
        assert_eq!(listed(memory).await, [3, 4]);
        assert_eq!((storage.deleted.len(), storage.left.len()), (3, 0));
        assert!(storage.failed.is_none() && storage.deleted.iter().all(|one| one.bytes > 0));
        assert_tidy(memory, "pruned").await;
    }
    crate::rig::assert_all_whole(&[&here, &there], "pruned").await;
    // Nothing is left to do.
    let again = planned(&all, &keep_last(&policy)).await;
    assert!(again.deletions().is_empty());
}

#[tokio::test]
async fn each_storage_is_judged_by_what_it_holds() {
    let (here, there) = (crate::rig::memory("here"), crate::rig::memory("there"));
    history(&[&here, &there], 3).await;
    // The newest one is damaged in one storage: there the one before is the newest good one.
    let newest = at(2);
    let part = format!("{}/app.dump.zst.masked", BackupId::new(newest, 1).folder(JOB));
    there.delete(&part).await.unwrap();
    let all = storages(&[&here, &there]);
    pruned(&all, &keep_last(&KeepLast(1))).await.unwrap();
    assert_eq!(listed(&here).await, [2]);
    assert_eq!(listed(&there).await, [1], "the good one stays, the damaged one need not");
}

/// A tidy storage in the state in which `id` stood there, by hand.
fn half_prune(memory: &Memory, id: BackupId, without_manifest: bool) {
    let folder = id.folder(JOB);
    memory.plant(&format!("{folder}/{}", layout::PRUNED), "{}");
    if without_manifest {
        memory.remove(&format!("{folder}/{}", layout::MANIFEST));
    }
}

#[tokio::test]
async fn what_an_earlier_prune_left_is_finished_or_put_right() {
    let here = crate::rig::memory("here");
    history(&[&here], 4).await;
    let id = |n: i64| BackupId::new(at(n), 1);
    half_prune(&here, id(0), true);
    half_prune(&here, id(1), false);
    half_prune(&here, id(3), false);
    let all = storages(&[&here]);
    let policy = KeepLast(2);
    let plan = planned(&all, &keep_last(&policy)).await;
    assert_eq!(plan.storages[0].unfinished, [id(0)]);
    let report = apply_prune(&plan, &all, &Context::default()).await.unwrap();
    assert_eq!(report.storages[0].finished, [id(0)]);
    assert_eq!(report.storages[0].deleted.len(), 1);
    assert_eq!(listed(&here).await, [2, 3]);
    assert_tidy(&here, "healed").await;
    assert!(later() > at(3) + SignedDuration::from_secs(1));
}
