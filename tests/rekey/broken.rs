//! Runs of `rekey` that break, or meet what they must not touch.

use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    BackupPlan, Catalog, ErrorKind, OldCopy, RekeyPlan, RekeyReport, Result, Storage, rekey,
};
use backup_testkit::{CountedStorage, FailCalls};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    NEW_SEAL, Veil, assert_done, assert_no_prune_takes_the_old_one, assert_one_whole, backed_up,
    rekey_oldest, rekey_plan, started, today, zstd,
};
use crate::rig::{JOB, Seal, memory, plan_at, run_quietly, storages};

/// How many calls the storage `memory` sees of a run in which it never fails.
async fn calls_of_a_run(two: bool) -> u64 {
    let (first, second) = (memory("first"), memory("second"));
    let counted = CountedStorage::new(second.clone(), FailCalls::Never);
    let mut all: Vec<Arc<dyn Storage>> = vec![Arc::new(counted.clone())];
    if two {
        all.insert(0, first.clone());
    }
    run_quietly(plan_at(
        started(),
        if two { storages(&[&first, &second]) } else { storages(&[&second]) },
    ))
    .await
    .unwrap();
    assert!(rekey_oldest(&all).await.unwrap().unwrap().is_complete());
    counted.calls().len().try_into().unwrap()
}

/// The storage is down from the k-th call on, as when the run is killed there; then a whole run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_at_any_call_leaves_a_whole_backup_and_the_next_finishes() {
    let calls = calls_of_a_run(false).await;
    assert!(calls > 30, "only {calls} calls");
    // Broken downloads are tried again with pauses: all cases wait at the same time.
    let mut cases = JoinSet::new();
    for k in 1..=calls {
        cases.spawn(async move {
            let memory = memory("first");
            backed_up(&[&memory]).await;
            let counted = CountedStorage::new(memory.clone(), FailCalls::From(k));
            let what = format!("down from call {k} on");
            let first = rekey_oldest(&[Arc::new(counted)]).await;
            let complete = matches!(&first, Ok(Some(report)) if report.is_complete());
            let listed = assert_one_whole(&[&memory], &what).await;
            // Only giving the claim back may fail unnoticed.
            assert!(!complete || listed == ["NEW"], "{what}: {first:?}");
            rekey_oldest(&storages(&[&memory])).await.unwrap();
            assert_done(&[&memory], &what).await;
        });
    }
    while let Some(ended) = cases.join_next().await {
        ended.unwrap();
    }
}

/// One of two storages fails: in each the old or the new one is whole; the next run finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_storage_that_fails_keeps_its_old_copy_until_the_next_run() {
    let calls = calls_of_a_run(true).await;
    let mut cases = JoinSet::new();
    for fail in [FailCalls::From, FailCalls::Only] {
        for k in 1..=calls {
            cases.spawn(async move {
                let (first, second) = (memory("first"), memory("second"));
                backed_up(&[&first, &second]).await;
                let counted = CountedStorage::new(second.clone(), fail(k));
                let broken: Vec<Arc<dyn Storage>> = vec![first.clone(), Arc::new(counted)];
                let what = format!("second storage fails, {:?}", fail(k));
                let _ = rekey_oldest(&broken).await;
                assert_one_whole(&[&first, &second], &what).await;
                rekey_oldest(&storages(&[&first, &second])).await.unwrap();
                assert_done(&[&first, &second], &what).await;
            });
        }
    }
    while let Some(ended) = cases.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_forged_damaged_or_unopened_backup_is_left_as_it_is() {
    let memory = memory("first");
    backed_up(&[&memory]).await;
    let all_storages = storages(&[&memory]);
    let catalog = Catalog::load(&all_storages, None).await;
    let entry = &catalog.backups[0];
    let before = memory.keys();
    let context = Context::default();
    let kind = |result: Result<RekeyReport>| result.unwrap_err().kind();

    let plan = RekeyPlan { decoders: today(), ..rekey_plan(&catalog, entry, &all_storages) };
    assert_eq!(kind(rekey(&plan, &context).await), ErrorKind::Unchecked, "no key");
    let stranger = Seal("a stranger's");
    let plan = RekeyPlan { trusted: Some(&stranger), ..rekey_plan(&catalog, entry, &all_storages) };
    assert_eq!(kind(rekey(&plan, &context).await), ErrorKind::Refused, "forged");
    let plan = RekeyPlan { sign: None, ..rekey_plan(&catalog, entry, &all_storages) };
    assert_eq!(kind(rekey(&plan, &context).await), ErrorKind::Refused, "would be unsigned");
    assert_eq!(memory.keys(), before);

    let key = entry.key("app.dump.zst.masked");
    let whole = memory.object(&key).unwrap();
    let mut altered = whole.to_vec();
    altered[whole.len() / 2] ^= 1;
    memory.plant(&key, altered);
    let plan = rekey_plan(&catalog, entry, &all_storages);
    assert_eq!(kind(rekey(&plan, &context).await), ErrorKind::Damaged);
    assert_eq!(memory.keys(), before, "nothing was removed, nothing is left");
}

/// The new one is listed, but not what was written: the old one stays.
#[tokio::test]
async fn the_old_one_stays_when_the_new_one_does_not_read_back() {
    for damage in ["app.dump.zst.veiled", "manifest.json.sig", "contents.json.zst.veiled"] {
        let memory = memory("first");
        backed_up(&[&memory]).await;
        let all_storages = storages(&[&memory]);
        let catalog = Catalog::load(&all_storages, None).await;
        // A run that was killed before it removed anything.
        let plan = BackupPlan {
            transforms: vec![zstd(), Arc::new(Veil)],
            keys: vec!["NEW".to_owned()],
            authenticate: Some(Arc::new(NEW_SEAL)),
            rekeyed: Some(backup_core::Rekeyed {
                from: "20261122T020000Z".to_owned(),
                finished: catalog.backups[0].manifest.finished,
                at: Timestamp::now(),
                tool: "test".to_owned(),
                host: "here".to_owned(),
            }),
            ..plan_at(started(), storages(&[&memory]))
        };
        let new = run_quietly(plan).await.unwrap().manifest.backup_id().unwrap();
        let key = format!("{}/{damage}", new.folder(JOB));
        let whole = memory.object(&key).unwrap();
        let mut altered = whole.to_vec();
        altered[whole.len() / 2] ^= 1;
        memory.plant(&key, altered);
        let report = rekey_oldest(&all_storages).await.unwrap().unwrap();
        assert!(!report.created && report.copies[0].1.is_err(), "{damage}: {report:?}");
        let catalog = Catalog::load(&all_storages, None).await;
        assert_eq!(catalog.backups.len(), 2, "{damage}: the old one is still listed");
        assert_no_prune_takes_the_old_one(&all_storages).await;
        // Whole again, the next run goes on with it.
        memory.plant(&key, whole);
        let report = rekey_oldest(&all_storages).await.unwrap().unwrap();
        assert_eq!((report.id, report.created), (new, false));
        assert!(matches!(report.copies[0].1, Ok(OldCopy::Removed)), "{report:?}");
        assert_done(&[&memory], damage).await;
    }
}
