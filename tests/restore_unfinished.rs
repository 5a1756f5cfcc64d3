//! What a restore that was killed leaves, and who puts it right: the hooks that it did not come
//! to, the database that it was filling.

use backup_testkit::postgres::PostgresServer;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::{Duration, Instant, sleep};

use crate::support::{Finished, finish_started, target_file};
use crate::swap::Stage;

/// How long a run may take to come to a step.
const STEP_LIMIT: Duration = Duration::from_secs(60);

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < STEP_LIMIT, "it does not come");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn killed(child: Child) -> Finished {
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGKILL).unwrap();
    finish_started(child).await
}

/// Kills a restore while a hook runs, which does its work only the next time.
async fn killed_during(stage: &Stage, hook: &str, work: &str) {
    stage.hook(hook, &format!("test -e slept || {{ touch slept; exec sleep 3; }}; {work}"));
    let child = stage.scratch.start(&["restore", "latest"]);
    until(async || stage.scratch.path("slept").exists()).await;
    killed(child).await.expect(137);
    stage.order();
}

/// Whoever waits for `after` (an alert to be switched on again, say) is not forgotten.
#[tokio::test]
async fn the_hooks_that_a_killed_run_did_not_come_to_run_with_the_recovery() {
    let migrate =
        "psql -X -q -v ON_ERROR_STOP=1 -d \"$DATABASE_URL\" -c 'CREATE TABLE migrated (n int)'";
    for (hook, work, command, code, order) in [
        ("migrate", migrate, "--rollback", 0, "start on_failure after"),
        ("migrate", migrate, "--continue", 1, "start on_failure after"),
        ("start", "touch running", "--rollback", 0, "stop start on_failure after"),
        ("start", "touch running", "--continue", 0, "start after"),
    ] {
        let stage = Stage::new(15, 50).await;
        killed_during(&stage, hook, work).await;
        stage.restore(&[command, "--dry-run"]).await.expect(0);
        assert_eq!(stage.order(), "");
        stage.restore(&[command]).await.expect(code);
        assert_eq!(stage.order(), order, "killed during {hook}, {command}");
        // Once only.
        stage.restore(&[command]).await;
        let again = stage.order();
        assert!(!again.contains("after"), "{hook}, {command}, again: {again}");
    }
}

/// The name and the comment of the database that is being filled.
async fn working(server: &PostgresServer) -> Option<(String, String)> {
    let sql = "SELECT datname || ' ' || coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
               WHERE datname LIKE 'marb\\_restoring\\_%'";
    let found = server.sql("postgres", sql).await.unwrap();
    let (name, comment) = found.split_once(' ')?;
    Some((name.to_owned(), comment.to_owned()))
}

/// Starts something that fills a database, and kills it as soon as rows may be coming.
async fn killed_while_filling(server: &PostgresServer, child: Child) -> (String, String) {
    let filling =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname LIKE 'marb\\_restoring\\_%'";
    until(async || server.sql("postgres", filling).await.unwrap() == "t").await;
    killed(child).await.expect(137);
    until(async || server.sql("postgres", filling).await.unwrap() == "f").await;
    working(server).await.expect("nothing was being filled")
}

#[tokio::test]
async fn what_a_killed_restore_was_filling_goes_with_a_cleanup() {
    let stage = Stage::new(15, 60_000).await;
    let child = stage.scratch.start(&["restore", "latest"]);
    let (name, comment) = killed_while_filling(&stage.server, child).await;
    assert!(comment.contains(r#""kind":"swap","live":"claims","run":"2"#), "{comment}");
    stage.restore(&["--rollback"]).await.expect(0);

    // It may be that of a run on another host.
    let doctor = stage.scratch.run(&["doctor"]).await;
    let named = doctor.stdout.lines().any(|line| line.contains(&name) && line.contains("claims"));
    assert!(named, "{doctor:#?}");
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(kept.stdout.contains(&name) && kept.stdout.contains("it goes after"), "{kept:#?}");
    let long_ago = Timestamp::now() - SignedDuration::from_hours(25);
    stage.date_marks("started", long_ago).await;
    let preview = stage.restore(&["--cleanup", "--dry-run"]).await.expect(0);
    assert!(preview.stdout.contains("would be dropped"), "{preview:#?}");
    // As long as somebody is in it, it stays.
    let (server, inside) = (&stage.server, name.clone());
    let connected = async {
        let _ = server.sql(&inside, "SELECT pg_sleep(60)").await;
    };
    let looking = async {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
        until(async || server.sql("postgres", &sql).await.unwrap() == "1").await;
        let used = stage.restore(&["--cleanup"]).await.expect(0);
        assert!(used.stdout.contains("somebody is connected"), "{used:#?}");
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        server.sql("postgres", &end).await.unwrap();
    };
    tokio::join!(connected, looking);
    stage.restore(&["--cleanup"]).await.expect(0);
    stage.assert_old("").await;
}

/// A comment that somebody else wrote, or that came along with a copy, is no mark.
#[tokio::test]
async fn what_carries_no_mark_of_its_own_stays() {
    let stage = Stage::new(15, 60_000).await;
    let child = stage.scratch.start(&["restore", "latest"]);
    let (name, comment) = killed_while_filling(&stage.server, child).await;
    let comment = comment.replace('\'', "''");
    let copy = format!(
        "CREATE DATABASE marb_restoring_zcopy TEMPLATE \"{name}\"; COMMENT ON DATABASE marb_restoring_zcopy IS '{comment}'; \
         CREATE DATABASE marb_restoring_zmine"
    );
    for sql in copy.split("; ") {
        stage.server.sql("postgres", sql).await.unwrap();
    }
    stage.date_marks("started", Timestamp::now() - SignedDuration::from_hours(100)).await;
    let cleaned = stage.restore(&["--cleanup", "--json"]).await.expect(0).json();
    let outcomes: Vec<String> = cleaned["databases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!("{} {}", one["database"].as_str().unwrap(), one["outcome"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        outcomes[1..],
        ["marb_restoring_zcopy kept", "marb_restoring_zmine kept"],
        "{cleaned:#}"
    );
    assert_eq!(outcomes[0], format!("{name} dropped"));
}

#[tokio::test]
async fn what_a_killed_drill_was_filling_goes_with_the_next() {
    let stage = Stage::new(15, 60_000).await;
    let staging = PostgresServer::start(15).await.unwrap();
    let target = target_file(&stage.scratch, &staging, "postgres");
    stage.scratch.edit_config(
        "[restore]",
        &format!(
            "[drill]\nserver = {{ url = {{ file = '{}' }} }}\n[restore]",
            &target["file:".len()..]
        ),
    );
    let child = stage.scratch.start(&["drill"]);
    let (name, comment) = killed_while_filling(&staging, child).await;
    assert!(comment.contains(r#""kind":"drill","live":"marb_drill_2"#), "{comment}");
    let doctor = stage.scratch.run(&["doctor"]).await;
    assert!(doctor.stdout.contains(&name), "{doctor:#?}");
    let drill = stage.scratch.run(&["drill"]).await.expect(0);
    assert!(drill.stderr.contains("it goes after"), "{drill:#?}");
    let dated = format!(
        "COMMENT ON DATABASE {name} IS '{}'",
        comment.replace(
            &comment[comment.find(r#""started":"#).unwrap()..],
            r#""started":"2026-01-01T00:00:00Z"}"#
        )
    );
    staging.sql("postgres", &dated).await.unwrap();
    let drill = stage.scratch.run(&["drill"]).await.expect(0);
    assert!(drill.stderr.contains(&format!("dropped {name}")), "{drill:#?}");
    assert_eq!(working(&staging).await, None);
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'marb%'";
    assert_eq!(staging.sql("postgres", left).await.unwrap(), "0");
}
