//! Without us: RESTORE.md followed to the letter with stock programs, and what stock programs
//! wrote brought back by ours.

use std::path::{Path, PathBuf};

use backup_testkit::postgres::{PASSWORD, PostgresServer, SUPERUSER, client_tools};
use tokio::process::Command;

use crate::hostile::{HOSTILE, assert_same, dump_text, globals_text, sql_file};
use crate::support::{Finished, Scratch, finish, target_file};

/// A little database for what does not depend on its content.
const SMALL: &str = "create table claims (id int primary key, note text); \
     insert into claims select n, md5(n::text) from generate_series(1, 5000) n; \
     create table empty ();";

/// The commands of a RESTORE.md: what stands in its `sh` fences, in order.
fn commands(note: &str) -> String {
    let fenced = note.split("```sh\n").skip(1);
    fenced.map(|block| block.split("```").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Runs them as they stand, in the backup's folder, with nothing of ours on the way.
async fn follow_note(
    folder: &Path,
    server: &PostgresServer,
    tools: &Path,
    home: &Path,
    key: &Path,
) -> Finished {
    let note = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let mut command = Command::new("bash");
    let path = std::env::join_paths(
        [tools.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    command
        .args(["-c", &commands(&note)])
        .current_dir(folder)
        .env("PATH", path.unwrap())
        .env("PGHOST", server.host())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", PASSWORD)
        .env("PASSPHRASE_FILE", key)
        .env("GNUPGHOME", home)
        .kill_on_drop(true);
    finish(command).await
}

fn gnupg_home(scratch: &Scratch) -> PathBuf {
    let home = scratch.path("gnupg");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    home
}

async fn gpg(home: &Path, arguments: &[&str]) {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--quiet", "--pinentry-mode", "loopback"]).args(arguments);
    finish({
        command.env("GNUPGHOME", home);
        command
    })
    .await
    .expect(0);
}

/// Ends the agent that gpg left behind.
async fn end_agent(home: &Path) {
    let mut command = Command::new("gpgconf");
    command.args(["--kill", "all"]).env("GNUPGHOME", home);
    finish(command).await;
}

/// A hostile database on `major`, brought back by hand with the tools of `tools_major`.
async fn by_hand(major: u32, tools_major: u32) {
    let origin = PostgresServer::start(major).await.unwrap();
    origin.load("postgres", &sql_file(), &[&format!("db={HOSTILE}")]).await.unwrap();
    let scratch = Scratch::of(&origin, HOSTILE);
    scratch.run(&["backup"]).await.expect(0);

    let target = PostgresServer::start(major).await.unwrap();
    let (home, tools) = (gnupg_home(&scratch), client_tools(tools_major).unwrap());
    let folder = scratch.backup_folder().await;
    follow_note(&folder, &target, &tools, &home, &scratch.path("key")).await.expect(0);
    end_agent(&home).await;

    let (before, after) =
        (dump_text(&origin, &tools, HOSTILE), dump_text(&target, &tools, HOSTILE));
    assert_same(&before, &after, "the pg_dump texts");
    assert_same(&globals_text(&origin, &tools), &globals_text(&target, &tools), "the globals");
}

#[tokio::test]
async fn restore_md_to_the_letter_gives_the_same_database() {
    by_hand(15, 15).await;
}

/// pg_restore 17 sets a parameter that a server 16 refuses; the note's command deals with it.
#[tokio::test]
async fn restore_md_to_the_letter_with_a_newer_client() {
    by_hand(16, 17).await;
}

/// Every combination of codec and key, on a small database.
#[tokio::test]
async fn restore_md_fits_every_codec_and_key() {
    let server = PostgresServer::start(15).await.unwrap();
    let tools = client_tools(15).unwrap();
    for (codec, key) in
        [("gzip", "passphrase"), ("zstd:9", "recipient"), ("none", "none"), ("none", "passphrase")]
    {
        server.sql("postgres", "create database small").await.unwrap();
        server.sql("small", SMALL).await.unwrap();
        let before = dump_text(&server, &tools, "small");

        let scratch = Scratch::with_job(&server.url("small"), &format!("compression = '{codec}'"));
        let home = gnupg_home(&scratch);
        match key {
            "recipient" => recipient_instead_of_passphrase(&scratch, &home).await,
            "none" => scratch.edit_config("compression =", "encrypt = false\ncompression ="),
            _ => {}
        }
        scratch.run(&["backup"]).await.expect(0);
        server.sql("postgres", "drop database small").await.unwrap();
        let folder = scratch.backup_folder().await;
        let done = follow_note(&folder, &server, &tools, &home, &scratch.path("key")).await;
        end_agent(&home).await;
        assert_eq!(done.code, 0, "{codec}, {key}: {done:#?}");
        assert_same(
            &before,
            &dump_text(&server, &tools, "small"),
            &format!("{codec}, {key}: the texts"),
        );
        server.sql("postgres", "drop database small").await.unwrap();
    }
}

/// The host keeps only a public key; the private half is in gpg's keyring.
async fn recipient_instead_of_passphrase(scratch: &Scratch, home: &Path) {
    gpg(
        home,
        &[
            "--passphrase",
            "",
            "--quick-generate-key",
            "Backup <b@example.org>",
            "future-default",
            "default",
            "never",
        ],
    )
    .await;
    let public = scratch.path("public.asc").display().to_string();
    gpg(home, &["--armor", "--output", &public, "--export", "b@example.org"]).await;
    let key = scratch.path("key").display().to_string();
    scratch.edit_config(
        &format!("passphrase = {{ file = '{key}' }}"),
        &format!("recipients = ['{public}']"),
    );
}

/// With a public key alone nobody can forge a restore: it is refused until told otherwise.
#[tokio::test]
async fn a_recipients_backup_comes_back_with_the_private_key() {
    let server = PostgresServer::start(15).await.unwrap();
    server.sql("postgres", "create database small").await.unwrap();
    server.sql("small", SMALL).await.unwrap();
    let scratch = Scratch::of(&server, "small");
    let home = gnupg_home(&scratch);
    recipient_instead_of_passphrase(&scratch, &home).await;
    scratch.run(&["backup"]).await.expect(0);
    let to = target_file(&scratch, &server, "back");

    // Without the private key: "could not check", never "fine".
    scratch.run(&["verify"]).await.expect(8);
    scratch.run(&["restore", "latest", "--to", &to, "--accept-unsigned"]).await.expect(8);

    let secret = scratch.path("secret.asc").display().to_string();
    gpg(
        &home,
        &[
            "--passphrase",
            "",
            "--armor",
            "--output",
            &secret,
            "--export-secret-keys",
            "b@example.org",
        ],
    )
    .await;
    end_agent(&home).await;
    scratch.run(&["verify", "--secret-key", &secret]).await.expect(0);
    scratch.run(&["restore", "latest", "--to", &to, "--secret-key", &secret]).await.expect(6);
    let done = scratch
        .run(&["restore", "latest", "--to", &to, "--secret-key", &secret, "--accept-unsigned"])
        .await;
    done.expect(0);
    assert_eq!(server.sql("back", "select count(*) from claims").await.unwrap(), "5000");
}

/// What the old shell scripts wrote, in every order of their layers.
#[tokio::test]
async fn what_the_old_scripts_wrote_is_restored_and_verified() {
    let server = PostgresServer::start(15).await.unwrap();
    let tools = client_tools(15).unwrap();
    server.sql("postgres", "create database small").await.unwrap();
    server.sql("small", SMALL).await.unwrap();
    let scratch = Scratch::of(&server, "small");
    let home = gnupg_home(&scratch);
    let script = format!(
        "set -euo pipefail; seal() {{ gpg --batch --quiet --pinentry-mode loopback --passphrase-file {key} \
         --symmetric --cipher-algo AES256 -o \"$1.gpg\" \"$1\"; }}; \
         pg_dump -Fc -f a.dump; cp a.dump b.dump; gzip -k a.dump; seal a.dump; gzip a.dump.gpg; seal a.dump.gz; \
         zstd -q b.dump; seal b.dump.zst",
        key = scratch.path("key").display()
    );
    let mut command = Command::new("bash");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    command
        .args(["-c", &script])
        .current_dir(scratch.path("."))
        .env("PATH", path)
        .env("GNUPGHOME", &home);
    command.env("PGHOST", server.host()).env("PGPORT", server.port().to_string());
    command.env("PGUSER", SUPERUSER).env("PGPASSWORD", PASSWORD).env("PGDATABASE", "small");
    finish(command).await.expect(0);
    end_agent(&home).await;

    let to = target_file(&scratch, &server, "back");
    for file in ["a.dump", "a.dump.gz", "a.dump.gpg.gz", "a.dump.gz.gpg", "b.dump.zst.gpg"] {
        let verified = scratch.run(&["verify", file]).await.expect(0);
        let bare = file == "a.dump";
        assert_eq!(
            verified.stderr.contains("carries no checksum"),
            bare,
            "{file}: {}",
            verified.stderr
        );
        scratch.run(&["restore", file, "--to", &to]).await.expect(0);
        let rows =
            server.sql("back", "select count(*), sum(length(note)) from claims").await.unwrap();
        assert_eq!(rows, "5000|160000", "{file}");
        server.sql("postgres", "drop database back").await.unwrap();

        cut_and_wrong_key(&scratch, file, &to).await;
        let left = server
            .sql("postgres", "select count(*) from pg_database where not datistemplate")
            .await;
        assert_eq!(left.unwrap(), "2", "{file}: something of a failed restore is left");
    }
}

/// What a script without `pipefail` leaves behind, and what can't be judged, is never "whole".
#[tokio::test]
async fn a_file_that_is_no_whole_dump_is_never_called_whole() {
    let scratch = Scratch::new("postgresql:///unused");
    let script = "set -e; : > empty; gzip < empty > empty.gz; head -c 5000 /dev/zero > zeros; \
         sql=\"--\\n-- PostgreSQL database dump\\n--\\nselect 1;\\n\"; printf -- \"$sql\" > half.sql; \
         gzip -k half.sql; printf -- \"$sql--\\n-- PostgreSQL database dump complete\\n--\\n\" > all.sql; \
         printf 'select 1;\\n' > other.sql; printf PGDMP > start.dump";
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(scratch.path("."));
    finish(command).await.expect(0);
    for (file, code) in [
        ("./empty", 4),
        ("empty.gz", 4),
        ("half.sql", 4),
        ("half.sql.gz", 4),
        ("start.dump", 4),
        ("./zeros", 8),
        ("other.sql", 8),
        ("all.sql", 0),
    ] {
        let done = scratch.run(&["verify", file]).await;
        assert_eq!(done.code, code, "{file}: {done:#?}");
        assert_eq!(done.stdout.contains("whole"), code == 0, "{file}: {done:#?}");
    }
}

/// A file that is cut off, or whose key is another, is refused and leaves nothing.
async fn cut_and_wrong_key(scratch: &Scratch, file: &str, to: &str) {
    let whole = std::fs::read(scratch.path(file)).unwrap();
    let cut = format!("cut-{file}");
    std::fs::write(scratch.path(&cut), &whole[..whole.len() - 30]).unwrap();
    scratch.run(&["verify", &cut]).await.expect(4);
    scratch.run(&["restore", &cut, "--to", to]).await.expect(4);
    if file.contains("gpg") {
        scratch.write("other-key", "not the passphrase\n");
        let other = scratch.path("other-key").display().to_string();
        scratch.run(&["verify", file, "--passphrase-file", &other]).await.expect(8);
        scratch.run(&["restore", file, "--to", to, "--passphrase-file", &other]).await.expect(8);
    }
}
