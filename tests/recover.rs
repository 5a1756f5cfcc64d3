//! The recovery, rehearsed: from nothing but the storage, the key and the program, in a fresh
//! folder tree and a fresh cluster, to a passing health check.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_testkit::postgres::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::files::places::{Files, NOBODY, is_root};
use crate::support::stores::Service;
use crate::support::{
    CLAIMS, Finished, PASSPHRASE, Scratch, claims_digest, claims_server, finish, target_file,
};

/// Rows of the database.
const ROWS: u32 = 3000;
/// How long a rehearsal may take.
const REHEARSAL: Duration = Duration::from_secs(120);

/// The deployment that will be lost, and what it held.
struct Lost {
    server: PostgresServer,
    scratch: Scratch,
    data: String,
    /// Where its files will be on the new machine.
    root: tempfile::TempDir,
}

impl Lost {
    /// A database with an owner of its own, and files: an environment, and a script that starts
    /// the application.
    async fn new(service: Option<&Service>) -> Self {
        let server = claims_server(15, ROWS).await;
        let owner = "CREATE ROLE app LOGIN PASSWORD 'planted-app-password';
                     ALTER TABLE claims OWNER TO app; ALTER TABLE payers OWNER TO app";
        server.sql(CLAIMS, owner).await.unwrap();
        let data = claims_digest(&server, CLAIMS).await;
        let scratch = Scratch::of(&server, CLAIMS);
        let root = tempfile::tempdir().unwrap();
        let lost = Self { server, scratch, data, root };
        lost.lay_out();
        if let Some(service) = service {
            let local = lost.scratch.path("backups");
            let local = format!("[storage.local]\nurl = 'file://{}'\n", local.display());
            lost.scratch.edit_config(&local, &service.section());
            let names = format!("storages = ['{}']", service.name());
            // Of both jobs.
            lost.scratch.edit_config("storages = ['local']", &names);
        }
        lost
    }

    /// The files, and a job and hooks for them.
    fn lay_out(&self) {
        let site = self.scratch.path("site");
        std::fs::create_dir(&site).unwrap();
        self.scratch.write("site/.env", "SECRET_KEY=planted-secret\n");
        let running = self.root.path().join("running");
        let start = format!("#!/bin/sh\ntouch '{}'\n", running.display());
        self.scratch.write("site/start", &start);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(site.join("start"), executable).unwrap();
        let config = std::fs::read_to_string(self.scratch.path("marb-backup.toml")).unwrap();
        let storages = "storages = ['local']";
        let job = format!("[job.site]\nfiles = {{ paths = ['{}'] }}\n{storages}\n", site.display());
        let start = self.on_the_new_machine("start");
        let migrate =
            "psql -X -q -v ON_ERROR_STOP=1 -d \"$DATABASE_URL\" -c 'CREATE TABLE migrated (n int)'";
        let restore = format!(
            "[restore]\nstart = [['{}']]\nmigrate = [['sh', '-c', '''{migrate}''']]\n\
             health = {{ url = 'http://127.0.0.1:PORT/health', timeout = '10s' }}\n",
            start.display()
        );
        self.scratch.write("marb-backup.toml", &format!("{config}{job}{restore}"));
    }

    fn on_the_new_machine(&self, file: &str) -> PathBuf {
        let site = self.scratch.path("site");
        self.root.path().join(site.strip_prefix("/").unwrap()).join(file)
    }

    async fn back_up(&self) {
        self.scratch.run(&["backup"]).await.expect(0);
    }
}

/// Answers 200 as long as the file is there; its port.
async fn application(running: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let status = if running.exists() { "200 OK" } else { "503 Down" };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    port
}

/// A machine with nothing on it but the key.
fn new_machine(server: &PostgresServer) -> Scratch {
    let machine = Scratch::of(server, "postgres");
    std::fs::remove_file(machine.path("marb-backup.toml")).unwrap();
    machine.write("key", &format!("{PASSPHRASE}\n"));
    machine
}

/// Databases and roles of a server.
async fn inhabitants(server: &PostgresServer) -> String {
    let sql = "SELECT (SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database)
               || ' ' || (SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles)";
    server.sql("postgres", sql).await.unwrap()
}

/// From the kit, the key and the storage to a healthy application.
async fn rehearse(service: Option<Service>) {
    let lost = Lost::new(service.as_ref()).await;
    let port = application(lost.root.path().join("running")).await;
    lost.scratch.edit_config("PORT", &port.to_string());
    lost.back_up().await;
    let fresh = PostgresServer::start(15).await.unwrap();
    let machine = new_machine(&fresh);
    let kit = machine.path("kit").display().to_string();
    lost.scratch.run(&["recovery-kit", "--out", &kit]).await.expect(0);
    // The server is gone, and everything on it but the storage.
    std::fs::remove_file(lost.scratch.path("key")).unwrap();
    std::fs::remove_dir_all(lost.scratch.path("site")).unwrap();
    std::fs::remove_dir_all(lost.scratch.path("state")).unwrap();
    let Lost { server, data, root, .. } = &lost;
    server.sql("postgres", "DROP DATABASE claims").await.unwrap();

    let config = machine.path("kit/recovery-config.toml").display().to_string();
    let (key, to) = (machine.path("key"), target_file(&machine, &fresh, "postgres"));
    let (key, tree) = (key.display().to_string(), root.path().display().to_string());
    let common = [
        "--config",
        &config,
        "--passphrase-file",
        &key,
        "--to",
        &to,
        "--in-place",
        "--root",
        &tree,
    ];
    let started = Instant::now();
    let call = |more: &[&str]| {
        let mut command = machine.command(&[&["recover"], &common[..], more].concat());
        command.env_remove("TEST_DATABASE_URL");
        if let Some(Service::S3(server)) = &service {
            let keys = server.keys(backup_testkit::servers::S3Access::Admin);
            command.env("MARB_BACKUP_S3_ACCESS_KEY_ID", keys.access_key);
            command.env("MARB_BACKUP_S3_SECRET_ACCESS_KEY", keys.secret_key);
        }
        finish(command)
    };
    let before = inhabitants(&fresh).await;
    let planned = call(&["--dry-run"]).await.expect(0);
    for words in ["job database:", "database claims", "roles", "job site:", "files"] {
        assert!(planned.stdout.contains(words), "{words}: {planned:?}");
    }
    call(&[]).await.expect(2).explains("recover", "nothing was changed");
    assert_eq!(inhabitants(&fresh).await, before);
    assert!(std::fs::read_dir(root.path()).unwrap().next().is_none());

    let done = call(&["--yes"]).await.expect(0);
    println!("rehearsed in {:.1?}:\n{}{}", started.elapsed(), done.stderr, done.stdout);
    assert!(done.stdout.contains("the application is healthy"), "{done:?}");
    assert!(started.elapsed() < REHEARSAL);
    assert_eq!(&claims_digest(&fresh, CLAIMS).await, data);
    let login = fresh.url_of("app", "planted-app-password", CLAIMS);
    machine.write("url", &login);
    let environment = std::fs::read_to_string(lost.on_the_new_machine(".env")).unwrap();
    assert_eq!(environment, "SECRET_KEY=planted-secret\n");
    let tables = "SELECT count(*) FROM migrated";
    assert_eq!(fresh.sql(CLAIMS, tables).await.unwrap(), "0", "the migrations ran");
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'claims'";
    assert_eq!(fresh.sql(CLAIMS, owner).await.unwrap(), "app");
    let may_log_in =
        "SELECT rolcanlogin AND rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'app'";
    assert_eq!(fresh.sql("postgres", may_log_in).await.unwrap(), "t");

    // Again: what is there is not touched, and the way on is named.
    let again = call(&["--yes"]).await.expect(6).explains("recover", "claims");
    assert!(again.stderr.contains("--job NAME"), "{again:?}");
    let rest = call(&["--yes", "--job", "site"]).await.expect(3);
    assert!(rest.stderr.contains("incomplete: the migrations did not run"), "{rest:?}");
}

#[tokio::test]
async fn a_new_server_from_a_folder_of_backups_and_the_key() {
    rehearse(None).await;
}

#[tokio::test]
async fn a_new_server_from_s3_and_the_key() {
    rehearse(Some(Service::start("s3").await)).await;
}

/// The backups of a lost database in a folder; a machine, its server, and a call of `recover`.
struct Bare {
    scratch: Scratch,
    fresh: PostgresServer,
    machine: Scratch,
}

impl Bare {
    async fn new(scratch: Scratch) -> Self {
        scratch.run(&["backup"]).await.expect(0);
        let fresh = PostgresServer::start(15).await.unwrap();
        let machine = new_machine(&fresh);
        Self { scratch, fresh, machine }
    }

    async fn recover(&self, more: &[&str]) -> Finished {
        let from = format!("file://{}", self.scratch.path("backups").display());
        let key = self.machine.path("key").display().to_string();
        let to = target_file(&self.machine, &self.fresh, "postgres");
        let arguments =
            ["recover", "--from", &from, "--passphrase-file", &key, "--to", &to, "--yes"];
        self.machine.run(&[&arguments[..], more].concat()).await
    }
}

#[tokio::test]
async fn roles_whose_passwords_could_not_be_dumped_are_named() {
    let server = claims_server(15, 20).await;
    let roles = "CREATE ROLE app LOGIN PASSWORD 'x'; CREATE ROLE readers;
                 CREATE ROLE dumper LOGIN PASSWORD 'dumper';
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO dumper";
    server.sql(CLAIMS, roles).await.unwrap();
    let scratch = Scratch::new(&server.url_of("dumper", "dumper", CLAIMS));
    let bare = Bare::new(scratch).await;
    let done = bare.recover(&[]).await.expect(3);
    let told = done.stderr.lines().find(|line| line.starts_with("incomplete:")).unwrap();
    assert!(told.contains("app") && told.contains("dumper") && !told.contains("readers"), "{told}");
    let there = bare.fresh.sql(CLAIMS, "SELECT count(*) FROM claims").await.unwrap();
    assert_eq!(there, "20", "all the same, everything is there");
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_forged_manifest_a_wrong_key_and_an_empty_storage_change_nothing() {
    let server = claims_server(15, 20).await;
    let bare = Bare::new(Scratch::of(&server, CLAIMS)).await;
    let before = inhabitants(&bare.fresh).await;

    bare.machine.write("key", "wrong\n");
    bare.recover(&[]).await.expect(8);
    bare.machine.write("key", &format!("{PASSPHRASE}\n"));
    bare.recover(&["--job", "nightly"]).await.expect(5);

    let folder = bare.scratch.backup_folder().await;
    edit(&folder.join("manifest.json"), "\"database\": \"claims\"", "\"database\": \"prey\"");
    bare.recover(&[]).await.expect(6);
    // Unsigned is refused as well, until it is said.
    edit(&folder.join("manifest.json"), "\"database\": \"prey\"", "\"database\": \"claims\"");
    let signature = folder.join("manifest.json.sig");
    let kept = std::fs::read(&signature).unwrap();
    std::fs::remove_file(&signature).unwrap();
    bare.recover(&[]).await.expect(6);
    assert_eq!(inhabitants(&bare.fresh).await, before);
    bare.recover(&["--accept-unsigned"]).await.expect(0);
    bare.fresh.sql("postgres", "DROP DATABASE claims").await.unwrap();
    std::fs::write(&signature, kept).unwrap();
    bare.recover(&[]).await.expect(0);
}

#[tokio::test]
async fn a_job_without_a_backup_is_named_before_and_after() {
    let files = Files::small();
    files.run(&["backup"]).await.expect(0);
    let invoices = "[job.invoices]\npostgres = { url = 'postgresql:///invoices' }\n\
                    storages = ['local']\n[job.config]\n";
    files.scratch.edit_config("[job.config]\n", invoices);
    let to = |name: &str| format!("--config-out={}", files.path(name));
    let planned = files.run(&["recover", &to("to"), "--dry-run"]).await.expect(3);
    assert!(planned.stdout.contains("job invoices: there is no backup of it"), "{planned:?}");
    let planned = files.run(&["recover", &to("to"), "--dry-run", "--json"]).await.expect(3);
    assert_eq!(planned.json()["missing"], serde_json::json!(["invoices"]));

    let done = files.run(&["recover", &to("to"), "--yes"]).await.expect(3);
    assert!(done.stderr.contains("incomplete: job invoices: there is no backup"), "{done:?}");
    assert!(done.stdout.contains("Recovered in part"), "{done:?}");
    let done = files.run(&["recover", &to("quiet"), "--yes", "--quiet"]).await.expect(3);
    assert!(done.stderr.contains("incomplete: job invoices: there is no backup"), "{done:?}");
    let done = files.run(&["recover", &to("json"), "--yes", "--json"]).await.expect(3).json();
    assert_eq!(done["missing"], serde_json::json!(["invoices"]));
    // Who names a job wants no other.
    let alone = files.run(&["recover", &to("alone"), "--yes", "--job", "config"]).await.expect(0);
    assert!(!alone.stderr.contains("invoices"), "{alone:?}");
}

#[tokio::test]
async fn attributes_that_could_not_be_set_are_named() {
    if !is_root() {
        return;
    }
    let files = Files::small();
    files.run(&["backup"]).await.expect(0);
    files.share();
    let to = files.path("to");
    std::fs::create_dir(&to).unwrap();
    std::os::unix::fs::chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
    let done = files.run_as_nobody(&["recover", "--config-out", &to, "--yes"]).await.expect(3);
    let told = done.stderr.lines().find(|line| line.contains("app/.env")).unwrap();
    assert!(told.starts_with("incomplete:") && told.contains("the owner root:root"), "{told}");
    assert!(done.stdout.contains("Recovered in part"), "{done:?}");
}
