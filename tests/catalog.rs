//! `Catalog::load` and `find`: what storages show, damage and strangers included.

use std::sync::Arc;

use backup_core::{BackupPlan, BackupReader, Catalog, ErrorKind, Storage, layout};
use backup_testkit::{CountedStorage, FailCalls, Memory, random};
use jiff::{SignedDuration, Timestamp};

use crate::rig::{JOB, decoders, memory, plan_at, run_quietly, storages};

fn second(n: i64) -> Timestamp {
    let start: Timestamp = "2026-11-22T02:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::from_secs(n)).unwrap()
}

/// One backup that started at second `n`; its folder.
async fn back_up(n: i64, memories: &[&Arc<Memory>]) -> String {
    let report = run_quietly(plan_at(second(n), storages(memories))).await.unwrap();
    report.manifest.backup_id().unwrap().folder(JOB)
}

fn ids(catalog: &Catalog) -> Vec<String> {
    catalog.backups.iter().map(|entry| entry.id.to_string()).collect()
}

#[tokio::test]
async fn storages_are_merged_and_gaps_are_shown() {
    let (first, second) = (memory("first"), memory("second"));
    back_up(2, &[&second]).await;
    back_up(1, &[&first, &second]).await;
    back_up(0, &[&first]).await;
    let catalog = Catalog::load(&storages(&[&first, &second]), Some(JOB)).await;
    assert_eq!(ids(&catalog), ["20261122T020000Z", "20261122T020001Z", "20261122T020002Z"]);
    let shown: Vec<(Vec<&str>, &[String])> = catalog
        .backups
        .iter()
        .map(|e| (e.copies.iter().map(|c| &*c.storage).collect(), &*e.missing_in))
        .collect();
    assert_eq!(shown[0], (vec!["first"], &["second".to_owned()][..]));
    assert_eq!(shown[1], (vec!["first", "second"], &[][..]));
    assert_eq!(shown[2], (vec!["second"], &["first".to_owned()][..]));
    assert!(catalog.problems.is_empty());
    assert!(Catalog::load(&storages(&[&first]), Some("other")).await.backups.is_empty());
}

#[tokio::test]
async fn damaged_parts_are_named_and_another_copy_is_preferred() {
    let (first, second) = (memory("first"), memory("second"));
    let all = storages(&[&first, &second]);
    let folder = back_up(0, &[&first, &second]).await;
    let part = format!("{folder}/app.dump.zst.masked");
    let globals = format!("{folder}/globals.sql.zst.masked");
    first.delete(&part).await.unwrap();
    first.plant(&globals, "short");
    let catalog = Catalog::load(&all, None).await;
    let entry = &catalog.backups[0];
    let damaged = &entry.copies[0].damaged_parts;
    assert_eq!(damaged[..], ["app.dump.zst.masked", "globals.sql.zst.masked"]);
    assert!(entry.copies[1].damaged_parts.is_empty());
    let reader = BackupReader::best(entry, &all, decoders()).unwrap();
    assert_eq!(reader.storage().name(), "second");

    second.delete(&globals).await.unwrap();
    let catalog = Catalog::load(&all, None).await;
    let error = BackupReader::best(&catalog.backups[0], &all, decoders()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("first") && error.message().contains("second"), "{error}");
}

#[tokio::test]
async fn an_unreadable_manifest_is_a_problem_and_hides_nothing() {
    let memory = memory("memory");
    let all = storages(&[&memory]);
    back_up(0, &[&memory]).await;
    let key = format!("{}/{}", back_up(1, &[&memory]).await, layout::MANIFEST);
    let whole = String::from_utf8(memory.object(&key).unwrap().to_vec()).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replacen(from, to, 1).into_bytes()
    };
    let cases: Vec<(Vec<u8>, ErrorKind)> = vec![
        (Vec::new(), ErrorKind::Damaged),
        (random(7, 5_000), ErrorKind::Damaged),
        (whole.as_bytes()[..whole.len() / 2].to_vec(), ErrorKind::Damaged),
        (b"[]".to_vec(), ErrorKind::Damaged),
        (b"{\"format\": 1}".to_vec(), ErrorKind::Damaged),
        (b"{\"format\": 2, \"new\": []}".to_vec(), ErrorKind::Unchecked),
        (changed("\"format\": 1", "\"format\": 99"), ErrorKind::Unchecked),
        (changed("\"20261122T020001Z\"", "\"20261122T020000Z\""), ErrorKind::Damaged),
        (changed("\"20261122T020001Z\"", "\"yesterday\""), ErrorKind::Damaged),
        (changed("\"database\"", "\"other\""), ErrorKind::Damaged),
        (changed("\"database\"", "\"../etc\""), ErrorKind::Damaged),
        (changed("\"app.dump.zst.masked\"", "\"../../app.dump\""), ErrorKind::Damaged),
        (changed("\"app.dump.zst.masked\"", "\"/etc/passwd\""), ErrorKind::Damaged),
    ];
    for (body, expected) in cases {
        let what = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        memory.plant(&key, body);
        let catalog = Catalog::load(&all, None).await;
        assert_eq!(ids(&catalog), ["20261122T020000Z"], "{what}");
        let [problem] = &catalog.problems[..] else { panic!("{what}: {:?}", catalog.problems) };
        assert_eq!((&*problem.storage, problem.error.kind()), ("memory", expected), "{what}");
        assert!(problem.error.message().contains(&key), "{what}: which one? {}", problem.error);
        let error = catalog.find("20261122T020001Z").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "it can't be said not to exist");
    }
    memory.plant(&key, changed("\"format\": 1,", "\"format\": 1, \"from the future\": {},"));
    let catalog = Catalog::load(&all, None).await;
    assert_eq!((catalog.backups.len(), catalog.problems.len()), (2, 0), "unknown fields are fine");
}

#[tokio::test]
async fn strangers_in_the_storage_are_ignored() {
    let memory = memory("memory");
    let folder = back_up(0, &[&memory]).await;
    for key in [
        "manifest.json",
        "notes.txt",
        "database/manifest.json",
        "database/2026/11/manifest.json",
        "database/2026/11/latest/manifest.json",
        "database/2026/12/20261122T020000Z/manifest.json",
        "database/2026/11/20261122T020005Z/app.dump",
        "database/2026/11/20261122T020006Z/sub/manifest.json",
        "database/2026/11/20261122T020007Z-1/manifest.json",
        "lost+found/x",
    ] {
        memory.plant(key, "{}");
    }
    memory.plant(&format!("{folder}/manifest.json.bak"), "{}");
    let catalog = Catalog::load(&storages(&[&memory]), None).await;
    assert_eq!(ids(&catalog), ["20261122T020000Z"]);
    assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
}

#[tokio::test]
async fn an_unreachable_storage_fails_nothing_else() {
    let (first, second) = (memory("first"), memory("second"));
    back_up(0, &[&first, &second]).await;
    for fail in [FailCalls::Only, FailCalls::From] {
        for k in 1.. {
            let down = CountedStorage::new(first.clone(), fail(k));
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(down.clone()), second.clone()];
            let catalog = Catalog::load(&all, None).await;
            assert_eq!(ids(&catalog), ["20261122T020000Z"]);
            let struck = down.calls().get(k as usize - 1).cloned();
            let healed = fail(k) == FailCalls::Only(k)
                && struck.as_ref().is_some_and(|call| call.starts_with("next_chunk"));
            let entry = &catalog.backups[0];
            // A storage that does not answer isn't said to miss anything.
            assert!(entry.missing_in.is_empty(), "{:?}", entry.missing_in);
            if struck.is_none() || healed {
                assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
                assert!(entry.unknown_in.is_empty(), "{:?}", entry.unknown_in);
            } else {
                assert_eq!(catalog.problems.len(), 1, "{struck:?}");
                assert_eq!(catalog.problems[0].storage, "first");
                assert_eq!(entry.unknown_in, ["first"]);
                assert_eq!(catalog.unreachable.len(), usize::from(k == 1));
            }
            if struck.is_none() {
                assert!(k > 3);
                break;
            }
        }
    }
}

#[tokio::test]
async fn find_says_why_it_found_nothing() {
    let memory = memory("memory");
    let all = storages(&[&memory]);
    let kind = |catalog: &Catalog, wanted: &str| catalog.find(wanted).err().map(|e| e.kind());
    let empty = Catalog::load(&all, None).await;
    assert_eq!(kind(&empty, "latest"), Some(ErrorKind::NotFound));

    back_up(0, &[&memory]).await;
    back_up(5, &[&memory]).await;
    let other = BackupPlan { job: "other".to_owned(), ..plan_at(second(0), all.clone()) };
    run_quietly(other).await.unwrap();
    let catalog = Catalog::load(&all, None).await;
    let error = catalog.find("latest").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "the latest of which job?");
    assert_eq!(error.message(), "several jobs have backups: database, other");
    assert!(error.advice().unwrap().contains("--job"));
    let ours = Catalog::load(&all, Some(JOB)).await;
    assert_eq!(ours.find("latest").unwrap().id.to_string(), "20261122T020005Z");
    assert_eq!(catalog.find("20261122T020005Z").unwrap().manifest.job, JOB);
    assert_eq!(kind(&catalog, "20261122T020000Z"), Some(ErrorKind::Usage), "two jobs have it");
    assert_eq!(kind(&catalog, "20261122T020001Z"), Some(ErrorKind::NotFound));
    assert_eq!(kind(&catalog, "yesterday"), Some(ErrorKind::Usage));
    let one = Catalog::load(&all, Some("other")).await;
    assert_eq!(one.find("20261122T020000Z").unwrap().manifest.job, "other");

    let down: Arc<dyn Storage> = Arc::new(CountedStorage::new(all[0].clone(), FailCalls::From(1)));
    let catalog = Catalog::load(&[down], None).await;
    for wanted in ["latest", "20261122T020000Z"] {
        assert_eq!(kind(&catalog, wanted), Some(ErrorKind::Unchecked));
    }
}

#[tokio::test]
async fn the_latest_is_not_named_while_a_newer_one_may_hide() {
    let (first, second) = (memory("first"), memory("second"));
    back_up(0, &[&first, &second]).await;
    let newer = format!("{}/{}", back_up(1, &[&first]).await, layout::MANIFEST);
    let down: Arc<dyn Storage> = Arc::new(CountedStorage::new(first.clone(), FailCalls::From(1)));
    let unreachable = Catalog::load(&[down, second.clone()], None).await;
    first.plant(&newer, "torn");
    let damaged = Catalog::load(&storages(&[&first, &second]), None).await;
    for catalog in [unreachable, damaged] {
        let error = catalog.find("latest").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "{error}");
        assert!(error.message().contains("storage first could not be read in full"), "{error}");
        assert!(error.message().ends_with("so a newer backup may exist"), "{error}");
        assert!(error.advice().unwrap().contains("name the backup's id"));
        let named = catalog.find("20261122T020000Z").unwrap();
        assert_eq!(named.id.to_string(), "20261122T020000Z");
    }
}

#[tokio::test]
async fn a_backup_from_the_future_is_the_latest_only_among_its_like() {
    let hours = |n| Timestamp::now().checked_add(SignedDuration::from_hours(n)).unwrap();
    let memory = memory("memory");
    let all = storages(&[&memory]);
    for (started, latest) in [(49, 49), (72, 72), (-5, -5), (23, 23), (25, 23)] {
        run_quietly(plan_at(hours(started), all.clone())).await.unwrap();
        let catalog = Catalog::load(&all, None).await;
        let found = catalog.find("latest").unwrap().id.started();
        let off = found.duration_since(hours(latest)).abs();
        assert!(off < SignedDuration::from_mins(5), "{latest} h from now, not {found}");
    }
}
