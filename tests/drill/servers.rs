//! Drills on a server that the user names: a new database, and nothing else is touched.

use backup_testkit::postgres::{PostgresServer, majors};

use super::{Drilled, database, start, table};
use crate::support::target_file;

const OWNED: &str = "
    CREATE ROLE clerk; CREATE ROLE reader;
    CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 50);
    ALTER TABLE t OWNER TO clerk; GRANT SELECT ON t TO reader";

/// Everything that a drill could leave on a server.
async fn holdings(server: &PostgresServer) -> String {
    let sql = "SELECT string_agg(name, ',' ORDER BY name) FROM (
        SELECT 'database ' || datname AS name FROM pg_database
        UNION ALL SELECT 'role ' || rolname FROM pg_roles) s";
    server.sql("postgres", sql).await.unwrap()
}

#[tokio::test]
async fn the_server_that_was_backed_up_is_refused() {
    let server = start().await;
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    drilled.backup().await;
    let before = holdings(&server).await;
    let target = target_file(&drilled.scratch, &server, "postgres");
    let refused = drilled.scratch.run(&["drill", "--server", &target]).await.expect(6);
    refused.explains("drill", "is the server that was backed up");
    assert_eq!(holdings(&server).await, before);
    assert!(drilled.proofs().iter().all(Vec::is_empty));

    let meant = drilled.drill(&["--server", &target, "--same-server"]).await.expect(0).json();
    assert_eq!(table(&meant, "t")["content"], "equal");
    assert_eq!(holdings(&server).await, before);

    // A login that can't tell is no proof of another server.
    let weak = "CREATE ROLE weak LOGIN CREATEDB PASSWORD 'weak'; \
                REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC";
    server.sql("postgres", weak).await.unwrap();
    let url = format!("postgresql://weak:weak@{}:{}/postgres", server.host(), server.port());
    drilled.scratch.write("weak", &url);
    let weak = format!("file:{}", drilled.scratch.path("weak").display());
    let refused = drilled.scratch.run(&["drill", "--server", &weak]).await.expect(6);
    refused.explains("drill", "it can't be told whether");
}

#[tokio::test]
async fn another_server_gets_roles_only_when_told_and_keeps_nothing_else() {
    let (server, staging) = (start().await, start().await);
    database(&server, "claims", OWNED).await;
    staging.sql("postgres", "CREATE DATABASE claims").await.unwrap();
    staging.sql("claims", "CREATE TABLE mine (i int)").await.unwrap();
    let drilled = Drilled::of(&server, "claims");
    drilled.configure("server = { url = { env = 'STAGING' } }");
    drilled.backup().await;
    let before = holdings(&staging).await;
    let drill = async |arguments: &[&str]| {
        let mut command = drilled.scratch.command(&[&["drill", "--json"], arguments].concat());
        command.env("STAGING", staging.url("claims"));
        crate::support::finish(command).await
    };

    let without = drill(&[]).await.expect(0).json();
    assert_eq!(table(&without, "t")["content"], "equal");
    assert_eq!(
        (&without["place"]["with_owners"], &without["place"]["throwaway"]),
        (&false.into(), &false.into())
    );
    assert_eq!(holdings(&staging).await, before);

    // Proofs are named by their second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let with = drill(&["--with-globals"]).await.expect(0).json();
    assert_eq!(with["place"]["with_owners"], true);
    let made = holdings(&staging).await;
    assert!(made.contains("role clerk") && !made.contains("database marb_"), "{made}");
    let mine = staging.sql("claims", "SELECT count(*) FROM mine").await.unwrap();
    assert_eq!(mine, "0");
    assert!(drilled.folders().is_empty());
}

/// Whatever a restore took: the drill's own look at the database comes after it, and must not be
/// taken for what a killed one left long ago.
#[tokio::test]
async fn the_mark_is_as_young_as_the_end_of_the_restore() {
    let (server, staging) = (start().await, start().await);
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    let younger = "select replace(shobj_description(oid, 'pg_database'), 'marb-backup drill ', '')::timestamptz \
         > (select max(last_analyze) from pg_stat_user_tables) from pg_database where datname = current_database()";
    drilled.configure(&format!(
        "server = {{ url = {{ env = 'STAGING' }} }}\nchecks = [\"{younger}\"]"
    ));
    drilled.backup().await;
    let mut command = drilled.scratch.command(&["drill", "--json"]);
    command.env("STAGING", staging.url("postgres"));
    let report = crate::support::finish(command).await.expect(0).json();
    assert_eq!(report["checks"][0]["outcome"], "passed");
}

#[tokio::test]
async fn databases_of_killed_drills_go_when_they_are_old_and_marked() {
    let (server, staging) = (start().await, start().await);
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    drilled.backup().await;
    let left = [
        ("marb_drill_20200101t000000z_old1", "marb-backup drill 2020-01-01T00:00:00Z"),
        ("marb_drill_20200101t000000z_mine", "my own"),
        ("marb_drill_20200101t000000z_new1", "marb-backup drill 2099-01-01T00:00:00Z"),
        ("marbxdrill_20200101t000000z_name", "marb-backup drill 2020-01-01T00:00:00Z"),
    ];
    for (name, comment) in left {
        staging.sql("postgres", &format!("CREATE DATABASE {name}")).await.unwrap();
        staging
            .sql("postgres", &format!("COMMENT ON DATABASE {name} IS '{comment}'"))
            .await
            .unwrap();
    }
    let target = target_file(&drilled.scratch, &staging, "postgres");
    let done = drilled.drill(&["--server", &target]).await.expect(0);
    let there = holdings(&staging).await;
    let stays = left.map(|(name, _)| there.contains(name));
    assert_eq!(stays, [false, true, true, true], "{there}");
    assert!(done.stderr.contains("dropped marb_drill_20200101t000000z_old1"), "{}", done.stderr);
    assert!(done.stderr.contains("z_mine") && done.stderr.contains("z_new1"), "{}", done.stderr);
}

#[tokio::test]
async fn on_another_major_version_rows_are_counted_and_that_is_said() {
    let Some(newer) = majors().await.into_iter().rfind(|major| *major > 15) else { return };
    let (server, staging) = (start().await, PostgresServer::start(newer).await.unwrap());
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    drilled.backup().await;
    let target = target_file(&drilled.scratch, &staging, "postgres");
    let report = drilled.drill(&["--server", &target]).await.expect(0).json();
    let table = table(&report, "t");
    assert_eq!((&table["count"], &table["restored_rows"]), (&"equal".into(), &50.into()));
    let why = table["content"]["not_compared"].as_str().unwrap();
    assert_eq!(why, format!("the backup is of PostgreSQL 15, this server is {newer}"));
    assert!(report["schema"]["not_compared"].is_string());
    let folder = drilled.scratch.backup_folder().await.join("proofs");
    let proof = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let proof: serde_json::Value = serde_json::from_slice(&std::fs::read(proof).unwrap()).unwrap();
    assert_eq!(proof["rows"], "counted");
}

#[tokio::test]
async fn a_backup_of_some_tables_is_drilled_too() {
    let server = start().await;
    database(&server, "claims", &format!("{OWNED}; CREATE TABLE left_out (i int)")).await;
    let drilled = Drilled::of(&server, "claims");
    drilled
        .scratch
        .edit_config("'TEST_DATABASE_URL' } }", "'TEST_DATABASE_URL' }, tables = ['public.t'] }");
    drilled.backup().await;
    let report = drilled.drill(&[]).await.expect(0).json();
    assert_eq!(report["tables"].as_array().unwrap().len(), 1);
    assert_eq!(table(&report, "t")["content"], "equal");
}

#[tokio::test]
async fn without_a_server_nothing_begins() {
    let server = start().await;
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    drilled.backup().await;
    let nowhere = drilled.scratch.path("no-programs");
    drilled.configure(&format!("bin_dir = '{}'", nowhere.display()));
    drilled.scratch.run(&["drill"]).await.expect(1).explains("throwaway server", "initdb");
    assert!(drilled.folders().is_empty());
    let missing = drilled.scratch.run(&["drill", "20200101T000000Z"]).await.expect(5);
    missing.explains("catalog", "20200101T000000Z");
    let unwritable =
        drilled.scratch.run(&["drill", "--report", "no/such/page.html"]).await.expect(2);
    unwritable.explains("report", "no/such");
}

#[tokio::test]
async fn without_digests_rows_are_counted_and_that_is_said() {
    let server = start().await;
    database(&server, "claims", OWNED).await;
    let drilled = Drilled::of(&server, "claims");
    drilled
        .scratch
        .edit_config("'TEST_DATABASE_URL' } }", "'TEST_DATABASE_URL' }, row_digests = false }");
    drilled.backup().await;
    let report = drilled.drill(&[]).await.expect(0).json();
    let table = table(&report, "t");
    assert_eq!((&table["count"], &table["restored_rows"]), (&"equal".into(), &50.into()));
    let why = table["content"]["not_compared"].as_str().unwrap();
    assert_eq!(why, "the backup was made without digests of its rows");
    let counted = drilled.scratch.run(&["drill"]).await.expect(0).stdout;
    assert!(counted.contains("0 of 1 compared row by row, 1 by their number"), "{counted}");
}
