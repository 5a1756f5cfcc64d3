//! The program's memory does not grow with the database.

use std::time::Duration;

use backup_testkit::postgres::PostgresServer;

use crate::support::{Scratch, cases, target_file};

/// How far the peaks of a small and a large database may lie apart: two frames of zstd. How many of
/// its six are in memory at the same time depends on who waits for whom.
const TOLERANCE_KILOBYTES: u64 = 40_000;
/// Plain bytes of a row of the test's table, roughly.
const ROW_BYTES: u64 = 100;

/// Runs the program and gives the peak of its resident memory, in kilobytes.
pub async fn peak_of(scratch: &Scratch, arguments: &[&str]) -> u64 {
    let mut child = scratch.start(arguments);
    let status = format!("/proc/{}/status", child.id().unwrap());
    let mut peak = 0;
    loop {
        // The kernel keeps the high-water mark; only what rises in the last moment is missed.
        if let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            peak = number.and_then(|n| n.parse().ok()).unwrap_or(peak);
        }
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{arguments:?}: {ended}");
            return peak;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn fill(server: &PostgresServer, database: &str, megabytes: u64) {
    server.sql("postgres", &format!("create database {database}")).await.unwrap();
    let rows = megabytes * 1_000_000 / ROW_BYTES;
    let sql = format!(
        "create unlogged table t as select n, md5(n::text) a, md5((n / 3)::text) b, repeat('x', 22) c \
         from generate_series(1, {rows}) n"
    );
    server.sql(database, &sql).await.unwrap();
}

#[tokio::test]
async fn the_peak_does_not_depend_on_the_size() {
    let large = cases(400, 2000) as u64;
    let server = PostgresServer::start(15).await.unwrap();
    let mut peaks = Vec::new();
    for (database, megabytes) in [("small", 100), ("large", large)] {
        fill(&server, database, megabytes).await;
        let scratch = Scratch::of(&server, database);
        let backup = peak_of(&scratch, &["backup", "-q"]).await;
        let verify = peak_of(&scratch, &["verify", "-q"]).await;
        let to = target_file(&scratch, &server, &format!("{database}_back"));
        let restore = peak_of(&scratch, &["restore", "latest", "-q", "--to", &to]).await;
        println!("{megabytes} MB: backup {backup} kB, verify {verify} kB, restore {restore} kB");
        peaks.push([backup, verify, restore]);
        server.sql("postgres", &format!("drop database {database}")).await.unwrap();
        server.sql("postgres", &format!("drop database {database}_back")).await.unwrap();
    }
    for (verb, (small, large)) in
        ["backup", "verify", "restore"].iter().zip(peaks[0].iter().zip(&peaks[1]))
    {
        assert!(small.abs_diff(*large) < TOLERANCE_KILOBYTES, "{verb}: {small} kB and {large} kB");
    }
}
