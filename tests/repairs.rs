//! `verify --repair`: what is damaged in one storage comes back from another, and nothing is
//! ever worse than before.

mod troubles;

use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    Authenticate, Catalog, CatalogEntry, Decoders, ErrorKind, Level, Place, RepairReport, Sink,
    Storage, Verification, VerifiedCopy, layout, repair, verify_copies,
};
use backup_testkit::Memory;
use bytes::Bytes;

use crate::copies::{assert_same, at};
use crate::rig::{IMPATIENT, SEAL, decoders, memory, open_plan, plan_at, run_quietly, storages};

/// What the one who verifies has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keys {
    All,
    None,
}

/// Two storages with the same backup.
async fn twice(signed: bool) -> [Arc<Memory>; 2] {
    let both = [memory("first"), memory("second")];
    let storages = storages(&[&both[0], &both[1]]);
    let plan = if signed { plan_at(at(0), storages) } else { open_plan(storages) };
    run_quietly(plan).await.unwrap();
    both
}

fn shared(memories: &[Arc<Memory>; 2]) -> [Arc<dyn Storage>; 2] {
    memories.clone().map(|memory| memory as Arc<dyn Storage>)
}

async fn look(
    storages: &[Arc<dyn Storage>; 2],
    level: Level,
    keys: Keys,
    context: &Context,
) -> Vec<VerifiedCopy> {
    let catalog = Catalog::load(storages, None).await;
    let [entry] = &catalog.backups[..] else { panic!("{catalog:?}") };
    look_at(entry, storages, level, keys, context).await
}

async fn look_at(
    entry: &CatalogEntry,
    storages: &[Arc<dyn Storage>; 2],
    level: Level,
    keys: Keys,
    context: &Context,
) -> Vec<VerifiedCopy> {
    let signed = entry.manifest.parts.iter().any(|part| !part.keys.is_empty());
    let how = Verification {
        level,
        decoders: &if keys == Keys::All { decoders() } else { Decoders::default() },
        authenticate: (keys == Keys::All && signed).then_some(&SEAL as &dyn Authenticate),
        inspectors: &|_, _| None,
        patience: IMPATIENT,
    };
    verify_copies(entry, storages, &how, context).await
}

async fn verified(memories: &[Arc<Memory>; 2]) -> Vec<VerifiedCopy> {
    look(&shared(memories), Level::Content, Keys::All, &Context::default()).await
}

async fn repaired(copies: &[VerifiedCopy]) -> RepairReport {
    repair(copies, &Context::default()).await.unwrap()
}

fn flipped(whole: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// Ways to damage an object; `None` removes it.
fn damages(whole: &[u8]) -> Vec<Option<Vec<u8>>> {
    vec![
        None,
        Some(flipped(whole, whole.len() / 2)),
        Some(flipped(whole, 0)),
        Some(whole[..whole.len() / 2].to_vec()),
        Some(Vec::new()),
        Some([whole, b"more"].concat()),
        Some(b"garbage".to_vec()),
    ]
}

async fn put(memory: &Memory, key: &str, bytes: Option<Vec<u8>>) {
    match bytes {
        Some(bytes) => memory.plant(key, bytes),
        None => memory.delete(key).await.unwrap(),
    }
}

#[tokio::test]
async fn damage_of_every_file_is_found_named_and_repaired() {
    for (signed, level, keys) in [
        (true, Level::Content, Keys::All),
        (true, Level::Checksums, Keys::All),
        (true, Level::Checksums, Keys::None),
        (false, Level::Content, Keys::All),
        (false, Level::Checksums, Keys::None),
    ] {
        let both = twice(signed).await;
        for (damaged, good) in [(0, 1), (1, 0)] {
            for key in both[0].keys() {
                let file = key.rsplit('/').next().unwrap();
                let whole = both[good].object(&key).unwrap();
                for (number, damage) in damages(&whole).into_iter().enumerate() {
                    if damage.is_none() && file == layout::MANIFEST {
                        continue; // Then there is no backup there: `copy` brings it back.
                    }
                    let is_missing = damage.is_none();
                    put(&both[damaged], &key, damage).await;
                    let what = format!("{signed} {level:?} {keys:?}: {file}, damage {number}");
                    let context = Context::default();
                    let copies = look(&shared(&both), level, keys, &context).await;
                    let name = both[damaged].name();
                    let copy = copies.iter().find(|copy| copy.report.storage == name).unwrap();
                    let kind = copy.report.worst().map(|error| error.kind());
                    assert_eq!(kind, Some(ErrorKind::Damaged), "{what}");
                    let [found] = &copy.report.damage[..] else {
                        panic!("{what}: {:?}", copy.report)
                    };
                    assert_eq!((&*found.file, found.place == Place::Missing), (file, is_missing));
                    let good_in = vec![both[good].name().to_owned()];
                    assert_eq!(found.good_in, good_in, "{what}");
                    let other = copies.iter().find(|copy| copy.report.storage != name).unwrap();
                    assert!(other.report.worst().is_none() || keys == Keys::None, "{what}");

                    let report = repaired(&copies).await;
                    assert!(report.failed.is_empty(), "{what}: {report:?}");
                    assert_eq!(report.repaired.len(), 1, "{what}: {report:?}");
                    assert_same(&both[damaged], &both[good]);
                    let now = look(&shared(&both), level, keys, &context).await;
                    assert!(now.iter().all(|copy| copy.report.worst().is_none()), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_bytes_are_told_exactly() {
    let both = twice(true).await;
    let key = both[0].keys().into_iter().find(|key| key.contains("app.dump")).unwrap();
    let whole = both[0].object(&key).unwrap();
    let n = whole.len();
    let mut two = flipped(&whole, 1000);
    two[n - 1] ^= 0x80;
    for (bytes, told) in [
        (flipped(&whole, n - 1), format!("byte {} of {n} differs", n - 1)),
        (two.clone(), format!("2 of {n} bytes differ, byte 1000 to byte {}", n - 1)),
        (
            whole[..70_000].to_vec(),
            format!("cut off at byte 70000: {} of {n} are missing", n - 70_000),
        ),
        (
            two[..n - 1].to_vec(),
            format!("byte 1000 of {n} differs; cut off at byte {}: 1 of {n} are missing", n - 1),
        ),
        ([&whole[..], b"xyz"].concat(), format!("3 bytes too many after its {n}")),
    ] {
        both[0].plant(&key, bytes.clone());
        let copies = verified(&both).await;
        assert_eq!(copies[0].report.damage[0].place.to_string(), told);
        // Alone, only so much can be said.
        both[1].plant(&key, bytes.clone());
        let alone = verified(&both).await;
        let damage = &alone[0].report.damage[0];
        assert!(damage.good_in.is_empty(), "{damage:?}");
        match &damage.place {
            Place::Length { there, bytes: expected } => {
                assert_eq!((*there, *expected), (bytes.len() as u64, n as u64));
            }
            Place::Within { read, .. } => assert!(*read <= n as u64 && bytes.len() == n),
            Place::Somewhere { bytes: all } => assert_eq!((*all, bytes.len()), (n as u64, n)),
            other => panic!("{other:?}"),
        }
        both[1].plant(&key, whole.clone());
    }
}

#[tokio::test]
async fn each_gets_from_the_other_what_it_lacks() {
    let both = twice(true).await;
    let keys = both[0].keys();
    let whole: Vec<Bytes> = keys.iter().map(|key| both[0].object(key).unwrap()).collect();
    // The manifests of both stay: of one of them all else is bad, of the other the dump.
    for (key, bytes) in keys.iter().zip(&whole) {
        let dump = key.contains("app.dump");
        if !key.ends_with(layout::MANIFEST) {
            both[usize::from(dump)].plant(key, flipped(bytes, 3));
        }
    }
    let report = repaired(&verified(&both).await).await;
    assert_eq!((report.repaired.len(), report.failed.len()), (keys.len() - 1, 0), "{report:?}");
    for (key, bytes) in keys.iter().zip(&whole) {
        assert!(both.iter().all(|memory| memory.object(key).as_ref() == Some(bytes)), "{key}");
    }
}

#[tokio::test]
async fn without_a_good_copy_nothing_is_written() {
    let both = twice(true).await;
    let key = both[0].keys().into_iter().find(|key| key.contains("globals")).unwrap();
    let whole = both[0].object(&key).unwrap();
    both[0].plant(&key, flipped(&whole, 10));
    both[1].plant(&key, flipped(&whole, 20));
    let report = repaired(&verified(&both).await).await;
    assert_eq!((report.repaired.len(), report.failed.len()), (0, 2));
    assert!(report.failed.iter().all(|file| file.error.kind() == ErrorKind::Damaged));
    assert_eq!(both[0].object(&key).unwrap(), flipped(&whole, 10));
    assert_eq!(both[1].object(&key).unwrap(), flipped(&whole, 20));
}

/// A manifest says that all is there: where it isn't, the damaged one stays.
#[tokio::test]
async fn a_manifest_is_not_repaired_over_damage_that_stays() {
    let both = twice(true).await;
    for key in both[0].keys() {
        let whole = both[0].object(&key).unwrap();
        if key.contains("globals") {
            both.iter().for_each(|memory| memory.plant(&key, flipped(&whole, 7)));
        } else if key.ends_with(layout::MANIFEST) {
            both[0].plant(&key, flipped(&whole, 40));
        }
    }
    let manifest = both[0].keys().into_iter().find(|key| key.ends_with(layout::MANIFEST)).unwrap();
    let before = both[0].object(&manifest);
    let report = repaired(&verified(&both).await).await;
    assert_eq!((report.repaired.len(), report.failed.len()), (0, 3), "{report:?}");
    assert_eq!(both[0].object(&manifest), before);
}

/// Another backup under the same id, whole or not, is nobody's to overwrite.
#[tokio::test]
async fn another_backup_of_the_same_id_is_never_touched() {
    let [first, second] = [memory("first"), memory("second")];
    run_quietly(plan_at(at(0), storages(&[&first]))).await.unwrap();
    let mut other = plan_at(at(0), storages(&[&second]));
    other.host = "elsewhere".to_owned();
    run_quietly(other).await.unwrap();
    let both = [first, second];
    for spoiled in [layout::MANIFEST, layout::SIGNATURE, layout::SHA256SUMS, "app.dump"] {
        let key = both[1].keys().into_iter().find(|key| key.contains(spoiled)).unwrap();
        let whole = both[1].object(&key).unwrap();
        both[1].plant(&key, flipped(&whole, whole.len() / 2));
        let before = both
            .clone()
            .map(|memory| memory.keys().iter().map(|k| memory.object(k)).collect::<Vec<_>>());
        let copies = verified(&both).await;
        assert!(copies.iter().any(|copy| copy.report.worst().is_some()), "{spoiled}");
        let report = repaired(&copies).await;
        let own = |key: &str| key.contains(layout::SHA256SUMS);
        // What follows from its own proven manifest may be mended; nothing else.
        assert!(report.repaired.iter().all(|file| own(&file.file)), "{spoiled}: {report:?}");
        let after = both
            .clone()
            .map(|memory| memory.keys().iter().map(|k| memory.object(k)).collect::<Vec<_>>());
        assert!(before == after || own(spoiled), "{spoiled}");
        both[1].plant(&key, whole);
    }
}

#[tokio::test]
async fn a_copy_that_went_bad_meanwhile_is_not_copied() {
    let both = twice(true).await;
    let key = both[0].keys().into_iter().find(|key| key.contains("app.dump")).unwrap();
    let whole = both[0].object(&key).unwrap();
    both[0].plant(&key, flipped(&whole, 10));
    let copies = verified(&both).await;
    both[1].plant(&key, flipped(&whole, 20));
    let report = repaired(&copies).await;
    assert_eq!((report.repaired.len(), report.failed.len()), (0, 1), "{report:?}");
    assert_eq!(both[0].object(&key).unwrap(), flipped(&whole, 10), "it stays as it was");
    assert_eq!(both[0].unfinished(), 0);
}

#[tokio::test]
async fn a_backup_that_was_removed_meanwhile_is_not_brought_back() {
    let both = twice(true).await;
    for spoiled in ["app.dump", layout::MANIFEST] {
        let key = both[0].keys().into_iter().find(|key| key.contains(spoiled)).unwrap();
        let whole = both[0].object(&key).unwrap();
        both[0].plant(&key, flipped(&whole, 10));
        let copies = verified(&both).await;
        let manifest = both[0].keys().into_iter().find(|key| key.ends_with(layout::MANIFEST));
        let manifest = manifest.unwrap();
        both[0].delete(&manifest).await.unwrap();
        let keys = both[0].keys();
        let report = repaired(&copies).await;
        assert_eq!((report.repaired.len(), report.failed.len()), (0, 1), "{report:?}");
        assert_eq!(report.failed[0].error.kind(), ErrorKind::NotFound);
        assert_eq!(both[0].keys(), keys);
        both[0].plant(&manifest, both[1].object(&manifest).unwrap());
        both[0].plant(&key, whole);
    }
}
