//! SIGKILL at random moments of an upload to each service: nothing half-done is listed, the next
//! run works, and what was left can be swept.

use std::time::{Duration, Instant};

use backup_core::{Catalog, Storage};
use backup_testkit::postgres::PostgresServer;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Child;

use crate::rig::{Ear, plan_at};
use crate::support::stores::Service;
use crate::support::{CLAIMS, Scratch, cases, claims_server, finish_started, seed};

/// Some 15 MB when compressed: more than a part of an upload.
const ROWS: u32 = 120_000;
/// Where the sections of the stores keep their objects, and the job of a scratch.
const FOLDER: &str = "backups";
const JOB: &str = "database";
/// Longer ago than any timeout: what a run left then is nobody's.
const LATER: SignedDuration = SignedDuration::from_hours(24 * 30);
/// How long a run may take until an upload shows.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);

/// A database, and a scratch with a single storage, on a service.
struct Range {
    service: Service,
    _database: PostgresServer,
    scratch: Scratch,
    random: StdRng,
}

impl Range {
    async fn new(name: &str) -> Self {
        let (service, database) = tokio::join!(Service::start(name), claims_server(15, ROWS));
        let scratch = Scratch::of(&database, CLAIMS);
        let local = scratch.path("backups");
        let local = format!("[storage.local]\nurl = 'file://{}'\n", local.display());
        scratch.edit_config(&local, &service.section());
        scratch.edit_config("storages = ['local']", &format!("storages = ['{name}']"));
        let random = StdRng::seed_from_u64(seed());
        Self { service, _database: database, scratch, random }
    }

    fn storage(&self) -> std::sync::Arc<dyn Storage> {
        self.service.storage(FOLDER, self.service.address())
    }

    /// Services that show what is unfinished.
    fn shows(&self) -> bool {
        matches!(self.service, Service::S3(_) | Service::Sftp(_))
    }

    /// Kills a run. The first one of a service that shows it, while an upload is unfinished; the
    /// others at a random moment of what a run usually takes, from when it dumps.
    async fn strike(&mut self, case: usize, usual: Duration) {
        let before = self.scratch.listed().await;
        let pending = self.service.pending(FOLDER).await;
        let mut child = self.scratch.start(&["backup"]);
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        let uploads = case == 0 && self.shows();
        let moment = if uploads {
            self.wait_for_upload(&mut child, pending).await;
            "uploading".to_owned()
        } else {
            let after = usual.mul_f64(self.random.gen_range(0.0..0.9));
            self.scratch.wait_for_process("pg_dump").await;
            tokio::time::sleep(after).await;
            format!("{after:.2?} of {usual:.2?}")
        };
        // Not waited for yet, so the id is still this process's.
        kill(id, Signal::SIGKILL).unwrap();
        let run = finish_started(child).await;
        self.scratch.assert_no_process_left();
        let left = self.service.pending(FOLDER).await;
        println!("{}: {moment}: {}, {left} pending", self.service.name(), run.code);
        assert!(run.code == 0 || run.code == 128 + Signal::SIGKILL as i32, "{run:#?}");
        let after = self.scratch.listed().await;
        if uploads {
            assert!(left > pending, "nothing was left, so nothing is proven");
            assert_eq!(after, before, "half a backup is listed");
        }
        // It may have died in the moment between its manifest and its last words.
        assert!(after.len() <= before.len() + 1 && after.starts_with(&before), "{after:?}");
        self.scratch.run(&["verify", "--all"]).await.expect(0);
    }

    async fn wait_for_upload(&self, child: &mut Child, before: usize) {
        let deadline = Instant::now() + UPLOAD_LIMIT;
        while self.service.pending(FOLDER).await <= before {
            assert!(child.try_wait().unwrap().is_none(), "it ended before an upload was seen");
            assert!(Instant::now() < deadline, "no upload");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What was left is swept, and nothing else.
    async fn sweep(&self) {
        let storage = self.storage();
        let listed = self.scratch.listed().await;
        let pending = self.service.pending(FOLDER).await as u64;
        let past = Timestamp::now() - SignedDuration::from_hours(1);
        assert_eq!(storage.sweep(JOB, past).await.unwrap(), 0, "it may be another run's");
        assert_eq!(self.service.pending(FOLDER).await as u64, pending);
        let swept = storage.sweep(JOB, Timestamp::now() + LATER).await.unwrap();
        println!("{}: {swept} leftovers swept", self.service.name());
        assert_eq!((swept, self.service.pending(FOLDER).await), (pending, 0));
        assert!(!self.shows() || swept > 0, "nothing was left, so nothing is proven");

        // A run of a month later: the files that dead runs had finished.
        let (ear, context) = Ear::context();
        let mut plan = plan_at(Timestamp::now() + LATER, vec![self.storage()]);
        plan.adopt = true;
        let report = backup_core::backup(plan, &context).await.unwrap();
        let catalog = Catalog::load(&[self.storage()], None).await;
        let folders: Vec<String> = catalog.backups.iter().map(|entry| entry.folder()).collect();
        let objects = storage.list("").await.unwrap().into_iter().map(|object| object.key);
        let unlisted = |key: &String| !folders.iter().any(|folder| key.starts_with(folder));
        let left: Vec<String> = objects.filter(unlisted).collect();
        let by_hand = ear.warnings().iter().any(|warning| warning.contains("looks complete"));
        assert!(left.is_empty() || by_hand, "{left:?}: {:?}", ear.warnings());

        // It was never the program's, which goes on as if nothing had been.
        let id = report.manifest.backup_id().unwrap();
        for object in storage.list(&id.folder(JOB)).await.unwrap() {
            storage.delete(&object.key).await.unwrap();
        }
        assert_eq!(self.scratch.listed().await, listed);
        self.scratch.run(&["verify", "--all"]).await.expect(0);
    }
}

async fn uploads_are_killed(name: &str) {
    let mut range = Range::new(name).await;
    let began = Instant::now();
    range.scratch.run(&["backup"]).await.expect(0);
    let usual = began.elapsed();
    for case in 0..cases(3, 50) {
        range.strike(case, usual).await;
    }
    range.scratch.assert_next_run_works().await;
    range.sweep().await;
    range.scratch.assert_next_run_works().await;
}

#[tokio::test]
async fn uploads_to_s3_are_killed() {
    uploads_are_killed("s3").await;
}

#[tokio::test]
async fn uploads_to_azure_are_killed() {
    uploads_are_killed("azure").await;
}

#[tokio::test]
async fn uploads_to_gcs_are_killed() {
    uploads_are_killed("gcs").await;
}

#[tokio::test]
async fn uploads_to_sftp_are_killed() {
    uploads_are_killed("sftp").await;
}
