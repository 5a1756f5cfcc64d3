//! The id of an old file is years old, and the run that takes it over is not: its claim says so.
//! And two who take over the same files at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::pipeline::Context;
use backup_core::{
    BackupId, BackupPlan, BackupReport, Catalog, CatalogEntry, Digest, ErrorKind, InMemory,
    Inventory, LEGACY, LegacyFile, PartContents, PartRole, Result, Source, SourceIdentity,
    SourceStream, Storage, copy, layout, take_over,
};
use backup_testkit::Memory;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Old, fates};
use crate::rig::{JOB, memory, plan_at, run_quietly, storages};

/// How long after the end of its run a claim counts still: a day, as docs/format.md has it.
const GRACE: SignedDuration = SignedDuration::from_hours(24);
/// Timeout of the runs here, in seconds.
const TIMEOUT: i64 = 3_600;

/// A source that begins when it is told to.
struct Gate {
    inner: InMemory,
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

#[async_trait]
impl Source for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        self.reached.notify_one();
        self.opened.notified().await;
        self.inner.open().await
    }
}

fn long_ago() -> Timestamp {
    "2021-03-04T02:00:00Z".parse().unwrap()
}

fn plan(all: Vec<Arc<dyn Storage>>) -> BackupPlan {
    BackupPlan {
        kind: LEGACY.to_owned(),
        source: SourceIdentity { database: "app".to_owned(), ..SourceIdentity::default() },
        parts: Vec::new(),
        adopt: true,
        timeout: Duration::from_secs(TIMEOUT.unsigned_abs()),
        ..plan_at(long_ago(), all)
    }
}

fn file(body: &[u8], source: Arc<dyn Source>) -> LegacyFile {
    let Digest { bytes, sha256 } = Digest::of(body);
    LegacyFile {
        file: "db_backup.dump".to_owned(),
        role: PartRole::Other,
        transforms: Vec::new(),
        keys: Vec::new(),
        source,
        stored: Digest::of(body),
        plain: PartContents {
            name: "db_backup.dump".to_owned(),
            bytes,
            sha256,
            inventory: Inventory::default(),
            frames: None,
        },
        notes: Vec::new(),
    }
}

async fn adopt(to: Arc<Memory>, body: Vec<u8>) -> Result<BackupReport> {
    let source = Arc::new(InMemory::new("old", body.clone()));
    let used = BTreeSet::new();
    let file = file(&body, source);
    take_over(plan(storages(&[&to])), &file, Some(&used), &Context::default()).await
}

/// Another storage that has a backup under the very id, for a copy that comes in between.
async fn rival() -> (Arc<dyn Storage>, CatalogEntry) {
    let from = memory("from");
    let host = "elsewhere".to_owned();
    run_quietly(BackupPlan { host, ..plan(storages(&[&from])) }).await.unwrap();
    let all = storages(&[&from]);
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    (Arc::clone(&all[0]), entry)
}

fn claim_key() -> String {
    format!("{}/{}", BackupId::new(long_ago(), 1).folder(JOB), layout::CLAIM)
}

#[tokio::test]
async fn whoever_takes_over_an_old_file_is_not_taken_for_dead() {
    let (from, entry) = rival().await;
    let to = memory("to");
    let [reached, opened] = [(); 2].map(|()| Arc::new(Notify::new()));
    let body = b"an old dump".to_vec();
    let gate = Gate {
        inner: InMemory::new("old", body.clone()),
        reached: Arc::clone(&reached),
        opened: Arc::clone(&opened),
    };
    let target = Arc::clone(&to);
    let adopting = tokio::spawn(async move {
        let used = BTreeSet::new();
        let file = file(&body, Arc::new(gate));
        take_over(plan(storages(&[&target])), &file, Some(&used), &Context::default()).await
    });
    reached.notified().await;
    let claim: Value = serde_json::from_slice(&to.object(&claim_key()).unwrap()).unwrap();
    assert_eq!(claim["started"], long_ago().to_string());
    let claimed: Timestamp = claim["claimed"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(claimed).as_secs().abs() < 60, "{claim}");

    // Nobody else gets into its folder, by a copy or as a crashed run's.
    let target: Arc<dyn Storage> = to.clone();
    let error = copy(&entry, &from, &target, false, &Context::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    run_quietly(plan_at(Timestamp::now(), storages(&[&to]))).await.unwrap();
    assert!(to.object(&claim_key()).is_some(), "it was swept");

    opened.notify_one();
    let report = adopting.await.unwrap().unwrap();
    assert_eq!(report.manifest.id, BackupId::new(long_ago(), 1).to_string());
    assert!(to.object(&claim_key()).is_none(), "the claim stays");
    assert_eq!(Catalog::load(&[target], None).await.backups.len(), 2);
}

/// What is said of when a claim was made, and whether a copy may take its folder over.
#[tokio::test]
async fn a_claim_of_an_old_id_counts_from_when_it_was_made() {
    let (from, entry) = rival().await;
    let timeout = SignedDuration::from_secs(TIMEOUT);
    let now = Timestamp::now();
    let minute = SignedDuration::from_mins(1);
    for (claimed, free) in [
        (Some(now), false),
        (Some(now - timeout), false),
        (Some(now - timeout - GRACE + minute), false),
        (Some(now - timeout - GRACE - minute), true),
        // A run that began long ago, and says nothing else.
        (None, true),
    ] {
        let to = memory("to");
        let mut claim = json!({
            "host": "here", "tool": "test 1", "started": long_ago(), "timeout_seconds": TIMEOUT,
        });
        if let Some(claimed) = claimed {
            claim["claimed"] = claimed.to_string().into();
        }
        to.plant(&claim_key(), claim.to_string());
        let target: Arc<dyn Storage> = to.clone();
        let copied = copy(&entry, &from, &target, false, &Context::default()).await;
        assert_eq!(copied.is_ok(), free, "{claimed:?}: {copied:?}");
        assert_eq!(to.object(&claim_key()).is_some(), !free, "{claimed:?}");
    }
}

/// Of several that want the same id in the same moment each gets one of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopters_at_the_same_time_take_ids_of_their_own() {
    const ADOPTERS: u8 = 12;
    let to = memory("to");
    let mut adopting = JoinSet::new();
    for n in 0..ADOPTERS {
        adopting.spawn(adopt(Arc::clone(&to), vec![n; 100]));
    }
    let reports: Vec<BackupReport> =
        adopting.join_all().await.into_iter().map(Result::unwrap).collect();
    let ids: BTreeSet<&String> = reports.iter().map(|report| &report.manifest.id).collect();
    assert_eq!(ids.len(), usize::from(ADOPTERS));
    let catalog = Catalog::load(&storages(&[&to]), None).await;
    assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
    assert_eq!(catalog.backups.len(), usize::from(ADOPTERS));
    for entry in &catalog.backups {
        let part = &entry.manifest.parts[0];
        let stored = to.object(&entry.key(&part.file)).unwrap();
        assert_eq!(Digest::of(&stored).sha256, part.sha256, "{} holds another's file", entry.id);
    }
    assert!(!to.keys().iter().any(|key| key.ends_with(layout::CLAIM)), "a claim stays");
}

/// Two hosts take over the same folder, into one storage.
#[tokio::test]
async fn two_who_adopt_the_same_folder_lose_nothing() {
    let old = Old::new().await;
    let config = std::fs::read_to_string(old.scratch.path("marb-backup.toml")).unwrap();
    // Another host has another state.
    let state = old.scratch.path("state").display().to_string();
    let other = old.scratch.path("other-state").display().to_string();
    old.scratch.write("other.toml", &config.replace(&state, &other));
    let theirs = ["--apply", "--config", "other.toml"];
    let (ours, theirs) = tokio::join!(old.adopt(&["--apply"]), old.adopt(&theirs));
    let mut ids: Vec<String> = Vec::new();
    for run in [ours, theirs] {
        let document = run.expect(0).json();
        for file in document["files"].as_array().unwrap() {
            let fate = file["fate"].as_str().unwrap();
            assert!(["adopted", "there"].contains(&fate), "{document:#}");
            if fate == "adopted" {
                ids.push(file["backup"].as_str().unwrap().to_owned());
            }
        }
    }
    ids.sort();
    assert_eq!(old.scratch.listed().await, ids, "each is its own, and all are listed");
    assert!((4..=8).contains(&ids.len()), "{ids:?}");
    old.scratch.run(&["verify", "--all"]).await.expect(0);
    assert_eq!(fates(&old.adopt(&["--apply"]).await.expect(0).json()), ["there"; 4]);
    let files = old.scratch.stored_files();
    assert!(!files.iter().any(|file| file.ends_with(layout::CLAIM)), "{files:#?}");
}
