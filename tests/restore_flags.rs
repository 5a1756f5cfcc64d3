//! Flags of `restore` through the program, where the database is swapped: owners, jobs, a safety
//! backup, definitions alone, replication that breaks; and the time that it says it was down.

use backup_testkit::postgres::{PASSWORD, PostgresServer};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Duration, Instant, sleep};

use crate::restore_looks::LOGICAL;
use crate::support::{CLAIMS, claims_server_with, finish, finish_started, target_file};
use crate::swap::Stage;

const OWNERS: &str =
    "SELECT string_agg(DISTINCT tableowner, ' ' ORDER BY tableowner) FROM pg_tables
                      WHERE schemaname = 'public' AND tablename <> 'migrated'";

/// The backup's roles are gone: others take their place, or nobody does.
#[tokio::test]
async fn owners_are_given_to_others_or_left_out() {
    let stage = Stage::new(15, 50).await;
    let owned = "CREATE ROLE away; CREATE ROLE here; ALTER TABLE claims OWNER TO away; GRANT SELECT ON payers TO away";
    stage.server.sql(CLAIMS, owned).await.unwrap();
    stage.scratch.run(&["backup"]).await.expect(0);
    let gone = "REASSIGN OWNED BY away TO postgres; DROP OWNED BY away; DROP ROLE away";
    stage.server.sql(CLAIMS, gone).await.unwrap();
    let refused = stage.restore(&["latest"]).await.expect(6);
    assert!(refused.stderr.contains("away"), "{refused:#?}");
    assert_eq!(stage.order(), "");

    stage.restore(&["latest", "--role", "away=here"]).await.expect(0);
    assert_eq!(stage.server.sql(CLAIMS, OWNERS).await.unwrap(), "here postgres");
    let granted = "SELECT has_table_privilege('here', 'payers', 'select')";
    assert_eq!(stage.server.sql(CLAIMS, granted).await.unwrap(), "t");
    stage.restore(&["latest", "--no-owner"]).await.expect(0);
    assert_eq!(stage.server.sql(CLAIMS, OWNERS).await.unwrap(), "postgres");
    assert_eq!(stage.server.sql(CLAIMS, granted).await.unwrap(), "f");
}

#[tokio::test]
async fn several_jobs_set_nothing_aside() {
    let stage = Stage::new(15, 2000).await;
    let done = stage.restore(&["latest", "--jobs", "2", "--json"]).await.expect(0).json();
    assert_eq!(stage.live().await, stage.new);
    assert_eq!(done["spooled_bytes"], 0);
    // The indexes' definitions need a file: where none can be made, that is said at once.
    let mut command = stage.scratch.command(&["restore", "latest", "--jobs", "2"]);
    command.env("TMPDIR", stage.scratch.path("nowhere"));
    let failed = finish(command).await.expect(1);
    assert!(failed.stderr.contains("TMPDIR"), "{failed:#?}");
    assert_eq!(stage.live().await, stage.new);
}

#[tokio::test]
async fn a_safety_backup_is_made_before_a_swap_when_asked_for() {
    let stage = Stage::new(15, 200).await;
    let first = stage.scratch.listed().await.pop().unwrap();
    let done = stage.restore(&[&first, "--safety-backup"]).await.expect(0);
    assert!(done.stderr.contains("safety backup is "), "{done:#?}");
    let listed = stage.scratch.listed().await;
    let safety = listed.iter().find(|id| **id != first).unwrap();
    assert_eq!((listed.len(), stage.live().await), (2, stage.new.clone()));
    let to = target_file(&stage.scratch, &stage.server, "beside");
    stage.restore(&[safety, "--to", &to]).await.expect(0);
    let beside = crate::support::claims_digest(&stage.server, "beside").await;
    assert_eq!(beside, stage.old, "it holds what was live before");
}

#[tokio::test]
async fn definitions_come_alone_when_asked_for() {
    let stage = Stage::new(15, 50).await;
    let to = target_file(&stage.scratch, &stage.server, CLAIMS);
    let table =
        ["latest", "--to", &to, "--table", "claims", "--schema-only", "--into-schema", "look"];
    stage.restore(&table).await.expect(0);
    let rows = stage.server.sql(CLAIMS, "SELECT count(*) FROM look.claims").await.unwrap();
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'look'";
    assert_eq!(rows, "0");
    assert_eq!(stage.server.sql(CLAIMS, columns).await.unwrap(), "3");
    assert_eq!(stage.live().await, stage.old);
}

/// From when on a probe was turned away until it was served again.
struct Outage {
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Outage {
    fn note(&mut self, is_up: bool) {
        match (is_up, self.began) {
            (false, None) => self.began = Some(Instant::now()),
            (true, Some(_)) if self.ended.is_none() => self.ended = Some(Instant::now()),
            _ => {}
        }
    }

    fn seconds(&self) -> f64 {
        let ended = self.ended.expect("it never came back");
        ended.duration_since(self.began.expect("it never went away")).as_secs_f64()
    }
}

#[tokio::test]
async fn the_application_is_down_no_longer_than_is_said() {
    let stage = Stage::new(15, 500).await;
    stage.hook("start", "sleep 1; touch running");
    let child = stage.scratch.start(&["restore", "latest", "--json"]);
    let mut service = Outage { began: None, ended: None };
    let mut database = Outage { began: None, ended: None };
    let probing = async {
        tokio::join!(
            async {
                loop {
                    service.note(stage.is_running());
                    sleep(Duration::from_millis(2)).await;
                }
            },
            async {
                loop {
                    database.note(stage.server.sql(CLAIMS, "SELECT 1").await.is_ok());
                    sleep(Duration::from_millis(2)).await;
                }
            }
        )
    };
    let run = tokio::select! {
        run = finish_started(child) => run.expect(0).json(),
        _ = probing => unreachable!("it never ends"),
    };
    let (down, closed) = (&run["downtime_seconds"], &run["closed_seconds"]);
    println!(
        "service {:.3} s, database {:.3} s; said {down} and {closed}",
        service.seconds(),
        database.seconds()
    );
    assert!((1.0..=down.as_f64().unwrap()).contains(&service.seconds()), "{run:#}");
    assert!(database.seconds() <= down.as_f64().unwrap(), "{run:#}");
    assert!(down.as_f64().unwrap() < service.seconds() + 5.0, "much more is said: {run:#}");
}

/// Waits until a query says this.
async fn until(server: &PostgresServer, database: &str, sql: &str, expected: &str) {
    for _ in 0..600 {
        if server.sql(database, sql).await.unwrap() == expected {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql}: {:?}", server.sql(database, sql).await);
}

/// A connection string as a literal of SQL.
fn conninfo(server: &PostgresServer, database: &str) -> String {
    let (host, port) = (server.host(), server.port());
    let password = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    let text =
        format!("host={host} port={port} dbname={database} user=postgres password='{password}'");
    format!("'{}'", text.replace('\'', "''"))
}

/// The live database publishes to another server and follows a third one's table.
#[tokio::test]
async fn replication_that_breaks_is_refused_accepted_and_cleaned_up() {
    let live = claims_server_with(15, 50, &LOGICAL).await;
    let other = PostgresServer::start_with(15, &LOGICAL).await.unwrap();
    live.sql(
        CLAIMS,
        "CREATE PUBLICATION rows FOR TABLE payers; CREATE TABLE feed (i int PRIMARY KEY)",
    )
    .await
    .unwrap();
    other.sql("postgres", "CREATE DATABASE copy").await.unwrap();
    let tables = "CREATE TABLE payers (id int PRIMARY KEY, name text); CREATE TABLE feed (i int PRIMARY KEY);
                  INSERT INTO feed VALUES (1), (2); CREATE PUBLICATION feed FOR TABLE feed";
    other.sql("copy", tables).await.unwrap();
    let subscribe =
        format!("CREATE SUBSCRIPTION far CONNECTION {} PUBLICATION rows", conninfo(&live, CLAIMS));
    other.sql("copy", &subscribe).await.unwrap();
    let stage = Stage::on(live).await;
    let follow = format!(
        "CREATE SUBSCRIPTION near CONNECTION {} PUBLICATION feed",
        conninfo(&other, "copy")
    );
    stage.server.sql(CLAIMS, &follow).await.unwrap();
    until(&stage.server, CLAIMS, "SELECT count(*) FROM feed", "2").await;
    until(&other, "copy", "SELECT count(*) >= 10 FROM payers", "t").await;

    let refused = stage.restore(&["latest"]).await.expect(6);
    for told in ["far (pgoutput", "near", "--accept-replication-break"] {
        assert!(refused.stderr.contains(told), "no {told}: {refused:#?}");
    }
    assert_eq!(stage.order(), "", "nothing was touched");
    assert_eq!(stage.others().await, "");

    let swapped = stage.restore(&["latest", "--accept-replication-break"]).await.expect(0);
    for told in ["pg_create_logical_replication_slot('far'", "CREATE SUBSCRIPTION", "near"] {
        assert!(swapped.stderr.contains(told), "no {told}: {swapped:#?}");
    }
    assert_eq!(stage.live().await, stage.new);
    // The slot stays with the old database, the restored one follows nobody.
    let slot = "SELECT database LIKE 'claims\\_before\\_%' FROM pg_replication_slots WHERE slot_name = 'far'";
    assert_eq!(stage.server.sql("postgres", slot).await.unwrap(), "t");
    let follows = "SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = 'claims'";
    assert_eq!(stage.server.sql("postgres", follows).await.unwrap(), "0");

    // Once the far end let go, the old one can go: without a word to the other server.
    other.sql("copy", "ALTER SUBSCRIPTION far DISABLE").await.unwrap();
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    until(&stage.server, "postgres", active, "0").await;
    stage.date_swaps(Timestamp::now() - SignedDuration::from_hours(1)).await;
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.scratch.run(&["verify"]).await.expect(0);
    let cleaned = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(
        cleaned.stdout.contains("its subscriptions near")
            && cleaned.stdout.contains("its slots far"),
        "{cleaned:#?}"
    );
    assert_eq!(stage.others().await, "");
    let kept = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'near'";
    assert_eq!(other.sql("postgres", kept).await.unwrap(), "1", "the publisher was not asked");
}

/// What a job leaves out today, and what a backup left out when it was made, keeps the old
/// database; and whoever was put back holds what no backup has.
#[tokio::test]
async fn a_backup_that_left_rows_out_counts_for_no_cleanup() {
    let stage = Stage::new(15, 50).await;
    stage.restore(&["latest"]).await.expect(0);
    stage.restore(&["--rollback"]).await.expect(0);
    stage.date_swaps(Timestamp::now() - SignedDuration::from_hours(1)).await;
    let url = "url = { env = 'TEST_DATABASE_URL' }";
    let filtered = format!("{url}, exclude_table_data = ['payers']");
    stage.scratch.edit_config(url, &filtered);
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.scratch.run(&["verify", "latest"]).await.expect(0);
    let filtering = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(filtering.stdout.contains("no backup that began later"), "{filtering:#?}");
    // The filter is gone from the config, not from the backup.
    stage.scratch.edit_config(&filtered, url);
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(kept.stdout.contains("no backup that began later has been verified"), "{kept:#?}");
    assert!(kept.stderr.contains("made with exclude_table_data"), "{kept:#?}");
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.scratch.run(&["verify", "latest"]).await.expect(0);
    let preview = stage.restore(&["--cleanup", "--dry-run"]).await.expect(0).stdout;
    assert!(
        preview.contains("would be dropped; it alone holds what was written from 2"),
        "{preview}"
    );
    let json = stage.restore(&["--cleanup", "--dry-run", "--json"]).await.expect(0).json();
    assert!(json["databases"][0]["window"]["from"].is_string(), "{json:#}");
    stage.restore(&["--cleanup"]).await.expect(0);
    assert_eq!(stage.others().await, "");
}

/// sudo as it answers: for the user that is named, and for systemctl alone.
#[tokio::test]
async fn doctor_asks_sudo_as_whom_a_hook_runs() {
    let stage = Stage::new(15, 10).await;
    let program = |name: &str, script: &str| {
        let folder = stage.scratch.path("bin");
        let _ = std::fs::create_dir(&folder);
        std::fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join(name), mode).unwrap();
    };
    program(
        "sudo",
        "echo \"$*\" >> asked; test \"$*\" = '-n -l -u app -- systemctl stop app.service'",
    );
    program("systemctl", "exit 1");
    stage.scratch.edit_config(
        "stop = [['./stop']]",
        "stop = [['sudo', '-n', '-u', 'app', 'systemctl', 'stop', 'app.service'], ['sudo', '-n', 'systemctl', 'stop', 'db.service'], \
         ['sudo', '-u', 'app', 'systemctl', 'stop', 'app.service']]",
    );
    let mut command = stage.scratch.command(&["doctor"]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", stage.scratch.path("bin").display()));
    let told = finish(command).await.stdout;
    let line = |hook: &str| {
        told.lines()
            .find(|line| line.contains(hook))
            .unwrap_or_else(|| panic!("no {hook}: {told}"))
            .to_owned()
    };
    assert!(line("sudo -n -u app systemctl stop app.service").contains("may be run"), "{told}");
    assert!(line("sudo -n systemctl stop db.service").contains("without a password"), "{told}");
    assert!(line("(sudo -u app systemctl").contains("may ask for a password"), "{told}");
    assert!(told.contains("USER ALL=(root) NOPASSWD: systemctl stop db.service"), "{told}");
}
