//! Repairs that are interrupted, meet a storage that fails, or may not write.

use std::sync::Arc;

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Catalog, Error, Level, Storage, layout, repair};
use backup_testkit::{Call, CountedStorage, FailCalls, Intercepted, Memory};
use bytes::Bytes;

use super::{Keys, flipped, look, look_at, repaired, shared, twice, verified};
use crate::copies::assert_same;
use crate::troubled::{Trouble, Troubled};

/// Everything of the first copy is as it was, or as it should be.
fn assert_not_worse(now: &Memory, before: &[(String, Bytes)], good: &Memory, what: &str) {
    for (key, damaged) in before {
        let object = now.object(key).unwrap_or_else(|| panic!("{what}: {key} is gone"));
        let is_good = Some(&object) == good.object(key).as_ref();
        assert!(is_good || object == *damaged, "{what}: {key} is neither");
    }
}

/// Damages the dump, the signature and the manifest of the first copy.
fn spoil(both: &[Arc<Memory>; 2]) -> Vec<(String, Bytes)> {
    let mut all = Vec::new();
    for key in both[0].keys() {
        let whole = both[1].object(&key).unwrap();
        let bad = ["app.dump", layout::SIGNATURE, layout::MANIFEST];
        let bad = bad.iter().any(|name| key.ends_with(name) || key.contains("app.dump"));
        let bytes = if bad { flipped(&whole, whole.len() / 2).into() } else { whole };
        both[0].plant(&key, bytes.clone());
        all.push((key, bytes));
    }
    all
}

#[tokio::test]
async fn a_storage_that_fails_at_any_call_is_left_no_worse() {
    let both = twice(true).await;
    for fail in [FailCalls::Only, FailCalls::From] {
        for k in 1.. {
            let before = spoil(&both);
            let failing = CountedStorage::new(both[0].clone(), fail(k));
            let storages: [Arc<dyn Storage>; 2] = [Arc::new(failing.clone()), both[1].clone()];
            let catalog = Catalog::load(&shared(&both), None).await;
            let context = Context::default();
            let entry = &catalog.backups[0];
            let copies = look_at(entry, &storages, Level::Content, Keys::All, &context).await;
            let _ = repair(&copies, &context).await;
            let what = format!("{:?}", fail(k));
            assert_not_worse(&both[0], &before, &both[1], &what);
            // Where every call fails, giving up does, too.
            let dropped = both[0].unfinished();
            assert!(dropped == 0 || fail(k) == FailCalls::From(k), "{what}: {dropped}");
            if (failing.calls().len() as u64) < k {
                assert_same(&both[0], &both[1]);
                assert!(k > 20, "{k} calls only");
                break;
            }
            // The next one ends it.
            repaired(&verified(&both).await).await;
            assert_same(&both[0], &both[1]);
        }
    }
}

#[tokio::test]
async fn an_interrupt_or_a_lost_answer_at_any_call_leaves_it_no_worse() {
    let both = twice(true).await;
    for interrupts in [true, false] {
        for k in 1.. {
            let before = spoil(&both);
            let cancel = Cancel::default();
            let context = Context { cancel: cancel.clone(), ..Context::default() };
            let trouble = if interrupts { Trouble::Interrupt(cancel) } else { Trouble::LostAnswer };
            let troubled = Troubled::new(both[0].clone(), k, trouble);
            let storages: [Arc<dyn Storage>; 2] = [Arc::new(troubled.clone()), both[1].clone()];
            let catalog = Catalog::load(&shared(&both), None).await;
            let entry = &catalog.backups[0];
            let copies = look_at(entry, &storages, Level::Checksums, Keys::All, &context).await;
            let done = repair(&copies, &context).await;
            let what = format!("interrupts: {interrupts}, call {k}: {done:?}");
            assert_not_worse(&both[0], &before, &both[1], &what);
            if !troubled.struck() {
                assert_same(&both[0], &both[1]);
                assert!(k > 20, "{k} calls only");
                break;
            }
            repaired(&verified(&both).await).await;
            assert_same(&both[0], &both[1]);
        }
    }
}

#[tokio::test]
async fn two_repairs_at_once_don_t_hurt() {
    let both = twice(true).await;
    spoil(&both);
    let (one, other) = tokio::join!(verified(&both), verified(&both));
    let (context, again) = (Context::default(), Context::default());
    let (first, second) = tokio::join!(repair(&one, &context), repair(&other, &again));
    let repaired = first.unwrap().repaired.len() + second.unwrap().repaired.len();
    assert!(repaired >= 3, "{repaired}");
    assert_same(&both[0], &both[1]);
}

/// Lets nobody replace an object, as a bucket does that keeps objects for a time.
fn unchanging(memory: &Arc<Memory>) -> Intercepted {
    let inside = memory.clone();
    Intercepted::new(memory.clone()).before(move |call, key| {
        if call == Call::Begin && inside.object(key).is_some() {
            return Err(Error::failed("storage first", format!("{key} is kept until 2030"))
                .next_step("wait until 2030"));
        }
        Ok(())
    })
}

#[tokio::test]
async fn what_may_not_be_replaced_is_told_and_a_missing_file_is_still_repaired() {
    let both = twice(true).await;
    let keys = both[0].keys();
    let key = |name: &str| keys.iter().find(|key| key.contains(name)).unwrap().clone();
    let dump = both[0].object(&key("app.dump")).unwrap();
    both[0].plant(&key("app.dump"), flipped(&dump, 5));
    both[0].delete(&key("globals")).await.unwrap();
    let storages: [Arc<dyn Storage>; 2] = [Arc::new(unchanging(&both[0])), both[1].clone()];
    let copies = look(&storages, Level::Content, Keys::All, &Context::default()).await;
    let report = repaired(&copies).await;
    assert_eq!(report.repaired.len(), 1, "{report:?}");
    assert!(report.repaired[0].file.contains("globals"), "{report:?}");
    let [failed] = &report.failed[..] else { panic!("{report:?}") };
    assert!(failed.error.message().contains("is kept until 2030"), "{failed:?}");
    let advice = failed.error.advice().unwrap();
    assert!(advice.contains("may replace objects") && advice.contains("wait until 2030"));
    assert_eq!(both[0].object(&key("app.dump")).unwrap(), flipped(&dump, 5));
}
