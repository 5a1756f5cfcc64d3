//! `verify` finds whatever is wrong with a stored backup, and never calls good what it could
//! not check.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::{Cancel, Context};
use backup_core::{
    Authenticate, BackupReader, Catalog, Decoders, ErrorKind, Inspector, Inventory, Level,
    ListedPart, PartRole, Proof, Sink, Storage, TableContents, TableData, Verification,
    VerifyReport, layout, repair, store_proof, verify, verify_copies,
};
use backup_testkit::{CountedStorage, FailCalls, Memory};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::rig::{
    IMPATIENT, JOB, SEAL, Seal, decoders, memory, open_plan, plan, plan_at, run_quietly, soak,
    storages, verify_in,
};
use crate::troubled::{Trouble, Troubled};

/// Places per file at which a bit is flipped.
const FLIPS: u64 = 20;

/// The worst thing that loading and verifying the first backup shows.
async fn judge(memory: &Arc<Memory>) -> Option<ErrorKind> {
    let all = storages(&[memory]);
    let catalog = Catalog::load(&all, None).await;
    if let Some(problem) = catalog.problems.first() {
        return Some(problem.error.kind());
    }
    let Some(entry) = catalog.backups.first() else { return Some(ErrorKind::NotFound) };
    verify_in(entry, Arc::clone(&all[0])).await.worst().map(|error| error.kind())
}

/// A storage with one backup, signed or not; its files.
async fn backed_up(signed: bool) -> (Arc<Memory>, Vec<String>) {
    let memory = memory("memory");
    let plan = if signed { plan } else { open_plan };
    run_quietly(plan(storages(&[&memory]))).await.unwrap();
    assert_eq!(judge(&memory).await, None);
    let keys = memory.keys();
    assert_eq!(keys.len(), if signed { 7 } else { 6 });
    (memory, keys)
}

/// Changes a file, and puts it back.
async fn judge_with(memory: &Arc<Memory>, key: &str, changed: Vec<u8>) -> Option<ErrorKind> {
    let whole = memory.object(key).unwrap();
    memory.plant(key, changed);
    let verdict = judge(memory).await;
    memory.plant(key, whole);
    verdict
}

fn is_damage(verdict: Option<ErrorKind>) -> bool {
    matches!(verdict, Some(ErrorKind::Damaged | ErrorKind::Refused))
}

#[tokio::test]
async fn a_flipped_bit_is_found_in_every_file() {
    for signed in [true, false] {
        let (memory, keys) = backed_up(signed).await;
        for seed in 0..soak(FLIPS) {
            let mut rng = StdRng::seed_from_u64(seed);
            for key in &keys {
                let mut bytes = memory.object(key).unwrap().to_vec();
                let (at, bit) = (rng.gen_range(0..bytes.len()), rng.gen_range(0..8));
                bytes[at] ^= 1 << bit;
                let verdict = judge_with(&memory, key, bytes).await;
                // A flipped format number reads as that of a newer version: not good either.
                let newer =
                    key.ends_with(layout::MANIFEST) && verdict == Some(ErrorKind::Unchecked);
                let what = format!("seed {seed}: bit {bit} of byte {at} in {key}: {verdict:?}");
                assert!(is_damage(verdict) || newer, "{what}");
            }
        }
        assert_eq!(judge(&memory).await, None);
    }
}

#[tokio::test]
async fn cut_lengthened_and_missing_files_are_found() {
    for signed in [true, false] {
        let (memory, keys) = backed_up(signed).await;
        for key in &keys {
            let whole = memory.object(key).unwrap().to_vec();
            for len in [0, 1, whole.len() / 2, whole.len() - 1] {
                let verdict = judge_with(&memory, key, whole[..len].to_vec()).await;
                assert!(is_damage(verdict), "{key} cut to {len}: {verdict:?}");
            }
            let longer = [&whole[..], b"\n"].concat();
            let verdict = judge_with(&memory, key, longer).await;
            assert!(is_damage(verdict), "{key} with a line more: {verdict:?}");

            memory.delete(key).await.unwrap();
            let gone = judge(&memory).await;
            let is_manifest = key.ends_with(layout::MANIFEST);
            assert!(is_damage(gone) || is_manifest && gone == Some(ErrorKind::NotFound), "{key}");
            memory.plant(key, whole);
        }
    }
}

#[tokio::test]
async fn files_of_another_backup_are_found() {
    let memory = memory("memory");
    let now = Timestamp::now();
    let ids = [now, now.checked_add(SignedDuration::from_secs(5)).unwrap()];
    let mut folders = Vec::new();
    for started in ids {
        let report = run_quietly(plan_at(started, storages(&[&memory]))).await.unwrap();
        folders.push(report.manifest.backup_id().unwrap().folder(JOB));
    }
    for key in memory.keys().iter().filter(|key| key.starts_with(&folders[0])) {
        let other = memory.object(&key.replace(&folders[0], &folders[1])).unwrap();
        if other == memory.object(key).unwrap() {
            // The same data twice: only what bears the id must differ.
            assert!(key.contains("app.dump") || key.contains("globals.sql"), "{key}");
            continue;
        }
        let verdict = judge_with(&memory, key, other.to_vec()).await;
        assert!(is_damage(verdict), "{key} of the other backup: {verdict:?}");
    }
    // The two parts of one backup change places.
    let part = |name: &str| format!("{}/{name}.zst.masked", folders[0]);
    let globals = memory.object(&part("globals.sql")).unwrap();
    assert!(is_damage(judge_with(&memory, &part("app.dump"), globals.to_vec()).await));

    let manifest = memory.object(&format!("{}/{}", folders[0], layout::MANIFEST)).unwrap();
    let elsewhere = format!("{JOB}/2020/01/20200101T000000Z/{}", layout::MANIFEST);
    memory.plant(&elsewhere, manifest);
    let catalog = Catalog::load(&storages(&[&memory]), None).await;
    assert_eq!((catalog.backups.len(), catalog.problems.len()), (2, 1));
    assert_eq!(catalog.problems[0].error.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn each_copy_is_judged_by_its_own_files() {
    let (first, second) = (memory("first"), memory("second"));
    run_quietly(open_plan(storages(&[&first, &second]))).await.unwrap();
    let key = first.keys().into_iter().find(|key| key.ends_with(layout::MANIFEST)).unwrap();
    let text = String::from_utf8(first.object(&key).unwrap().to_vec()).unwrap();
    for (damaged, whole) in [(&first, &second), (&second, &first)] {
        damaged.plant(&key, text.replace("\"here\"", "\"there\""));
        let all = storages(&[&first, &second]);
        let catalog = Catalog::load(&all, None).await;
        assert_eq!(catalog.problems.len(), 1, "the manifests differ");
        for (memory, expected) in [(damaged, Some(ErrorKind::Damaged)), (whole, None)] {
            let storage = Arc::clone(memory) as Arc<dyn Storage>;
            let report = verify_in(&catalog.backups[0], storage).await;
            assert_eq!(report.worst().map(|error| error.kind()), expected);
        }
        // Nobody signed it, so a restore has the list of checksums to go by.
        let all: Vec<_> = all.iter().filter(|s| s.name() == damaged.name()).cloned().collect();
        let alone = BackupReader::best(&catalog.backups[0], &all, decoders());
        let alone = alone.unwrap_or_else(|_| {
            BackupReader::new(&catalog.backups[0], Arc::clone(&all[0]), decoders())
        });
        let origin = alone.origin(None).await;
        assert_eq!(origin.unwrap_err().kind(), ErrorKind::Damaged);
        damaged.plant(&key, text.clone());
    }
}

async fn verify_with(
    memory: &Arc<Memory>,
    decoders: Decoders,
    seal: Option<&Seal>,
    context: &Context,
) -> (BackupReader, VerifyReport) {
    let all = storages(&[memory]);
    let catalog = Catalog::load(&all, None).await;
    let reader = BackupReader::new(&catalog.backups[0], Arc::clone(&all[0]), decoders);
    let seal = seal.map(|seal| seal as &dyn Authenticate);
    let report = verify(&reader, seal, &|_, _| None, context).await;
    (reader, report)
}

fn worst(report: &VerifyReport) -> Option<ErrorKind> {
    report.worst().map(|error| error.kind())
}

#[tokio::test]
async fn without_the_means_nothing_is_called_good() {
    let (memory, keys) = backed_up(true).await;
    let context = Context::default();
    let one = || Decoders::default().with(Arc::new(crate::rig::Mask));
    for (decoders, seal, expected) in [
        (decoders(), Some(&SEAL), None),
        (decoders(), None, Some(ErrorKind::Unchecked)),
        (decoders(), Some(&Seal("theirs")), Some(ErrorKind::Refused)),
        (one(), Some(&SEAL), Some(ErrorKind::Unchecked)),
        (Decoders::default(), Some(&SEAL), Some(ErrorKind::Unchecked)),
        (Decoders::default(), None, Some(ErrorKind::Unchecked)),
    ] {
        let (_, report) = verify_with(&memory, decoders, seal, &context).await;
        assert_eq!(worst(&report), expected);
    }
    // What can't be opened can still be seen to be damaged.
    for part in keys.iter().filter(|key| key.ends_with(".masked")) {
        let whole = memory.object(part).unwrap();
        let mut bytes = whole.to_vec();
        bytes[whole.len() / 2] ^= 1;
        memory.plant(part, bytes);
        let (_, report) = verify_with(&memory, Decoders::default(), None, &context).await;
        assert_eq!(worst(&report), Some(ErrorKind::Damaged), "{part}");
        memory.plant(part, whole);
    }
}

#[tokio::test]
async fn a_storage_that_fails_at_any_call_leaves_it_unchecked() {
    let (memory, _) = backed_up(true).await;
    let catalog = Catalog::load(&storages(&[&memory]), None).await;
    for fail in [FailCalls::Only, FailCalls::From] {
        for k in 1.. {
            let storage = CountedStorage::new(memory.clone(), fail(k));
            let report = verify_in(&catalog.backups[0], Arc::new(storage.clone())).await;
            if (storage.calls().len() as u64) < k {
                assert!(worst(&report).is_none() && k > 10);
                break;
            }
            let struck = storage.calls()[k as usize - 1].clone();
            // A download that broke once goes on.
            let healed = fail(k) == FailCalls::Only(k) && struck.starts_with("next_chunk");
            let expected = (!healed).then_some(ErrorKind::Unchecked);
            assert_eq!(worst(&report), expected, "{:?}, {struck:?}", fail(k));
        }
    }
}

#[tokio::test]
async fn an_interrupt_at_any_call_is_no_verdict() {
    let (memory, _) = backed_up(true).await;
    let all = storages(&[&memory]);
    let catalog = Catalog::load(&all, None).await;
    for k in 1.. {
        let cancel = Cancel::default();
        let context = Context { cancel: cancel.clone(), ..Context::default() };
        let storage = Troubled::new(memory.clone(), k, Trouble::Interrupt(cancel));
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        let reader = BackupReader::new(&catalog.backups[0], shared, decoders());
        let report = verify(&reader, Some(&SEAL), &|_, _| None, &context).await;
        if !storage.struck() {
            assert!(worst(&report).is_none() && k > 6);
            break;
        }
        assert_eq!(worst(&report), Some(ErrorKind::Interrupted), "call {k}");
        store_proof(&reader, &report, Timestamp::now(), "test").await.unwrap();
    }
    assert!(!memory.keys().iter().any(|key| key.contains(layout::PROOFS)));
}

#[tokio::test]
async fn a_storage_that_hangs_can_be_interrupted() {
    let (memory, _) = backed_up(true).await;
    let catalog = Catalog::load(&storages(&[&memory]), None).await;
    for k in 1.. {
        let storage = Troubled::new(memory.clone(), k, Trouble::Stall);
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        let reader = BackupReader::new(&catalog.backups[0], shared, decoders());
        let context = Context::default();
        let cancel = context.cancel.clone();
        let waiting = storage.clone();
        tokio::spawn(async move {
            while !waiting.struck() {
                tokio::task::yield_now().await;
            }
            cancel.interrupt("enough");
        });
        let work = verify(&reader, Some(&SEAL), &|_, _| None, &context);
        let ended = tokio::time::timeout(Duration::from_secs(5), work).await;
        let report = ended.expect("an interrupted verification must end");
        if !storage.struck() {
            assert!(worst(&report).is_none() && k > 6);
            return;
        }
        assert_eq!(worst(&report), Some(ErrorKind::Interrupted), "call {k}");
    }
}

/// Finds a table in every dump that no backup recorded.
struct Imagines;

impl Inspector for Imagines {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(backup_core::Discard)
    }

    fn inventory(&self) -> Option<Inventory> {
        let table = TableContents {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            data: TableData::Complete { rows: 1 },
            digest: None,
        };
        Some(Inventory { tables: vec![table], ..Inventory::default() })
    }
}

#[tokio::test]
async fn other_rows_than_recorded_are_damage_that_no_copy_mends() {
    let (first, second) = (memory("first"), memory("second"));
    let all = storages(&[&first, &second]);
    run_quietly(plan(all.clone())).await.unwrap();
    let keys = first.keys();
    let catalog = Catalog::load(&all, None).await;
    let imagines = |listed: ListedPart<'_>, recorded: Option<&Inventory>| {
        assert!(recorded.is_some(), "what was recorded is not told");
        (listed.part.role == PartRole::Database).then(|| Box::new(Imagines) as Box<dyn Inspector>)
    };
    let how = Verification {
        level: Level::Content,
        decoders: &decoders(),
        authenticate: Some(&SEAL),
        inspectors: &imagines,
        patience: IMPATIENT,
    };
    let copies = verify_copies(&catalog.backups[0], &all, &how, &Context::default()).await;
    for copy in &copies {
        assert_eq!(worst(&copy.report), Some(ErrorKind::Damaged));
        let text = copy.report.worst().unwrap().to_string();
        assert!(text.contains("those that were written"), "{text}");
        assert!(copy.report.damage.is_empty(), "{:?}", copy.report.damage);
    }
    let done = repair(&copies, &Context::default()).await.unwrap();
    assert!(done.repaired.is_empty() && done.failed.is_empty(), "{done:?}");
    assert_eq!(first.keys(), keys);
}

fn proofs(memory: &Memory) -> Vec<Proof> {
    let keys = memory.keys();
    let proofs = keys.iter().filter(|key| key.contains("/proofs/"));
    proofs.map(|key| serde_json::from_slice(&memory.object(key).unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_proof_says_what_was_found_and_only_that() {
    let (memory, keys) = backed_up(true).await;
    let context = Context::default();
    let now = Timestamp::now();
    let at = |second| now.checked_add(SignedDuration::from_secs(second)).unwrap();

    let (reader, report) = verify_with(&memory, Decoders::default(), Some(&SEAL), &context).await;
    store_proof(&reader, &report, at(0), "test 1").await.unwrap();
    assert!(proofs(&memory).is_empty(), "could not check, and yet there is a proof");

    let (reader, report) = verify_with(&memory, decoders(), Some(&SEAL), &context).await;
    store_proof(&reader, &report, at(1), "test 1").await.unwrap();
    let part = keys.iter().find(|key| key.contains("app.dump")).unwrap();
    memory.plant(part, "garbage");
    let (reader, report) = verify_with(&memory, decoders(), Some(&SEAL), &context).await;
    store_proof(&reader, &report, at(2), "test 1").await.unwrap();

    let found = proofs(&memory);
    let [good, bad] = &found[..] else { panic!("{found:?}") };
    assert!(good.passed && good.problems.is_empty());
    assert!(!bad.passed && bad.problems.iter().any(|line| line.contains("app.dump")), "{bad:?}");
    assert_eq!((good.started, &*good.storage, &*good.tool), (at(1), "memory", "test 1"));
    let entry = &Catalog::load(&storages(&[&memory]), None).await.backups[0];
    assert_eq!(entry.copies[0].proofs.len(), 2);
    assert_eq!(good.backup, entry.manifest.id);
}

#[tokio::test]
async fn a_failed_part_does_not_hide_the_next() {
    let (memory, keys) = backed_up(true).await;
    for key in keys.iter().filter(|key| key.contains("app.dump") || key.contains("RESTORE")) {
        memory.plant(key, "garbage");
    }
    let (reader, report) = verify_with(&memory, decoders(), Some(&SEAL), &Context::default()).await;
    let bad = report.checks.iter().filter(|check| check.result.is_err()).count();
    assert_eq!((report.checks.len(), bad), (6, 2), "{:?}", report.checks);
    let globals = reader.manifest().part(PartRole::Globals).unwrap();
    assert_eq!(reader.read_part(globals, None, &Context::default()).await.unwrap().len(), 5_000);
}
