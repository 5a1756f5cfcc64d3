//! SIGKILL at random moments of a prune, on each kind of storage: the listing stays right, and the
//! next prune finishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{Catalog, Storage, layout};
use backup_testkit::postgres::PostgresServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::history::{NO_SLOTS, local, plant};
use crate::rig::JOB;
use crate::support::stores::Service;
use crate::support::{CLAIMS, Scratch, cases, claims_server, finish_started, seed};

/// Where the sections of the stores keep their objects.
const FOLDER: &str = "backups";
/// So many backups stay.
const KEPT: i64 = 3;
/// So many go each time.
const GOING: i64 = 6;

struct Range {
    storage: Arc<dyn Storage>,
    scratch: Scratch,
    _database: PostgresServer,
    _service: Option<Service>,
}

impl Range {
    async fn new(name: &str) -> Self {
        let database = claims_server(15, 50).await;
        let retention = format!("[job.database.retention]\nkeep_last = {KEPT}\n{NO_SLOTS}");
        let scratch = Scratch::with_job(&database.url(CLAIMS), &retention);
        let service = match name {
            "local" => None,
            name => Some(Service::start(name).await),
        };
        let storage = match &service {
            None => local(&scratch),
            Some(service) => {
                let section = scratch.path("backups");
                let section = format!("[storage.local]\nurl = 'file://{}'\n", section.display());
                scratch.edit_config(&section, &service.section());
                scratch.edit_config("storages = ['local']", &format!("storages = ['{name}']"));
                service.storage(FOLDER, service.address())
            }
        };
        scratch.run(&["backup"]).await.expect(0);
        plant(&storage, (1..KEPT).map(|day| day * 24), |_| ()).await;
        Self { storage, scratch, _database: database, _service: service }
    }

    async fn plant_old(&self) -> Vec<String> {
        plant(&self.storage, (KEPT..KEPT + GOING).map(|day| day * 24), |_| ()).await
    }

    /// What is listed has all its files; what is not says that it is nobody's.
    async fn assert_honest(&self, what: &str) -> usize {
        let objects = self.storage.list(JOB).await.unwrap();
        let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for object in &objects {
            let (job, id, name) = layout::parse_key(&object.key).unwrap();
            folders.entry(id.folder(job)).or_default().push(name.to_owned());
        }
        let catalog = Catalog::load(&[Arc::clone(&self.storage)], Some(JOB)).await;
        assert!(catalog.problems.is_empty(), "{what}: {:?}", catalog.problems);
        for entry in &catalog.backups {
            assert!(entry.copies[0].damaged_parts.is_empty(), "{what}: {entry:?}");
            let files = folders.remove(&entry.folder()).unwrap();
            let manifest = &entry.manifest;
            let parts = manifest.parts.iter().map(|part| part.file.as_str());
            let others = [layout::SHA256SUMS, layout::SIGNATURE, layout::RESTORE_NOTE];
            for file in parts.chain(others) {
                assert!(files.iter().any(|name| name == file), "{what}: {} of {files:?}", file);
            }
        }
        let half = folders.len();
        for (folder, files) in folders {
            let has = |file: &str| files.iter().any(|name| name == file);
            let only_claimed = files.iter().all(|name| name == layout::CLAIM);
            assert!(has(layout::PRUNED) || only_claimed, "{what}: {folder} holds {files:?}");
        }
        half
    }
}

async fn prunes_are_killed(name: &str) {
    let range = Range::new(name).await;
    let kept = range.scratch.listed().await;
    assert_eq!(kept.len() as i64, KEPT);
    range.plant_old().await;
    let began = Instant::now();
    range.scratch.run(&["prune", "--apply"]).await.expect(0);
    let usual = began.elapsed();
    assert_eq!(range.scratch.listed().await, kept);
    let mut random = StdRng::seed_from_u64(seed());
    let (mut half, mut killed) = (0, 0);
    for case in 0..cases(4, 100) {
        range.plant_old().await;
        let child = range.scratch.start(&["prune", "--apply"]);
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        let moment: Duration = usual.mul_f64(random.gen_range(0.1..0.95));
        tokio::time::sleep(moment).await;
        // Not waited for yet, so the id is still this process's.
        kill(id, Signal::SIGKILL).unwrap();
        let run = finish_started(child).await;
        assert!(run.code == 0 || run.code == 128 + Signal::SIGKILL as i32, "{run:#?}");
        killed += usize::from(run.code != 0);
        let what = format!("{name}, case {case}, {moment:.2?} of {usual:.2?}");
        half += range.assert_honest(&what).await;
        let listed = range.scratch.listed().await;
        assert!(kept.iter().all(|id| listed.contains(id)), "{what}: {listed:?}");

        range.scratch.run(&["prune", "--apply"]).await.expect(0);
        assert_eq!(range.scratch.listed().await, kept, "{what}");
        assert_eq!(range.assert_honest(&what).await, 0, "{what}: a folder is left");
        let objects = range.storage.list(JOB).await.unwrap();
        let passing = objects.iter().find(|object| layout::is_passing(&object.key));
        assert!(passing.is_none(), "{what}: {passing:?} is left");
    }
    println!("{name}: {killed} killed, {half} folders were left half-removed and finished");
    range.scratch.assert_next_run_works_in_place().await;
}

impl Scratch {
    /// A run works, and its retention removes the oldest.
    async fn assert_next_run_works_in_place(&self) {
        let before = self.listed().await;
        self.run(&["backup"]).await.expect(0);
        let after = self.listed().await;
        assert_eq!(after.len(), before.len());
        assert_eq!(after[..after.len() - 1], before[1..]);
        self.run(&["verify", "latest"]).await.expect(0);
    }
}

#[tokio::test]
async fn prunes_of_a_folder_are_killed() {
    prunes_are_killed("local").await;
}

#[tokio::test]
async fn prunes_of_s3_are_killed() {
    prunes_are_killed("s3").await;
}

#[tokio::test]
async fn prunes_of_azure_are_killed() {
    prunes_are_killed("azure").await;
}

#[tokio::test]
async fn prunes_of_gcs_are_killed() {
    prunes_are_killed("gcs").await;
}

#[tokio::test]
async fn prunes_of_sftp_are_killed() {
    prunes_are_killed("sftp").await;
}
