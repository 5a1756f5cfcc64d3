//! `sync` brings nothing that the target's retention would remove again, and all that it would
//! keep.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    BackupId, BackupPlan, Catalog, CatalogEntry, Foreign, HowMany, PruneRules, RetentionPolicy,
    RetentionRules, Storage, Verdict, apply_prune, copy, expired_on_arrival, layout, sync,
};
use backup_testkit::Memory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{KeepLast, history, keep_last, later, listed, planned, pruned};
use crate::copies::at;
use crate::rig::{JOB, identity, memory, plan_at, run_quietly, storages};
use crate::support::{cases, seed};

#[tokio::test]
async fn a_sync_and_a_prune_do_not_work_against_each_other() {
    let (from, to) = (memory("from"), memory("to"));
    history(&[&from], 6).await;
    let (source, target) = (storages(&[&from]).remove(0), storages(&[&to]).remove(0));
    let policy = KeepLast(3);
    let unwanted = |catalog: &Catalog, failed: &BTreeSet<BackupId>| {
        expired_on_arrival(catalog, ["from", "to"], failed, &policy, later())
    };
    let context = Context::default();
    let report = sync(&source, &target, Some(JOB), &unwanted, &context).await.unwrap();
    assert_eq!((report.copied.len(), report.unwanted.len()), (3, 3));
    assert_eq!(listed(&to).await, [3, 4, 5]);
    // What it brought, a prune keeps; what a prune removed, it does not bring back.
    pruned(&storages(&[&to]), &keep_last(&policy)).await.unwrap();
    assert_eq!(listed(&to).await, [3, 4, 5]);
    let report = sync(&source, &target, Some(JOB), &unwanted, &context).await.unwrap();
    assert!(report.copied.is_empty() && report.failed.is_empty(), "{report:?}");
    super::assert_tidy(&from, "only read").await;
}

/// A copy into a folder that a crashed prune left makes it a backup again.
#[tokio::test]
async fn a_copy_takes_the_tombstone_away() {
    let (from, to) = (memory("from"), memory("to"));
    history(&[&from, &to], 1).await;
    super::half_prune(&to, backup_core::BackupId::new(crate::copies::at(0), 1), true);
    let (source, target) = (storages(&[&from]).remove(0), storages(&[&to]).remove(0));
    let everything = |_: &Catalog, _: &BTreeSet<BackupId>| BTreeSet::new();
    let report = sync(&source, &target, Some(JOB), &everything, &Context::default()).await;
    assert_eq!(report.unwrap().copied.len(), 1);
    super::assert_tidy(&to, "copied again").await;
    crate::copies::assert_same(&from, &to);
}

/// Seconds between two backups of a random history: some share a day.
const APART: i64 = 9 * 60 * 60;
/// Most backups in one.
const MOST: i64 = 7;

/// Three storages of one job: what is synced, what it is synced to, and a third.
struct Three {
    memories: [Arc<Memory>; 3],
    all: Vec<Arc<dyn Storage>>,
    rules: RetentionRules,
}

impl Three {
    fn new(rules: RetentionRules) -> Self {
        let memories = ["from", "to", "third"].map(memory);
        let all = storages(&memories.each_ref());
        Self { memories, all, rules }
    }

    /// A backup in some of them.
    async fn backup(&self, n: i64, places: &[usize], database: &str) -> BackupId {
        let storages = places.iter().map(|place| Arc::clone(&self.all[*place])).collect();
        let plan = BackupPlan {
            source: identity(Some("7300000000000000001"), database, "db:5432"),
            adopt: true,
            ..plan_at(at(n * APART), storages)
        };
        run_quietly(plan).await.unwrap().manifest.backup_id().unwrap()
    }

    fn beside(&self, place: usize, id: BackupId, file: &str) {
        self.memories[place].plant(&format!("{}/{file}", id.folder(JOB)), "{}");
    }

    /// As a verification would that finds a changed byte.
    fn damage(&self, place: usize, id: BackupId) {
        self.spoil(place, id);
        self.beside(place, id, "proofs/20261130T000000Z-verify-failed.json");
    }

    /// A byte that changes, and nobody has noticed.
    fn spoil(&self, place: usize, id: BackupId) {
        let part = format!("{}/app.dump.zst.masked", id.folder(JOB));
        let mut bytes = self.memories[place].object(&part).unwrap().to_vec();
        bytes[0] ^= 1;
        self.memories[place].plant(&part, bytes);
    }

    fn drilled(&self, place: usize, id: BackupId) {
        self.beside(place, id, "proofs/20261129T000000Z-drill.json");
    }

    async fn catalog(&self) -> Catalog {
        Catalog::load(&self.all, Some(JOB)).await
    }

    fn in_vain(&self, catalog: &Catalog, failed: &BTreeSet<BackupId>) -> BTreeSet<BackupId> {
        expired_on_arrival(catalog, ["from", "to"], failed, &self.rules, at(MOST * APART))
    }

    async fn unwanted(&self) -> BTreeSet<BackupId> {
        self.in_vain(&self.catalog().await, &BTreeSet::new())
    }

    /// What came by a sync.
    async fn sync(&self) -> BTreeSet<BackupId> {
        let catalog = self.catalog().await;
        let unwanted = |_: &Catalog, failed: &BTreeSet<BackupId>| self.in_vain(&catalog, failed);
        let report =
            sync(&self.all[0], &self.all[1], Some(JOB), &unwanted, &Context::default()).await;
        report.unwrap().copied.into_iter().map(|(id, _)| id).collect()
    }

    fn rules(&self) -> PruneRules<'_> {
        let policy: &dyn RetentionPolicy = &self.rules;
        let now = at(MOST * APART);
        PruneRules { policy, now, foreign: Foreign::Keep, ..keep_last(&KeepLast(0)) }
    }

    /// Prunes the target alone, by what all storages tell.
    async fn prune_target(&self) {
        let mut plan = planned(&self.all, &self.rules()).await;
        plan.storages.retain(|one| one.storage == "to");
        apply_prune(&plan, &self.all, &Context::default()).await.unwrap();
    }

    /// Backups whose copy in the target a verification found damaged.
    async fn damaged_in_target(&self) -> BTreeSet<BackupId> {
        let catalog = self.catalog().await;
        let is_damaged = |entry: &&CatalogEntry| {
            let mut copies = entry.copies.iter();
            copies.any(|c| c.storage == "to" && c.proofs.iter().any(|p| p.contains("-failed")))
        };
        catalog.backups.iter().filter(is_damaged).map(|entry| entry.id).collect()
    }

    /// What a prune would remove from the target.
    async fn doomed(&self) -> BTreeSet<BackupId> {
        let plan = planned(&self.all, &self.rules()).await;
        let target = plan.storages.iter().find(|one| one.storage == "to").unwrap();
        let doomed = target.backups.iter().filter(|b| matches!(b.verdict, Verdict::Delete(_)));
        doomed.map(|one| one.id).collect()
    }
}

fn number(n: u32) -> HowMany {
    HowMany::Number(n)
}

#[tokio::test]
async fn a_drill_or_a_pin_in_a_third_storage_counts_as_for_a_prune() {
    let rules =
        RetentionRules { keep_daily: number(1), prefer_proven: true, ..RetentionRules::nothing() };
    let three = Three::new(rules);
    let pinned = three.backup(0, &[0, 2], "app").await;
    let proven = three.backup(3, &[0, 1, 2], "app").await;
    let later = three.backup(4, &[0, 1, 2], "app").await;
    let newest = three.backup(5, &[0, 1, 2], "app").await;
    assert_eq!(proven.started().to_string()[..10], newest.started().to_string()[..10]);
    three.drilled(2, proven);
    three.beside(2, pinned, layout::PIN);
    // The day is that of the proven one: what lies between goes, and does not come back.
    assert_eq!(three.doomed().await, BTreeSet::from([later]));
    three.prune_target().await;
    assert_eq!(three.sync().await, BTreeSet::from([pinned]));
    assert_eq!(three.doomed().await, BTreeSet::new());
}

/// A copy that a verification found damaged is not replaced by a sync, so what it stood for has
/// to come.
#[tokio::test]
async fn a_damaged_copy_in_the_target_stands_for_nothing() {
    let rules = RetentionRules { keep_last: number(1), ..RetentionRules::nothing() };
    let three = Three::new(rules);
    let older = three.backup(0, &[0], "app").await;
    let newer = three.backup(1, &[0, 1], "app").await;
    assert_eq!(three.unwanted().await, BTreeSet::from([older]));
    three.damage(1, newer);
    assert_eq!(three.sync().await, BTreeSet::from([older]));
    assert_eq!(three.doomed().await, BTreeSet::new());
}

/// What the source can't give stands for nothing either, whether anybody knew of it or not.
#[tokio::test]
async fn one_that_does_not_come_lets_another_come_in_its_place() {
    let rules = RetentionRules { keep_last: number(1), ..RetentionRules::nothing() };
    let three = Three::new(rules);
    let oldest = three.backup(0, &[0], "app").await;
    let older = three.backup(1, &[0], "app").await;
    let newer = three.backup(2, &[0], "app").await;
    assert_eq!(three.unwanted().await, BTreeSet::from([oldest, older]));
    three.spoil(0, newer);
    assert_eq!(three.sync().await, BTreeSet::from([older]));
}

/// Two databases wrote into one folder: each is judged by itself, as a prune does.
#[tokio::test]
async fn backups_of_another_database_take_no_place_and_come() {
    let rules = RetentionRules { keep_last: number(2), ..RetentionRules::nothing() };
    let three = Three::new(rules);
    let gone = three.backup(0, &[0], "app").await;
    let first = three.backup(1, &[0], "app").await;
    let others = [three.backup(2, &[0], "other").await, three.backup(3, &[1], "other").await];
    let newest = three.backup(4, &[0], "app").await;
    assert_eq!(three.unwanted().await, BTreeSet::from([gone]));
    assert_eq!(three.sync().await, BTreeSet::from([first, others[0], newest]));
    assert_eq!(three.doomed().await, BTreeSet::new());
}

/// A random state of three storages.
async fn random(rng: &mut StdRng) -> Three {
    let mut count = || number(rng.gen_range(0..3));
    let mut rules = RetentionRules {
        keep_last: count(),
        keep_daily: count(),
        keep_weekly: count(),
        ..RetentionRules::nothing()
    };
    rules.prefer_proven = rng.gen_bool(0.5);
    let three = Three::new(rules);
    for n in 0..rng.gen_range(1..MOST) {
        let mut places: Vec<usize> = (0..3).filter(|_| rng.gen_bool(0.6)).collect();
        if places.is_empty() {
            places.push(0);
        }
        let database = if rng.gen_bool(0.15) { "other" } else { "app" };
        let id = three.backup(n, &places, database).await;
        for place in places {
            match rng.gen_range(0..10) {
                0 | 1 => three.damage(place, id),
                2 => three.drilled(place, id),
                3 => three.beside(place, id, layout::PIN),
                _ => {}
            }
        }
    }
    three
}

#[tokio::test]
async fn whatever_the_histories_what_comes_stays_and_what_does_not_would_go() {
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut came, mut stayed_away) = (0, 0);
    for case in 0..cases(150, 5_000) {
        let three = random(&mut rng).await;
        let copied = three.sync().await;
        let doomed = three.doomed().await;
        let back = copied.intersection(&doomed).count();
        assert_eq!(back, 0, "case {case}: {copied:?} came, {doomed:?} goes");
        came += copied.len();

        // What stayed away, brought by hand, would go again.
        let unwanted = three.unwanted().await;
        let catalog = three.catalog().await;
        let lacking = |entry: &&CatalogEntry| {
            let has = |name: &str| entry.copies.iter().any(|copy| copy.storage == name);
            unwanted.contains(&entry.id) && has("from") && !has("to")
        };
        for entry in catalog.backups.iter().filter(lacking) {
            let [from, to, _] = &three.all[..] else { unreachable!() };
            let done = copy(entry, from, to, false, &Context::default()).await;
            if done.is_ok() {
                stayed_away += 1;
                let doomed = three.doomed().await;
                assert!(doomed.contains(&entry.id), "case {case}: {} was kept away", entry.id);
            }
        }

        // What a prune removed does not come back, but for a whole copy in a damaged one's place;
        // with that in its slot, the next damaged one may go.
        let mut damaged = three.damaged_in_target().await;
        loop {
            three.prune_target().await;
            let back = three.sync().await;
            if back.is_empty() {
                break;
            }
            assert!(back.is_subset(&damaged), "case {case}: {back:?} come back");
            assert!(back.is_disjoint(&three.doomed().await), "case {case}: {back:?} go again");
            damaged.retain(|id| !back.contains(id));
        }
    }
    assert!(came > 20 && stayed_away > 20, "{came} came, {stayed_away} stayed away");
}
