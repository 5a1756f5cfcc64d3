//! Every step of a swap failing by itself: the old database is live, the services run, and the
//! message says what happened.

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
    stage.restore(&["--cleanup"]).await.expect(0);
    stage.assert_old("").await;
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
