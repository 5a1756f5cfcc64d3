//! Configuration files through the program: backed up, verified, brought back by us and by stock
//! tools, to the byte, the mode and the owner.

mod kills;
pub mod places;
mod tree;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use backup_core::Source;
use backup_files::{FilesSelection, FilesSource};
use backup_testkit::conformance;
use tokio::process::Command;

use crate::support::{CLAIMS, Finished, claims_server, finish, target_file};
use places::{Files, NOBODY, acl, is_root};
use tree::snapshot;

async fn bash(script: &str, folder: &Path, more: &[(&str, &str)]) -> Finished {
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(folder).envs(more.iter().copied());
    finish(command).await
}

/// Where the files are below a folder that they were restored into.
fn below(folder: &Path, original: &Path) -> std::path::PathBuf {
    folder.join(original.strip_prefix("/").unwrap())
}

#[tokio::test]
async fn a_deployments_files_come_back_as_they_were() {
    let files = Files::deployment();
    let made = files.run(&["backup"]).await.expect(0);
    assert!(
        made.stderr.contains(&format!("skipped, no file: {}/run.sock", files.app())),
        "{made:#?}"
    );
    files.run(&["verify", "latest"]).await.expect(0);
    let was = snapshot(&files.root());

    // Ours, into a folder.
    let ours = files.path("ours");
    files.run(&["restore", "latest", "--into", &ours]).await.expect(0);
    assert_eq!(snapshot(&below(ours.as_ref(), &files.root())), was.without("app/run.sock"));
    assert_eq!(std::fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);

    // GNU tar, from the decoded part.
    let script = "set -euo pipefail; \"$PROGRAM\" cat latest config.tar > config.tar; \
                  tar -tvf config.tar; mkdir -m 700 gnu; \
                  tar --xattrs --xattrs-include='*' --acls -xpf config.tar -C gnu";
    let program = crate::support::program().display().to_string();
    let told = bash(script, &files.scratch.path(""), &[("PROGRAM", &program)]).await.expect(0);
    // All but the socket and the folder around them.
    assert!(!told.stderr.contains("tar: "), "tar has something to say: {told:#?}");
    assert_eq!(told.stdout.lines().count() + 2, was.len(), "{told:#?}");
    let extracted = snapshot(&below(&files.scratch.path("gnu"), &files.root()));
    assert_eq!(extracted, was.without("app/run.sock"));
    let shown = files.run(&["show", "latest", "--contents", "--json"]).await.expect(0).json();
    let contents = &shown["contents"]["parts"][0]["inventory"]["files"];
    assert_eq!(contents["listed"].as_array().unwrap().len() + 2, was.len());
    assert_eq!(contents["skipped"][0], format!("{}/run.sock", files.app()));

    // The commands of RESTORE.md, as they stand.
    let folder = files.backup_folder();
    let note = std::fs::read_to_string(folder.join("RESTORE.md")).unwrap();
    let commands: Vec<&str> =
        note.split("```sh\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let key = files.path("key");
    bash(&commands.join("\n"), &folder, &[("PASSPHRASE_FILE", &key)]).await.expect(0);
    let by_hand = snapshot(&below(&folder.join("restored-files"), &files.root()));
    assert_eq!(by_hand, was.without("app/run.sock"));
    std::fs::remove_dir_all(folder.join("restored-files")).unwrap();

    // Nothing public names a file.
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    for name in ["nginx", ".env", "run.sock", "celery"] {
        assert!(!manifest.contains(name) && !note.contains(name), "{name} is public");
    }
}

#[tokio::test]
async fn in_place_everything_is_as_it_was_and_nothing_is_lost() {
    let files = Files::deployment();
    files.run(&["backup"]).await.expect(0);
    let was = snapshot(&files.root());
    let again = files.run(&["restore", "latest", "--in-place", "--json"]).await.expect(0).json();
    assert_eq!((&again["created"], &again["replaced"]), (&0.into(), &0.into()));

    std::fs::write(files.file("app/.env"), "SECRET=wrong\n").unwrap();
    std::fs::set_permissions(files.file("app/.env"), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::remove_file(files.file("etc/nginx/sites-available/marb")).unwrap();
    std::fs::remove_dir_all(files.file("etc/ssl")).unwrap();
    let broken = snapshot(&files.root());

    let dry = ["restore", "latest", "--in-place", "--dry-run"];
    let told = files.run(&dry).await.expect(0).stdout;
    assert!(
        told.contains(".env: content, 13 bytes now, 22 in the backup; mode 0644, was 0600"),
        "{told}"
    );
    assert!(!told.contains("wrong") && !told.contains("geheim"), "secrets on the screen: {told}");
    let shown = files.run(&[&dry[..], &["--show-diff"]].concat()).await.expect(0).stdout;
    assert!(shown.contains("-SECRET=wrong\n+SECRET=sehr-geheim-42\n"), "{shown}");
    assert_eq!(snapshot(&files.root()), broken, "a dry run changes nothing");

    // A single file first, then the rest.
    let only = ["restore", "latest", "--in-place", "--path", "sites-available", "--json"];
    let one = files.run(&only).await.expect(0).json();
    assert_eq!((&one["created"], &one["replaced"]), (&1.into(), &0.into()));
    assert!(!files.file("etc/ssl").exists());
    let done = files.run(&["restore", "latest", "--in-place", "--json"]).await.expect(0).json();
    assert_eq!(done["replaced"], 1);
    let kept = done["kept_aside"][0].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "SECRET=wrong\n");
    std::fs::remove_file(kept).unwrap();
    assert_eq!(snapshot(&files.root()), was);
}

#[tokio::test]
async fn the_source_keeps_the_promises_of_every_source() {
    let files = Files::deployment();
    std::fs::File::options()
        .write(true)
        .open(files.file("app/large"))
        .unwrap()
        .set_len(9 << 20)
        .unwrap();
    let paths = vec![files.root().display().to_string()];
    let selection = FilesSelection { paths, ..FilesSelection::default() };
    let source = FilesSource::new(selection);
    let mut stream = source.open().await.unwrap();
    let mut expected = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        expected.extend_from_slice(&chunk);
    }
    conformance::source(&source, &expected).await.unwrap();
}

#[tokio::test]
async fn a_backup_that_lacks_a_file_is_none() {
    let files = Files::deployment();
    std::fs::remove_file(files.file("etc/systemd/system/celery.service")).unwrap();
    let failed = files.run(&["backup"]).await.expect(1);
    failed.explains("files", "etc/systemd/system/celery.service");
    assert_eq!(files.scratch.listed().await, Vec::<String>::new());
    assert_eq!(files.scratch.stored_files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn damage_is_found_and_nothing_is_touched() {
    let files = Files::deployment();
    files.run(&["backup"]).await.expect(0);
    let part = files.backup_folder().join("config.tar.zst.gpg");
    let mut bytes = std::fs::read(&part).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    std::fs::write(files.file("app/.env"), "SECRET=now\n").unwrap();
    let before = snapshot(&files.root());
    files.run(&["restore", "latest", "--in-place"]).await.expect(4);
    assert_eq!(snapshot(&files.root()), before);
    files.run(&["verify", "latest"]).await.expect(4);
}

#[tokio::test]
async fn an_unprivileged_user_is_told_what_it_cannot_do() {
    if !is_root() {
        return;
    }
    let files = Files::deployment();
    files.run(&["backup"]).await.expect(0);
    // It may read the storage and the key, and not the secrets.
    files.share();
    let failed = files.run_as_nobody(&["backup"]).await.expect(1);
    let failed = failed.explains("files", "can't be read: ");
    assert!(
        failed.stderr.contains(&format!("{}/.env (Permission denied", files.app())),
        "{failed:#?}"
    );

    let to = files.path("to");
    std::fs::create_dir(&to).unwrap();
    std::os::unix::fs::chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
    let done = files.run_as_nobody(&["restore", "latest", "--into", &to]).await.expect(3);
    let env = below(to.as_ref(), files.file("app/.env").as_ref());
    assert!(done.stderr.contains("app/.env: the owner daemon:daemon"), "{done:#?}");
    let metadata = std::fs::metadata(&env).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, NOBODY));
    assert_eq!(std::fs::read(env).unwrap(), std::fs::read(files.file("app/.env")).unwrap());

    let empty = below(to.as_ref(), files.file("app/empty").as_ref());
    assert_eq!(std::fs::metadata(empty).unwrap().mode() & 0o7777, 0o755, "no set-user-id");
    assert!(done.stderr.contains("app/empty: set-user-id and set-group-id"), "{done:#?}");

    // In place it may not write: nothing is changed, nothing is left.
    std::fs::write(files.file("app/.env"), "SECRET=now\n").unwrap();
    let before = snapshot(&files.root());
    let failed = files.run_as_nobody(&["restore", "latest", "--in-place"]).await;
    assert!([1, 6].contains(&failed.code), "{failed:#?}");
    assert_eq!(snapshot(&files.root()), before);
}

#[tokio::test]
async fn an_acl_gives_a_foreign_group_no_more_than_others() {
    if !is_root() {
        return;
    }
    const ACL: &str = "system.posix_acl_access";
    let files = Files::small();
    let was = acl(&[(1, 6), (4, 4), (16, 4), (32, 0)], 4);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(files.file("app/.env"), ACL, &was, flags).unwrap();
    files.run(&["backup"]).await.expect(0);
    files.share();
    let to = files.path("to");
    std::fs::create_dir(&to).unwrap();
    std::os::unix::fs::chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
    let done = files.run_as_nobody(&["restore", "latest", "--into", &to]).await.expect(3);
    assert!(done.stderr.contains("app/.env: the rights of its group"), "{done:#?}");
    let env = below(to.as_ref(), files.file("app/.env").as_ref());
    let mut now = vec![0; 100];
    let length = rustix::fs::getxattr(env, ACL, &mut now).unwrap();
    // The user who is named keeps what he had.
    assert_eq!(now[..length], acl(&[(1, 6), (4, 0), (16, 4), (32, 0)], 4));
}

#[tokio::test]
async fn a_database_and_its_files_are_one_backup() {
    let server = claims_server(15, 200).await;
    let files = Files::small();
    files.scratch.write("url", &format!("{}\n", server.url(CLAIMS)));
    let job = "[job.config]\n";
    files.scratch.edit_config(
        job,
        "[job.deployment]\npostgres = { url = { env = 'TEST_DATABASE_URL' } }\n\
         app_version = { file = 'version' }\n",
    );
    files.scratch.write("version", "2.0\n");
    let made = files.run(&["backup", "--json"]).await.expect(0).json();
    let manifest = &made["backups"][0]["manifest"];
    assert_eq!(
        (&manifest["kind"], &manifest["app_version"]),
        (&"deployment".into(), &"2.0".into())
    );
    let names: Vec<&str> =
        manifest["parts"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["claims.dump", "globals.sql", "config.tar", "contents.json"]);
    files.run(&["verify", "latest"]).await.expect(0);

    // The database comes back as ever, and a newer application is warned of.
    files.scratch.write("version", "2.1\n");
    let to = target_file(&files.scratch, &server, "restored");
    let done = files.run(&["restore", "latest", "--to", &to]).await.expect(0);
    assert!(
        done.stderr.contains("version \"2.0\" of the application, here is \"2.1\""),
        "{done:#?}"
    );
    assert!(done.stderr.contains("--into FOLDER"), "{done:#?}");
    assert_eq!(server.sql("restored", "SELECT count(*) FROM claims").await.unwrap(), "200");
    let was = snapshot(&files.root());
    let into = files.path("into");
    files.run(&["restore", "latest", "--into", &into]).await.expect(0);
    assert_eq!(snapshot(&below(into.as_ref(), &files.root())), was);
    let env = files.file("app/.env");
    std::fs::write(&env, "other").unwrap();
    files.run(&["restore", "latest", "--files", "--in-place"]).await.expect(0);
    assert_eq!(std::fs::read_to_string(&env).unwrap(), "SECRET=sehr-geheim-42\n");

    // All parts, or none.
    std::fs::remove_file(&env).unwrap();
    files.run(&["backup"]).await.expect(1);
    assert_eq!(files.scratch.listed().await.len(), 1);
}

#[tokio::test]
async fn another_machine_with_the_same_config_is_refused() {
    const MACHINE_ID: &str = "/etc/machine-id";
    if !is_root() || !Path::new(MACHINE_ID).exists() {
        // Only root can give a program another machine's number.
        return;
    }
    let files = Files::small();
    files.run(&["backup"]).await.expect(0);
    files.scratch.write("other-id", &format!("{}\n", "0123456789abcdef".repeat(2)));
    let elsewhere = async |more: &str| {
        let script =
            format!("mount --bind other-id {MACHINE_ID} && exec \"$PROGRAM\" backup {more}");
        let mut command = Command::new("unshare");
        let program = crate::support::program();
        command.args(["--mount", "sh", "-c", &script]).env("PROGRAM", program);
        command.current_dir(files.scratch.path(""));
        finish(command).await
    };
    let refused = elsewhere("").await.expect(6).explains("safety check", "holds backups of files");
    let id = std::fs::read_to_string(MACHINE_ID).unwrap();
    assert!(!refused.stderr.contains(id.trim()), "the number itself is told");
    assert_eq!(files.scratch.listed().await.len(), 1);
    elsewhere("--adopt").await.expect(0);
}

#[tokio::test]
async fn flags_and_keys_that_make_no_sense_are_refused() {
    let files = Files::small();
    let told = files.run(&["doctor"]).await.expect(0).stdout;
    assert!(
        told.contains("1 files, folders and links") && !told.contains("client programs"),
        "{told}"
    );
    files.run(&["backup"]).await.expect(0);
    files.run(&["restore", "latest"]).await.expect(2).explains("restore", "where the files go");
    let to = ["restore", "latest", "--to", "postgresql:///x"];
    files.run(&to).await.expect(2).explains("restore", "holds no database");
    files.run(&["restore", "latest", "--into", "x", "--in-place"]).await.expect(2);
    files.run(&["restore", "latest", "--into", "x", "--show-diff"]).await.expect(2);
    let nothing = ["restore", "latest", "--into", "x", "--path", "/nothing"];
    files.run(&nothing).await.expect(5).explains("files", "/nothing");
    assert!(!files.scratch.path("x").exists());

    files.scratch.edit_config("storages =", "encrypt = false\nstorages =");
    files.run(&["config", "check"]).await.expect(2).explains("config", "files unencrypted");
    files.scratch.edit_config("encrypt = false", "encrypt = false\nallow_plaintext = true");
    files.run(&["config", "check"]).await.expect(0);
    files.scratch.edit_config("paths = ['", "paths = ['etc', '");
    files.run(&["config", "check"]).await.expect(2).explains("config", "no absolute path");
}
