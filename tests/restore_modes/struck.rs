//! Signals at random moments: no half-done data can be seen, nothing runs on, nothing is left.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{CHANGES, Live, restore_without_backup};
use crate::support::{CLAIMS, Finished, cases, claims_digest, finish_started, seed, target_file};

/// Rows for a run that is long enough to be hit anywhere.
const ROWS: u32 = 40_000;

/// Starts a run and strikes at a random moment of what it usually takes.
async fn strike(
    live: &Live,
    arguments: &[&str],
    signal: Signal,
    usual: Duration,
    random: &mut StdRng,
) -> Finished {
    let mut command = live.command(arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    let after = usual.mul_f64(random.gen_range(0.0..1.0));
    tokio::time::sleep(after).await;
    kill(id, signal).unwrap();
    let run = finish_started(child).await;
    println!("{signal}: {after:.2?} of {usual:.2?}: {}", run.code);
    assert!(run.code == 0 || run.code == 128 + signal as i32, "{run:#?}");
    live.scratch.assert_no_process_left();
    // The files that carry a connection's secrets are small; the backup is not.
    assert!(live.bytes_left() < 4096, "{} bytes are left", live.bytes_left());
    run
}

async fn one_table_is_struck(signal: Signal) {
    let live = Live::new(ROWS).await;
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let restore = ["restore", "latest", "--to", &to, "--table", "claims"];
    live.sql("DROP TABLE claims").await;
    let started = Instant::now();
    live.run(&restore).await.expect(0);
    let usual = started.elapsed();
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..cases(5, 40) {
        live.sql("DROP TABLE IF EXISTS claims").await;
        let run = strike(&live, &restore, signal, usual, &mut random).await;
        if live.has_claims().await {
            assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
        } else {
            assert_ne!(run.code, 0, "{run:#?}");
        }
    }
    live.sql("DROP TABLE IF EXISTS claims").await;
    live.run(&restore).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
}

#[tokio::test]
async fn one_table_is_interrupted() {
    one_table_is_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn one_table_is_killed() {
    one_table_is_struck(Signal::SIGKILL).await;
}

async fn in_place_is_struck(signal: Signal) {
    let live = Live::new(ROWS).await;
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let restore = restore_without_backup("latest", &to);
    let started = Instant::now();
    live.run(&restore).await.expect(0);
    let usual = started.elapsed();
    live.sql(CHANGES).await;
    let changed = claims_digest(&live.server, CLAIMS).await;
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..cases(5, 40) {
        let run = strike(&live, &restore, signal, usual, &mut random).await;
        let now = claims_digest(&live.server, CLAIMS).await;
        if now == live.original {
            assert!(
                run.code == 0 || signal == Signal::SIGKILL || run.stderr.contains("committed"),
                "{run:#?}"
            );
            live.sql(CHANGES).await;
        } else {
            assert_eq!(now, changed, "a mixture");
            assert_ne!(run.code, 0, "{run:#?}");
        }
    }
    live.run(&restore).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
}

#[tokio::test]
async fn in_place_is_interrupted() {
    in_place_is_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn in_place_is_killed() {
    in_place_is_struck(Signal::SIGKILL).await;
}

async fn jobs_are_struck(signal: Signal) {
    let live = Live::new(ROWS).await;
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, "restored");
    let restore = ["restore", "latest", "--to", &to, "--jobs", "2"];
    let started = Instant::now();
    live.run(&restore).await.expect(0);
    let usual = started.elapsed();
    let drop = "DROP DATABASE IF EXISTS restored";
    let there = "SELECT count(*) FROM pg_database WHERE datname = 'restored'";
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..cases(5, 40) {
        live.server.sql("postgres", drop).await.unwrap();
        let run = strike(&live, &restore, signal, usual, &mut random).await;
        if live.server.sql("postgres", there).await.unwrap() == "1" {
            assert_eq!(claims_digest(&live.server, "restored").await, live.original);
        } else {
            assert_ne!(run.code, 0, "{run:#?}");
        }
    }
    live.server.sql("postgres", drop).await.unwrap();
    live.run(&restore).await.expect(0);
    assert_eq!(claims_digest(&live.server, "restored").await, live.original);
}

#[tokio::test]
async fn several_jobs_are_interrupted() {
    jobs_are_struck(Signal::SIGINT).await;
}

#[tokio::test]
async fn several_jobs_are_killed() {
    jobs_are_struck(Signal::SIGKILL).await;
}

/// Its jobs read from a file: nothing they do would tell them that this process is gone.
#[tokio::test]
async fn jobs_at_work_for_an_hour_end_with_the_run_that_is_killed() {
    let live = Live::new(100).await;
    let slow = "CREATE FUNCTION crawl(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
            IF pg_catalog.current_database() <> 'claims' AND pg_catalog.current_query() ~ 'CREATE INDEX'
            THEN PERFORM pg_catalog.pg_sleep(3600); END IF;
            RETURN i; END $$;
        CREATE INDEX crawls ON claims (crawl(id))";
    live.sql(slow).await;
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, "restored");
    let mut command = live.command(&["restore", "latest", "--to", &to, "--jobs", "2"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let crawling = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while live.server.sql("postgres", crawling).await.unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(finish_started(child).await.code, 128 + Signal::SIGKILL as i32);
    live.scratch.assert_no_process_left();
    assert_eq!(live.server.sql("postgres", crawling).await.unwrap(), "0", "the server goes on");
}
