//! Every step of a swap failing by itself: the old database is live, the services run, and the
//! message says what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use backup_cli::config::{Config, Environment};
use backup_cli::{Deployment, RestoreFrom, RestoreOptions, SwapOptions, SwapReport, SwapTarget};
use backup_core::Query;
use backup_core::pipeline::{Context, Event, Progress};
use tokio::process::Command;
use tokio::time::{Duration, sleep};

use crate::support::{CLAIMS, Finished};
use crate::swap::Stage;

/// Rows: the steps matter, not the data.
const ROWS: u32 = 100;

/// Restores, expects a failure with this message, and that nothing has changed.
async fn fails(stage: &Stage, message: &str, order: &str, others: &str) -> Finished {
    let run = stage.restore(&["latest"]).await.expect(1);
    assert!(run.stderr.contains(message), "no {message:?}: {run:#?}");
    assert_eq!(stage.order(), order, "{run:#?}");
    stage.assert_old(others).await;
    run
}

#[tokio::test]
async fn what_fails_before_the_swap_stops_nothing() {
    let stage = Stage::new(15, ROWS).await;
    stage.hook("before", "echo 'the queue is not empty' >&2; exit 4");
    let order = "before on_failure after";
    let run = fails(&stage, "before (./before) ended with exit status: 4", order, "").await;
    assert!(run.stderr.contains("the queue is not empty"));
    stage.hook("before", "true");

    stage.scratch.edit_config("count(*) > 0 from claims", "count(*) > 5000 from claims");
    fails(&stage, "does not hold: it gave false", "before on_failure after", "").await;
    stage
        .scratch
        .edit_config("select count(*) > 5000 from claims", "delete from claims returning true");
    fails(&stage, "read-only transaction", "before on_failure after", "").await;
    stage
        .scratch
        .edit_config("delete from claims returning true", "select count(*) > 0 from claims");

    // It fails half-way, in its own database.
    stage.hook(
        "migrate",
        "psql -X -q -d \"$DATABASE_URL\" -c 'DROP TABLE claims'; echo $DATABASE_URL; exit 1",
    );
    let run =
        fails(&stage, "migrate (./migrate) ended with", "before migrate on_failure after", "")
            .await;
    let url = stage.server.url("x");
    let password = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    assert!(!run.stderr.contains(password), "{run:#?}");

    // On request it can be looked at.
    stage.restore(&["latest", "--keep-failed"]).await.expect(1);
    assert_eq!(stage.others().await, "claims_restoring");
    stage.order();
    let rolled = stage.restore(&["--rollback"]).await.expect(0);
    assert!(rolled.stdout.contains("left nothing to undo"), "{rolled:#?}");
    // It may be that of a run on another host, so that it is not dropped the same day.
    let cleaned = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(cleaned.stdout.contains("kept: it is kept until"), "{cleaned:#?}");
    stage.assert_old("claims_restoring").await;
}

#[tokio::test]
async fn a_service_that_will_not_stop() {
    let stage = Stage::new(15, ROWS).await;
    stage.hook("stop", "rm -f running; exit 1");
    let order = "before migrate stop start on_failure after";
    fails(&stage, "stop (./stop) ended with", order, "").await;
    // It hangs, and what it started does, too.
    stage.scratch.edit_config("hook_timeout = '20s'", "hook_timeout = '2s'");
    stage.hook("stop", "rm -f running; trap '' TERM; sleep 300 & while :; do sleep 1; done");
    fails(&stage, "did not end within 2 s", order, "").await;
    stage.scratch.assert_no_process_left();
}

#[tokio::test]
async fn an_application_that_is_sick_with_the_new_database() {
    let stage = Stage::new(15, ROWS).await;
    // It can't be started with the new schema.
    stage.hook("start", "test -e tried && touch running && exit 0; touch tried; exit 1");
    let order = "before migrate stop start stop start on_failure after";
    fails(&stage, "start (./start) ended with", order, "claims_failed").await;

    // It starts, writes, and is not healthy. The old one is.
    let write =
        "psql -X -q -d \"$TEST_DATABASE_URL\" -c \"INSERT INTO payers VALUES (55, 'window')\"";
    stage.hook("start", &format!("touch running; if test -e tried; then rm tried sick; else touch tried sick; {write}; fi"));
    stage.scratch.edit_config("timeout = '5s'", "timeout = '1s'");
    std::fs::remove_file(stage.scratch.path("tried")).unwrap();
    let run = fails(
        &stage,
        "did not answer 2xx within 1 s: it answered 503",
        order,
        "claims_failed claims_failed",
    )
    .await;
    for said in [
        "the old database is back as claims",
        "as claims_failed_",
        "it alone holds what was written from 20",
    ] {
        assert!(run.stderr.contains(said), "no {said:?}: {run:#?}");
    }
    let name = "SELECT datname FROM pg_database WHERE datname LIKE 'claims_failed%' ORDER BY 1 DESC LIMIT 1";
    let name = stage.server.sql("postgres", name).await.unwrap();
    stage
        .server
        .sql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        .await
        .unwrap();
    let written = stage.server.sql(&name, "SELECT name FROM payers WHERE id = 55").await.unwrap();
    assert_eq!(written, "window");
}

/// A hook that fails at the very end is told, and changes nothing.
#[tokio::test]
async fn a_failing_after_is_a_warning() {
    let stage = Stage::new(15, ROWS).await;
    stage.hook("after", "exit 1");
    let run = stage.restore(&["latest"]).await.expect(0);
    assert!(run.stderr.contains("warning: hook: after (./after) ended with"), "{run:#?}");
    assert_eq!(stage.live().await, stage.new);
}

/// A session that connects again without pause, the superuser's, keeps nobody from swapping.
#[tokio::test]
async fn sessions_that_reconnect_without_pause() {
    let stage = Stage::new(15, ROWS).await;
    let url = stage.server.url(CLAIMS);
    let stubborn = async || loop {
        let mut session = Command::new("psql");
        session.args(["-X", "-q", "-c", "SELECT pg_sleep(0.2)", "-d", &url]).kill_on_drop(true);
        session.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let _ = session.status().await;
    };
    let restores = async {
        sleep(Duration::from_millis(300)).await;
        stage.restore(&["latest"]).await.expect(0);
        assert_eq!(stage.live().await, stage.new);
        stage.restore(&["--rollback"]).await.expect(0);
        assert_eq!(stage.live().await, stage.old);
    };
    tokio::select! {
        () = restores => {}
        ((), (), (), ()) = async { tokio::join!(stubborn(), stubborn(), stubborn(), stubborn()) } => {}
    }
}

/// Two restores at once: one of them is done, the other one says why not.
#[tokio::test]
async fn two_restores_at_once() {
    let stage = Stage::new(15, ROWS).await;
    // Of one host, and of two: without the lock in the state folder.
    for flags in [["latest", "-q"], ["latest", "-v"]] {
        let mut second = stage.scratch.command(&[&["restore"], &flags[..]].concat());
        if flags[1] == "-v" {
            let config = std::fs::read_to_string(stage.scratch.path("marb-backup.toml")).unwrap();
            let other = config.replace("/state'", "/state2'");
            assert_ne!(config, other);
            stage.scratch.write("other.toml", &other);
            second.args(["--config", "other.toml"]);
        }
        let (first, second) = tokio::join!(stage.restore(&flags), crate::support::finish(second));
        let mut codes = [first.code, second.code];
        codes.sort_unstable();
        let fine = matches!(codes, [0, 1 | 6 | 7] | [0, 0]);
        assert!(fine, "{first:#?}\n{second:#?}");
        assert!(flags[1] == "-v" || codes == [0, 7], "{first:#?}\n{second:#?}");
        assert_eq!(stage.live().await, stage.new);
        assert!(stage.is_running());
    }
}

/// A terminal that went away: its hangup undoes, and nobody there to read is no reason to stop
/// half-way.
#[tokio::test]
async fn nobody_listens_any_more() {
    let stage = Stage::new(15, ROWS).await;
    let mut child = stage.scratch.start(&["restore", "latest", "-v"]);
    drop((child.stderr.take(), child.stdout.take()));
    assert!(child.wait().await.unwrap().success());
    assert_eq!(stage.order(), "before migrate stop start after");
    assert_eq!(stage.live().await, stage.new);
    stage.restore(&["--rollback"]).await.expect(0);
    stage.order();

    stage.hook("stop", "rm -f running; touch stopping; sleep 30");
    let mut child = stage.scratch.start(&["restore", "latest"]);
    while !stage.scratch.path("stopping").exists() {
        sleep(Duration::from_millis(5)).await;
    }
    drop((child.stderr.take(), child.stdout.take()));
    let id = nix::unistd::Pid::from_raw(child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(129));
    stage.assert_old("claims_failed").await;
    assert_eq!(stage.order(), "before migrate stop start on_failure after");
}

/// What would fail in the night shows by day.
#[tokio::test]
async fn doctor_looks_at_what_a_restore_needs() {
    let stage = Stage::new(15, 10).await;
    let doctor = async || stage.scratch.run(&["doctor"]).await;
    let well = doctor().await.expect(0).stdout;
    for said in
        ["hook stop (./stop): can be run", "answers 2xx", "postgres may restore beside and swap"]
    {
        assert!(well.contains(said), "no {said:?}: {well}");
    }
    stage.scratch.write("start", "#!/bin/sh\n");
    let bad = doctor().await.expect(1).stdout;
    assert!(bad.contains("./start is not here, or is not executable"), "{bad}");
    stage.hook("start", "touch running");

    stage.scratch.write("sick", "");
    let sick = doctor().await.expect(0).stdout;
    assert!(sick.contains("it answered 503"), "{sick}");
    std::fs::remove_file(stage.scratch.path("sick")).unwrap();

    // Of sudo the real one, where there is one; this user may do all, or is told.
    stage.scratch.edit_config("[['./stop']]", "[['sudo', 'systemctl', 'stop', 'x']]");
    let sudo = doctor().await.stdout;
    let has_sudo = std::path::Path::new("/usr/bin/sudo").exists();
    let said = if has_sudo { "sudo" } else { "sudo is not here" };
    assert!(sudo.contains(said) && !sudo.contains("(sudo systemctl stop x): may be run"), "{sudo}");
    stage.scratch.edit_config("[['sudo', 'systemctl', 'stop', 'x']]", "[['./stop']]");

    // A role that may not; and a swap that was never finished.
    stage.server.sql("postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'").await.unwrap();
    let url = stage.server.url_of("weak", "weak", "postgres");
    stage.scratch.edit_config("hook_timeout", &format!("admin_url = '{url}'\nhook_timeout"));
    let weak = doctor().await.expect(0).stdout;
    assert!(weak.contains("weak may not make databases (CREATEDB), rename the live one"), "{weak}");
    let unreachable = url.replace("/postgres", "/nowhere");
    stage.scratch.edit_config(&url, &unreachable);
    assert!(doctor().await.expect(1).stdout.contains("nowhere"));
}

/// Neither the log at its loudest nor any argument of a process shows the password that a
/// migration gets.
#[tokio::test]
async fn the_password_of_the_database_stays_secret() {
    let stage = Stage::new(15, 10).await;
    let migrate = "ps -o args -p $PPID > seen; ps -o args --ppid $PPID >> seen; env >&2; echo \"$DATABASE_URL\"; echo \"$TEST_DATABASE_URL\"";
    let script = std::fs::read_to_string(stage.scratch.path("migrate")).unwrap();
    let work: String = script.lines().skip(2).collect();
    // Given by the environment, so that psql's own argument does not show it.
    let quiet = work
        .replace("-d \"$DATABASE_URL\"", "-d \"$(echo \"$DATABASE_URL\" | sed 's/:[^:@]*@/@/')\"");
    stage.hook("migrate", &format!("{migrate}\nPGPASSWORD=$(sed -n 1p password) {quiet}"));
    stage.scratch.write("password", backup_testkit::postgres::PASSWORD);
    let run = stage.restore(&["latest", "-vv"]).await.expect(0);
    let seen = std::fs::read_to_string(stage.scratch.path("seen")).unwrap();
    let url = stage.server.url("x");
    let encoded = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    for text in [&run.stderr, &run.stdout, &seen] {
        assert!(!text.contains(encoded) && !text.contains(backup_testkit::postgres::PASSWORD));
    }
    assert!(run.stderr.contains("DATABASE_URL=***"), "the output is in the log");
    // Both variables lead to the new database: an application may read either.
    assert!(!run.stderr.contains("/claims\n"), "{}", run.stderr);
}

/// Whoever embeds the library hears a step and panics once, or stops waiting.
struct Ear {
    step: &'static str,
    panics: AtomicBool,
    heard: tokio::sync::Notify,
}

impl Progress for Ear {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Step { what } if what.starts_with(self.step)) {
            self.heard.notify_one();
            assert!(!self.panics.swap(false, Relaxed), "a bug of who listens");
        }
    }
}

fn ear(step: &'static str, panics: bool) -> Arc<Ear> {
    Arc::new(Ear { step, panics: AtomicBool::new(panics), heard: tokio::sync::Notify::new() })
}

/// The stage as an application that embeds the library has it.
fn embedded(stage: &Stage) -> Deployment {
    let command = stage.scratch.command(&[]);
    let given = command.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::read(&stage.scratch.path("marb-backup.toml")).unwrap();
    Deployment::new(config, Environment::new(given)).unwrap()
}

async fn swap(deployment: &Deployment, ear: Arc<Ear>) -> backup_core::Result<SwapReport> {
    let catalog = deployment.catalog(&Query::default()).await.unwrap();
    let target = SwapTarget::Job("database".to_owned());
    let url = deployment.database_of("database").unwrap().url.clone();
    let restore = RestoreOptions { globals: false, ..RestoreOptions::into_database(url) };
    let options = SwapOptions { target, restore, keep_failed: false };
    let from = RestoreFrom::Backup(catalog.find("latest").unwrap());
    deployment.restore_and_swap(from, &options, &Context::with_progress(ear), &|_| ()).await
}

#[tokio::test]
async fn a_panic_and_a_dropped_future_leave_no_service_stopped() {
    let stage = Stage::new(15, 10).await;
    let deployment = embedded(&stage);
    for step in ["migrate", "swapping the databases", "waiting for http"] {
        let error = swap(&deployment, ear(step, true)).await.unwrap_err();
        assert!(error.message().contains("broke off"), "{step}: {error}");
        let order = stage.order();
        assert!(order.ends_with("on_failure after"), "{step}: {order}: {error:?}");
        assert_eq!(stage.live().await, stage.old, "{step}");
        assert!(stage.is_running(), "{step}: {order}: {error:?}");
    }
    // Dropped with the services stopped: it goes on to its end.
    let ear = ear("swapping", false);
    tokio::select! {
        _ = swap(&deployment, Arc::clone(&ear)) => panic!("it was to be dropped"),
        () = ear.heard.notified() => {}
    }
    let started = std::time::Instant::now();
    while !stage.is_running() || stage.live().await != stage.new {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody starts the services");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stage.order(), "before migrate stop start");
}
