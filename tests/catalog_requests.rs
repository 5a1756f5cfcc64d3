//! How much a catalog asks its storages for, and how long it waits for an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{BackupId, BackupPlan, Catalog, CatalogEntry, Query, Storage, layout};
use backup_testkit::{CountedStorage, FailCalls, Memory};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::rig::{JOB, memory, plan, plan_at, run_quietly, soak, storages};
use crate::troubled::{Trouble, Troubled};

/// Objects that an object store shows in one answer.
const PAGE: usize = 1000;
const DAY: i64 = 24 * 3600;

/// A real backup, to be planted under other ids.
pub struct Seed(Vec<(String, Bytes)>, String);

impl Seed {
    pub async fn new() -> Self {
        let memory = memory("seed");
        let report = run_quietly(plan(storages(&[&memory]))).await.unwrap();
        let prefix = format!("{}/", report.manifest.backup_id().unwrap().folder(JOB));
        let files = memory.keys().into_iter().map(|key| {
            let body = memory.object(&key).unwrap();
            (key.strip_prefix(&prefix).unwrap().to_owned(), body)
        });
        Self(files.collect(), report.manifest.id)
    }

    /// The objects of a backup with another job and id.
    pub fn objects(&self, job: &str, id: BackupId) -> impl Iterator<Item = (String, Bytes)> {
        self.0.iter().map(move |(file, body)| {
            let key = format!("{}/{file}", id.folder(job));
            if file != layout::MANIFEST {
                return (key, body.clone());
            }
            let text = String::from_utf8(body.to_vec()).unwrap();
            let text = text.replace(&format!("\"{}\"", self.1), &format!("\"{id}\""));
            let text = text.replace(&format!("\"job\": \"{JOB}\""), &format!("\"job\": \"{job}\""));
            (key, text.into())
        })
    }

    fn plant(&self, memory: &Memory, job: &str, id: BackupId) {
        for (key, body) in self.objects(job, id) {
            memory.plant(&key, body);
        }
    }
}

/// The id of a backup so many seconds before a fixed day.
pub fn id_before(seconds: i64) -> BackupId {
    let start: Timestamp = "2026-11-20T02:00:00Z".parse().unwrap();
    BackupId::new(start.checked_sub(SignedDuration::from_secs(seconds)).unwrap(), 1)
}

/// How often each kind of call was made.
fn tally(storage: &CountedStorage) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for call in storage.calls() {
        *tally.entry(call.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    tally
}

/// A storage with `count` daily backups, in which every call takes 20 ms.
async fn far_away(count: i64) -> (Arc<Memory>, CountedStorage) {
    let (memory, seed) = (memory("far"), Seed::new().await);
    for day in 0..count {
        seed.plant(&memory, JOB, id_before(day * DAY));
    }
    let distant = Trouble::Distant(Duration::from_millis(20));
    let distant = Troubled::new(memory.clone(), 0, distant);
    (memory, CountedStorage::new(Arc::new(distant), FailCalls::Never))
}

#[tokio::test]
async fn five_thousand_backups_take_a_request_each_and_some_pages() {
    let (memory, storage) = far_away(5_000).await;
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(storage.clone())];
    tokio::time::pause();
    let began = Instant::now();
    let catalog = Catalog::load(&all, Some(JOB)).await;
    let took = began.elapsed();
    tokio::time::resume();
    assert_eq!((catalog.backups.len(), catalog.problems.len()), (5_000, 0));
    let tally = tally(&storage);
    let of = |call: &str| tally.get(call).copied().unwrap_or_default();
    assert_eq!((of("list"), of("open")), (1, 5_000));
    assert_eq!((of("folders"), of("stat"), of("begin"), of("delete")), (0, 0, 0, 0), "{tally:?}");
    let pages = memory.keys().len().div_ceil(PAGE);
    println!(
        "5,000 backups: {} requests (5,000 manifests, {pages} pages), {took:?} at 20 ms each",
        5_000 + pages
    );
    // 32 at a time: a listing and 157 rounds of manifests.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn who_wants_less_asks_for_less() {
    let (_, storage) = far_away(1_000).await;
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(storage.clone())];
    let job = Some(JOB);
    let id = id_before(500 * DAY);
    let since = Some(id_before(45 * DAY).started());
    let everything = Query::default();
    // The newest month of these has 20 backups, the one before 31.
    let cases = [
        (Query { limit: Some(5), ..everything }, 5, "newest of any job", [3, 1]),
        (Query { job, limit: Some(5), ..everything }, 5, "newest", [2, 1]),
        (Query { job, limit: Some(20), ..everything }, 20, "a whole month", [2, 1]),
        (Query { job, limit: Some(21), ..everything }, 21, "one more", [2, 2]),
        (Query { job, limit: Some(365), ..everything }, 365, "a year", [3, 13]),
        (Query { job, since, ..everything }, 46, "since", [2, 2]),
        (Query { job, since, limit: Some(3), ..everything }, 3, "since and limit", [2, 1]),
        (Query { job, id: Some(id), ..everything }, 1, "one", [0, 1]),
        (Query { id: Some(id), ..everything }, 1, "one of any job", [1, 1]),
        (Query { job: Some("other"), limit: Some(5), ..everything }, 0, "no such job", [1, 0]),
        (Query { job, limit: Some(0), ..everything }, 0, "none", [2, 0]),
    ];
    let mut before = BTreeMap::new();
    for (query, wanted, what, [folders, lists]) in cases {
        let catalog = Catalog::query(&all, &query).await;
        assert_eq!((catalog.backups.len(), catalog.problems.len()), (wanted, 0), "{what}");
        let now = tally(&storage);
        let new = |call: &str| {
            now.get(call).copied().unwrap_or(0) - before.get(call).copied().unwrap_or(0)
        };
        let asked = [new("open"), new("folders"), new("list")];
        assert_eq!(asked, [wanted, folders, lists], "{what}: {:?}", query);
        before = now;
    }
}

/// What a run asks before it begins does not grow with the number of backups.
#[tokio::test]
async fn a_run_beside_a_thousand_backups_lists_some_months() {
    let (_, storage) = far_away(1_000).await;
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(storage.clone())];
    let next = id_before(-3600).started();
    let plan = BackupPlan { adopt: true, ..plan_at(next, all) };
    run_quietly(plan).await.unwrap();
    let asked = |call: &str| {
        let calls = storage.calls();
        let of_call = calls.iter().filter_map(|made| made.strip_prefix(call));
        of_call.map(str::to_owned).collect::<Vec<_>>()
    };
    let months = ["database/2026/10", "database/2026/11"];
    let newest = "database/2026/11";
    assert_eq!(asked("list "), [&[newest][..], &months[..]].concat());
    assert_eq!(asked("sweep "), months);
}

#[tokio::test]
async fn a_backup_is_found_by_its_id_or_as_the_latest() {
    let (memory, seed) = (memory("memory"), Seed::new().await);
    let all = storages(&[&memory]);
    let newest = BackupId::random(Timestamp::now());
    let ahead = Timestamp::now().checked_add(SignedDuration::from_hours(50)).unwrap();
    for id in [id_before(0), id_before(40 * DAY), newest, BackupId::new(ahead, 1)] {
        seed.plant(&memory, JOB, id);
    }
    let wanted = [("latest", newest), ("20261011T020000Z", id_before(40 * DAY))];
    for (word, id) in wanted {
        let query = Query::for_backup(Some(JOB), word).unwrap();
        let catalog = Catalog::query(&all, &query).await;
        assert_eq!(catalog.find(word).unwrap().id, id, "{word}");
    }
    assert!(Query::for_backup(None, "yesterday").is_err());
    // Which job's latest? That must not be answered by looking at one of them only.
    seed.plant(&memory, "other", id_before(90 * DAY));
    let query = Query::for_backup(None, "latest").unwrap();
    assert!(Catalog::query(&all, &query).await.find("latest").is_err());
}

/// What a catalog says of each backup.
fn told(entries: &[&CatalogEntry]) -> Vec<(String, BackupId, Vec<String>, Vec<String>)> {
    let one = |entry: &&CatalogEntry| {
        let copies = entry.copies.iter().map(|copy| copy.storage.clone()).collect();
        (entry.manifest.job.clone(), entry.id, copies, entry.missing_in.clone())
    };
    entries.iter().map(one).collect()
}

#[tokio::test]
async fn a_part_of_the_catalog_says_the_same_as_the_whole() {
    let seed = Seed::new().await;
    for round in 0..soak(60) {
        let mut rng = StdRng::seed_from_u64(round);
        let memories = [memory("first"), memory("second"), memory("third")];
        for _ in 0..rng.gen_range(0..25) {
            let id = id_before(rng.gen_range(0..200) * DAY);
            let job = if rng.gen_bool(0.3) { "other" } else { JOB };
            for memory in memories.iter().filter(|_| rng.gen_bool(0.6)) {
                seed.plant(memory, job, id);
            }
        }
        let all = storages(&memories.each_ref());
        let whole = Catalog::load(&all, None).await;
        for _ in 0..4 {
            let limit = rng.gen_bool(0.7).then(|| rng.gen_range(0..9));
            let since = rng.gen_bool(0.5).then(|| id_before(rng.gen_range(0..250) * DAY).started());
            let job = rng.gen_bool(0.5).then_some(JOB);
            let query = Query { job, since, limit, id: None };
            let part = Catalog::query(&all, &query).await;

            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            let mut wanted: Vec<&CatalogEntry> = Vec::new();
            for entry in whole.backups.iter().rev() {
                let count = counts.entry(&entry.manifest.job).or_default();
                let of_job = job.is_none_or(|job| job == entry.manifest.job);
                let young = since.is_none_or(|since| entry.id.started() >= since);
                if of_job && young && limit.is_none_or(|limit| *count < limit) {
                    *count += 1;
                    wanted.push(entry);
                }
            }
            wanted.reverse();
            let found: Vec<&CatalogEntry> = part.backups.iter().collect();
            assert_eq!(told(&found), told(&wanted), "round {round}: {query:?}");
        }
    }
}

/// `count` backups in a storage that goes down at its `call`-th call.
async fn dying(count: i64, call: u64) -> CountedStorage {
    let (memory, seed) = (memory("dying"), Seed::new().await);
    for day in 0..count {
        seed.plant(&memory, JOB, id_before(day * DAY));
    }
    CountedStorage::new(memory, FailCalls::From(call))
}

#[tokio::test]
async fn a_storage_that_goes_down_is_given_up_and_told_once() {
    let down = dying(500, 2).await;
    let (whole, seed) = (memory("whole"), Seed::new().await);
    seed.plant(&whole, JOB, id_before(0));
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(down.clone()), whole];
    let catalog = Catalog::load(&all, None).await;
    let opened = tally(&down)["open"];
    assert!(opened < 100, "{opened} manifests were asked for");
    assert_eq!(catalog.problems.len(), 11);
    let last = &catalog.problems[10].error;
    assert!(last.message().contains("490 more were not asked for"), "{last}");
    let [entry] = &catalog.backups[..] else { panic!("{:?}", catalog.backups.len()) };
    assert_eq!((&entry.unknown_in[..], entry.missing_in.len()), (&["dying".to_owned()][..], 0));
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_hangs_is_given_up_in_time() {
    const LIMIT: Duration = Duration::from_secs(5 * 60);
    let (here, there) = (memory("here"), memory("there"));
    let seed = {
        tokio::time::resume();
        let seed = Seed::new().await;
        tokio::time::pause();
        seed
    };
    for day in 0..100 {
        seed.plant(&here, JOB, id_before(day * DAY));
        seed.plant(&there, JOB, id_before(day * DAY));
    }
    for query in [Query::default(), Query { limit: Some(50), ..Query::default() }] {
        for k in 1..8 {
            let hanging = Troubled::new(there.clone(), k, Trouble::Stall);
            let all: Vec<Arc<dyn Storage>> = vec![here.clone(), Arc::new(hanging.clone())];
            let began = Instant::now();
            let ended = tokio::time::timeout(LIMIT, Catalog::query(&all, &query)).await;
            let catalog = ended.expect("a catalog must end");
            assert!(hanging.struck() && began.elapsed() >= Duration::from_secs(30));
            assert_eq!(catalog.backups.len(), query.limit.unwrap_or(100), "call {k}");
            assert_eq!(catalog.problems.len(), 1, "call {k}: {:?}", catalog.problems);
            assert!(catalog.backups.iter().all(|entry| entry.missing_in.is_empty()));
            assert!(catalog.backups.iter().any(|entry| entry.unknown_in == ["there"]), "{k}");
        }
    }
}
