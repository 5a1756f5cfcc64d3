//! `backup` as a whole: ids, runs at the same time, whose folder it is, and how long it may take.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::pipeline::{Context, Policy};
use backup_core::{
    BackupPlan, BackupReader, Catalog, ErrorKind, PartRole, Result, Source, SourceStream, Storage,
    layout,
};
use backup_storage::Local;
use backup_testkit::{
    CountedStorage, FailCalls, FaultySource, FaultyStorage, Flavour, Generated, Memory, SinkFault,
    SourceFault, random,
};
use jiff::Timestamp;

use crate::rig::{
    DUMP_BYTES, Ear, JOB, assert_all_whole, assert_empty, decoders, dump, globals, identity,
    memory, open_plan, plan, plan_at, run, run_quietly, storages, verify_in,
};

#[tokio::test]
async fn what_was_backed_up_is_what_comes_back() {
    let (first, second) = (memory("first"), memory("second"));
    let report = run_quietly(plan(storages(&[&first, &second]))).await.unwrap();
    assert_eq!(report.stored_in, ["first", "second"]);
    let folder = report.manifest.backup_id().unwrap().folder(JOB);
    let files = [
        "RESTORE.md",
        "SHA256SUMS",
        "app.dump.zst.masked",
        "contents.json.zst.masked",
        "globals.sql.zst.masked",
        "manifest.json",
        "manifest.json.sig",
    ];
    assert_eq!(first.keys(), files.map(|file| format!("{folder}/{file}")));
    assert_eq!(first.keys(), second.keys());
    for key in first.keys() {
        assert_eq!(first.object(&key), second.object(&key), "{key}");
    }

    let catalog = assert_all_whole(&[&first, &second], "a plain run").await;
    let entry = catalog.find("latest").unwrap();
    let reader = BackupReader::best(entry, &storages(&[&first]), decoders()).unwrap();
    let context = Context::default();
    let contents = reader.contents(&context).await.unwrap();
    assert_eq!(contents, report.contents);
    let part = reader.manifest().part(PartRole::Database).unwrap();
    let back = reader.read_part(part, Some(&contents), &context).await.unwrap();
    assert_eq!(back, random(1, DUMP_BYTES));
}

#[tokio::test]
async fn a_second_belongs_to_the_first_run_of_it_for_good() {
    // The first run has ended and given its claim back; its backup must survive the second.
    let memory = memory("memory");
    let started = Timestamp::now();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let report = run_quietly(plan_at(started, storages(&[&memory]))).await.unwrap();
        ids.push(report.manifest.id);
    }
    let first = ids[0].clone();
    assert_eq!(ids, [first.clone(), format!("{first}-2"), format!("{first}-3")]);
    assert_eq!(assert_all_whole(&[&memory], "same second").await.backups.len(), 3);
}

async fn run_at_once(all: Vec<Arc<dyn Storage>>, count: usize) -> BTreeSet<String> {
    let started = Timestamp::now();
    let runs = (0..count).map(|_| tokio::spawn(run_quietly(plan_at(started, all.clone()))));
    let mut ids = BTreeSet::new();
    for run in runs.collect::<Vec<_>>() {
        let report = run.await.unwrap().unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        ids.insert(report.manifest.id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_runs_at_once_keep_apart() {
    let (first, second) = (memory("first"), memory("second"));
    assert_eq!(run_at_once(storages(&[&first, &second]), 8).await.len(), 8);
    let catalog = assert_all_whole(&[&first, &second], "eight at once").await;
    assert_eq!(catalog.backups.len(), 8);
    assert!(catalog.backups.iter().all(|entry| entry.missing_in.is_empty()));
    assert!(!first.keys().iter().any(|key| key.ends_with(layout::CLAIM)), "a claim stayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_at_once_keep_apart_on_a_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let local: Arc<dyn Storage> = Arc::new(Local::new("local", scratch.path().join("b")).unwrap());
    assert_eq!(run_at_once(vec![Arc::clone(&local)], 4).await.len(), 4);
    let catalog = Catalog::load(&[Arc::clone(&local)], None).await;
    assert_eq!((catalog.backups.len(), catalog.problems.len()), (4, 0));
    for entry in &catalog.backups {
        assert!(verify_in(entry, Arc::clone(&local)).await.worst().is_none());
        checksums_hold(&scratch.path().join("b").join(entry.folder()), 6);
    }
}

/// `sha256sum -c` passes in the folder, and covers every file in it but the list itself.
fn checksums_hold(folder: &Path, files: usize) {
    let check = || {
        let mut command = Command::new("sha256sum");
        command.args(["--check", "--strict", layout::SHA256SUMS]).current_dir(folder);
        command.output().unwrap()
    };
    let output = check();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches(": OK\n").count(), files, "{said}");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), files + 1, "a file is not covered");

    let manifest = folder.join(layout::MANIFEST);
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &whole[1..]).unwrap();
    assert!(!check().status.success());
    std::fs::write(&manifest, whole).unwrap();
}

#[tokio::test]
async fn a_storage_that_missed_the_claim_is_left_alone() {
    // It answers again while the run goes on. By then the same id may be somebody else's there.
    let (here, there) = (memory("here"), memory("there"));
    let started = Timestamp::now();
    run_quietly(plan_at(started, storages(&[&there]))).await.unwrap();
    let keys = there.keys();
    // Which of its calls claims: how many months are swept before depends on the day.
    let same = memory("there");
    keys.iter().for_each(|key| same.plant(key, there.object(key).unwrap()));
    let counted = CountedStorage::new(same, FailCalls::Never);
    let other = BackupPlan { adopt: true, ..plan_at(started, vec![Arc::new(counted.clone())]) };
    run_quietly(other).await.unwrap();
    let claims = counted.calls().iter().position(|call| call.starts_with("create_new"));
    let claiming = claims.unwrap() as u64 + 1;
    for breaks in [false, true] {
        let flaky = CountedStorage::new(there.clone(), FailCalls::Only(claiming));
        let all: Vec<Arc<dyn Storage>> = vec![here.clone(), Arc::new(flaky.clone())];
        let policy = Policy::AtLeast(1);
        let mut plan = BackupPlan { policy, adopt: true, ..plan_at(started, all) };
        if breaks {
            plan.parts[1].source = Arc::new(FaultySource::new(dump(), SourceFault::Open));
        }
        let result = run_quietly(plan).await;
        let failed = usize::try_from(claiming).unwrap() - 1;
        assert!(flaky.calls()[failed].starts_with("create_new"), "{:?}", flaky.calls());
        assert_eq!(result.is_err(), breaks);
        assert_eq!(there.keys(), keys);
        assert_all_whole(&[&there], "a missed claim").await;
    }
}

#[tokio::test]
async fn a_job_belongs_to_one_source() {
    let ours = Some("7300000000000000001");
    let table = [
        (identity(ours, "app", "replica:5432"), true, "failover"),
        (identity(Some("7300000000000000002"), "app", "db:5432"), false, "another cluster"),
        (identity(ours, "other", "db:5432"), false, "another database"),
        (identity(None, "app", "db:5432"), true, "identifier withheld, same address"),
        (identity(None, "app", "elsewhere:5432"), false, "identifier withheld, other address"),
    ];
    for (source, same, what) in table {
        let memory = memory("memory");
        run_quietly(plan(storages(&[&memory]))).await.unwrap();
        let before = memory.keys();
        let second = || BackupPlan { source: source.clone(), ..plan(storages(&[&memory])) };
        let result = run_quietly(second()).await;
        assert_eq!(result.is_ok(), same, "{what}: {result:?}");
        if !same {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Refused, "{what}");
            assert_eq!(memory.keys(), before, "{what}: something was written");
            run_quietly(BackupPlan { adopt: true, ..second() }).await.unwrap();
            // Adopted once; from now on the folder is the new one's.
            run_quietly(second()).await.unwrap();
        }
        assert_all_whole(&[&memory], what).await;
    }
}

#[tokio::test]
async fn a_storage_that_cannot_be_read_is_only_a_warning() {
    let memory = memory("memory");
    let deaf = CountedStorage::new(memory.clone(), FailCalls::Only(1));
    let (ear, context) = Ear::context();
    let report = run(plan(vec![Arc::new(deaf.clone())]), &context).await.unwrap();
    assert!(deaf.calls()[0].starts_with("folders"));
    assert!(report.failed.is_empty());
    let warnings = ear.warnings();
    let [unchecked, unswept] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(unchecked.contains("could not check in storage memory that job"), "{unchecked}");
    assert!(unswept.contains("storage memory could not be swept"), "{unswept}");
}

#[tokio::test]
async fn a_run_ends_when_its_time_is_up_and_only_that_run() {
    let memory = memory("memory");
    let context = Context::default();
    let mut stalled = plan(storages(&[&memory]));
    stalled.parts[1].source = Arc::new(FaultySource::new(dump(), SourceFault::StallAt(70_000)));
    stalled.timeout = Duration::from_millis(200);
    let began = Instant::now();
    let error = run(stalled, &context).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.message().contains("timeout"), "{error}");
    assert_empty(&memory, "a timeout");

    run(plan(storages(&[&memory])), &context).await.expect("the next job of the same caller");
    context.cancel.interrupt("enough");
    let error = run(plan(storages(&[&memory])), &context).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Interrupted, "enough"));
}

#[tokio::test]
async fn what_cannot_be_aborted_is_told_and_swept() {
    let memory = memory("memory");
    let broken = FaultyStorage::new(memory.clone(), SinkFault::Abort).only_keys_with("app.dump");
    let mut plan = plan(vec![Arc::new(broken)]);
    plan.parts[0].source = Arc::new(FaultySource::new(dump(), SourceFault::FailAt(60_000)));
    let (ear, context) = Ear::context();
    run(plan, &context).await.unwrap_err();
    assert!(memory.keys().is_empty());
    assert_eq!(memory.unfinished(), 1);
    assert!(ear.warnings().iter().any(|warning| warning.contains("sweeps it")));
}

/// Deletes an object that was committed before, then gives what it should.
struct Thief(Arc<Memory>, &'static str);

#[async_trait]
impl Source for Thief {
    fn name(&self) -> &str {
        "thief"
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let keys = self.0.keys();
        let key = keys.iter().find(|key| key.contains(self.1)).expect("it is committed");
        self.0.delete(key).await?;
        globals().open().await
    }
}

#[tokio::test]
async fn a_part_that_vanished_again_is_noticed_before_anything_is_listed() {
    let (first, second) = (memory("first"), memory("second"));
    for (policy, stolen_from) in [(Policy::All, &first), (Policy::AtLeast(1), &second)] {
        let mut plan = BackupPlan { policy, ..plan(storages(&[&first, &second])) };
        plan.parts[1].source = Arc::new(Thief(Arc::clone(stolen_from), "app.dump"));
        match run_quietly(plan).await {
            Err(error) => {
                assert_eq!((policy, error.kind()), (Policy::All, ErrorKind::Damaged), "{error}");
                assert_empty(&first, "a stolen part");
                assert_empty(&second, "a part stolen elsewhere");
            }
            Ok(report) => {
                assert_eq!((policy, report.stored_in), (Policy::AtLeast(1), vec!["first".into()]));
                assert_eq!(report.failed[0].1.kind(), ErrorKind::Damaged);
            }
        }
        assert_all_whole(&[&first, &second], "a stolen part").await;
    }
}

#[tokio::test]
async fn a_storage_that_has_other_bytes_than_were_sent_is_left_out() {
    for file in ["app.dump", "RESTORE.md"] {
        for policy in [Policy::All, Policy::AtLeast(1)] {
            let (first, second) = (memory("first"), memory("second"));
            let lossy = FaultyStorage::new(first.clone(), SinkFault::Miscount).only_keys_with(file);
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(lossy), second.clone()];
            match run_quietly(BackupPlan { policy, ..plan(all) }).await {
                Ok(report) => {
                    assert_eq!(
                        (policy, report.stored_in),
                        (Policy::AtLeast(1), vec!["second".into()])
                    );
                    let (name, error) = &report.failed[0];
                    assert_eq!((&**name, error.kind()), ("first", ErrorKind::Damaged));
                }
                Err(error) => {
                    assert_eq!((policy, error.kind()), (Policy::All, ErrorKind::Damaged));
                    assert_empty(&first, file);
                    assert_empty(&second, file);
                }
            }
        }
    }
}

#[tokio::test]
async fn names_that_would_make_a_bad_folder_are_refused() {
    let names =
        ["a/b", "", "..", "app.dump", "manifest.json", "contents.json", "proofs", "x.partial"];
    for name in names {
        let memory = memory("memory");
        let mut plan = open_plan(storages(&[&memory]));
        plan.transforms.clear();
        plan.parts[1].name = name.to_owned();
        let error = run_quietly(plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{name:?}: {error}");
        assert_empty(&memory, name);
    }
}

#[tokio::test]
async fn a_part_may_be_empty_or_large() {
    for bytes in [0, 20_000_000] {
        let memory = memory("memory");
        let mut plan = plan(storages(&[&memory]));
        let source: Arc<dyn Source> = Arc::new(Generated::new(Flavour::Text, 3, bytes));
        plan.parts[0].source = source;
        let report = run_quietly(plan).await.unwrap();
        assert_eq!(report.contents.parts[0].bytes, bytes);
        assert_all_whole(&[&memory], "any size").await;
    }
}
