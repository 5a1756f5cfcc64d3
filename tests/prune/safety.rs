//! What no prune removes, whatever it is told.

use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    BackupId, BackupPlan, BackupSummary, Decision, ErrorKind, Foreign, LEGACY, PruneRules,
    RetentionPolicy, SourceIdentity, Storage, apply_prune, layout,
};
use backup_testkit::{Call, CountedStorage, FailCalls, Intercepted};
use jiff::Timestamp;

use super::{KeepLast, history, keep_last, later, listed, planned, pruned, verdicts};
use crate::copies::at;
use crate::rig::{JOB, identity, memory, plan_at, run_quietly, storages};

/// A policy that lets everything go.
struct Nothing;

impl RetentionPolicy for Nothing {
    fn decide(&self, backups: &[BackupSummary], _now: Timestamp) -> Vec<Decision> {
        backups.iter().map(|_| Decision::Expire("nobody wants it".to_owned())).collect()
    }
}

/// A policy that tells of the first backup only.
struct Taciturn;

impl RetentionPolicy for Taciturn {
    fn decide(&self, _: &[BackupSummary], _now: Timestamp) -> Vec<Decision> {
        vec![Decision::Expire("the first".to_owned())]
    }
}

#[tokio::test]
async fn a_wrong_policy_can_not_remove_what_no_policy_may() {
    let here = memory("here");
    history(&[&here], 4).await;
    let id = |n: i64| BackupId::new(at(n), 1);
    here.plant(&format!("{}/{}", id(1).folder(JOB), layout::PIN), "{}");
    let part = format!("{}/app.dump.zst.masked", id(3).folder(JOB));
    here.delete(&part).await.unwrap();
    let all = storages(&[&here]);
    let rules = PruneRules { policy: &Nothing, ..keep_last(&KeepLast(1)) };
    let told = verdicts(&planned(&all, &rules).await, "here");
    let told: Vec<&str> = told.iter().map(|(_, verdict)| verdict.as_str()).collect();
    let gone = "remove: nobody wants it";
    assert_eq!(told, [gone, "keep: pinned", "keep: the newest good one", gone]);

    // By a clock that stands before the newest, and without a single good one, nothing goes.
    let behind =
        PruneRules { now: at(2), ..PruneRules { policy: &Nothing, ..keep_last(&KeepLast(1)) } };
    assert!(planned(&all, &behind).await.deletions().is_empty());
    for n in 0..3 {
        here.delete(&format!("{}/app.dump.zst.masked", id(n).folder(JOB))).await.unwrap();
    }
    assert!(planned(&all, &rules).await.deletions().is_empty());
    let here = memory("here");
    history(&[&here], 4).await;
    let taciturn = PruneRules { policy: &Taciturn, ..keep_last(&KeepLast(1)) };
    assert_eq!(planned(&storages(&[&here]), &taciturn).await.deletions().len(), 1);
}

#[tokio::test]
async fn above_the_cap_nothing_goes() {
    let (here, there) = (memory("here"), memory("there"));
    history(&[&here, &there], 5).await;
    let all = storages(&[&here, &there]);
    let policy = KeepLast(2);
    let before = here.keys();
    let capped = PruneRules { max_delete: Some(2), ..keep_last(&policy) };
    let error = pruned(&all, &capped).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("3 backups of job \"database\" would go"), "{error}");
    assert_eq!(here.keys(), before);
    // A backup that goes from two storages is one.
    let enough = PruneRules { max_delete: Some(3), ..keep_last(&policy) };
    pruned(&all, &enough).await.unwrap();
    assert_eq!((listed(&here).await, listed(&there).await), (vec![3, 4], vec![3, 4]));
}

#[tokio::test]
async fn backups_of_another_source_are_not_pruned_by_accident() {
    let here = memory("here");
    history(&[&here], 3).await;
    let staging = identity(Some("7300000000000000002"), "app", "staging:5432");
    let adopting = |n: i64| BackupPlan {
        adopt: true,
        source: staging.clone(),
        ..plan_at(at(n), storages(&[&here]))
    };
    for n in [3, 4] {
        run_quietly(adopting(n)).await.unwrap();
    }
    let all = storages(&[&here]);
    let policy = KeepLast(1);
    let before = here.keys();
    let error = pruned(&all, &keep_last(&policy)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().starts_with("3 of the backups of job \"database\""), "{error}");
    assert_eq!(here.keys(), before, "something was changed");

    // Behind a backup: its own are pruned, the others are not even counted.
    let keep = PruneRules { foreign: Foreign::Keep, ..keep_last(&policy) };
    pruned(&all, &keep).await.unwrap();
    assert_eq!(listed(&here).await, [0, 1, 2, 4]);
    let adopt = PruneRules { foreign: Foreign::Adopt, ..keep_last(&policy) };
    pruned(&all, &adopt).await.unwrap();
    assert_eq!(listed(&here).await, [4]);
}

#[tokio::test]
async fn a_storage_that_is_not_known_in_full_loses_nothing_and_the_others_are_pruned() {
    // A manifest that can't be read, a listing that fails, a storage that is down.
    for trouble in ["manifest", "listing", "down"] {
        let (here, there) = (memory("here"), memory("there"));
        history(&[&here, &there], 4).await;
        let before = there.keys();
        let troubled: Arc<dyn Storage> = match trouble {
            "manifest" => {
                let key = format!("{}/{}", BackupId::new(at(1), 1).folder(JOB), layout::MANIFEST);
                there.plant(&key, "{}");
                there.clone()
            }
            // The last call of all looks for what crashed prunes left.
            "listing" => {
                let counted = CountedStorage::new(there.clone(), FailCalls::Never);
                let all: [Arc<dyn Storage>; 1] = [Arc::new(counted.clone())];
                planned(&all, &keep_last(&KeepLast(1))).await;
                let last = counted.calls().len() as u64;
                Arc::new(CountedStorage::new(there.clone(), FailCalls::Only(last)))
            }
            _ => Arc::new(CountedStorage::new(there.clone(), FailCalls::From(1))),
        };
        let all: [Arc<dyn Storage>; 2] = [here.clone(), troubled];
        let policy = KeepLast(1);
        let plan = planned(&all, &keep_last(&policy)).await;
        let problems: Vec<&str> = plan
            .storages
            .iter()
            .filter(|one| one.problem.is_some())
            .map(|one| one.storage.as_str())
            .collect();
        assert_eq!(problems, ["there"], "{trouble}");
        let report = apply_prune(&plan, &all, &Context::default()).await.unwrap();
        assert!(report.storages[1].deleted.is_empty(), "{trouble}");
        assert_eq!((listed(&here).await, there.keys()), (vec![3], before), "{trouble}");
    }
}

#[tokio::test]
async fn a_pin_in_one_storage_counts_in_all() {
    let (here, there) = (memory("here"), memory("there"));
    history(&[&here, &there], 3).await;
    here.plant(&format!("{}/{}", BackupId::new(at(0), 1).folder(JOB), layout::PIN), "{}");
    let all = storages(&[&here, &there]);
    pruned(&all, &keep_last(&KeepLast(1))).await.unwrap();
    assert_eq!((listed(&here).await, listed(&there).await), (vec![0, 2], vec![0, 2]));
}

#[tokio::test]
async fn with_a_key_that_may_not_delete_nothing_is_lost_and_it_is_said() {
    let here = memory("here");
    history(&[&here], 3).await;
    let policy = KeepLast(1);
    let plan = planned(&storages(&[&here]), &keep_last(&policy)).await;
    let permitted = &[Call::Begin, Call::CreateNew, Call::List];
    let closed: [Arc<dyn Storage>; 1] =
        [Arc::new(Intercepted::permitting(here.clone(), permitted))];
    let report = apply_prune(&plan, &closed, &Context::default()).await.unwrap();
    let failed = report.failure().unwrap();
    assert!(failed.advice().unwrap().contains("allowed to create and to delete"), "{failed:?}");
    assert_eq!(listed(&here).await, [0, 1, 2]);
    // With another key, on another host, a claim may be in the way until it ends.
    let elsewhere = PruneRules { host: "elsewhere".to_owned(), ..keep_last(&policy) };
    pruned(&storages(&[&here]), &elsewhere).await.unwrap();
    let days = jiff::SignedDuration::from_hours(24 * 3);
    let next = PruneRules {
        now: Timestamp::now().max(later()) + days,
        host: "elsewhere".to_owned(),
        ..keep_last(&policy)
    };
    pruned(&storages(&[&here]), &next).await.unwrap();
    assert_eq!(listed(&here).await, [2]);
    super::assert_tidy(&here, "elsewhere").await;
}

/// What other scripts wrote knows its database's name and nothing more of where it came from.
#[tokio::test]
async fn old_dumps_of_the_same_database_are_not_another_source() {
    let here = memory("here");
    let legacy = |n: i64, database: &str| BackupPlan {
        kind: LEGACY.to_owned(),
        source: SourceIdentity { database: database.to_owned(), ..SourceIdentity::default() },
        adopt: true,
        ..plan_at(at(n), storages(&[&here]))
    };
    let database = "app".to_owned();
    run_quietly(legacy(0, &database)).await.unwrap();
    run_quietly(legacy(1, "another")).await.unwrap();
    run_quietly(legacy(2, &database)).await.unwrap();
    run_quietly(plan_at(at(3), storages(&[&here]))).await.unwrap();
    let (all, policy) = (storages(&[&here]), KeepLast(2));
    // The foreign one is in the way, the old ones of the same database are not.
    let error = pruned(&all, &keep_last(&policy)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let apart = PruneRules { foreign: Foreign::Keep, ..keep_last(&policy) };
    pruned(&all, &apart).await.unwrap();
    assert_eq!(listed(&here).await, [1, 2, 3]);
}
