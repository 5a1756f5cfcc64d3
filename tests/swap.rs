//! Restore beside, prove, swap: the whole way, on a server with an application around it.

use std::path::PathBuf;
use std::sync::Arc;

use backup_testkit::postgres::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{CLAIMS, Finished, Scratch, claims_digest, claims_server, target_file};

/// Rows of the database that is swapped in tests.
const ROWS: u32 = 2000;

/// A live database that has moved on since its backup, and an application around it: a file
/// that is there while the services run, hooks that note their names, a health address.
pub struct Stage {
    pub server: PostgresServer,
    pub scratch: Scratch,
    /// What the live database holds.
    pub old: String,
    /// What the backup holds.
    pub new: String,
}

impl Stage {
    pub async fn new(major: u32, rows: u32) -> Self {
        Self::on(claims_server(major, rows).await).await
    }

    /// The same on a server that has claims.
    pub async fn on(server: PostgresServer) -> Self {
        let scratch = Scratch::of(&server, CLAIMS);
        scratch.run(&["backup"]).await.expect(0);
        let new = claims_digest(&server, CLAIMS).await;
        let change = "DELETE FROM claims WHERE id % 7 = 0; INSERT INTO payers VALUES (99, 'late');
             COMMENT ON DATABASE claims IS 'it''s the users own'; ALTER DATABASE claims SET work_mem = '7MB'";
        server.sql(CLAIMS, change).await.unwrap();
        let old = claims_digest(&server, CLAIMS).await;
        assert_ne!(old, new);
        let stage = Self { server, scratch, old, new };
        stage.hook("before", "true");
        stage.hook("stop", "rm -f running");
        stage.hook(
            "migrate",
            "psql -X -q -v ON_ERROR_STOP=1 -d \"$DATABASE_URL\" -c 'CREATE TABLE migrated (n int)'",
        );
        stage.hook("start", "touch running");
        stage.hook("after", "true");
        stage.hook("on_failure", "true");
        stage.scratch.write("running", "");
        let port = stage.serve().await;
        let config = std::fs::read_to_string(stage.scratch.path("marb-backup.toml")).unwrap();
        let hooks: String = ["before", "stop", "migrate", "start", "after", "on_failure"]
            .map(|name| format!("{name} = [['./{name}']]\n"))
            .concat();
        let restore = format!(
            "\n[restore]\n{hooks}hook_timeout = '20s'\ndirectory = '{folder}'\nkeep_old = '0s'\n\
             session_timeout = '15s'\nchecks = ['select count(*) > 0 from claims']\n\
             health = {{ url = 'http://127.0.0.1:{port}/health', timeout = '5s' }}\n",
            folder = stage.scratch.path("").display(),
        );
        stage.scratch.write("marb-backup.toml", &(config + &restore));
        stage
    }

    /// Replaces what a hook does; it always notes its name first.
    pub fn hook(&self, name: &str, script: &str) {
        self.scratch.write(name, &format!("#!/bin/sh\necho {name} >> order\n{script}\n"));
        let path = self.scratch.path(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
    }

    /// Answers 200 while the services run and nothing makes them sick.
    async fn serve(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder: Arc<PathBuf> = Arc::new(self.scratch.path(""));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let folder = Arc::clone(&folder);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let well = folder.join("running").exists() && !folder.join("sick").exists();
                    let status = if well { "200 OK" } else { "503 Sick" };
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    );
                    let _ = stream.write_all(head.as_bytes()).await;
                });
            }
        });
        port
    }

    /// The hooks that ran since the last call, in order.
    pub fn order(&self) -> String {
        let path = self.scratch.path("order");
        let order = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        order.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether the services run.
    pub fn is_running(&self) -> bool {
        self.scratch.path("running").exists()
    }

    /// Databases besides the live one, with what they are instead of the run's name.
    pub async fn others(&self) -> String {
        let sql = "SELECT coalesce(string_agg(regexp_replace(datname, '_[0-9]{8}t[0-9]{6}z_[a-z0-9]{4}$', ''),
                   ' ' ORDER BY datname), '') FROM pg_database
                   WHERE datname NOT IN ('postgres', 'template0', 'template1', 'claims')";
        self.server.sql("postgres", sql).await.unwrap()
    }

    /// What the application's database holds: it has to be reachable.
    pub async fn live(&self) -> String {
        claims_digest(&self.server, CLAIMS).await
    }

    /// The digest of a closed database of this kind.
    pub async fn digest_of(&self, kind: &str) -> String {
        let sql =
            format!("SELECT datname FROM pg_database WHERE datname LIKE 'claims\\_{kind}\\_%'");
        let name = self.server.sql("postgres", &sql).await.unwrap();
        let open = |yes| format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {yes}");
        self.server.sql("postgres", &open(true)).await.unwrap();
        let digest = claims_digest(&self.server, &name).await;
        self.server.sql("postgres", &open(false)).await.unwrap();
        digest
    }

    /// Changes the time that finished swaps noted of themselves.
    pub async fn date_swaps(&self, time: jiff::Timestamp) {
        self.date_marks("swapped|put_back", time).await;
    }

    /// Changes these times in every mark of ours.
    pub async fn date_marks(&self, fields: &str, time: jiff::Timestamp) {
        let sql = format!(
            r#"DO $$ DECLARE d record; BEGIN
            FOR d IN SELECT datname, shobj_description(oid, 'pg_database') AS comment FROM pg_database LOOP
                IF d.comment ~ '^marb-backup (swap|restoring) ' THEN
                    EXECUTE format('COMMENT ON DATABASE %I IS %L', d.datname,
                        regexp_replace(d.comment, '"({fields})":"[^"]*"', '"\1":"{time}"', 'g'));
                END IF;
            END LOOP; END $$"#
        );
        self.server.sql("postgres", &sql).await.unwrap();
    }

    /// Whether the migration has run on the live database.
    pub async fn is_migrated(&self) -> bool {
        self.server.sql(CLAIMS, "SELECT to_regclass('migrated') IS NOT NULL").await.unwrap() == "t"
    }

    /// Asserts that the old database is live, untouched, with its services, and that nothing but
    /// `others` is left.
    pub async fn assert_old(&self, others: &str) {
        assert_eq!(self.live().await, self.old);
        assert!(!self.is_migrated().await);
        assert!(self.is_running());
        assert_eq!(self.others().await, others);
        let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'claims'";
        assert_eq!(self.server.sql(CLAIMS, comment).await.unwrap(), "it's the users own");
    }

    pub async fn restore(&self, arguments: &[&str]) -> Finished {
        self.scratch.run(&[&["restore"], arguments].concat()).await
    }
}

/// Over, and back, and over again; then it is cleaned up.
async fn there_and_back(major: u32) {
    let stage = Stage::new(major, ROWS).await;
    let run = stage.restore(&["latest", "--json"]).await.expect(0);
    let document = run.json();
    assert_eq!(stage.order(), "before migrate stop start after");
    assert_eq!(stage.live().await, stage.new);
    assert!(stage.is_migrated().await && stage.is_running());
    assert_eq!(stage.others().await, "claims_before");
    assert_eq!(stage.digest_of("before").await, stage.old);
    // What belongs to the database, not to the backup.
    let kept = "SELECT shobj_description(d.oid, 'pg_database'), setconfig FROM pg_database d
                JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE datname = 'claims'";
    let kept = stage.server.sql(CLAIMS, kept).await.unwrap();
    assert_eq!(kept, "it's the users own|{work_mem=7MB}");
    let (down, closed) = (&document["downtime_seconds"], &document["closed_seconds"]);
    assert!(down.as_f64() >= closed.as_f64() && closed.as_f64() > Some(0.0), "{document:#}");
    assert_eq!(document["checks"].as_array().unwrap().len(), 1);
    assert_eq!(document["healthy"], true);
    assert_eq!(document["rows_compared"], ROWS + 10);

    // A write that only the new database has.
    stage.server.sql(CLAIMS, "INSERT INTO payers VALUES (77, 'new')").await.unwrap();
    let preview = stage.restore(&["--rollback", "--dry-run"]).await.expect(0);
    assert!(preview.stdout.contains("claims_failed_"), "{preview:#?}");
    assert_eq!(stage.order(), "");
    let back = stage.restore(&["--rollback"]).await.expect(0);
    assert!(back.stdout.contains("it alone holds what was written from 2"), "{back:#?}");
    assert_eq!(stage.order(), "stop start");
    stage.assert_old("claims_failed").await;

    // Going back a second time would be to nowhere.
    let again = stage.restore(&["--rollback"]).await.expect(0);
    assert!(again.stdout.contains("left nothing to undo"), "{again:#?}");
    stage.restore(&["--continue"]).await.expect(5);
    stage.assert_old("claims_failed").await;

    stage.restore(&["latest"]).await.expect(0);
    assert_eq!(stage.live().await, stage.new);
    assert_eq!(stage.others().await, "claims_before claims_failed");

    // Nothing newer was verified: everything stays.
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(kept.stdout.contains("no backup that began later has been verified"), "{kept:#?}");
    assert_eq!(stage.others().await, "claims_before claims_failed");
    let now = jiff::Timestamp::now();
    let long_ago = now - jiff::SignedDuration::from_hours(1);
    stage.date_swaps(long_ago).await;
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.restore(&["--cleanup"]).await.expect(0);
    assert_eq!(stage.others().await, "claims_before claims_failed", "it was not verified");
    stage.scratch.run(&["verify"]).await.expect(0);
    // Verified, but begun so soon after the swap that the clocks of two hosts could be wrong.
    stage.date_swaps(now - jiff::SignedDuration::from_mins(5)).await;
    let soon = stage.restore(&["--cleanup"]).await.expect(0);
    assert!(soon.stdout.contains("no backup that began later has been verified"), "{soon:#?}");
    assert_eq!(stage.others().await, "claims_before claims_failed");
    stage.date_swaps(long_ago).await;
    let preview = stage.restore(&["--cleanup", "--dry-run"]).await.expect(0);
    assert!(preview.stdout.contains("would be dropped"), "{preview:#?}");
    stage.restore(&["--cleanup", "--json"]).await.expect(0).json();
    assert_eq!(stage.others().await, "");
    assert_eq!(stage.live().await, stage.new);
}

#[tokio::test]
async fn there_and_back_on_15() {
    there_and_back(15).await;
}

#[tokio::test]
async fn there_and_back_on_18() {
    there_and_back(18).await;
}

#[tokio::test]
async fn the_plan_touches_nothing() {
    let stage = Stage::new(15, 50).await;
    let text = stage.restore(&["latest", "--dry-run"]).await.expect(0).stdout;
    for step in ["before (./before)", "claims_restoring_", "stop (./stop)", "down", "migrate"] {
        assert!(text.contains(step), "no {step}: {text}");
    }
    let plan = stage.restore(&["latest", "--dry-run", "--json"]).await.expect(0).json();
    assert_eq!(plan["mode"], "swap");
    assert_eq!(plan["database"], CLAIMS);
    assert!(plan["steps"].as_array().unwrap().len() > 8 && plan["findings"].is_array());
    assert_eq!(stage.order(), "");
    stage.assert_old("").await;
    // Something in the way: a role that is nowhere.
    stage
        .server
        .sql(CLAIMS, "CREATE ROLE away; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO away")
        .await
        .unwrap();
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.server.sql(CLAIMS, "DROP TABLE theirs; DROP ROLE away").await.unwrap();
    let refused = stage.restore(&["latest", "--dry-run"]).await.expect(6);
    assert!(
        refused.stdout.contains("blocking:") && refused.stderr.contains("away"),
        "{refused:#?}"
    );
    let plan = stage.restore(&["latest", "--dry-run", "--json"]).await.expect(6).json();
    assert_eq!(plan["findings"][0]["severity"], "blocking", "{plan:#}");
    stage.restore(&["latest"]).await.expect(6);
    assert_eq!(stage.order(), "", "no hook runs before the preflight");
    stage.assert_old("").await;
    // With the roles of the backup it works.
    stage.restore(&["latest", "--with-globals"]).await.expect(0);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'theirs'";
    assert_eq!(stage.server.sql(CLAIMS, owner).await.unwrap(), "away");
}

/// Another database by `--to --swap`: the application's hooks are not its business.
#[tokio::test]
async fn another_database_is_swapped_without_hooks() {
    let stage = Stage::new(15, 50).await;
    let copy = "CREATE DATABASE staging TEMPLATE claims";
    stage.server.sql("postgres", copy).await.unwrap();
    let to = target_file(&stage.scratch, &stage.server, "staging");
    stage.restore(&["latest", "--to", &to]).await.expect(6);
    stage.restore(&["latest", "--to", &to, "--swap"]).await.expect(0);
    assert_eq!(claims_digest(&stage.server, "staging").await, stage.new);
    stage.restore(&["--rollback", "--to", &to]).await.expect(0);
    assert_eq!(claims_digest(&stage.server, "staging").await, stage.old);
    assert_eq!(stage.order(), "");
    assert_eq!(stage.live().await, stage.old);
}

/// A database that is not there, or holds nothing, is simply filled.
#[tokio::test]
async fn a_database_that_holds_nothing_needs_no_swap() {
    let stage = Stage::new(15, 50).await;
    stage.server.sql("postgres", "DROP DATABASE claims").await.unwrap();
    stage.restore(&["latest"]).await.expect(0);
    assert_eq!(stage.live().await, stage.new);
    stage.server.sql("postgres", "DROP DATABASE claims").await.unwrap();
    stage.server.sql("postgres", "CREATE DATABASE claims").await.unwrap();
    stage.restore(&["latest"]).await.expect(0);
    assert_eq!((stage.live().await, stage.others().await), (stage.new.clone(), String::new()));
    assert_eq!(stage.order(), "");
}

/// What the old scripts wrote goes the same way, from a plain path.
#[tokio::test]
async fn a_plain_file_is_swapped_in() {
    let stage = Stage::new(15, 200).await;
    let dump = stage.scratch.path("old.dump");
    let output = tokio::process::Command::new("pg_dump")
        .args(["-Fc", "-d"])
        .arg(stage.server.url(CLAIMS))
        .arg("-f")
        .arg(&dump)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    stage.server.sql(CLAIMS, "TRUNCATE claims").await.unwrap();
    stage.restore(&[dump.to_str().unwrap()]).await.expect(0);
    assert_eq!(stage.live().await, stage.old);
    assert_eq!(stage.others().await, "claims_before");
}

/// What a backup leaves out would be empty in the database that it replaces.
#[tokio::test]
async fn a_backup_without_a_tables_rows_replaces_nothing() {
    let stage = Stage::new(15, 10).await;
    stage.scratch.edit_config(
        "{ env = 'TEST_DATABASE_URL' } }",
        "{ env = 'TEST_DATABASE_URL' }, exclude_table_data = ['claims'] }",
    );
    // Ids have seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    stage.scratch.run(&["backup"]).await.expect(0);
    let old = stage.live().await;
    // With the job's own safety backup the refusal is another one.
    let in_place = ["latest", "--in-place", "--no-safety-backup"];
    for mode in [&["latest"][..], &["latest", "--dry-run"], &in_place] {
        let refused = stage.restore(mode).await.expect(6);
        assert!(refused.stderr.contains("public.claims"), "{refused:#?}");
        assert!(refused.stderr.contains("--accept-missing-rows"), "{refused:#?}");
        assert_eq!(stage.live().await, old);
    }
    stage.restore(&["latest", "--dry-run", "--accept-missing-rows"]).await.expect(0);
    let in_place = [&in_place[..], &["--dry-run", "--accept-missing-rows"]].concat();
    stage.restore(&in_place).await.expect(0);
}

/// Nor does one that lacks a table altogether, or the large objects.
#[tokio::test]
async fn a_backup_that_lacks_tables_replaces_nothing() {
    let stage = Stage::new(15, 10).await;
    let old = stage.live().await;
    let mut before = "{ env = 'TEST_DATABASE_URL' } }".to_owned();
    for filter in ["exclude_tables = ['claims']", "large_objects = false"] {
        let filtered = format!("{{ env = 'TEST_DATABASE_URL' }}, {filter} }}");
        stage.scratch.edit_config(&before, &filtered);
        before = filtered;
        // Ids have seconds.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        stage.scratch.run(&["backup"]).await.expect(0);
        let key = filter.split(' ').next().unwrap();
        for mode in [&["latest"][..], &["latest", "--dry-run"]] {
            let refused = stage.restore(mode).await.expect(6);
            let told = format!("the backup was made with {key}");
            assert!(refused.stderr.contains(&told), "{refused:#?}");
            assert!(refused.stderr.contains("--accept-missing-rows"), "{refused:#?}");
            assert_eq!(stage.live().await, old);
        }
        stage.restore(&["latest", "--dry-run", "--accept-missing-rows"]).await.expect(0);
    }
    // In place what the backup lacks stays: large objects are nobody's obstacle.
    stage.restore(&["latest", "--in-place", "--no-safety-backup", "--dry-run"]).await.expect(0);
}

/// What a filter left out is in the old database alone: such a backup lets nothing be dropped,
/// whatever the job says today. One that was made whole does.
#[tokio::test]
async fn a_backup_that_lacks_tables_lets_nothing_be_dropped() {
    let stage = Stage::new(15, 50).await;
    stage.restore(&["latest"]).await.expect(0);
    stage.date_swaps(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)).await;
    let whole = "{ env = 'TEST_DATABASE_URL' } }";
    let filtered = "{ env = 'TEST_DATABASE_URL' }, exclude_tables = ['migrated'] }";
    stage.scratch.edit_config(whole, filtered);
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.scratch.run(&["verify"]).await.expect(0);
    stage.scratch.edit_config(filtered, whole);
    let shown = stage.scratch.run(&["show", "latest", "--contents"]).await.expect(0);
    assert!(shown.stdout.contains("Filters: exclude_tables\n"), "{shown:#?}");
    let id = stage.scratch.listed().await.pop().unwrap();
    let kept = stage.restore(&["--cleanup"]).await.expect(0);
    let why = format!("backup {id} does not count: it was made with exclude_tables");
    assert!(kept.stderr.contains(&why), "{kept:#?}");
    assert!(kept.stdout.contains("no backup that began later has been verified"), "{kept:#?}");
    assert_eq!(stage.others().await, "claims_before");

    stage.scratch.run(&["backup"]).await.expect(0);
    stage.scratch.run(&["verify"]).await.expect(0);
    stage.scratch.edit_config(whole, filtered);
    stage.restore(&["--cleanup"]).await.expect(0);
    assert_eq!((stage.others().await, stage.live().await), (String::new(), stage.new.clone()));
}
