//! SIGINT, SIGTERM and SIGKILL at random moments of a backup, a verification and a restore:
//! nothing half-done can be seen, nothing runs on, and the next run works.

use std::time::{Duration, Instant};

use backup_testkit::postgres::PostgresServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{
    CLAIMS, Finished, Scratch, cases, claims_digest, claims_server, finish_started, seed,
    target_file,
};

/// Rows for a run that is long enough to be hit anywhere.
const ROWS: u32 = 40_000;
/// The database that is restored into.
const RESTORED: &str = "restored";

/// A server, a scratch with one good backup, and moments to strike.
struct Range {
    server: PostgresServer,
    scratch: Scratch,
    random: StdRng,
    signal: Signal,
}

impl Range {
    async fn new(major: u32, signal: Signal) -> Self {
        let server = claims_server(major, ROWS).await;
        let scratch = Scratch::of(&server, CLAIMS);
        Self { server, scratch, random: StdRng::seed_from_u64(seed()), signal }
    }

    /// The exit code of a run that the signal ended, as a shell sees it.
    fn code(&self) -> i32 {
        128 + self.signal as i32
    }

    /// Runs a verb undisturbed; says how long it took.
    async fn time(&self, arguments: &[&str]) -> Duration {
        let started = Instant::now();
        self.scratch.run(arguments).await.expect(0);
        started.elapsed()
    }

    /// Starts a verb and strikes at a random moment of what it usually takes, counted from its
    /// start or from when `program` is at work. Nothing that it started may outlive it.
    async fn strike(
        &mut self,
        arguments: &[&str],
        program: Option<&str>,
        usual: Duration,
    ) -> Finished {
        let child = self.scratch.start(arguments);
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        let part = if program.is_some() { 0.4 } else { 1.0 };
        let after = usual.mul_f64(self.random.gen_range(0.0..part));
        if let Some(program) = program {
            self.scratch.wait_for_process(program).await;
        }
        tokio::time::sleep(after).await;
        // Not waited for yet, so the id is still this process's.
        kill(id, self.signal).unwrap();
        let run = finish_started(child).await;
        let from = program.unwrap_or("start");
        println!("{}: {from} + {after:.2?} of {usual:.2?}: {}", self.signal, run.code);
        assert!(run.code == 0 || run.code == self.code(), "{run:#?}");
        self.scratch.assert_no_process_left();
        run
    }

    fn is_kill(&self) -> bool {
        self.signal == Signal::SIGKILL
    }

    /// Databases that a restore made: under the target's name, or a working one.
    async fn databases(&self) -> String {
        let sql = format!(
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database
             WHERE datname NOT IN ('postgres', 'template0', 'template1', '{CLAIMS}')"
        );
        self.server.sql("postgres", &sql).await.unwrap()
    }

    /// Asserts that the restored database is the original.
    async fn assert_restored(&self) {
        let original = claims_digest(&self.server, CLAIMS).await;
        assert_eq!(claims_digest(&self.server, RESTORED).await, original);
    }
}

async fn backup_is_struck(signal: Signal) {
    let mut range = Range::new(15, signal).await;
    let usual = range.time(&["backup"]).await;
    for _ in 0..cases(3, 20) {
        let before = range.scratch.holdings().await;
        let run = range.strike(&["backup"], None, usual).await;
        let after = range.scratch.holdings().await;
        if run.code == 0 {
            assert_eq!(after.listed.len(), before.listed.len() + 1);
        } else if range.is_kill() {
            // It may have died in the moment between its manifest and its last words.
            assert!(after.listed.len() <= before.listed.len() + 1);
        } else {
            assert_eq!(after, before, "something was left");
        }
    }
    range.scratch.assert_next_run_works().await;
    range.scratch.run(&["verify", "--all"]).await.expect(0);
}

#[tokio::test]
async fn a_backup_is_interrupted_by_sigint() {
    backup_is_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn a_backup_is_ended_by_sigterm() {
    backup_is_struck(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_backup_is_killed() {
    backup_is_struck(Signal::SIGKILL).await;
}

async fn verify_is_struck(signal: Signal) {
    let mut range = Range::new(15, signal).await;
    range.time(&["backup"]).await;
    let usual = range.time(&["verify"]).await;
    for _ in 0..cases(3, 20) {
        let before = range.scratch.holdings().await;
        let run = range.strike(&["verify"], None, usual).await;
        let after = range.scratch.holdings().await;
        // A proof of what was not read to its end would be a lie. One of the same second is
        // replaced.
        let proofs = after.files.len() - before.files.len();
        assert!(proofs <= 1, "{after:#?}");
        if run.code != 0 && !range.is_kill() {
            assert_eq!(after, before);
        }
    }
    range.scratch.run(&["verify"]).await.expect(0);
    let list = range.scratch.run(&["list"]).await.expect(0);
    assert!(list.stdout.contains("complete, verified"), "{list:#?}");
}

#[tokio::test]
async fn a_verification_is_interrupted_by_sigint() {
    verify_is_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn a_verification_is_ended_by_sigterm() {
    verify_is_struck(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_verification_is_killed() {
    verify_is_struck(Signal::SIGKILL).await;
}

/// Every other case waits until data flows into the database.
fn at_work(case: usize) -> Option<&'static str> {
    case.is_multiple_of(2).then_some("pg_restore")
}

/// Into a database that the restore makes.
async fn restore_is_struck(signal: Signal) {
    let mut range = Range::new(15, signal).await;
    range.time(&["backup"]).await;
    let to = target_file(&range.scratch, &range.server, RESTORED);
    let restore = ["restore", "latest", "--to", &to];
    let usual = range.time(&restore).await;
    let drop = format!("DROP DATABASE IF EXISTS {RESTORED}");
    range.server.sql("postgres", &drop).await.unwrap();
    for case in 0..cases(4, 20) {
        let run = range.strike(&restore, at_work(case), usual).await;
        let databases = range.databases().await;
        if databases.split(' ').any(|name| name == RESTORED) {
            assert!(run.code == 0 || range.is_kill(), "{run:#?}");
            range.assert_restored().await;
            range.server.sql("postgres", &drop).await.unwrap();
        } else {
            assert_ne!(run.code, 0, "{run:#?}");
        }
        if !range.is_kill() {
            assert_eq!(range.databases().await, "", "something was left");
        }
    }
    range.scratch.run(&restore).await.expect(0);
    range.assert_restored().await;
}

#[tokio::test]
async fn a_restore_is_interrupted_by_sigint() {
    restore_is_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn a_restore_is_ended_by_sigterm() {
    restore_is_struck(Signal::SIGTERM).await;
}

#[tokio::test]
async fn a_restore_is_killed() {
    restore_is_struck(Signal::SIGKILL).await;
}

/// Into a database that was there, empty. Where the client is newer than the server, psql runs
/// what pg_restore writes: of a killed run both see their input end.
async fn restore_into_empty_is_struck(major: u32, signal: Signal) {
    let mut range = Range::new(major, signal).await;
    range.time(&["backup"]).await;
    let to = target_file(&range.scratch, &range.server, RESTORED);
    let restore = ["restore", "latest", "--to", &to];
    let create = format!("CREATE DATABASE {RESTORED}");
    let drop = format!("DROP DATABASE {RESTORED}");
    range.server.sql("postgres", &create).await.unwrap();
    let usual = range.time(&restore).await;
    for case in 0..cases(4, 20) {
        range.server.sql("postgres", &drop).await.unwrap();
        range.server.sql("postgres", &create).await.unwrap();
        let run = range.strike(&restore, at_work(case), usual).await;
        let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        match range.server.sql(RESTORED, tables).await.unwrap().as_str() {
            "0" => assert_ne!(run.code, 0, "{run:#?}"),
            _ => range.assert_restored().await,
        }
        assert_eq!(range.databases().await, RESTORED);
    }
    range.server.sql("postgres", &drop).await.unwrap();
    range.server.sql("postgres", &create).await.unwrap();
    range.scratch.run(&restore).await.expect(0);
    range.assert_restored().await;
}

#[tokio::test]
async fn a_restore_into_an_empty_database_is_interrupted() {
    restore_into_empty_is_struck(15, Signal::SIGINT).await;
}

#[tokio::test]
async fn a_restore_into_an_empty_database_is_killed() {
    restore_into_empty_is_struck(15, Signal::SIGKILL).await;
}

#[tokio::test]
async fn a_restore_through_psql_is_interrupted() {
    restore_into_empty_is_struck(16, Signal::SIGINT).await;
}

#[tokio::test]
async fn a_restore_through_psql_is_killed() {
    restore_into_empty_is_struck(16, Signal::SIGKILL).await;
}
