//! A restore looks before it touches anything: into a new database, onto a live one, of some
//! tables; and `--dry-run` looks just as far.

use backup_testkit::postgres::PostgresServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    CLAIMS, Scratch, claims_digest, claims_server, claims_server_with, finish_started, target_file,
};
use crate::swap::Stage;

/// A server that can publish.
pub const LOGICAL: [(&str, &str); 4] = [
    ("wal_level", "logical"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("wal_retrieve_retry_interval", "50ms"),
];

/// Names of the databases, in order.
async fn databases(server: &PostgresServer) -> String {
    let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    server.sql("postgres", sql).await.unwrap()
}

#[tokio::test]
async fn in_place_a_slot_is_in_the_way() {
    let server = claims_server_with(15, 50, &LOGICAL).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let slot = "SELECT pg_create_logical_replication_slot('far', 'pgoutput')";
    server.sql(CLAIMS, slot).await.unwrap();
    server.sql(CLAIMS, "DELETE FROM claims WHERE id > 10").await.unwrap();
    let changed = claims_digest(&server, CLAIMS).await;

    let planned = scratch.run(&["restore", "latest", "--in-place", "--dry-run"]).await.expect(6);
    assert!(planned.stdout.contains("blocking: replication slots"), "{planned:#?}");
    let planned =
        scratch.run(&["restore", "latest", "--in-place", "--dry-run", "--json"]).await.expect(6);
    let document = planned.json();
    assert_eq!(document["findings"][0]["subject"], "replication slots", "{document:#}");
    assert_eq!(document["replaces"][0], "public.claims", "{document:#}");
    let refused = scratch.run(&["restore", "latest", "--in-place"]).await.expect(6);
    assert!(refused.stderr.contains("far (pgoutput)"), "{refused:#?}");
    assert_eq!(claims_digest(&server, CLAIMS).await, changed);
    assert_eq!(scratch.listed().await.len(), 1, "no safety backup was made");

    let accepted = ["restore", "latest", "--in-place", "--accept-replication-break"];
    let done = scratch.run(&accepted).await.expect(0);
    assert!(done.stderr.contains("warning: replication slots"), "{done:#?}");
    assert_ne!(claims_digest(&server, CLAIMS).await, changed);
}

#[tokio::test]
async fn an_extension_that_the_server_lacks_is_in_the_way_of_a_new_database() {
    let server = claims_server(15, 50).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let gone = "CREATE EXTENSION hstore; UPDATE pg_extension SET extname = 'none_such' WHERE extname = 'hstore'";
    server.sql(CLAIMS, gone).await.unwrap();
    scratch.run(&["backup"]).await.expect(0);
    let to = target_file(&scratch, &server, "fresh");
    let before = databases(&server).await;
    for more in [&[][..], &["--dry-run"], &["--jobs", "2"]] {
        let restore = [&["restore", "latest", "--to", &to], more].concat();
        let refused = scratch.run(&restore).await.expect(6);
        assert!(refused.stderr.contains("lacks none_such"), "{refused:#?}");
        assert_eq!(databases(&server).await, before);
    }
    // An empty one that is there already.
    server.sql("postgres", "CREATE DATABASE fresh").await.unwrap();
    let refused = scratch.run(&["restore", "latest", "--to", &to]).await.expect(6);
    assert!(refused.stderr.contains("lacks none_such"), "{refused:#?}");
    // Some tables that do not need it.
    scratch
        .run(&["restore", "latest", "--to", &to, "--table", "claims", "--table", "payers"])
        .await
        .expect(0);
    assert_eq!(server.sql("fresh", "SELECT count(*) FROM claims").await.unwrap(), "50");
}

#[tokio::test]
async fn a_dry_run_reads_backup_and_server_and_touches_nothing() {
    let server = claims_server(15, 50).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let before = databases(&server).await;
    let to = target_file(&scratch, &server, "fresh");
    let look = async |more: &[&str], code: i32| {
        let restore = [&["restore", "latest", "--to", &to, "--dry-run"], more].concat();
        scratch.run(&restore).await.expect(code)
    };
    let text = look(&[], 0).await.stdout;
    assert!(text.contains("into fresh on ") && text.contains("  public.claims\n"), "{text}");
    let plan = look(&["--json"], 0).await.json();
    assert_eq!((&plan["mode"], &plan["creates_database"]), (&"plain".into(), &true.into()));
    assert_eq!(plan["tables"], serde_json::json!(["public.claims", "public.payers"]));
    assert!(plan["findings"].is_array(), "{plan:#}");
    let plan = look(&["--table", "payers", "--json"], 0).await.json();
    assert_eq!(plan["tables"], serde_json::json!(["public.payers"]));
    let typo = look(&["--table", "payer"], 2).await;
    assert!(typo.stderr.contains("public.payers"), "{typo:#?}");
    assert_eq!(databases(&server).await, before);

    // One that holds something.
    let live = target_file(&scratch, &server, CLAIMS);
    let filled = scratch.run(&["restore", "latest", "--to", &live, "--dry-run"]).await.expect(6);
    filled.explains("pg_restore", "is not empty");
    let there = ["restore", "latest", "--to", &live, "--dry-run", "--table", "claims"];
    scratch.run(&there).await.expect(6).explains("pg_restore", "already");
    // A server that is not there, and a backup that can't be read.
    scratch.write("target-url", "postgresql://postgres@127.0.0.1:1/fresh");
    assert_ne!(scratch.run(&["restore", "latest", "--to", &to, "--dry-run"]).await.code, 0);
    target_file(&scratch, &server, "fresh");
    scratch.write("key", "another passphrase altogether\n");
    let unread = scratch.run(&["restore", "latest", "--to", &to, "--dry-run"]).await;
    assert!(![0, 4].contains(&unread.code), "{unread:#?}");
}

/// Whatever goes into the new database would go with a rollback.
#[tokio::test]
async fn a_database_whose_swap_is_unfinished_takes_nothing_by_its_url_either() {
    let stage = Stage::new(15, 50).await;
    stage.hook("start", "touch started; exec sleep 5");
    let child = stage.scratch.start(&["restore", "latest"]);
    while !stage.scratch.path("started").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGKILL).unwrap();
    finish_started(child).await.expect(137);
    let to = target_file(&stage.scratch, &stage.server, CLAIMS);
    let live = stage.live().await;
    for more in [
        &["--in-place", "--no-safety-backup"][..],
        &["--table", "claims", "--into-schema", "look"],
        &["--table", "claims", "--data-only"],
        &[],
        &["--swap"],
    ] {
        let refused = stage.restore(&[&["latest", "--to", &to], more].concat()).await.expect(6);
        assert!(refused.stderr.contains("--rollback"), "{more:?}: {refused:#?}");
        assert_eq!(stage.live().await, live);
    }
    stage.hook("start", "touch running");
    stage.restore(&["--rollback"]).await.expect(0);
    let table = ["latest", "--to", &to, "--table", "claims", "--into-schema", "look"];
    stage.restore(&table).await.expect(0);
}
