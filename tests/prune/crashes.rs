//! A prune that ends at each of its calls to the storage, and the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{BackupId, Storage, apply_prune, layout};
use backup_testkit::{CountedStorage, FailCalls, Memory};
use jiff::SignedDuration;

use super::{KeepLast, assert_tidy, history, keep_last, listed, planned};
use crate::copies::at;
use crate::rig::{JOB, assert_all_whole, memory, plan_at, run, storages};
use crate::troubled::{Trouble, Troubled};

/// More calls than that are a loop.
const MOST_CALLS: u64 = 400;

/// Whatever happened: what is listed is whole, and what is not listed either says that it is
/// nobody's, or does not look complete.
async fn assert_honest(memory: &Arc<Memory>, what: &str) {
    let catalog = assert_all_whole(&[memory], what).await;
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in memory.keys() {
        if let Some((job, id, name)) = layout::parse_key(&key) {
            folders.entry(id.folder(job)).or_default().push(name.to_owned());
        }
    }
    for entry in &catalog.backups {
        folders.remove(&entry.folder());
    }
    for (folder, files) in folders {
        let has = |file: &str| files.iter().any(|name| name == file);
        let only_claimed = files.iter().all(|name| name == layout::CLAIM);
        assert!(has(layout::PRUNED) || only_claimed, "{what}: {folder} holds {files:?}");
    }
}

/// Prunes a storage that meets trouble, then one that does not.
async fn struck(here: &Arc<Memory>, troubled: Arc<dyn Storage>, what: &str) {
    // The pauses between the tries of a reader cost nothing.
    tokio::time::pause();
    prune_twice(here, troubled, what).await;
    tokio::time::resume();
}

async fn prune_twice(here: &Arc<Memory>, troubled: Arc<dyn Storage>, what: &str) {
    let troubled = [troubled];
    let policy = KeepLast(2);
    let rules = keep_last(&policy);
    let plan = planned(&troubled, &rules).await;
    let _ = apply_prune(&plan, &troubled, &Context::default()).await;
    assert_honest(here, what).await;
    let left = listed(here).await;
    assert!(left.ends_with(&[2, 3]), "{what}: {left:?}");

    // The next prune of this host finishes.
    let all = storages(&[here]);
    let plan = planned(&all, &rules).await;
    let report = apply_prune(&plan, &all, &Context::default()).await.unwrap();
    assert!(report.failure().is_none(), "{what}: {report:?}");
    assert_eq!(listed(here).await, [2, 3], "{what}");
    assert_all_whole(&[here], what).await;
    // An empty claim of a folder that is gone ends by itself.
    let claims: Vec<String> =
        here.keys().into_iter().filter(|key| key.ends_with(layout::CLAIM)).collect();
    for claim in &claims {
        here.delete(claim).await.unwrap();
    }
    assert_tidy(here, what).await;
}

#[tokio::test]
async fn a_storage_that_dies_at_any_call_leaves_nothing_half_listed() {
    for from in [true, false] {
        let mut ended = false;
        for k in 1..MOST_CALLS {
            let here = memory("here");
            history(&[&here], 4).await;
            let fail = if from { FailCalls::From(k) } else { FailCalls::Only(k) };
            let counted = CountedStorage::new(here.clone(), fail);
            struck(&here, Arc::new(counted.clone()), &format!("{fail:?}")).await;
            if (counted.calls().len() as u64) < k {
                ended = true;
                break;
            }
        }
        assert!(ended, "it never ends");
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_at_any_call_is_no_harm() {
    for k in 1..MOST_CALLS {
        let here = memory("here");
        history(&[&here], 4).await;
        let troubled = Troubled::new(here.clone(), k, Trouble::LostAnswer);
        struck(&here, Arc::new(troubled.clone()), &format!("lost answer {k}")).await;
        if !troubled.struck() {
            return;
        }
    }
    panic!("it never ends");
}

/// Ends the work at one call and takes nothing back, as a power cut does.
#[tokio::test]
async fn a_prune_that_is_dropped_at_any_call_is_finished_by_the_next() {
    for k in 1..MOST_CALLS {
        let here = memory("here");
        history(&[&here], 4).await;
        let troubled = Troubled::new(here.clone(), k, Trouble::Stall);
        let all: [Arc<dyn Storage>; 1] = [Arc::new(troubled.clone())];
        let policy = KeepLast(2);
        let rules = keep_last(&policy);
        let plan = planned(&storages(&[&here]), &rules).await;
        let context = Context::default();
        let work = apply_prune(&plan, &all, &context);
        let ended = tokio::time::timeout(std::time::Duration::from_millis(50), work).await;
        assert_honest(&here, &format!("cut at {k}")).await;
        let cut = troubled.struck();
        assert_eq!(ended.is_err(), cut, "call {k}");
        struck(&here, here.clone(), &format!("after a cut at {k}")).await;
        if !cut {
            return;
        }
    }
    panic!("it never ends");
}

/// A host that never prunes again: its backups sweep what it left, when it is old enough.
#[tokio::test]
async fn a_backup_sweeps_what_a_prune_left_however_complete_it_is() {
    let here = memory("here");
    history(&[&here], 3).await;
    super::half_prune(&here, BackupId::new(at(0), 1), true);
    // The same without a tombstone: somebody's backup whose manifest was lost.
    here.remove(&format!("{}/{}", BackupId::new(at(1), 1).folder(JOB), layout::MANIFEST));
    let month = at(0) + SignedDuration::from_hours(24 * 40);
    let (ear, context) = crate::rig::Ear::context();
    // The objects of a test are as old as the test: a plan of the far future.
    let year = jiff::Timestamp::now() + SignedDuration::from_hours(24 * 400);
    run(plan_at(year.max(month), storages(&[&here])), &context).await.unwrap();
    let swept = |n: i64| {
        let folder = BackupId::new(at(n), 1).folder(JOB);
        !here.keys().iter().any(|key| key.starts_with(&folder))
    };
    assert!(swept(0), "{:?}", here.keys());
    assert!(!swept(1) && !swept(2));
    let warned = ear.warnings().iter().filter(|line| line.contains("looks complete")).count();
    assert_eq!(warned, 1, "{:?}", ear.warnings());
}
