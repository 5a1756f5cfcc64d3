//! `copy`: one backup to another storage, byte for byte.

use std::sync::Arc;

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Catalog, CatalogEntry, CopyReport, ErrorKind, Result, Storage, copy, layout};
use backup_testkit::{Call, CountedStorage, FailCalls, Intercepted, Memory};
use jiff::{SignedDuration, Timestamp};

use crate::intruders::{FOREIGN, intruded};
use crate::rig::{
    assert_all_whole, assert_empty, memory, open_plan, plan_at, run_quietly, storages,
};
use crate::troubled::{Trouble, Troubled};

/// Calls that one copy makes to one storage, at most; more would be a loop.
const MOST_CALLS: u64 = 200;

pub fn at(n: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T02:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::from_secs(n)).unwrap()
}

/// A storage with one backup, and its entry.
pub async fn backed_up() -> (Arc<Memory>, CatalogEntry) {
    let from = memory("from");
    run_quietly(plan_at(at(0), storages(&[&from]))).await.unwrap();
    let entry = entry_in(&from).await;
    (from, entry)
}

async fn entry_in(memory: &Arc<Memory>) -> CatalogEntry {
    Catalog::load(&storages(&[memory]), None).await.backups.remove(0)
}

pub async fn copy_to(
    entry: &CatalogEntry,
    from: &Arc<Memory>,
    to: Arc<dyn Storage>,
) -> Result<CopyReport> {
    let from: Arc<dyn Storage> = from.clone();
    copy(entry, &from, &to, false, &Context::default()).await
}

async fn check_to(
    entry: &CatalogEntry,
    from: &Arc<Memory>,
    to: &Arc<Memory>,
) -> Result<CopyReport> {
    let (from, to): (Arc<dyn Storage>, Arc<dyn Storage>) = (from.clone(), to.clone());
    copy(entry, &from, &to, true, &Context::default()).await
}

pub fn assert_same(one: &Memory, other: &Memory) {
    assert_eq!(one.keys(), other.keys());
    for key in one.keys() {
        assert_eq!(one.object(&key), other.object(&key), "{key}");
    }
}

#[tokio::test]
async fn a_copy_is_the_same_byte_for_byte() {
    let (from, entry) = backed_up().await;
    from.plant(&entry.key("proofs/20261121T000000Z-verify.json"), "{}");
    let to = memory("to");
    let report = copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_eq!(report.copied.len(), 6, "{report:?}");
    assert!(report.kept.is_empty() && report.bytes > 300_000);
    // A proof is about the copy that was read.
    from.delete(&entry.key("proofs/20261121T000000Z-verify.json")).await.unwrap();
    assert_same(&from, &to);
    assert_all_whole(&[&from, &to], "a copy").await;

    let again = copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_eq!((again.copied.len(), again.kept.len(), again.bytes), (0, 6, 0));

    let unsigned = memory("unsigned");
    run_quietly(open_plan(storages(&[&unsigned]))).await.unwrap();
    let entry = entry_in(&unsigned).await;
    let to = memory("to");
    copy_to(&entry, &unsigned, to.clone()).await.unwrap();
    assert_same(&unsigned, &to);
}

#[tokio::test]
async fn what_is_missing_cut_or_altered_is_repaired() {
    let (from, entry) = backed_up().await;
    let files: Vec<String> =
        from.keys().into_iter().filter(|key| !key.ends_with(layout::MANIFEST)).collect();
    for listed in [true, false] {
        for key in &files {
            let whole = from.object(key).unwrap();
            let mut altered = whole.to_vec();
            altered[whole.len() / 2] ^= 1;
            let is_part = key.ends_with(".masked") || key.ends_with(layout::RESTORE_NOTE);
            let damages = [None, Some(whole.slice(..whole.len() / 2)), Some(altered.into())];
            for (number, damage) in damages.into_iter().enumerate() {
                let to = memory("to");
                copy_to(&entry, &from, to.clone()).await.unwrap();
                if !listed {
                    to.delete(&entry.key(layout::MANIFEST)).await.unwrap();
                }
                match damage {
                    None => to.delete(key).await.unwrap(),
                    Some(bytes) => to.plant(key, bytes),
                }
                let what = format!("{key}, damage {number}, listed: {listed}");
                let report = copy_to(&entry, &from, to.clone()).await.expect(&what);
                // The right size is enough for a part, unless it is to be checked.
                let unseen = number == 2 && is_part;
                assert_eq!(report.copied.len(), usize::from(!unseen), "{what}: {report:?}");
                let checked = check_to(&entry, &from, &to).await.expect(&what);
                assert_eq!(checked.copied.len(), usize::from(unseen), "{what}: {checked:?}");
                assert_same(&from, &to);
            }
        }
    }
}

/// Its source may be lost, and then nothing else would keep the copy.
#[tokio::test]
async fn what_is_pinned_is_pinned_in_its_copy() {
    let (from, entry) = backed_up().await;
    let pin = format!("{}/{}", entry.folder(), layout::PIN);
    from.plant(&pin, r#"{"reason": "audit"}"#);
    let to = memory("to");
    copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_same(&from, &to);
    // Also where the copy was there before the pin.
    to.delete(&pin).await.unwrap();
    copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_same(&from, &to);
}

#[tokio::test]
async fn another_backup_of_the_same_id_is_not_touched() {
    let (from, entry) = backed_up().await;
    let to = memory("to");
    let mut other = plan_at(at(0), storages(&[&to]));
    other.host = "elsewhere".to_owned();
    run_quietly(other).await.unwrap();
    to.delete(&entry.key("app.dump.zst.masked")).await.unwrap();
    let before = to.keys();
    let error = copy_to(&entry, &from, to.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(to.keys(), before);
}

#[tokio::test]
async fn who_works_in_the_folder_is_left_alone() {
    let (from, entry) = backed_up().await;
    let claim =
        |started: Timestamp| format!("{{\"started\": \"{started}\", \"timeout_seconds\": 3600}}");
    let now = Timestamp::now();
    let long_ago = now.checked_sub(SignedDuration::from_hours(26)).unwrap();
    let to = memory("to");
    to.plant(&entry.key(layout::CLAIM), claim(now));
    let error = copy_to(&entry, &from, to.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert_eq!(to.keys(), [entry.key(layout::CLAIM)]);

    to.plant(&entry.key(layout::CLAIM), claim(long_ago));
    copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_same(&from, &to);
}

#[tokio::test]
async fn a_storage_that_was_given_up_in_the_middle_is_repaired_at_once() {
    let (from, entry) = backed_up().await;
    let claim = |host: &str, started: Timestamp| {
        let of = format!("\"host\": \"{host}\", \"started\": \"{started}\"");
        format!("{{{of}, \"timeout_seconds\": 8640000}}")
    };
    let (host, started) = (&entry.manifest.host, entry.manifest.started);
    // Another run's claim is none of ours to judge.
    for foreign in [claim("elsewhere", started), claim(host, Timestamp::now())] {
        let to = memory("to");
        to.plant(&entry.key(layout::CLAIM), foreign);
        let error = copy_to(&entry, &from, to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    }
    // The run that claimed it could neither go on here nor give the claim back.
    let to = memory("to");
    to.plant(&entry.key(layout::CLAIM), claim(host, started));
    copy_to(&entry, &from, to.clone()).await.unwrap();
    assert_same(&from, &to);
}

/// Looks whether its folder is claimed whenever something is begun in it.
fn watched(memory: &Arc<Memory>) -> Intercepted {
    let inside = memory.clone();
    Intercepted::new(memory.clone()).before(move |call, key| {
        if call == Call::Begin {
            let folder = key.rsplit_once('/').unwrap().0;
            let claim = inside.object(&format!("{folder}/{}", layout::CLAIM)).expect("no claim");
            let claim: serde_json::Value = serde_json::from_slice(&claim).unwrap();
            assert_eq!(claim["timeout_seconds"], backup_core::COPY_TIMEOUT.as_secs());
            assert!(inside.object(&format!("{folder}/{}", layout::MANIFEST)).is_none());
        }
        Ok(())
    })
}

#[tokio::test]
async fn the_folder_is_claimed_before_anything_is_written_and_the_manifest_comes_last() {
    let (from, entry) = backed_up().await;
    let to = memory("to");
    copy_to(&entry, &from, Arc::new(watched(&to))).await.unwrap();
    assert_same(&from, &to);
}

#[tokio::test]
async fn what_somebody_else_lists_is_not_removed() {
    let (from, entry) = backed_up().await;
    let to = memory("to");
    let error = copy_to(&entry, &from, Arc::new(intruded(&to, false))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(to.keys(), from.keys());
    assert_eq!(to.object(&entry.key(layout::MANIFEST)).unwrap(), FOREIGN);
}

#[tokio::test]
async fn a_damaged_source_is_not_spread() {
    let (from, entry) = backed_up().await;
    for key in from.keys() {
        let whole = from.object(&key).unwrap();
        let mut altered = whole.to_vec();
        altered[whole.len() / 2] ^= 1;
        for damage in [altered, whole[..whole.len() / 2].to_vec()] {
            if key.ends_with(layout::MANIFEST) {
                continue;
            }
            from.plant(&key, damage);
            let to = memory("to");
            let error = copy_to(&entry, &from, to.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{key}: {error}");
            assert_empty(&to, &key);
        }
        from.plant(&key, whole);
    }
    // An altered manifest no longer fits the checksum list.
    let key = entry.key(layout::MANIFEST);
    let text = String::from_utf8(from.object(&key).unwrap().to_vec()).unwrap();
    from.plant(&key, text.replace("\"here\"", "\"near\""));
    let to = memory("to");
    let error = copy_to(&entry_in(&from).await, &from, to.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_empty(&to, "an altered manifest");
}

#[tokio::test]
async fn a_copy_that_breaks_anywhere_leaves_nothing_or_all() {
    let (from, entry) = backed_up().await;
    // Reading is tried again, with pauses.
    tokio::time::pause();
    for fail in [FailCalls::Only, FailCalls::From] {
        for k in 1..MOST_CALLS {
            let to = memory("to");
            let counted = CountedStorage::new(to.clone(), fail(k));
            let result = copy_to(&entry, &from, Arc::new(counted.clone())).await;
            let struck = counted.calls().get(k as usize - 1).cloned();
            let what = format!("{:?}, {struck:?}: {result:?}", fail(k));
            let listed = assert_all_whole(&[&to], &what).await.backups.len();
            assert_eq!(listed, usize::from(result.is_ok()), "{what}");
            if struck.is_none() {
                result.unwrap();
                assert!(k > 20, "this copy was too short: {:?}", counted.calls());
                break;
            }
            // Once the manifest was sent nobody knows: then all of it stays for the next copy.
            let sent =
                struck.as_deref() == Some(&*format!("create_new {}", entry.key(layout::MANIFEST)));
            if result.is_err() && fail(k) == FailCalls::Only(k) && !sent {
                assert_empty(&to, &what);
            }
            // What a storage that died kept, a later copy gets over, and repairs.
            to.delete(&entry.key(layout::CLAIM)).await.unwrap();
            copy_to(&entry, &from, to.clone()).await.expect(&what);
            assert_same(&from, &to);
        }
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_nothing_or_a_whole_backup() {
    let (from, entry) = backed_up().await;
    for k in 1..MOST_CALLS {
        let to = memory("to");
        let troubled = Troubled::new(to.clone(), k, Trouble::LostAnswer);
        let result = copy_to(&entry, &from, Arc::new(troubled.clone())).await;
        let what = format!("answer {k} lost: {result:?}");
        let listed = assert_all_whole(&[&to], &what).await.backups.len();
        assert!(listed == 1 || result.is_err(), "{what}");
        if !troubled.struck() {
            assert!(k > 20);
            return;
        }
    }
    panic!("more than {MOST_CALLS} calls");
}

#[tokio::test]
async fn an_interrupt_at_any_call_leaves_nothing_or_all_of_a_copy() {
    let (from, entry) = backed_up().await;
    let source: Arc<dyn Storage> = from.clone();
    for k in 1..MOST_CALLS {
        let to = memory("to");
        let cancel = Cancel::default();
        let context = Context { cancel: cancel.clone(), ..Context::default() };
        let troubled = Troubled::new(to.clone(), k, Trouble::Interrupt(cancel));
        let target: Arc<dyn Storage> = Arc::new(troubled.clone());
        let result = copy(&entry, &source, &target, false, &context).await;
        let what = format!("interrupted at call {k}: {result:?}");
        match result {
            Ok(_) => assert_same(&from, &to),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{what}");
                assert_empty(&to, &what);
            }
        }
        if !troubled.struck() {
            assert!(k > 20);
            return;
        }
    }
    panic!("more than {MOST_CALLS} calls");
}

#[tokio::test]
async fn reading_rights_are_enough_for_the_source() {
    let (from, entry) = backed_up().await;
    let counted = CountedStorage::new(from.clone(), FailCalls::Never);
    let source: Arc<dyn Storage> = Arc::new(counted.clone());
    let to = memory("to");
    let target: Arc<dyn Storage> = to.clone();
    copy(&entry, &source, &target, true, &Context::default()).await.unwrap();
    let reads = ["open ", "next_chunk ", "list ", "stat ", "folders "];
    let calls = counted.calls();
    // But for the mark that it is being read, which may as well be refused.
    let mark = format!("/{}/", layout::READERS);
    let others: Vec<_> = calls
        .iter()
        .filter(|call| !reads.iter().any(|read| call.starts_with(read)) && !call.contains(&mark))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(from.keys().iter().all(|key| !key.contains(&mark)), "a mark is left");
}

#[tokio::test]
async fn a_copy_needs_a_source_that_has_it() {
    let (from, entry) = backed_up().await;
    let (to, other) = (memory("to"), memory("other"));
    let error = copy_to(&entry, &other, to.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = copy_to(&entry, &from, from.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    from.delete(&entry.key("app.dump.zst.masked")).await.unwrap();
    let error = copy_to(&entry_in(&from).await, &from, to.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_empty(&to, "an incomplete source");
}
