//! A backup with a key that may only write, and ids that nobody else can have.

use std::sync::Arc;

use backup_core::pipeline::Policy;
use backup_core::{BackupPlan, BackupReport, ErrorKind, Result, Storage, layout};
use backup_testkit::{Call, FaultySource, Intercepted, Memory, SourceFault};
use jiff::Timestamp;

use crate::rig::{
    Ear, JOB, assert_all_whole, dump, memory, plan, plan_at, run, run_quietly, storages,
};

async fn run_heard(plan: BackupPlan) -> (Result<BackupReport>, Vec<String>) {
    let (ear, context) = Ear::context();
    (run(plan, &context).await, ear.warnings())
}

fn write_only(memory: &Arc<Memory>) -> Arc<dyn Storage> {
    Arc::new(Intercepted::permitting(memory.clone(), Call::WRITING))
}

fn has_letters(id: &str) -> bool {
    id.split_once('-').is_some_and(|(_, end)| end.bytes().all(|b| b.is_ascii_lowercase()))
}

#[tokio::test]
async fn a_key_that_may_only_write_is_enough() {
    let memory = memory("offsite");
    let (report, warnings) = run_heard(plan(vec![write_only(&memory)])).await;
    let report = report.unwrap();
    assert!(report.failed.is_empty() && report.stored_in == ["offsite"]);
    // What could not be looked at, and what stays, is named; no more than that.
    let told = [
        "could not check in storage offsite that job \"database\" belongs to this database",
        "storage offsite could not be swept",
        "could not check in storage offsite that every part is there",
        "a claim stays in offsite",
    ];
    assert_eq!(warnings.len(), told.len(), "{warnings:#?}");
    for (warning, told) in warnings.iter().zip(told) {
        assert!(warning.contains(told), "{warning}");
    }
    assert!(has_letters(&report.manifest.id), "{}", report.manifest.id);
    // With another key it is there and whole.
    let catalog = assert_all_whole(&[&memory], "write-only").await;
    assert_eq!(catalog.backups[0].manifest, report.manifest);
    let folders = memory.keys().iter().filter(|key| key.ends_with(layout::CLAIM)).count();
    assert_eq!(folders, 1, "a claim of an id that was not used stays");
}

#[tokio::test]
async fn a_key_that_may_list_but_not_look_is_enough_too() {
    let memory = memory("offsite");
    for runs in 1..=2 {
        let permitted = &[Call::Begin, Call::CreateNew, Call::List];
        let storage = Arc::new(Intercepted::permitting(memory.clone(), permitted));
        let (report, warnings) = run_heard(plan(vec![storage])).await;
        let report = report.unwrap();
        assert!(has_letters(&report.manifest.id), "{}", report.manifest.id);
        // The claim of the plain id that could not be looked at stays, besides the run's own.
        let stays = warnings.iter().filter(|line| line.contains("a claim stays")).count();
        assert_eq!(stays, 2, "{warnings:#?}");
        let unchecked = warnings.iter().any(|line| line.contains("that every part is there"));
        assert!(unchecked, "{warnings:#?}");
        assert_eq!(assert_all_whole(&[&memory], "list only").await.backups.len(), runs);
    }
}

#[tokio::test]
async fn an_overwritten_job_is_still_refused_where_one_storage_can_be_read() {
    let (open, closed) = (memory("open"), memory("closed"));
    let all = || -> Vec<Arc<dyn Storage>> { vec![open.clone(), write_only(&closed)] };
    run_quietly(plan(all())).await.unwrap();
    let mut foreign = plan(all());
    foreign.source.database = "other".to_owned();
    assert_eq!(run_quietly(foreign).await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn what_a_failed_run_left_is_named_when_it_may_not_delete() {
    let memory = memory("offsite");
    let mut plan = plan(vec![write_only(&memory)]);
    plan.parts[1].source = Arc::new(FaultySource::new(dump(), SourceFault::FailAt(10_000)));
    let (result, warnings) = run_heard(plan).await;
    result.unwrap_err();
    let id = layout::parse_key(&memory.keys()[0]).unwrap().1.to_string();
    let told = warnings.iter().any(|line| line.contains("stays in storage") && line.contains(&id));
    assert!(told, "{warnings:#?}");
    let catalog = assert_all_whole(&[&memory], "failed").await;
    assert!(catalog.backups.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_of_one_second_keep_apart_though_nobody_can_look() {
    for conditions in [true, false] {
        let memory = Memory::new("offsite");
        let memory = Arc::new(if conditions { memory } else { memory.without_conditions() });
        let storage = write_only(&memory);
        let started = Timestamp::now();
        let runs: Vec<_> = (0..8)
            .map(|_| tokio::spawn(run_quietly(plan_at(started, vec![Arc::clone(&storage)]))))
            .collect();
        for run in runs {
            assert!(run.await.unwrap().unwrap().failed.is_empty());
        }
        // One after the other, too: the earlier run has ended, and can't be seen.
        run_quietly(plan_at(started, vec![storage])).await.unwrap();
        let catalog = assert_all_whole(&[&memory], "one second").await;
        assert_eq!(catalog.backups.len(), 9);
    }
}

#[tokio::test]
async fn ids_have_random_letters_only_where_they_must() {
    let (open, closed) = (memory("open"), memory("closed"));
    let unconditional = Arc::new(Memory::new("unconditional").without_conditions());
    let cases: [(Vec<Arc<dyn Storage>>, bool); 3] = [
        (storages(&[&open]), false),
        (vec![open.clone(), write_only(&closed)], true),
        (vec![open.clone(), unconditional], true),
    ];
    for (storages, letters) in cases {
        let report = run_quietly(plan(storages)).await.unwrap();
        assert_eq!(has_letters(&report.manifest.id), letters, "{}", report.manifest.id);
    }
}

#[tokio::test]
async fn hosts_that_see_different_storages_never_share_an_id() {
    // Each host reaches one of two storages; both start in the same second.
    let (first, second) = (memory("first"), memory("second"));
    let started = Timestamp::now();
    let down = |name: &str| -> Arc<dyn Storage> {
        let nothing = Arc::new(Memory::new(name));
        let down = backup_testkit::FailCalls::From(1);
        Arc::new(backup_testkit::CountedStorage::new(nothing, down))
    };
    let policy = Policy::AtLeast(1);
    let here = vec![first.clone() as Arc<dyn Storage>, down("second")];
    let there = vec![down("first"), second.clone()];
    let mut folders = Vec::new();
    for storages in [here, there] {
        let plan = BackupPlan { policy, ..plan_at(started, storages) };
        folders.push(run_quietly(plan).await.unwrap().manifest.backup_id().unwrap().folder(JOB));
    }
    assert_ne!(folders[0], folders[1]);
}
