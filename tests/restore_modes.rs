//! Restores into a database that is in use, and with several jobs: one table, in place, from
//! backups and from plain files. Struck at random moments nothing half-done can be seen, and no
//! bytes of the backup stay on the disk.

mod one_table;
mod refused;
mod safety;
mod struck;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_cli::config::{Config, Environment, Value};
use backup_cli::{Deployment, RestoreFrom, RestoreOptions, SafetyBackup};
use backup_core::ErrorKind;
use backup_core::pipeline::{Context, Event, Progress};
use backup_testkit::postgres::PostgresServer;
use tokio::process::Command;

use crate::support::{
    CLAIMS, Finished, Scratch, claims_digest, claims_server, finish, run_old_script, target_file,
};

/// OpenPGP's modification detection code: the last bytes of a message.
const MDC_BYTES: usize = 22;

/// What an application does to its data after the backup.
const CHANGES: &str = "DELETE FROM claims WHERE id % 3 = 0; UPDATE payers SET name = 'changed'";

/// A server with claims, and a scratch whose temporary files have a folder of their own.
struct Live {
    server: PostgresServer,
    scratch: Scratch,
    /// What the database held when it was backed up.
    original: String,
}

impl Live {
    async fn new(rows: u32) -> Self {
        let server = claims_server(15, rows).await;
        let scratch = Scratch::of(&server, CLAIMS);
        std::fs::create_dir(scratch.path("tmp")).unwrap();
        let original = claims_digest(&server, CLAIMS).await;
        Self { server, scratch, original }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scratch.command(arguments);
        command.env("TMPDIR", self.scratch.path("tmp"));
        command
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments)).await
    }

    async fn sql(&self, sql: &str) -> String {
        self.server.sql(CLAIMS, sql).await.unwrap()
    }

    /// Whether the table is there.
    async fn has_claims(&self) -> bool {
        self.sql("SELECT to_regclass('public.claims') IS NOT NULL").await == "t"
    }

    /// Bytes of files that lie in the folder for temporary ones.
    fn bytes_left(&self) -> u64 {
        let mut bytes = 0;
        let mut folders = vec![self.scratch.path("tmp")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.metadata().unwrap() {
                    metadata if metadata.is_dir() => folders.push(entry.path()),
                    metadata => bytes += metadata.len(),
                }
            }
        }
        bytes
    }

    /// What `pg_dump -Fc` writes, sealed and pressed as the old scripts did.
    async fn old_file(&self, layers: &str) -> PathBuf {
        let name = format!("old.dump.{layers}");
        let layers = layers.split('.').map(|layer| match layer {
            "gpg" => "$GPG -z 0",
            other => other,
        });
        let pipe = layers.collect::<Vec<_>>().join(" | ");
        let pipe = format!("pg_dump -Fc -Z0 | {pipe} > {name}");
        run_old_script(&self.server, &self.scratch, &pipe).await;
        self.scratch.path(&name)
    }

    /// A deployment of the library on the scratch's config.
    fn deployment(&self) -> Deployment {
        let variables = [
            ("TEST_DATABASE_URL".into(), self.server.url(CLAIMS).into()),
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
        ];
        let config = Config::read(&self.scratch.path("marb-backup.toml")).unwrap();
        Deployment::new(config, Environment::new(variables)).unwrap()
    }
}

/// Turns a bit of the last bytes; a second time puts it back.
fn damage_end(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let start = bytes.len() - MDC_BYTES;
    bytes[start + at] ^= 1 << (at % 8);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_lost_table_comes_back_and_the_others_stay() {
    let live = Live::new(500).await;
    live.run(&["backup"]).await.expect(0);
    let old = live.old_file("gzip.gpg").await.display().to_string();
    let pressed = live.old_file("gzip").await.display().to_string();
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    for from in ["latest", &old, &pressed] {
        live.sql("DROP TABLE claims; UPDATE payers SET name = 'mine'").await;
        let restore = ["restore", from, "--to", &to, "--table", "claim?", "--json"];
        let done = live.run(&restore).await.expect(0).json();
        assert_eq!(done["rows_compared"], 500);
        assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
        assert_eq!(live.sql("SELECT DISTINCT name FROM payers").await, "mine");
        assert_eq!(live.bytes_left(), 0);
    }
    // There already: refused. Unknown: named. Rows alone: added.
    let again = live.run(&["restore", "latest", "--to", &to, "--table", "claims"]).await.expect(6);
    again.explains("pg_restore", "already");
    let typo = live.run(&["restore", "latest", "--to", &to, "--table", "clains"]).await.expect(2);
    assert!(typo.stderr.contains("public.claims"), "{typo:#?}");
    live.sql("DELETE FROM claims WHERE id > 100; ALTER TABLE claims DROP CONSTRAINT claims_pkey")
        .await;
    let rows = ["restore", "latest", "--to", &to, "--table", "claims", "--data-only"];
    live.run(&rows).await.expect(0);
    assert_eq!(live.sql("SELECT count(*) FROM claims").await, "600");
}

#[tokio::test]
async fn several_jobs_restore_from_a_backup_and_from_a_plain_file() {
    let live = Live::new(2000).await;
    live.run(&["backup"]).await.expect(0);
    let old = live.old_file("gpg.gzip").await.display().to_string();
    let to = target_file(&live.scratch, &live.server, "restored");
    for from in ["latest", &old] {
        live.run(&["restore", from, "--to", &to, "--jobs", "2"]).await.expect(0);
        assert_eq!(claims_digest(&live.server, "restored").await, live.original);
        assert_eq!(live.bytes_left(), 0);
        live.server.sql("postgres", "DROP DATABASE restored").await.unwrap();
    }
}

#[tokio::test]
async fn in_place_the_backup_replaces_what_was_changed_after_a_safety_backup() {
    let live = Live::new(500).await;
    live.run(&["backup"]).await.expect(0);
    let first = live.scratch.listed().await.pop().unwrap();
    live.sql(CHANGES).await;
    live.sql("CREATE TABLE mine AS SELECT 1 AS one").await;
    let changed = claims_digest(&live.server, CLAIMS).await;
    live.run(&["restore", &first, "--in-place"]).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    assert_eq!(live.sql("SELECT one FROM mine").await, "1");

    // The safety backup holds what was there.
    let listed = live.scratch.listed().await;
    assert_eq!(listed.len(), 2);
    let safety = listed.iter().find(|id| **id != first).unwrap();
    let beside = target_file(&live.scratch, &live.server, "beside");
    live.run(&["restore", safety, "--to", &beside]).await.expect(0);
    assert_eq!(claims_digest(&live.server, "beside").await, changed);

    // One that fails: nothing is restored.
    live.sql(CHANGES).await;
    let changed = claims_digest(&live.server, CLAIMS).await;
    let url = "url = { env = 'TEST_DATABASE_URL' }";
    live.scratch.edit_config(url, &format!("{url}, lock_wait_timeout = '1s'"));
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let refused =
        crate::support::while_locked(&live.server, live.run(&["restore", &first, "--in-place"]))
            .await;
    refused.expect(6).explains("safety backup", "nothing was restored");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, changed);
    assert_eq!(live.scratch.listed().await.len(), 2);

    // Something in the way, found before anything is done.
    live.sql("CREATE VIEW over AS SELECT id FROM claims").await;
    let blocked = live.run(&restore_without_backup(&first, &to)).await.expect(6);
    blocked.explains("pg_restore", "view public.over needs table public.claims");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, changed);
    live.sql("DROP VIEW over").await;

    // From what the old scripts wrote.
    let old = live.old_file("gzip.gpg").await.display().to_string();
    live.sql("DROP TABLE claims").await;
    live.run(&restore_without_backup(&old, &to)).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, changed);
    assert_eq!(live.scratch.listed().await.len(), 2, "no safety backup, as told");
}

fn restore_without_backup<'a>(from: &'a str, to: &'a str) -> [&'a str; 6] {
    ["restore", from, "--to", to, "--in-place", "--no-safety-backup"]
}

/// Looks, as fast as it can, whether anybody can see a row of the backup.
async fn watch(live: &Live, work: impl Future<Output = ()>) {
    let looking = async {
        loop {
            let seen = live.sql("SELECT count(*) FROM claims WHERE note <> 'live'").await;
            assert_eq!(seen, "0", "a row of a damaged backup could be seen");
        }
    };
    tokio::select! {
        () = work => {}
        () = looking => {}
    }
    let seen = live.sql("SELECT count(*) FROM claims WHERE note <> 'live'").await;
    assert_eq!(seen, "0", "a row of a damaged backup could be seen");
}

/// Everything is right but the last 22 bytes: all rows were decoded, none may be seen.
#[tokio::test]
async fn with_a_damaged_end_no_row_is_ever_visible() {
    let live = Live::new(20_000).await;
    live.run(&["backup"]).await.expect(0);
    let file = live.old_file("gpg").await;
    live.sql("UPDATE claims SET note = 'live'").await;
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let path = file.display().to_string();
    watch(&live, async {
        for at in 0..MDC_BYTES {
            damage_end(&file, at);
            let run = live.run(&restore_without_backup(&path, &to)).await;
            assert_eq!(run.code, 4, "byte {at}: {run:#?}");
            damage_end(&file, at);
        }
    })
    .await;
    damage_end(&file, 5);
    let table = ["restore", &path, "--to", &to, "--table", "claims", "--into-schema", "old"];
    live.run(&table).await.expect(4);
    assert_eq!(live.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'old'").await, "0");
    let stored = live.scratch.backup_folder().await;
    let part = std::fs::read_dir(stored).unwrap().map(|entry| entry.unwrap().path());
    let dump = part.into_iter().find(|path| path.to_string_lossy().contains(".dump.")).unwrap();
    damage_end(&dump, 5);
    watch(&live, async {
        drop(live.run(&restore_without_backup("latest", &to)).await.expect(4));
    })
    .await;
}

/// Breaks a file as soon as it was read and found whole.
struct BreaksAfterCheck(PathBuf);

impl Progress for BreaksAfterCheck {
    fn event(&self, event: Event<'_>) {
        if let Event::Step { what } = event
            && what.starts_with("restoring over")
        {
            damage_end(&self.0, 5);
        }
    }
}

/// The first reading can't prove the second.
#[tokio::test]
async fn a_file_that_breaks_between_two_readings_restores_nothing() {
    let live = Live::new(20_000).await;
    let file = live.old_file("gpg").await;
    live.sql("UPDATE claims SET note = 'live'").await;
    let context = Context::with_progress(Arc::new(BreaksAfterCheck(file.clone())));
    let options = RestoreOptions::into_database(Value::Literal(live.server.url(CLAIMS)));
    let deployment = live.deployment();
    watch(&live, async {
        let restored = deployment
            .restore_in_place(
                RestoreFrom::File(&file),
                &options,
                &SafetyBackup::None,
                &context,
                &|_| {},
            )
            .await;
        assert_eq!(restored.unwrap_err().kind(), ErrorKind::Damaged);
    })
    .await;
}
