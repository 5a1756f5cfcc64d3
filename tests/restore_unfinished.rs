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

/// The services do not wait for a restore that begins after a killed one, nor stand still when it
/// fails, and a cleanup tells of them.
#[tokio::test]
async fn what_a_killed_run_had_stopped_is_started_by_the_next() {
    let stage = Stage::new(15, 50).await;
    killed_during(&stage, "stop", "rm -f running").await;
    std::fs::remove_file(stage.scratch.path("running")).unwrap();
    let cleaned = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(cleaned.stderr.contains("the services may stand still"), "{cleaned:#?}");
    stage.hook("migrate", "test -e running && exit 1");
    let failed = stage.restore(&["latest"]).await.expect(1);
    // Not the advice of a rollback, which would undo what this run is about to do.
    assert!(failed.stderr.contains("starting what it may have stopped"), "{failed:#?}");
    assert!(!failed.stderr.contains("stand still"), "{failed:#?}");
    assert_eq!(stage.order(), "start before migrate on_failure after");
    stage.assert_old("claims_restoring").await;
    let told = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(!told.stderr.contains("stand still"), "{told:#?}");
}

/// What can't be started is owed by the run that tried, which says so.
#[tokio::test]
async fn services_that_could_not_be_started_stay_owed() {
    let stage = Stage::new(15, 50).await;
    killed_during(&stage, "stop", "rm -f running").await;
    std::fs::remove_file(stage.scratch.path("running")).unwrap();
    stage.hook("start", "test -e startable && touch running");
    stage.hook("migrate", "exit 1");
    let failed = stage.restore(&["latest"]).await.expect(1);
    let told = "the services may stand still: `marb-backup restore --rollback` starts them";
    assert!(failed.stderr.contains(told), "{failed:#?}");
    assert_eq!(stage.order(), "start before migrate on_failure after start");
    // One that does not begin owes nothing itself, and says who does.
    let refused = stage.restore(&["20200101T000000Z"]).await;
    assert!(refused.code != 0 && !stage.is_running(), "{refused:#?}");
    stage.scratch.write("startable", "");
    stage.restore(&["--rollback"]).await.expect(0);
    assert!(stage.is_running());
    stage.assert_old("claims_restoring").await;
}

/// The name and the comment of the database that is being filled.
async fn working(server: &PostgresServer) -> Option<(String, String)> {
    let sql = "SELECT datname || ' ' || coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
               WHERE datname LIKE 'marb\\_restoring\\_%'";
    let found = server.sql("postgres", sql).await.unwrap();
    let (name, comment) = found.split_once(' ').unwrap_or((&found, ""));
    (!name.is_empty()).then(|| (name.to_owned(), comment.to_owned()))
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

/// Kills this program and its clients while the server makes the database: it comes into being
/// when nobody is there to mark it.
async fn killed_while_making(stage: &Stage) {
    // CREATE DATABASE waits for its template.
    let hold = "BEGIN; COMMENT ON DATABASE template0 IS 'held'; SELECT pg_sleep(120)";
    let asked = async |condition: &str| {
        let sql = format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE {condition}");
        stage.server.sql("postgres", &sql).await.unwrap() == "t"
    };
    let killing = async {
        until(async || asked("wait_event = 'PgSleep'").await).await;
        let child = stage.scratch.start(&["restore", "latest"]);
        let waits = "wait_event_type = 'Lock' AND query LIKE 'CREATE DATABASE%'";
        until(async || asked(waits).await).await;
        for process in stage.scratch.processes() {
            process.signal(Signal::SIGKILL);
        }
        finish_started(child).await.expect(137);
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        stage.server.sql("postgres", end).await.unwrap();
        until(async || !asked("query LIKE 'CREATE DATABASE%' AND pid <> pg_backend_pid()").await)
            .await;
    };
    let _ = tokio::join!(stage.server.sql("postgres", hold), killing);
}

/// Nobody ever was in it, and its name tells its age: it goes like a marked one.
#[tokio::test]
async fn what_is_killed_before_it_could_be_marked_is_known_all_the_same() {
    let stage = Stage::new(15, 50).await;
    killed_while_making(&stage).await;
    let (name, comment) = working(&stage.server).await.expect("nothing was made");
    assert_eq!(comment, "", "it was marked: nothing was tried");
    let closed = format!("SELECT datallowconn FROM pg_database WHERE datname = '{name}'");
    assert_eq!(stage.server.sql("postgres", &closed).await.unwrap(), "f");
    let doctor = stage.scratch.run(&["doctor"]).await;
    assert!(doctor.stdout.contains(&format!("{name} is empty")), "{doctor:#?}");
    stage.restore(&["--rollback"]).await.expect(0);
    stage.restore(&["latest"]).await.expect(0);
    stage.restore(&["--rollback"]).await.expect(0);
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    let said = kept.stdout.lines().find(|line| line.starts_with(&name));
    assert!(said.is_some_and(|line| line.contains("it goes after")), "{kept:#?}");

    // A day later. Others that are called so, closed, open or commented, are nobody's.
    let like = |digit| format!("marb_restoring_1_170000000000000{digit}");
    let old = like('a');
    for sql in [
        format!("ALTER DATABASE {name} RENAME TO {old}"),
        format!("CREATE DATABASE {}", like('b')),
        "CREATE DATABASE marb_restoring_zmine ALLOW_CONNECTIONS false".to_owned(),
        format!("CREATE DATABASE {} ALLOW_CONNECTIONS false", like('c')),
        format!("COMMENT ON DATABASE {} IS 'mine'", like('c')),
    ] {
        stage.server.sql("postgres", &sql).await.unwrap();
    }
    let cleaned = stage.restore(&["--cleanup"]).await.expect(0);
    for line in cleaned.stdout.lines().filter(|line| line.starts_with("marb_restoring_")) {
        let ours = line.split_whitespace().next() == Some(&old);
        let said = if ours { "dropped" } else { "kept: it carries no mark of ours" };
        assert!(line.contains(said), "{cleaned:#?}");
    }
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'marb\\_restoring\\_%'";
    assert_eq!(stage.server.sql("postgres", left).await.unwrap(), "3");
    assert_eq!(stage.live().await, stage.old);
}

/// From the moment in which a new database can be seen beside the live one it carries its mark.
#[tokio::test]
async fn what_is_killed_as_it_gets_its_name_is_marked() {
    let stage = Stage::new(15, 50).await;
    let watch = "CREATE FUNCTION pg_temp.first_sight() RETURNS text LANGUAGE plpgsql AS $$
        DECLARE seen text; BEGIN
            LOOP
                SELECT datname || ' ' || coalesce(shobj_description(oid, 'pg_database'), '') INTO seen
                    FROM pg_database WHERE datname LIKE 'claims\\_restoring\\_%';
                IF found THEN RETURN seen; END IF;
                PERFORM pg_sleep(0.0005);
            END LOOP;
        END $$; SELECT pg_temp.first_sight()";
    let watching = async { stage.server.sql("postgres", watch).await.unwrap() };
    let mut child = stage.scratch.start(&["restore", "latest"]);
    let seen = tokio::select! {
        seen = watching => seen,
        ended = child.wait() => panic!("{ended:?}"),
    };
    killed(child).await.expect(137);
    let (name, mark) = seen.split_once(' ').unwrap_or((&seen, ""));
    assert!(mark.starts_with("marb-backup swap {\"phase\":\"restored\""), "{name}: {mark:?}");
    stage.restore(&["--rollback"]).await.expect(0);
    stage.assert_old("claims_restoring").await;
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(kept.stdout.contains(name) && kept.stdout.contains("it is kept until"), "{kept:#?}");
    // Without the mark it is named, and stays.
    let comment = |text: &str| format!("COMMENT ON DATABASE {name} IS {text}");
    stage.server.sql("postgres", &comment("NULL")).await.unwrap();
    let named = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(named.stdout.contains("carries no mark of one"), "{named:#?}");
    stage.assert_old("claims_restoring").await;
    stage.server.sql("postgres", &comment(&format!("'{mark}'"))).await.unwrap();
    stage.date_marks("started", Timestamp::now() - SignedDuration::from_hours(25)).await;
    stage.restore(&["--cleanup"]).await.expect(0);
    stage.assert_old("").await;
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
