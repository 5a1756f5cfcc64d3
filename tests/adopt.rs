//! Dumps of the old scripts become backups: listed, verified, restored, and never taken twice.

mod claims;
mod configs;
mod held;

use std::path::PathBuf;

use backup_testkit::postgres::PostgresServer;
use serde_json::Value;

use crate::support::{
    CLAIMS, Finished, Scratch, claims_digest, claims_server, run_old_script, target_file,
};

/// The old scripts' files: name, and the pipe behind pg_dump that made them.
const OLD: [(&str, &str); 4] = [
    ("db_backup_20251231_020000.dump", "cat"),
    ("db_backup_20260101_020000.dump.gz", "gzip"),
    ("db_backup_20260102_020000.dump.gpg.gz", "$GPG | gzip"),
    ("db_backup_20260103_020000.dump.gz.gpg", "gzip | $GPG"),
];

struct Old {
    server: PostgresServer,
    scratch: Scratch,
}

impl Old {
    async fn new() -> Self {
        let server = claims_server(15, 300).await;
        let scratch = Scratch::of(&server, CLAIMS);
        std::fs::create_dir(scratch.path("old")).unwrap();
        let old = Self { server, scratch };
        for (name, pipe) in OLD {
            old.write(name, pipe).await;
        }
        std::fs::write(old.file("db_backup_20260101_020000.dump.gz.meta"), "size=1\n").unwrap();
        std::fs::write(old.file("notes.txt"), "not a backup").unwrap();
        old
    }

    /// Writes a file as the old scripts did.
    async fn write(&self, name: &str, pipe: &str) {
        self.shell(&format!("pg_dump -Fc | {pipe} > old/{name}")).await;
    }

    /// Runs a script in the scratch; `$GPG` encrypts.
    async fn shell(&self, script: &str) {
        run_old_script(&self.server, &self.scratch, script).await;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path("old").join(name)
    }

    async fn adopt(&self, more: &[&str]) -> Finished {
        self.adopt_to("local", more).await
    }

    async fn adopt_to(&self, storage: &str, more: &[&str]) -> Finished {
        let folder = self.scratch.path("old").display().to_string();
        let mut arguments = vec!["adopt", &folder, "--job", "database", "--to", storage];
        arguments.extend(["--time-zone", "Europe/Berlin", "--json"]);
        arguments.extend(more);
        self.scratch.run(&arguments).await
    }

    /// Name and bytes of every original.
    fn originals(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.scratch.path("old")).unwrap().map(Result::unwrap);
        let mut all: Vec<_> = entries
            .map(|entry| {
                let bytes = std::fs::read(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), bytes)
            })
            .collect();
        all.sort();
        all
    }
}

/// The fate of each file, in order.
fn fates(document: &Value) -> Vec<String> {
    let files = document["files"].as_array().unwrap();
    files.iter().map(|file| file["fate"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn old_dumps_become_backups_that_verify_and_restore() {
    let old = Old::new().await;
    let originals = old.originals();
    let wanted = claims_digest(&old.server, CLAIMS).await;

    // Without --apply nothing is written.
    assert_eq!(fates(&old.adopt(&[]).await.expect(0).json()), ["whole"; 4]);
    assert!(old.scratch.listed().await.is_empty());

    let adopted = old.adopt(&["--apply"]).await.expect(0).json();
    assert_eq!(fates(&adopted), ["adopted"; 4]);
    // Two o'clock in Berlin, in winter.
    let ids = ["20251231T010000Z", "20260101T010000Z", "20260102T010000Z", "20260103T010000Z"];
    assert_eq!(old.scratch.listed().await, ids);
    assert_eq!(old.originals(), originals, "the originals are untouched");

    // A second run takes nothing twice.
    assert_eq!(fates(&old.adopt(&["--apply"]).await.expect(0).json()), ["there"; 4]);
    assert_eq!(old.scratch.listed().await.len(), 4);

    let order: [&[&str]; 4] = [&[], &["gzip"], &["openpgp", "gzip"], &["gzip", "openpgp"]];
    for (number, id) in ids.iter().enumerate() {
        let shown = old.scratch.run(&["show", id, "--json"]).await.expect(0).json();
        let text = shown.to_string();
        assert!(text.contains("\"kind\":\"legacy\""), "{text}");
        let folder = old.scratch.path("backups/database").join(&id[..4]).join(&id[4..6]).join(id);
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let part = &manifest["parts"][0];
        let transforms: Vec<&str> =
            part["transforms"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(transforms, order[number]);
        assert_eq!(part["file"], OLD[number].0);
        let stored = std::fs::read(folder.join(OLD[number].0)).unwrap();
        assert_eq!(stored, std::fs::read(old.file(OLD[number].0)).unwrap(), "byte for byte");
        assert!(folder.join("manifest.json.sig").exists());

        old.scratch.run(&["verify", id]).await.expect(0);
        let name = format!("adopted_{number}");
        let target = target_file(&old.scratch, &old.server, &name);
        old.scratch.run(&["restore", id, "--to", &target]).await.expect(0);
        assert_eq!(claims_digest(&old.server, &name).await, wanted, "{id}");
    }
    // The job goes on with backups of its own.
    old.scratch.assert_next_run_works().await;
}

/// The commands of RESTORE.md, as they stand.
#[tokio::test]
async fn an_old_dump_comes_back_by_hand() {
    let old = Old::new().await;
    let wanted = claims_digest(&old.server, CLAIMS).await;
    old.adopt(&["--apply"]).await.expect(0);
    old.server.sql("postgres", &format!("DROP DATABASE {CLAIMS}")).await.unwrap();
    let folder = old.scratch.path("backups/database/2026/01/20260102T010000Z");
    let note = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let blocks = note.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.collect();
    let folder = folder.display();
    old.shell(&format!("export PASSPHRASE_FILE=$PWD/key; cd {folder}; {script}")).await;
    assert_eq!(claims_digest(&old.server, CLAIMS).await, wanted);
}

#[tokio::test]
async fn what_is_damaged_is_named_and_stays() {
    let old = Old::new().await;
    let cut = old.file(OLD[1].0);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(old.file(OLD[2].0), "").unwrap();
    std::fs::write(old.file("db_backup_20260104_030000.dump"), "SELECT 1;\n").unwrap();
    let originals = old.originals();

    let done = old.adopt(&["--apply"]).await.expect(4);
    for (name, _) in &OLD[1..3] {
        assert!(done.stderr.contains(&format!("failed: {name}")), "{}", done.stderr);
    }
    assert_eq!(fates(&done.json()), ["adopted", "failed", "failed", "adopted", "other"]);
    assert_eq!(old.scratch.listed().await, ["20251231T010000Z", "20260103T010000Z"]);
    assert_eq!(old.originals(), originals);

    // Without the key what is encrypted can't be read: neither whole nor damaged.
    let other = Old::new().await;
    other.scratch.write("key", "another passphrase\n");
    let done = other.adopt(&["--apply"]).await.expect(3);
    assert_eq!(fates(&done.json()), ["adopted", "adopted", "failed", "failed"]);
}
