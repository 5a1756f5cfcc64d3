//! `drill` finds whatever comes back otherwise than it went in, proves what it says, and leaves
//! nothing behind.

mod kills;
mod servers;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_testkit::postgres::PostgresServer;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Finished, Scratch};

/// A database whose text depends on settings, with the settings turned away from the defaults.
const VISITS: &str = "
    CREATE TYPE state AS ENUM ('open', 'closed');
    CREATE TABLE visits (id int PRIMARY KEY, state state, status varchar(9) CHECK (status IN ('a', 'b')),
        amount money, at timestamptz, scan bytea, weight float8, lasts interval, note text);
    INSERT INTO visits SELECT i, 'open', 'a', i * 1.25::money, '2026-01-01 00:00+00'::timestamptz + i * interval '1 hour',
        decode(md5(i::text), 'hex'), i / 3.0, i * interval '1 min', CASE WHEN i % 7 = 0 THEN E'a\\tb\\n\\\\.\\n' END
        FROM generate_series(1, 2000) i;
    CREATE TABLE empty (LIKE visits);
    CREATE VIEW open_visits AS SELECT * FROM visits WHERE state = 'open';
    CREATE INDEX ON visits (at);
    SELECT lo_from_bytea(0, 'scan one'); SELECT lo_from_bytea(0, 'scan two')";

/// Makes a database that any server can have.
pub async fn database(server: &PostgresServer, name: &str, sql: &str) {
    let make = format!("CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    server.sql("postgres", &make).await.unwrap();
    server.sql(name, sql).await.unwrap();
}

/// A scratch with two storages, whose throwaway servers live in a folder that can be looked at.
pub struct Drilled {
    pub scratch: Scratch,
    folder: TempDir,
}

impl Drilled {
    pub fn of(server: &PostgresServer, database: &str) -> Self {
        let scratch = Scratch::of(server, database);
        let folder = tempfile::tempdir().unwrap();
        let everybody = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), everybody).unwrap();
        let second = scratch.path("second").display().to_string();
        let second = format!("[storage.second]\nurl = 'file://{second}'\n[encryption]");
        scratch.edit_config("[encryption]", &second);
        scratch.edit_config("['local']", "['local', 'second']");
        let drill = format!("[drill]\nfolder = '{}'\n", folder.path().display());
        scratch.edit_config("[encryption]", &format!("{drill}[encryption]"));
        Self { scratch, folder }
    }

    /// More lines for `[drill]`.
    pub fn configure(&self, lines: &str) {
        self.scratch.edit_config("[drill]\n", &format!("[drill]\n{lines}\n"));
    }

    pub async fn backup(&self) {
        self.scratch.run(&["backup"]).await.expect(0);
    }

    pub async fn drill(&self, arguments: &[&str]) -> Finished {
        self.scratch.run(&[&["drill", "--json"], arguments].concat()).await
    }

    /// Folders of throwaway servers that are there.
    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The names of the proofs in each storage.
    pub fn proofs(&self) -> [Vec<String>; 2] {
        ["backups", "second"].map(|storage| proofs_below(&self.scratch.path(storage)))
    }
}

fn proofs_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(proofs_below(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("proofs")) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

/// The entry of a table in a drill's JSON.
pub fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    let tables = report["tables"].as_array().unwrap();
    tables.iter().find(|table| table["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

pub async fn start() -> PostgresServer {
    PostgresServer::start(15).await.unwrap()
}

#[tokio::test]
async fn a_backup_that_comes_back_is_proven_in_every_storage() {
    let server = start().await;
    database(&server, "visits", VISITS).await;
    // The text of a row must not depend on who asks.
    for odd in ["timezone = 'Asia/Kathmandu'", "bytea_output = 'escape'", "datestyle = 'German'"] {
        let set = format!("ALTER ROLE postgres SET {odd}; ALTER DATABASE visits SET {odd}");
        server.sql("postgres", &set).await.unwrap();
    }
    let drilled = Drilled::of(&server, "visits");
    drilled.configure("checks = ['select count(*) = 2000 from visits', 'select true;']");
    drilled.backup().await;
    let report = drilled.drill(&["--report", "page.html"]).await.expect(0).json();

    assert_eq!(report["verdict"], "passed");
    for (name, rows) in [("visits", 2000), ("empty", 0)] {
        let table = table(&report, name);
        assert_eq!(table["rows"], rows);
        assert_eq!((&table["count"], &table["content"]), (&"equal".into(), &"equal".into()));
    }
    assert_eq!(report["large_objects"]["content"], "equal");
    assert_eq!(report["schema"]["not_compared"], Value::Null);
    assert!(report["schema"]["compared"].as_u64().unwrap() > 8);
    // PostgreSQL writes the check of `status` in another way after a restore.
    assert_eq!(report["schema"]["rewritten"], 1);
    assert_eq!(report["checks"].as_array().unwrap().len(), 2);
    assert!(report["times"]["restore"].as_f64().unwrap() > 0.0);
    assert_eq!(report["place"]["throwaway"], true);

    let [local, second] = drilled.proofs();
    assert_eq!(local, second);
    assert!(local.len() == 1 && local[0].ends_with("-drill.json"), "{local:?}");
    let folder = drilled.scratch.backup_folder().await;
    let proof = std::fs::read_to_string(folder.join("proofs").join(&local[0])).unwrap();
    let told: Value = serde_json::from_str(&proof).unwrap();
    assert_eq!((&told["passed"], &told["rows"]), (&true.into(), &"exact".into()));
    assert!(!proof.contains("2000") && !proof.contains("empty"), "tells about the data: {proof}");

    let listed = drilled.scratch.run(&["list", "--json"]).await.expect(0).json();
    assert_eq!(listed["backups"][0]["proven"]["drilled"]["passed"], true);
    assert_eq!(listed["backups"][0]["proven"]["verified"], Value::Null);
    let shown = drilled.scratch.run(&["show"]).await.expect(0).stdout;
    assert!(shown.lines().any(|l| l.starts_with("Drilled") && l.ends_with("passed")), "{shown}");

    let page = drilled.scratch.path("page.html");
    assert!(std::fs::read_to_string(&page).unwrap().contains("<strong>Passed</strong>"));
    assert_eq!(std::fs::metadata(page).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(drilled.folders().is_empty());
    drilled.scratch.assert_no_process_left();
}

#[tokio::test]
async fn another_version_of_the_application_is_told_as_a_restore_does() {
    let server = start().await;
    database(&server, "visits", "CREATE TABLE t AS SELECT 1 AS i").await;
    let drilled = Drilled::of(&server, "visits");
    let job = "[job.database]\n";
    drilled.scratch.edit_config(job, &format!("{job}app_version = {{ file = 'version' }}\n"));
    drilled.scratch.write("version", "2.0\n");
    drilled.backup().await;
    let same = drilled.drill(&[]).await.expect(0);
    assert!(!same.stderr.contains("of the application"), "{same:#?}");

    drilled.scratch.write("version", "2.1\n");
    let told = "was made of version \"2.0\" of the application, here is \"2.1\"";
    let other = drilled.drill(&["--report", "page.html"]).await.expect(0);
    assert!(other.stderr.contains(told), "{other:#?}");
    assert_eq!(other.json()["verdict"], "passed");
    let page = std::fs::read_to_string(drilled.scratch.path("page.html")).unwrap();
    assert!(page.contains("of the application, here is"), "the report says nothing of it");

    std::fs::remove_file(drilled.scratch.path("version")).unwrap();
    let unknown = drilled.drill(&[]).await.expect(0);
    assert!(unknown.stderr.contains("which one is here can't be told"), "{unknown:#?}");
}

/// A check constraint whose function changes another table: the restore runs it after that
/// table's rows came, the original did before.
const TAMPERS: &str = "
    CREATE TABLE ledger (id int, amount int);
    CREATE TABLE pairs (id int);
    CREATE FUNCTION tamper() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        UPDATE public.ledger SET amount = 0 WHERE id = 7;
        DELETE FROM public.pairs WHERE id = 1; INSERT INTO public.pairs SELECT 2 FROM public.ledger WHERE id < 3;
        RETURN true; END $$;
    CREATE TABLE zz_last (id int CHECK (public.tamper()));
    INSERT INTO zz_last VALUES (1);
    INSERT INTO ledger SELECT i, i FROM generate_series(1, 100) i;
    INSERT INTO pairs VALUES (1), (1), (3);
    CREATE TABLE fine AS SELECT * FROM ledger";

#[tokio::test]
async fn changed_rows_are_found_though_they_are_as_many() {
    let server = start().await;
    database(&server, "tampered", TAMPERS).await;
    let drilled = Drilled::of(&server, "tampered");
    drilled.backup().await;
    let failed = drilled.drill(&["--report", "page.html"]).await.expect(4).json();
    assert_eq!(failed["verdict"], "failed");
    for (name, content) in [("ledger", "differs"), ("pairs", "differs"), ("fine", "equal")] {
        let table = table(&failed, name);
        assert_eq!(table["count"], "equal", "{table}");
        assert_eq!(table["content"], content, "{table}");
    }
    for proofs in drilled.proofs() {
        assert!(proofs.len() == 1 && proofs[0].ends_with("-drill-failed.json"), "{proofs:?}");
    }
    let listed = drilled.scratch.run(&["list"]).await.expect(0).stdout;
    assert!(listed.contains("FAILED its drill on "), "{listed}");
    let page = std::fs::read_to_string(drilled.scratch.path("page.html")).unwrap();
    assert!(page.contains("<strong>Failed</strong>") && page.contains("public.ledger"));
    assert!(drilled.folders().is_empty());
}

#[tokio::test]
async fn a_check_that_is_not_true_fails_and_one_that_cannot_run_proves_nothing() {
    let server = start().await;
    database(&server, "visits", "CREATE TABLE t (i int); INSERT INTO t VALUES (1)").await;
    let drilled = Drilled::of(&server, "visits");
    drilled.configure("checks = ['select count(*) > 1 from t', 'select true']");
    drilled.backup().await;
    let failed = drilled.drill(&[]).await.expect(4).json();
    assert_eq!(failed["checks"][0]["outcome"]["failed"], "false");
    assert_eq!(failed["checks"][1]["outcome"], "passed");
    assert_eq!(table(&failed, "t")["content"], "equal");

    drilled.scratch.edit_config("count(*) > 1 from t", "count(*) > 0 from no_such_table");
    let untold = drilled.drill(&[]).await.expect(8).json();
    assert_eq!(untold["verdict"], "not_proven");
    // One proof, of the first drill.
    assert!(drilled.proofs().iter().all(|proofs| proofs.len() == 1));

    // A check can't change anything.
    drilled
        .scratch
        .edit_config("count(*) > 0 from no_such_table", "true; delete from t returning true");
    drilled.drill(&[]).await.expect(8);
}

#[tokio::test]
async fn a_damaged_backup_fails_its_drill() {
    let server = start().await;
    database(&server, "visits", VISITS).await;
    let drilled = Drilled::of(&server, "visits");
    drilled.backup().await;
    for storage in ["backups", "second"] {
        let folder = drilled.scratch.backup_folder().await;
        let folder = folder.strip_prefix(drilled.scratch.path("backups")).unwrap().to_owned();
        let dump = drilled.scratch.path(storage).join(folder).join("visits.dump.zst.gpg");
        let mut bytes = std::fs::read(&dump).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&dump, bytes).unwrap();
    }
    let failed = drilled.drill(&[]).await.expect(4).json();
    assert_eq!(failed["verdict"], "failed");
    assert_eq!(failed["tables"].as_array().unwrap().len(), 0);
    for proofs in drilled.proofs() {
        assert!(proofs.len() == 1 && proofs[0].ends_with("-drill-failed.json"), "{proofs:?}");
    }
    assert!(drilled.folders().is_empty());
}
