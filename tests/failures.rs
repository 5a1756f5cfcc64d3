//! Backups that fail: the exit code is right, the message helps, nothing half-done is listed or
//! left, and the next run works.

mod disk;

use std::time::{Duration, Instant};

use backup_testkit::postgres::{Ending, SUPERUSER};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{
    CLAIMS, Finished, Scratch, cases, claims_server, finish_started, seed, while_locked,
};

/// Rows whose dump takes long enough to be hit in its midst.
const ROWS: u32 = 40_000;

/// How long pg_dump takes when nobody disturbs it.
async fn dump_time(scratch: &Scratch) -> Duration {
    let child = scratch.start(&["backup"]);
    scratch.wait_for_process("pg_dump").await;
    let started = Instant::now();
    while scratch.dumping().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = started.elapsed();
    finish_started(child).await.expect(0);
    took
}

/// Starts a backup and waits for a random moment of its dump.
async fn in_the_midst(
    scratch: &Scratch,
    dump: Duration,
    random: &mut StdRng,
) -> tokio::process::Child {
    let child = scratch.start(&["backup"]);
    scratch.wait_for_process("pg_dump").await;
    tokio::time::sleep(dump.mul_f64(random.gen_range(0.0..0.8))).await;
    child
}

#[tokio::test]
async fn a_killed_pg_dump_leaves_nothing() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let mut random = StdRng::seed_from_u64(seed());
    let dump = dump_time(&scratch).await;
    let wanted = cases(4, 20);
    let mut killed = 0;
    for attempt in 0..5 * wanted {
        let before = scratch.holdings().await;
        let child = in_the_midst(&scratch, dump, &mut random).await;
        let Some(victim) = scratch.dumping() else {
            // This machine was slower when the time was taken.
            finish_started(child).await.expect(0);
            continue;
        };
        victim.signal(Signal::SIGKILL);
        let run = finish_started(child).await;
        if run.code == 0 {
            println!("attempt {attempt}: it had ended, and was not waited for yet");
            continue;
        }
        run.expect(1).explains("pg_dump", "was ended by signal 9 before it was done");
        assert_eq!(scratch.holdings().await, before, "attempt {attempt}");
        scratch.assert_no_process_left();
        killed += 1;
        if killed == wanted {
            break;
        }
    }
    assert_eq!(killed, wanted, "pg_dump always ended first");
    scratch.assert_next_run_works().await;
}

async fn server_ends(how: Ending) {
    let mut server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let mut random = StdRng::seed_from_u64(seed());
    let dump = dump_time(&scratch).await;
    for case in 0..cases(2, 20) {
        let before = scratch.holdings().await;
        let child = in_the_midst(&scratch, dump, &mut random).await;
        server.end(how).await.unwrap();
        let run = finish_started(child).await;
        server.start_again().await.unwrap();
        if run.code == 0 {
            println!("case {case}: the dump had all its data before the server ended");
            scratch.run(&["verify", "latest"]).await.expect(0);
            continue;
        }
        explains_a_lost_server(run.expect(1));
        assert_eq!(scratch.holdings().await, before, "case {case}");
        scratch.assert_next_run_works().await;
    }
}

fn explains_a_lost_server(run: Finished) {
    let causes = [
        "the server was stopped, or an administrator ended the session",
        "the server crashed",
        "the server or the network broke the connection off",
        "no server answers at that address",
        "the server is not ready",
        "the server did not let pg_dumpall in",
    ];
    let cause = causes.iter().find(|cause| run.stderr.contains(**cause));
    let stages = ["pg_dump", "pg_dumpall", "psql"];
    let stage = stages.iter().find(|stage| run.stderr.contains(&format!("error: {stage}: ")));
    let (Some(cause), Some(stage)) = (cause, stage) else { panic!("{run:#?}") };
    run.explains(stage, cause);
}

#[tokio::test]
async fn a_server_stopped_in_mid_dump_fails_the_run() {
    server_ends(Ending::Stop).await;
}

#[tokio::test]
async fn a_server_crashed_in_mid_dump_fails_the_run() {
    server_ends(Ending::Crash).await;
}

#[tokio::test]
async fn a_connection_that_cannot_work_is_explained() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let before = scratch.holdings().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (server.url_of(SUPERUSER, "guessed", CLAIMS), "the server refused the password"),
        (server.url_of("nobody", "guessed", CLAIMS), "the server refused the password"),
        (server.url("clains"), "database \"clains\" does not exist"),
        (format!("postgresql://postgres@{nobody}/claims"), "no server answers at that address"),
        (format!("{}?sslmode=require", server.url(CLAIMS)), "the connection demands TLS"),
        (
            "postgresql://postgres@no-such-host.invalid/claims".to_owned(),
            "could not translate host name",
        ),
    ];
    for (url, cause) in cases {
        scratch.write("url", &url);
        scratch.run(&["backup"]).await.expect(1).explains("psql", cause);
        assert_eq!(scratch.holdings().await, before, "{cause}");
    }
    scratch.write("url", &server.url(CLAIMS));
    scratch.assert_next_run_works().await;
}

/// Sets something of the job's `postgres`.
fn set_postgres(scratch: &Scratch, setting: &str) {
    let url = "{ env = 'TEST_DATABASE_URL' }";
    scratch.edit_config(url, &format!("{url}, {setting}"));
}

#[tokio::test]
async fn a_locked_table_does_not_hold_the_dump_for_ever() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    set_postgres(&scratch, "lock_wait_timeout = '1s'");
    let run = while_locked(&server, async {
        let started = Instant::now();
        let run = scratch.run(&["backup"]).await;
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        run
    });
    let run = run.await;
    run.expect(1).explains("pg_dump", "another session kept a table locked for too long");
    assert_eq!(scratch.stored_files(), Vec::<std::path::PathBuf>::new());
    scratch.assert_next_run_works().await;
}

/// What the configuration names and is not there: nothing is written, and the message says which.
#[tokio::test]
async fn what_the_config_names_wrongly_is_explained() {
    let server = claims_server(15, 10).await;
    let cases = [
        ("schemas = ['publik']", 2, "pg_dump", "no matching schemas were found"),
        ("tables = ['public.clains']", 2, "pg_dump", "no matching tables were found"),
        ("tables = ['claims', 'clains']", 2, "pg_dump", "no matching tables were found"),
    ];
    for (setting, code, stage, cause) in cases {
        let scratch = Scratch::of(&server, CLAIMS);
        set_postgres(&scratch, setting);
        scratch.run(&["backup"]).await.expect(code).explains(stage, cause);
        assert_eq!(scratch.stored_files(), Vec::<std::path::PathBuf>::new(), "{setting}");
        scratch.edit_config(&format!(", {setting}"), "");
        scratch.assert_next_run_works().await;
    }
}

#[tokio::test]
async fn missing_client_tools_are_named() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let wrong = "postgres_bin_dir = '/nonexistent/bin'\nstate_dir";
    scratch.edit_config("state_dir", wrong);
    let run = scratch.run(&["backup"]).await;
    run.expect(6).explains("client tools", "/nonexistent/bin: pg_dump is missing");
    assert_eq!(scratch.stored_files(), Vec::<std::path::PathBuf>::new());
    scratch.edit_config(wrong, "state_dir");
    scratch.assert_next_run_works().await;
}

#[tokio::test]
async fn a_storage_whose_disk_is_not_mounted_is_not_made_up() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.edit_config("/backups'", "/mnt/backups'");
    let run = scratch.run(&["backup"]).await;
    run.expect(1).explains("storage local", "mnt");
    assert!(!scratch.path("mnt").exists(), "a folder was made where a disk should be mounted");
    std::fs::create_dir(scratch.path("mnt")).unwrap();
    scratch.assert_next_run_works().await;
}
