//! Marks of readers, and pins that come while a prune goes on.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::Context;
use backup_core::{
    BackupId, BackupReader, Catalog, Decoders, ReaderMarks, Storage, apply_prune, layout, pin,
};
use backup_testkit::{Call, Intercepted, Memory};
use jiff::{SignedDuration, Timestamp};

use super::{KeepLast, history, keep_last, listed, planned, pruned, verdicts, wanted_pin};
use crate::copies::at;
use crate::rig::{JOB, memory, storages};

fn folder(n: i64) -> String {
    BackupId::new(at(n), 1).folder(JOB)
}

/// By the clock of this machine, as the marks are.
fn now() -> Timestamp {
    Timestamp::now()
}

#[tokio::test]
async fn a_backup_that_is_being_read_stays_until_it_is_not() {
    let (here, there) = (memory("here"), memory("there"));
    history(&[&here, &there], 3).await;
    let all = storages(&[&here, &there]);
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    let marks = ReaderMarks::default();
    let reader = BackupReader::best(&entry, &all, Decoders::default()).unwrap();
    let reader = reader.marked(&marks, "test").await;
    let clone = reader.clone();
    let policy = KeepLast(1);
    let rules = backup_core::PruneRules { now: now(), ..keep_last(&policy) };
    let plan = planned(&all, &rules).await;
    for storage in ["here", "there"] {
        let told = verdicts(&plan, storage);
        assert!(told[0].1.starts_with("skip: being read since "), "{told:?}");
    }
    apply_prune(&plan, &all, &Context::default()).await.unwrap();
    assert_eq!((listed(&here).await, listed(&there).await), (vec![0, 2], vec![0, 2]));
    drop(reader);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(here.keys().iter().any(|key| key.contains("/readers/")), "a clone still reads");
    drop(clone);
    marks.settled().await;
    pruned(&all, &rules).await.unwrap();
    assert_eq!((listed(&here).await, listed(&there).await), (vec![2], vec![2]));
    super::assert_tidy(&here, "read").await;
}

#[tokio::test]
async fn the_mark_of_a_dead_reader_ends_by_itself_and_is_removed() {
    let here = memory("here");
    history(&[&here], 2).await;
    for n in 0..2 {
        here.plant(&format!("{}/{}/dead.json", folder(n), layout::READERS), "{}");
    }
    let all = storages(&[&here]);
    let policy = KeepLast(1);
    let after = |hours: i64| backup_core::PruneRules {
        now: now() + SignedDuration::from_hours(hours),
        ..keep_last(&policy)
    };
    pruned(&all, &after(24)).await.unwrap();
    assert_eq!(listed(&here).await, [0, 1], "a day has not passed by every clock");
    pruned(&all, &after(26)).await.unwrap();
    assert_eq!(listed(&here).await, [1]);
    super::assert_tidy(&here, "a dead reader's mark").await;
}

#[tokio::test]
async fn credentials_that_may_only_read_read_without_a_mark() {
    let here = memory("here");
    history(&[&here], 1).await;
    let before = here.keys();
    let marks = ReaderMarks::default();
    let refusing: Arc<dyn Storage> = Arc::new(Intercepted::permitting(here.clone(), Call::READING));
    let mark = marks.leave(&folder(0), [&refusing], "test").await;
    assert_eq!(here.keys(), before);
    mark.end().await;
    assert_eq!(here.keys(), before);
}

/// Who comes while the prune works: before or after it says so by its tombstone.
#[derive(Clone, Copy, PartialEq)]
enum Comes {
    PinAfterTombstone,
    PinAfterManifest,
    ReaderAfterTombstone,
}

/// A storage in which somebody comes just after the prune's tombstone, or after it removed the
/// manifest.
fn visited(memory: &Arc<Memory>, comes: Comes) -> Intercepted {
    let (after, name) = match comes {
        Comes::PinAfterTombstone => ((Call::CreateNew, layout::PRUNED), layout::PIN.to_owned()),
        Comes::PinAfterManifest => ((Call::Delete, layout::MANIFEST), layout::PIN.to_owned()),
        Comes::ReaderAfterTombstone => {
            ((Call::CreateNew, layout::PRUNED), format!("{}/x.json", layout::READERS))
        }
    };
    let inside = memory.clone();
    Intercepted::new(memory.clone()).after(move |call, key| {
        let (folder, file) = key.rsplit_once('/').unwrap_or_default();
        if (call, file) == after {
            inside.plant(&format!("{folder}/{name}"), "{}");
        }
    })
}

#[tokio::test]
async fn who_comes_at_the_last_moment_is_seen_and_who_comes_too_late_leaves_nothing() {
    let cases = [Comes::PinAfterTombstone, Comes::ReaderAfterTombstone, Comes::PinAfterManifest];
    for comes in cases {
        let here = memory("here");
        history(&[&here], 2).await;
        let all: [Arc<dyn Storage>; 1] = [Arc::new(visited(&here, comes))];
        let policy = KeepLast(1);
        let report = pruned(&all, &keep_last(&policy)).await.unwrap();
        let stays = comes != Comes::PinAfterManifest;
        assert_eq!(report.storages[0].left.len(), usize::from(stays), "{report:?}");
        let wanted: &[i64] = if stays { &[0, 1] } else { &[1] };
        assert_eq!(listed(&here).await, wanted);
        let keys = here.keys();
        assert!(!keys.iter().any(|key| key.ends_with(layout::PRUNED)), "{keys:?}");
        assert!(stays || keys.iter().all(|key| key.starts_with(&folder(1))), "{keys:?}");
    }
}

#[tokio::test]
async fn a_pin_that_meets_a_prune_says_so() {
    let (here, there) = (memory("here"), memory("there"));
    history(&[&here, &there], 2).await;
    super::half_prune(&there, BackupId::new(at(0), 1), false);
    let all = storages(&[&here, &there]);
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    let wanted = wanted_pin(&entry);
    let done = pin(&entry, &all, &wanted).await;
    assert!(done[0].1.is_ok());
    let error = done[1].1.as_ref().unwrap_err();
    assert!(error.message().contains("is being pruned"), "{error}");
    // It was a crashed one: the pin counts, and the next prune puts it right.
    pruned(&all, &keep_last(&KeepLast(1))).await.unwrap();
    assert_eq!(listed(&there).await, [0, 1]);
    assert!(!there.keys().iter().any(|key| key.ends_with(layout::PRUNED)));
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    assert_eq!(backup_core::read_pin(&entry, &all).await.unwrap(), Some(wanted));
}
