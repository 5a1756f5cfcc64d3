//! `sync` brings nothing that the target's retention would remove again.

use backup_core::pipeline::Context;
use backup_core::{Catalog, expired_on_arrival, sync};

use super::{KeepLast, history, keep_last, later, listed, pruned};
use crate::rig::{JOB, memory, storages};

#[tokio::test]
async fn a_sync_and_a_prune_do_not_work_against_each_other() {
    let (from, to) = (memory("from"), memory("to"));
    history(&[&from], 6).await;
    let (source, target) = (storages(&[&from]).remove(0), storages(&[&to]).remove(0));
    let policy = KeepLast(3);
    let unwanted = |catalog: &Catalog| expired_on_arrival(catalog, &policy, later());
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
    let everything = |_: &Catalog| std::collections::BTreeSet::new();
    let report = sync(&source, &target, Some(JOB), &everything, &Context::default()).await;
    assert_eq!(report.unwrap().copied.len(), 1);
    super::assert_tidy(&to, "copied again").await;
    crate::copies::assert_same(&from, &to);
}
