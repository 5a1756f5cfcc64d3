//! Safety checks: another source's folder, locks, forged manifests, damage. What is refused
//! changes nothing.

use std::path::{Path, PathBuf};

use backup_testkit::postgres::PostgresServer;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{
    CLAIMS, Finished, Scratch, cases, claims_digest, claims_server, finish_started, seed,
    target_file, while_locked,
};

/// The database that is restored into.
const RESTORED: &str = "restored";

/// Restores the newest backup into [`RESTORED`].
async fn restore(scratch: &Scratch, server: &PostgresServer, more: &[&str]) -> Finished {
    let to = target_file(scratch, server, RESTORED);
    scratch.run(&[&["restore", "latest", "--to", &to], more].concat()).await
}

/// Asserts that the server has no database but those it had.
async fn assert_no_database_made(server: &PostgresServer) {
    let sql = format!(
        "SELECT string_agg(datname, ' ') FROM pg_database
         WHERE datname NOT IN ('postgres', 'template0', 'template1', '{CLAIMS}')"
    );
    assert_eq!(server.sql("postgres", &sql).await.unwrap(), "", "a database was left");
}

#[tokio::test]
async fn another_servers_folder_is_left_alone() {
    let (production, staging) = tokio::join!(claims_server(15, 10), claims_server(15, 10));
    let scratch = Scratch::of(&production, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let before = scratch.holdings().await;

    scratch.write("url", &staging.url(CLAIMS));
    let run = scratch.run(&["backup"]).await.expect(6);
    run.explains("safety check", "job \"database\" holds backups of");
    assert_eq!(scratch.holdings().await, before);

    // Another database of the same server is another source, too.
    production.sql("postgres", "CREATE DATABASE other").await.unwrap();
    scratch.write("url", &production.url("other"));
    scratch.run(&["backup"]).await.expect(6).explains("safety check", "\"other\"");
    assert_eq!(scratch.holdings().await, before);

    scratch.write("url", &staging.url(CLAIMS));
    scratch.run(&["backup", "--adopt"]).await.expect(0);
    scratch.assert_next_run_works().await;
    scratch.write("url", &production.url(CLAIMS));
    scratch.run(&["backup"]).await.expect(6);
}

#[tokio::test]
async fn two_jobs_do_not_wait_for_each_other_and_two_runs_of_one_exclude_each_other() {
    let server = claims_server(15, 10).await;
    server.sql("postgres", "CREATE DATABASE other").await.unwrap();
    let scratch = Scratch::of(&server, CLAIMS);
    let other = "[job.other]\npostgres = { url = { env = 'OTHER_URL' } }\nstorages = ['local']\n\n[job.database]";
    scratch.edit_config("[job.database]", other);
    let waiting = while_locked(&server, async {
        let waiting = scratch.start(&["backup", "database"]);
        scratch.wait_for_process("pg_dump").await;
        let mut command = scratch.command(&["backup", "other"]);
        command.env("OTHER_URL", server.url("other"));
        crate::support::finish(command).await.expect(0);
        let second = scratch.run(&["backup", "database"]).await.expect(7);
        second.explains("lock", "another run of job \"database\" is going on");
        waiting
    });
    finish_started(waiting.await).await.expect(0);
    assert_eq!(scratch.listed().await.len(), 2);
}

#[tokio::test]
async fn a_killed_run_leaves_no_lock() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let killed = while_locked(&server, async {
        let mut child = scratch.start(&["backup"]);
        scratch.wait_for_process("pg_dump").await;
        child.start_kill().unwrap();
        finish_started(child).await
    });
    assert_eq!(killed.await.code, 128 + Signal::SIGKILL as i32);
    scratch.assert_no_process_left();
    scratch.assert_next_run_works().await;
}

#[tokio::test]
async fn a_forged_manifest_is_refused() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let manifest = scratch.backup_folder().await.join("manifest.json");
    let honest = std::fs::read_to_string(&manifest).unwrap();
    let host =
        scratch.run(&["list", "--json"]).await.json()["backups"][0]["manifest"]["host"].clone();
    let forged = honest.replace(&host.to_string(), "\"elsewhere\"");
    assert_ne!(forged, honest);
    std::fs::write(&manifest, forged).unwrap();
    restore(&scratch, &server, &[]).await.expect(6);
    restore(&scratch, &server, &["--accept-unsigned"]).await.expect(6);
    let verified = scratch.run(&["verify"]).await;
    assert!(matches!(verified.code, 4 | 6), "{verified:#?}");
    assert_no_database_made(&server).await;

    std::fs::write(&manifest, honest).unwrap();
    restore(&scratch, &server, &[]).await.expect(0);
    assert_eq!(claims_digest(&server, RESTORED).await, claims_digest(&server, CLAIMS).await);
}

#[tokio::test]
async fn a_backup_without_its_signature_needs_a_word() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let folder = scratch.backup_folder().await;
    std::fs::remove_file(folder.join("manifest.json.sig")).unwrap();
    restore(&scratch, &server, &[]).await.expect(6);
    assert_no_database_made(&server).await;
    restore(&scratch, &server, &["--accept-unsigned"]).await.expect(0);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Whoever may write to the storage can put a backup there that is whole in itself.
#[tokio::test]
async fn somebody_elses_backup_is_refused() {
    let server = claims_server(15, 10).await;
    // Encrypted with another passphrase: it can't be opened. Not encrypted: it could be.
    for (job, code) in [("", 8), ("encrypt = false", 6)] {
        let scratch = Scratch::of(&server, CLAIMS);
        let theirs = Scratch::with_job(&server.url(CLAIMS), job);
        theirs.write("key", "another passphrase\n");
        theirs.run(&["backup"]).await.expect(0);
        theirs.run(&["verify"]).await.expect(0);
        copy_folder(&theirs.path("backups"), &scratch.path("backups"));
        restore(&scratch, &server, &[]).await.expect(code);
        restore(&scratch, &server, &["--accept-unsigned"]).await.expect(code);
        scratch.run(&["verify"]).await.expect(code);
        assert_no_database_made(&server).await;
    }
}

#[tokio::test]
async fn without_the_right_key_nothing_is_restored() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let key = std::fs::read_to_string(scratch.path("key")).unwrap();
    scratch.write("key", "another passphrase\n");
    let run = restore(&scratch, &server, &[]).await.expect(8);
    run.explains("openpgp", "the passphrase is wrong");
    scratch.run(&["verify"]).await.expect(8);
    scratch.write("key", &key);

    let storage = format!("file://{}", scratch.path("backups").display());
    let to = target_file(&scratch, &server, RESTORED);
    scratch.run(&["restore", "latest", "--to", &to, "--from", &storage]).await.expect(8);
    scratch.run(&["verify", "latest", "--from", &storage]).await.expect(8);
    assert_no_database_made(&server).await;
    restore(&scratch, &server, &[]).await.expect(0);
}

/// Flips one bit of a file.
fn damage(file: &Path, random: &mut StdRng) -> String {
    let mut bytes = std::fs::read(file).unwrap();
    let (at, bit) = (random.gen_range(0..bytes.len()), random.gen_range(0..8));
    bytes[at] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
    format!("bit {bit} of byte {at} of {}", file.display())
}

#[tokio::test]
async fn a_damaged_part_is_told_and_not_restored() {
    let server = claims_server(15, 300).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let folder = scratch.backup_folder().await;
    let mut random = StdRng::seed_from_u64(seed());
    let parts = ["claims.dump.zst.gpg", "globals.sql.zst.gpg", "contents.json.zst.gpg"];
    for case in 0..cases(20, 100) {
        // The dump takes most of the blows.
        let part = folder.join(parts[if case % 2 == 0 { 0 } else { case / 2 % 3 }]);
        let whole = std::fs::read(&part).unwrap();
        let what = damage(&part, &mut random);
        println!("{what}");
        let verified = scratch.run(&["verify", "--json"]).await.expect(4);
        assert_eq!(verified.json()["verified"][0]["copies"][0]["passed"], false, "{what}");
        if case % 3 == 0 {
            restore(&scratch, &server, &[]).await.expect(4);
        }
        std::fs::write(&part, whole).unwrap();
    }
    assert_no_database_made(&server).await;
    restore(&scratch, &server, &[]).await.expect(0);
}

#[tokio::test]
async fn damage_of_any_other_file_is_told() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let folder = scratch.backup_folder().await;
    let mut random = StdRng::seed_from_u64(seed());
    for name in ["RESTORE.md", "SHA256SUMS", "manifest.json", "manifest.json.sig"] {
        for _ in 0..cases(3, 30) {
            let file = folder.join(name);
            let whole = std::fs::read(&file).unwrap();
            let what = damage(&file, &mut random);
            let verified = scratch.run(&["verify"]).await;
            println!("{what}: {}", verified.code);
            assert!(matches!(verified.code, 4 | 6 | 8), "{what}: {verified:#?}");
            std::fs::write(&file, whole).unwrap();
        }
    }
    scratch.run(&["verify"]).await.expect(0);
}

/// What is cut off, or gone, is damage that `list` shows already.
#[tokio::test]
async fn a_cut_or_missing_part_is_listed_as_damaged() {
    let server = claims_server(15, 300).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let part: PathBuf = scratch.backup_folder().await.join("claims.dump.zst.gpg");
    let whole = std::fs::read(&part).unwrap();
    let cut = StdRng::seed_from_u64(seed()).gen_range(0..whole.len());
    std::fs::write(&part, &whole[..cut]).unwrap();
    for _ in 0..2 {
        let list = scratch.run(&["list"]).await.expect(0);
        assert!(list.stdout.contains("damaged in local"), "{list:#?}");
        scratch.run(&["verify"]).await.expect(4);
        restore(&scratch, &server, &[]).await.expect(4);
        let _ = std::fs::remove_file(&part);
    }
    assert_no_database_made(&server).await;
}
