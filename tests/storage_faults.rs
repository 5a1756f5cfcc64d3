//! Backups to real servers through a proxy that breaks connections at seeded moments: after each
//! the backup is listed and whole, or it is not listed and nothing of it is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::pipeline::Limits;
use backup_core::{BackupPlan, BackupReport, Catalog, PartPlan, PartRole, Result, Storage};
use backup_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use backup_testkit::{Flavour, Generated};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::rig::{Ear, globals, plan_at, verify_in};
use crate::support::stores::Service;
use crate::support::{cases, seed};

/// An object of one request, and one of several parts or steps, in bytes.
const SMALL: u64 = 700_000;
const LARGE: u64 = 9_500_000;
/// Cases that run at the same time: they mostly wait.
const AT_ONCE: usize = 4;
/// How long any run may take whatever happens to it: a few requests, each of which gives up after
/// 6 s, wait for each other.
const LONGEST: Duration = Duration::from_secs(60);
/// Longer ago than any timeout: what is left of a run then is nobody's.
const LATER: SignedDuration = SignedDuration::from_hours(24 * 30);

/// A backup of random data, which no compression makes smaller.
fn backup_plan(storage: Arc<dyn Storage>, bytes: u64, started: Timestamp) -> BackupPlan {
    const STEP: Duration = Duration::from_secs(20);
    let dump = PartPlan {
        name: "app.dump".to_owned(),
        role: PartRole::Database,
        source: Arc::new(Generated::new(Flavour::Random, bytes, bytes)),
        estimated_bytes: Some(bytes),
    };
    let globals = PartPlan {
        name: "globals.sql".to_owned(),
        role: PartRole::Globals,
        source: globals(),
        estimated_bytes: None,
    };
    BackupPlan {
        parts: vec![dump, globals],
        limits: Limits { source_stall: STEP, sink_stall: STEP, optional_stall: STEP, commit: STEP },
        ..plan_at(started, vec![storage])
    }
}

/// One run through a proxy, and what is looked at afterwards without it.
struct Case {
    service: Arc<Service>,
    /// Where its objects are.
    folder: String,
    what: String,
    bytes: u64,
}

/// What a run said.
struct Told {
    result: Result<BackupReport>,
    warnings: Vec<String>,
    took: Duration,
    strikes: u64,
}

impl Case {
    fn new(service: &Arc<Service>, number: usize, bytes: u64, what: String) -> Self {
        let what = format!("{} case {number}, {bytes} bytes, {what}", service.name());
        Self { service: Arc::clone(service), folder: format!("case{number}"), what, bytes }
    }

    fn direct(&self) -> Arc<dyn Storage> {
        self.service.storage(&self.folder, self.service.address())
    }

    /// Runs a backup; the proxy is gone when this returns, and with it what was on its way.
    async fn run(&self, plan: Plan) -> Told {
        let proxy = FaultProxy::start(self.service.address(), plan).unwrap();
        let storage = self.service.storage(&self.folder, proxy.address());
        let (ear, context) = Ear::context();
        let began = Instant::now();
        let run = backup_core::backup(backup_plan(storage, self.bytes, Timestamp::now()), &context);
        let ended = tokio::time::timeout(2 * LONGEST, run).await;
        let result = ended.unwrap_or_else(|_| panic!("{}: it does not end", self.what));
        let (took, strikes) = (began.elapsed(), proxy.strikes());
        Told { result, warnings: ear.warnings(), took, strikes }
    }

    /// Asserts the promise; says whether the backup is there, and whether something was left that
    /// a sweep had to remove.
    async fn judge(&self, told: &Told) -> (bool, bool) {
        let what = format!("{}: {:?}, told {:#?}", self.what, told.result, told.warnings);
        assert!(told.took < LONGEST, "{:?}: {what}", told.took);
        let direct = self.direct();
        let catalog = Catalog::load(&[Arc::clone(&direct)], None).await;
        assert!(catalog.problems.is_empty(), "{:?}: {what}", catalog.problems);
        for entry in &catalog.backups {
            assert_eq!(entry.copies[0].damaged_parts, [""; 0], "listed, but not whole: {what}");
            let report = verify_in(entry, Arc::clone(&direct)).await;
            assert!(report.worst().is_none(), "listed, but {:?}: {what}", report.worst());
        }
        let listed = !catalog.backups.is_empty();
        assert!(listed || told.result.is_err(), "it succeeded and is not listed: {what}");
        let excess = self.excess(&catalog).await;
        let pending = self.service.pending(&self.folder).await;
        let left = !excess.is_empty() || pending > 0;
        if left {
            println!("{}: {pending} pending, {excess:?}, told {:?}", self.what, told.warnings);
        }
        if left || (listed && told.result.is_err()) {
            assert!(!told.warnings.is_empty(), "{pending} pending, {excess:?}, untold: {what}");
            self.sweep(&what).await;
        }
        (listed, left)
    }

    /// Objects of no listed backup, and claims that nobody needs any more.
    async fn excess(&self, catalog: &Catalog) -> Vec<String> {
        let folders: Vec<String> = catalog.backups.iter().map(|entry| entry.folder()).collect();
        let objects = self.direct().list("").await.unwrap();
        let stray = |key: &String| {
            let known = folders.iter().any(|folder| key.starts_with(folder.as_str()));
            !known || key.ends_with("claim.json")
        };
        objects.into_iter().map(|object| object.key).filter(stray).collect()
    }

    /// What a run could not clean up, a later one does.
    async fn sweep(&self, what: &str) {
        let later = Timestamp::now() + LATER;
        let (ear, context) = Ear::context();
        let run = backup_core::backup(backup_plan(self.direct(), 1, later), &context).await;
        assert!(run.is_ok(), "the next run fails: {:?}: {what}", run.err());
        let catalog = Catalog::load(&[self.direct()], None).await;
        let mut left = self.excess(&catalog).await;
        // Of a listed backup nothing is touched, and what may be restored by hand stays.
        let listed = |key: &String| catalog.backups.iter().any(|b| key.starts_with(&b.folder()));
        left.retain(|key| !listed(key));
        let by_hand = ear.warnings().iter().any(|warning| warning.contains("looks complete"));
        assert!(left.is_empty() || by_hand, "not swept: {left:?}, {:?}: {what}", ear.warnings());
        assert_eq!(self.service.pending(&self.folder).await, 0, "not swept: {what}");
    }
}

/// What goes wrong in a case: mostly once, as the seed says; every fourth time again and again, so
/// that little gets through but not nothing.
fn seeded_plan(seed: u64, bytes: u64) -> (Plan, &'static str) {
    let plan = Plan::from_seed(seed, bytes);
    match seed % 4 {
        0 => (plan.again_every(bytes / 12), "again and again"),
        _ => (plan, "seeded"),
    }
}

async fn seeded_faults(name: &str) {
    let service = Arc::new(Service::start(name).await);
    let (seed, count) = (seed(), cases(20, 250));
    let (mut running, mut tally) = (JoinSet::new(), Tally::default());
    let began = Instant::now();
    for number in 0..count {
        if running.len() >= AT_ONCE {
            tally.add(running.join_next().await);
        }
        let seed = seed.wrapping_add(number as u64);
        let bytes = if number % 3 == 0 { SMALL } else { LARGE };
        let (plan, how) = seeded_plan(seed, bytes);
        let case = Case::new(&service, number, bytes, format!("seed {seed}, {how}, {plan:?}"));
        running.spawn(async move {
            let told = case.run(plan).await;
            let (listed, left) = case.judge(&told).await;
            println!("{}: listed {listed}, {:.1?}", case.what, told.took);
            // A single fault is over when the run cleans up.
            assert!(!left || told.strikes > 1, "{}: something is left", case.what);
            [listed, told.strikes > 0, left]
        });
    }
    while let Some(done) = running.join_next().await {
        tally.add(Some(done));
    }
    let Tally { listed, struck, left } = tally;
    println!(
        "{name}: {count} runs, {struck} hit, {listed} listed, {left} left something to sweep, {:.1?}",
        began.elapsed()
    );
    assert!(struck > count / 2 && listed > 0, "the faults don't hit: {struck} of {count}");
}

/// How many runs had which outcome.
#[derive(Default)]
struct Tally {
    listed: usize,
    struck: usize,
    left: usize,
}

impl Tally {
    fn add(&mut self, done: Option<std::result::Result<[bool; 3], tokio::task::JoinError>>) {
        match done.expect("a case") {
            Ok([listed, struck, left]) => {
                self.listed += usize::from(listed);
                self.struck += usize::from(struck);
                self.left += usize::from(left);
            }
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}

#[tokio::test]
async fn s3_through_seeded_faults() {
    seeded_faults("s3").await;
}

#[tokio::test]
async fn azure_through_seeded_faults() {
    seeded_faults("azure").await;
}

#[tokio::test]
async fn gcs_through_seeded_faults() {
    seeded_faults("gcs").await;
}

#[tokio::test]
async fn sftp_through_seeded_faults() {
    seeded_faults("sftp").await;
}

/// The way to the server ends in the middle of the data and does not come back.
async fn dies_for_ever(name: &str) {
    let service = Arc::new(Service::start(name).await);
    let mut running = JoinSet::new();
    for (number, fault) in
        [Fault::Reset, Fault::Truncate, Fault::Stall(None)].into_iter().enumerate()
    {
        let case = Case::new(&service, number, LARGE, format!("{fault:?} for ever"));
        let plan = Plan::after_bytes(LARGE * 2 / 3, Direction::Up, fault).for_ever();
        running.spawn(async move {
            let told = case.run(plan).await;
            println!("{}: {:.1?}: {:?}", case.what, told.took, told.result);
            assert!(told.strikes > 0 && told.result.is_err(), "{}", case.what);
            // Its claim and maybe more are there, and it said so.
            assert!(!told.warnings.is_empty(), "{}", case.what);
            assert!(!case.judge(&told).await.0, "{}: it is listed", case.what);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn s3_dies_for_ever() {
    dies_for_ever("s3").await;
}

#[tokio::test]
async fn azure_dies_for_ever() {
    dies_for_ever("azure").await;
}

#[tokio::test]
async fn gcs_dies_for_ever() {
    dies_for_ever("gcs").await;
}

#[tokio::test]
async fn sftp_dies_for_ever() {
    dies_for_ever("sftp").await;
}
