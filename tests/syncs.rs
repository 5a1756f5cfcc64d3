//! `sync`: every backup that another storage lacks.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{BackupId, Catalog, ErrorKind, Result, Storage, SyncReport, Unwanted, sync};
use backup_testkit::{
    CountedStorage, FailCalls, FaultyReads, FaultyStorage, Memory, ReadFault, SinkFault,
};

use jiff::Timestamp;

use crate::copies::{assert_same, at};
use crate::rig::{
    Ear, JOB, assert_all_whole, assert_empty, memory, plan_at, run_quietly, storages,
};

async fn sync_all(
    from: &Arc<dyn Storage>,
    to: &Arc<Memory>,
    unwanted: &Unwanted<'_>,
    context: &Context,
) -> Result<SyncReport> {
    let to: Arc<dyn Storage> = to.clone();
    sync(from, &to, Some(JOB), unwanted, context).await
}

/// Ten backups in a storage.
async fn ten() -> Arc<Memory> {
    let from = memory("from");
    for n in 0..10 {
        run_quietly(plan_at(at(n), storages(&[&from]))).await.unwrap();
    }
    from
}

#[tokio::test]
async fn a_sync_brings_what_is_missing_and_wanted_the_oldest_first() {
    let (from, to) = (ten().await, memory("to"));
    let source: Arc<dyn Storage> = from.clone();
    let context = Context::default();
    let wanted = |catalog: &Catalog, _: &BTreeSet<BackupId>| {
        let ids = catalog.backups.iter().map(|entry| entry.id);
        ids.filter(|id| id.started() < at(5)).collect()
    };
    let report = sync_all(&source, &to, &wanted, &context).await.unwrap();
    let copied: Vec<Timestamp> = report.copied.iter().map(|(id, _)| id.started()).collect();
    assert_eq!(copied, (5..10).map(at).collect::<Vec<_>>());
    assert_eq!((report.unwanted.len(), report.failed.len()), (5, 0));
    let there = assert_all_whole(&[&to], "synced").await;
    assert_eq!(there.backups.len(), 5, "what is not wanted was copied");

    to.delete(&there.backups[2].key("globals.sql.zst.masked")).await.unwrap();
    let report = sync_all(&source, &to, &wanted, &context).await.unwrap();
    assert_eq!(report.copied[0].1.copied, ["globals.sql.zst.masked"]);
    assert_eq!(report.copied.len(), 1);
    let report = sync_all(&source, &to, &|_, _| BTreeSet::new(), &context).await.unwrap();
    assert_eq!(report.copied.len(), 5);
    assert_same(&from, &to);
}

#[tokio::test]
async fn a_sync_goes_on_after_one_failure_and_ends_after_many() {
    let from = ten().await;
    let third = from.keys().iter().filter(|key| key.contains("app.dump")).nth(2).cloned().unwrap();
    let source: Arc<dyn Storage> =
        Arc::new(FaultyReads::new(from.clone(), ReadFault::EndAt(10)).only_keys_with(third));
    let to = memory("to");
    let report =
        sync_all(&source, &to, &|_, _| BTreeSet::new(), &Context::default()).await.unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (9, 1));
    assert_eq!(report.failed[0].0.started(), at(2));
    assert_eq!(assert_all_whole(&[&to], "one failed").await.backups.len(), 9);

    // Damage is that of one backup, however many there are of them: the next may be whole.
    let source: Arc<dyn Storage> =
        Arc::new(FaultyReads::new(from.clone(), ReadFault::EndAt(10)).only_keys_with("app.dump"));
    let report = sync_all(&source, &memory("to"), &|_, _| BTreeSet::new(), &Context::default())
        .await
        .unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (0, 10));

    // A target that takes nothing is another matter.
    let source: Arc<dyn Storage> = from.clone();
    let (ear, context) = Ear::context();
    let to = memory("to");
    let full: Arc<dyn Storage> = Arc::new(FaultyStorage::new(to.clone(), SinkFault::FailAt(0)));
    let report = sync(&source, &full, None, &|_, _| BTreeSet::new(), &context).await.unwrap();
    assert_eq!((report.copied.len(), report.failed.len()), (0, 3));
    assert!(ear.warnings().iter().any(|line| line.contains("one backup after the other")));
    assert_empty(&to, "a full target");
}

#[tokio::test]
async fn a_sync_with_a_storage_that_is_down_is_an_error() {
    let from = ten().await;
    let to = memory("to");
    let down = CountedStorage::new(from, FailCalls::From(1));
    let source: Arc<dyn Storage> = Arc::new(down);
    let error =
        sync_all(&source, &to, &|_, _| BTreeSet::new(), &Context::default()).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::NotFound);
    assert_empty(&to, "no source");
}
