//! `backup` when a storage call, a source or the operator breaks it at any point: either the
//! backup is listed and whole, or it is not listed; and the run says which.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::{CHUNK_BYTES, Cancel, Context, Limits, Policy};
use backup_core::{BackupId, BackupPlan, ErrorKind, Storage, layout};
use backup_testkit::{CountedStorage, FailCalls, FaultySource, Intercepted, Memory, SourceFault};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::rig::{
    Ear, JOB, assert_all_whole, assert_empty, assert_honest, dump, globals, memory, open_plan,
    plan, plan_at, run, run_quietly, storages,
};
use crate::troubled::{Trouble, Troubled};

/// Calls that one run makes to one storage, at most; more would be a loop.
const MOST_CALLS: u64 = 200;

/// After whatever happened: the next run works in the same second, spares what is young, and a
/// run of later days sweeps what is left over, but nothing that is listed.
async fn assert_recovers(memories: &[&Arc<Memory>], started: Timestamp, what: &str) {
    let before: Vec<Vec<String>> = memories.iter().map(|memory| memory.keys()).collect();
    let next = run_quietly(plan_at(started, storages(memories))).await.expect(what);
    assert!(next.failed.is_empty(), "{what}: {:?}", next.failed);
    for (memory, before) in memories.iter().zip(&before) {
        let now = memory.keys();
        assert!(before.iter().all(|key| now.contains(key)), "{what}: young keys were swept");
    }
    let listed = assert_all_whole(memories, what).await.backups.len();

    let later = started.checked_add(SignedDuration::from_hours(3 * 24)).unwrap();
    run_quietly(plan_at(later, storages(memories))).await.expect(what);
    assert_eq!(assert_all_whole(memories, what).await.backups.len(), listed + 1, "{what}");
    for memory in memories {
        assert_eq!(memory.unfinished(), 0, "{what}: drafts were not swept");
        let keys = memory.keys();
        let unlisted = |key: &&String| {
            let (job, id, _) = layout::parse_key(key).unwrap();
            let has = |file| keys.contains(&format!("{}/{file}", id.folder(job)));
            // What looks complete is left to people.
            !has(layout::MANIFEST) && !has(layout::SHA256SUMS)
        };
        assert_eq!(keys.iter().find(unlisted), None, "{what}: a leftover was not swept");
    }
}

/// Runs with the k-th call of the first of `count` storages failing, for every k.
async fn fail_every_call(count: usize, policy: Policy, fail: fn(u64) -> FailCalls) {
    let started = Timestamp::now();
    for k in 1..MOST_CALLS {
        let (first, second) = (memory("first"), memory("second"));
        let memories = &[&first, &second][..count];
        let counted = CountedStorage::new(first.clone(), fail(k));
        let mut all = storages(memories);
        all[0] = Arc::new(counted.clone());
        let result = run_quietly(BackupPlan { policy, ..plan_at(started, all) }).await;

        let calls = counted.calls();
        let struck = calls.get(k as usize - 1);
        let what = format!("{:?} of {count} ({struck:?}), {policy:?}", fail(k));
        assert_honest(&result, memories, policy.required(count), &what).await;
        if result.is_err() && fail(k) == FailCalls::Only(k) {
            memories.iter().for_each(|memory| assert_empty(memory, &what));
        }
        if policy == Policy::AtLeast(1) && count == 2 {
            assert!(result.is_ok(), "{what}: the other storage was enough: {result:?}");
        }
        if struck.is_none() {
            assert!(result.unwrap().failed.is_empty(), "{what}");
            assert!(k > 25, "this run was too short: {calls:?}");
            return;
        }
        assert_recovers(memories, started, &what).await;
    }
    panic!("more than {MOST_CALLS} calls");
}

#[tokio::test]
async fn every_call_to_one_storage_fails_once() {
    fail_every_call(1, Policy::All, FailCalls::Only).await;
}

#[tokio::test]
async fn one_storage_dies_at_every_call() {
    fail_every_call(1, Policy::All, FailCalls::From).await;
}

#[tokio::test]
async fn every_call_to_one_of_two_storages_fails_once() {
    fail_every_call(2, Policy::All, FailCalls::Only).await;
}

#[tokio::test]
async fn one_of_two_storages_dies_at_every_call() {
    fail_every_call(2, Policy::All, FailCalls::From).await;
}

#[tokio::test]
async fn every_call_to_a_dispensable_storage_fails_once() {
    fail_every_call(2, Policy::AtLeast(1), FailCalls::Only).await;
}

#[tokio::test]
async fn a_dispensable_storage_dies_at_every_call() {
    fail_every_call(2, Policy::AtLeast(1), FailCalls::From).await;
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_looking() {
    for policy in [Policy::All, Policy::AtLeast(1)] {
        for k in 1..MOST_CALLS {
            let (first, second) = (memory("first"), memory("second"));
            let troubled = Troubled::new(first.clone(), k, Trouble::LostAnswer);
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(troubled.clone()), second.clone()];
            let result = run_quietly(BackupPlan { policy, ..plan(all) }).await;
            let what = format!("answer {k} lost, {policy:?}");
            let memories = [&first, &second];
            assert_honest(&result, &memories, policy.required(2), &what).await;
            if !troubled.struck() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_hangs_at_any_call_does_not_hang_the_run() {
    const STEP: Duration = Duration::from_millis(200);
    let mut runs = JoinSet::new();
    for k in 1..60 {
        runs.spawn(async move {
            let (first, second) = (memory("first"), memory("second"));
            let troubled = Troubled::new(first.clone(), k, Trouble::Stall);
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(troubled), second.clone()];
            let plan = BackupPlan {
                timeout: Duration::from_secs(2),
                limits: Limits {
                    source_stall: STEP * 10,
                    sink_stall: STEP,
                    optional_stall: STEP,
                    commit: STEP,
                },
                ..plan(all)
            };
            let result = run_quietly(plan).await;
            let what = format!("call {k} hangs");
            assert_honest(&result, &[&first, &second], 2, &what).await;
        });
    }
    while let Some(ended) = runs.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_source_that_breaks_anywhere_leaves_nothing() {
    const STALL: Duration = Duration::from_millis(50);
    let chunk = CHUNK_BYTES as u64;
    for at in [0, 1, 4_999, 5_000, chunk - 1, chunk, 299_999, u64::MAX] {
        let faults = [
            SourceFault::Open,
            SourceFault::FailAt(at),
            SourceFault::DieAt(at),
            SourceFault::StallAt(at),
        ];
        for (fault, part) in faults.into_iter().flat_map(|fault| [(fault, 0), (fault, 1)]) {
            let memory = memory("memory");
            let mut plan = plan(storages(&[&memory]));
            let inner = if part == 0 { dump() } else { globals() };
            plan.parts[part].source = Arc::new(FaultySource::new(inner, fault));
            plan.limits.source_stall = STALL;
            let error = run_quietly(plan).await.unwrap_err();
            let what = format!("{fault:?} in part {part}");
            assert_ne!(error.kind(), ErrorKind::Disconnected, "{what}: {error}");
            assert_empty(&memory, &what);
        }
    }
}

#[tokio::test]
async fn an_interrupt_at_any_event_leaves_nothing() {
    for event in 1..MOST_CALLS {
        let memory = memory("memory");
        let (ear, context) = Ear::interrupting_at(event);
        let result = run(open_plan(storages(&[&memory])), &context).await;
        let what = format!("interrupted at event {event}");
        assert_honest(&result, &[&memory], 1, &what).await;
        match result {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{what}: {error}");
                assert_empty(&memory, &what);
            }
            Ok(_) => {
                assert!(ear.events() < event, "{what}: the interrupt was not heard");
                return;
            }
        }
    }
    panic!("more than {MOST_CALLS} events");
}

#[tokio::test]
async fn an_interrupt_at_any_call_leaves_nothing_or_all() {
    let mut whole = 0;
    for k in 1..MOST_CALLS {
        let memory = memory("memory");
        let cancel = Cancel::default();
        let context = Context { cancel: cancel.clone(), ..Context::default() };
        let troubled = Troubled::new(memory.clone(), k, Trouble::Interrupt(cancel));
        let result = run(plan(vec![Arc::new(troubled.clone())]), &context).await;
        let what = format!("interrupted at call {k}");
        assert_honest(&result, &[&memory], 1, &what).await;
        match result {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{what}: {error}");
                assert_empty(&memory, &what);
                assert_eq!(whole, 0, "{what}: late, and yet nothing is there");
            }
            Ok(_) => whole += 1,
        }
        if !troubled.struck() {
            // The manifest and the claim are what comes after the point of no return.
            assert!(whole <= 3, "{whole} calls came after the last moment to interrupt");
            return;
        }
    }
    panic!("more than {MOST_CALLS} calls");
}

#[tokio::test]
async fn leftovers_are_swept_by_age_alone() {
    let memory = memory("memory");
    let started = Timestamp::now();
    let report = run_quietly(plan_at(started, storages(&[&memory]))).await.unwrap();
    let listed = report.manifest.backup_id().unwrap().folder(JOB);
    let long_ago = started.checked_sub(SignedDuration::from_hours(20 * 24)).unwrap();
    let crashed = format!("{}/app.dump.zst", BackupId::new(long_ago, 1).folder(JOB));
    let ancient = format!("{JOB}/2020/01/20200101T000000Z/app.dump.zst");
    let other_job = "other/2020/01/20200101T000000Z/app.dump.zst";
    for key in [&*crashed, &*ancient, other_job, "database/notes.txt", "database/2020/notes.txt"] {
        memory.plant(key, "x");
    }
    memory.plant(&format!("{listed}/proofs/20200101T000000Z-verify.json"), "x");
    let before = memory.keys();

    // The folder's name is old, but its object is young: a clock may have been wrong.
    run_quietly(plan_at(started, storages(&[&memory]))).await.unwrap();
    assert!(before.iter().all(|key| memory.keys().contains(key)));

    let timeout = SignedDuration::try_from(plan(Vec::new()).timeout).unwrap();
    // The object looks old, but the run of this id may still be going on.
    let oldest = timeout + SignedDuration::from_hours(25);
    let running = BackupId::new(started.checked_add(oldest - timeout / 2).unwrap(), 1);
    let running = format!("{}/app.dump.zst", running.folder(JOB));
    memory.plant(&running, "x");
    for (age, stays) in [(timeout, true), (oldest, false)] {
        let later = started.checked_add(age).unwrap();
        run_quietly(plan_at(later, storages(&[&memory]))).await.unwrap();
        assert_eq!(memory.keys().contains(&crashed), stays, "{age}");
    }
    assert!(memory.keys().contains(&running), "a run lost its part");
    // Only the first run of a month looks at months of long ago.
    let next_month = started.checked_add(SignedDuration::from_hours(32 * 24)).unwrap();
    run_quietly(plan_at(next_month, storages(&[&memory]))).await.unwrap();
    let gone: Vec<&String> = before.iter().filter(|key| !memory.keys().contains(key)).collect();
    assert_eq!(gone, [&ancient, &crashed]);
    assert_all_whole(&[&memory], "after sweeping").await;
}

/// A folder of a run of long ago, with these files.
fn crashed(memory: &Memory, day: &str, files: &[(&str, &str)]) -> String {
    let folder = format!("{JOB}/2020/01/202001{day}T000000Z");
    for (file, body) in files {
        memory.plant(&format!("{folder}/{file}"), (*body).to_owned());
    }
    folder
}

/// Runs so much later that whatever is there now is old; the warnings.
async fn run_later(storage: Arc<dyn Storage>) -> Vec<String> {
    let later = Timestamp::now().checked_add(SignedDuration::from_hours(26)).unwrap();
    let (ear, context) = Ear::context();
    run(plan_at(later, vec![storage]), &context).await.unwrap();
    ear.warnings()
}

#[tokio::test]
async fn a_sweep_tells_what_it_removes_and_spares_what_looks_complete() {
    let memory = memory("memory");
    let part = ("app.dump.zst", "x");
    let swept = crashed(&memory, "01", &[part, ("globals.sql.zst", "x")]);
    let complete = crashed(&memory, "02", &[part, ("RESTORE.md", "x"), ("SHA256SUMS", "x")]);
    let warnings = run_later(memory.clone()).await;
    let [removed, spared] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(removed.ends_with(&format!("removed what a crashed run left: {swept}")), "{removed}");
    assert!(spared.contains(&complete) && spared.contains("manifest is missing"), "{spared}");
    let left = |folder: &str| memory.keys().iter().filter(|key| key.starts_with(folder)).count();
    assert_eq!((left(&swept), left(&complete)), (0, 3));
}

#[tokio::test]
async fn a_claim_keeps_its_folder_for_its_own_timeout() {
    const DAY: i64 = 24 * 3600;
    let claim = |started: &str, seconds: i64| {
        format!("{{\"started\": \"{started}\", \"timeout_seconds\": {seconds}}}")
    };
    let now = Timestamp::now().to_string();
    let claims = [
        (claim(&now, 2 * DAY), true),
        (claim("2020-01-01T00:00:00Z", 36_500 * DAY), true),
        (claim(&now, 3600), false),
        (claim("2020-01-01T00:00:00Z", 2 * DAY), false),
        (claim(&now, i64::MAX), false),
        // What can't be understood may be a newer version's: it counts by its own age.
        (claim(&now, -1), true),
        ("torn".to_owned(), true),
        (String::new(), true),
    ];
    for (claim, stays) in claims {
        let memory = memory("memory");
        let folder = crashed(&memory, "01", &[("app.dump.zst", "x"), ("claim.json", &claim)]);
        let warnings = run_later(memory.clone()).await;
        let left = memory.keys().iter().filter(|key| key.starts_with(&folder)).count();
        assert_eq!(left, if stays { 2 } else { 0 }, "{claim}");
        assert_eq!(warnings.len(), usize::from(!stays), "{claim}: {warnings:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_a_listing_does_not_show_yet_is_looked_for() {
    let memory = memory("memory");
    let folder = crashed(&memory, "01", &[("app.dump.zst", "x"), ("manifest.json", "{}")]);
    let before = memory.keys();
    let manifest = format!("{folder}/{}", layout::MANIFEST);
    let late = Intercepted::new(memory.clone()).unlisted(manifest);
    assert_eq!(late.list("").await.unwrap().len(), before.len() - 1);
    assert_eq!(run_later(Arc::new(late)).await, Vec::<String>::new());
    assert!(before.iter().all(|key| memory.keys().contains(key)), "a listed backup was swept");
}
