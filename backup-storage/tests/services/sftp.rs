//! The SFTP storage against real OpenSSH servers.

mod faults;
mod logins;
mod lost_answers;
mod secrets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{ByteRange, Digest, Error, ErrorKind, Result, Sink, Storage};
use backup_storage::{Settings, Sftp};
use backup_testkit::conformance::{self, Inspector};
use backup_testkit::random;
use backup_testkit::servers::{SftpOptions, SftpServer};
use jiff::{SignedDuration, Timestamp};

/// A folder looked at with `std::fs` alone.
struct Files(PathBuf);

#[async_trait::async_trait]
impl Inspector for Files {
    async fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(fs::read(self.0.join(key)).ok())
    }
}

/// What opens `server` with its key, and nothing else of this machine.
fn settings(server: &SftpServer) -> Settings {
    let mut settings = Settings { ambient_credentials: false, ..Settings::default() };
    option(&mut settings, "identity_file", &server.key_file());
    option(&mut settings, "known_hosts", &server.known_hosts_file());
    settings.request_timeout = Duration::from_secs(20);
    settings.retry_deadline = Duration::from_secs(10);
    settings
}

fn option(settings: &mut Settings, name: &str, value: &Path) {
    settings.options.insert(name.into(), value.to_str().unwrap().into());
}

fn url(server: &SftpServer) -> String {
    format!("{}/root", server.url())
}

fn storage(server: &SftpServer) -> Sftp {
    Sftp::from_url("offsite", &url(server), &settings(server)).unwrap()
}

/// A server with a line of configuration, such as `ForceCommand internal-sftp -P remove`.
async fn server_with(config: &str) -> SftpServer {
    let options = SftpOptions { config: &[config], ..SftpOptions::default() };
    SftpServer::start_with(&options).await.unwrap()
}

async fn write(storage: &Sftp, key: &str, data: &[u8]) -> Result<()> {
    let mut writer = storage.begin(key).await?;
    for piece in data.chunks(256 * 1024) {
        if let Err(error) = writer.write(piece.to_vec().into()).await {
            writer.abort().await?;
            return Err(error);
        }
    }
    writer.commit().await.map(drop)
}

async fn read(storage: &Sftp, key: &str, range: ByteRange) -> Result<Vec<u8>> {
    let mut stream = storage.open(key, range).await?;
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn assert_says(error: &Error, kind: ErrorKind, cause: &str, step: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(error.stage(), "storage offsite");
    assert!(error.to_string().contains(cause), "{error:?}");
    assert!(error.advice().is_some_and(|advice| advice.contains(step)), "{error:?}");
}

#[tokio::test]
async fn keeps_the_promises_of_a_storage_and_of_a_sink() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    conformance::storage(&storage).await.unwrap();
    let root = server.folder().join("root");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "everything was cleaned up");
    conformance::sink(&storage, &Files(root)).await.unwrap();
    let probe = storage.probe().await.unwrap();
    assert!(probe.syncs && probe.replaces_at_once && probe.excludes);
    assert!(probe.free_bytes.is_some_and(|bytes| bytes > 0));
}

/// Servers that aren't OpenSSH's own have fewer extensions; each missing one has another way.
#[tokio::test]
async fn keeps_them_on_servers_that_offer_less() {
    for (missing, syncs, replaces, excludes) in [
        ("lsetstat", true, true, true),
        ("lsetstat,hardlink", true, true, false),
        ("fsync,posix-rename,limits,statvfs,lsetstat,hardlink", false, false, false),
    ] {
        let server = server_with(&format!("ForceCommand internal-sftp -P {missing}")).await;
        let storage =
            Sftp::from_url("offsite", &format!("{}/root", server.url()), &settings(&server))
                .unwrap();
        let probe = storage.probe().await.unwrap();
        assert_eq!(
            (probe.syncs, probe.replaces_at_once, probe.excludes),
            (syncs, replaces, excludes),
            "{missing}"
        );
        conformance::storage(&storage).await.expect(missing);
        assert_eq!(files(&server.folder()), [] as [PathBuf; 0], "{missing}");
    }
}

#[tokio::test]
async fn two_hundred_megabytes_come_back() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let data = random(1, 200_000_000);
    write(&storage, "db/big", &data).await.unwrap();
    let stored = fs::read(server.folder().join("root/db/big")).unwrap();
    assert_eq!(Digest::of(&stored), Digest::of(&data));
    drop(stored);
    assert!(read(&storage, "db/big", ByteRange::ALL).await.unwrap() == data);
    for (offset, length) in [(0, 1), (123_456_789, 7_654_321), (199_999_999, 10)] {
        let range = ByteRange { offset, length: Some(length) };
        let start = usize::try_from(offset).unwrap();
        let end = (start + usize::try_from(length).unwrap()).min(data.len());
        assert!(read(&storage, "db/big", range).await.unwrap() == data[start..end]);
    }
}

#[tokio::test]
async fn a_committed_object_streams_as_a_source_does() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let data = random(1, 3_000_000);
    write(&storage, "x", &data).await.unwrap();
    conformance::source(&crate::Stored(&storage, "x"), &data).await.unwrap();
}

#[tokio::test]
async fn files_and_folders_are_private() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    write(&storage, "a/b/x", b"x").await.unwrap();
    storage.create_new("a/claim", "c".into()).await.unwrap();
    for (path, mode) in
        [("", 0o700), ("a", 0o700), ("a/b", 0o700), ("a/b/x", 0o600), ("a/claim", 0o600)]
    {
        let found = fs::metadata(server.folder().join("root").join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{path}");
    }
}

#[tokio::test]
async fn the_folder_is_made_and_the_one_above_is_not() {
    let server = SftpServer::start().await.unwrap();
    let missing = format!("{}/not-mounted/root", server.url());
    let storage = Sftp::from_url("offsite", &missing, &settings(&server)).unwrap();
    for error in [
        storage.begin("x").await.err().unwrap(),
        storage.list("").await.unwrap_err(),
        storage.stat("x").await.unwrap_err(),
        storage.probe().await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Failed, "not-mounted does not exist", "mount the disk");
    }
    fs::create_dir(server.folder().join("not-mounted")).unwrap();
    assert!(storage.list("").await.unwrap().is_empty(), "a folder that isn't there yet is empty");
    assert!(!server.folder().join("not-mounted/root").exists(), "looking makes nothing");
    write(&storage, "x", b"x").await.unwrap();
    assert_eq!(storage.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn links_are_not_followed_inside() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    write(&storage, "a/x", b"x").await.unwrap();
    let root = server.folder().join("root");
    fs::write(server.folder().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(server.folder(), root.join("out")).unwrap();
    std::os::unix::fs::symlink(server.folder().join("secret"), root.join("a/link")).unwrap();
    let keys: Vec<_> = storage.list("").await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, ["a/x"]);
    assert_eq!(storage.folders("").await.unwrap(), ["a"]);
    for error in [
        storage.stat("out/secret").await.unwrap_err(),
        storage.open("a/link", ByteRange::ALL).await.err().unwrap(),
        storage.begin("out/new").await.err().unwrap(),
        storage.delete("a/link").await.unwrap_err(),
        storage.create_new("a/link", "x".into()).await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Refused, "is a symbolic link", "real folder");
    }
}

#[tokio::test]
async fn names_that_are_no_keys_are_skipped_and_empty_folders_do_not_count() {
    use std::os::unix::ffi::OsStrExt;
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    write(&storage, "a/b/c/x", b"x").await.unwrap();
    let root = server.folder().join("root");
    fs::create_dir_all(root.join("empty/deep")).unwrap();
    fs::create_dir_all(root.join("leftovers")).unwrap();
    fs::write(root.join("leftovers/x.abcdefghijkl.partial"), "").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"a/\xff\xfe")), "").unwrap();
    fs::write(root.join("a/with\nnewline"), "").unwrap();
    let keys: Vec<_> = storage.list("").await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, ["a/b/c/x"]);
    assert_eq!(storage.folders("").await.unwrap(), ["a"]);
}

#[tokio::test]
async fn what_a_crash_leaves_is_invisible_and_swept() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let mut dropped = storage.begin("db/dropped").await.unwrap();
    dropped.write(random(1, 9_000_000).into()).await.unwrap();
    drop(dropped);
    let mut aborted = storage.begin("db/deep/aborted").await.unwrap();
    aborted.write(random(1, 9_000_000).into()).await.unwrap();
    aborted.abort().await.unwrap();
    let root = server.folder().join("root");
    assert!(!root.join("db/deep").exists(), "an abort removes what it made");
    assert_eq!(files(&root).len(), 1);
    fs::write(root.join("db/notes.partial"), "somebody's own").unwrap();
    assert!(storage.list("").await.unwrap().is_empty());
    let now = Timestamp::now();
    assert_eq!(storage.sweep("", now - SignedDuration::from_hours(1)).await.unwrap(), 0);
    assert_eq!(storage.sweep("", now + SignedDuration::from_hours(1)).await.unwrap(), 1);
    assert_eq!(files(&root), [root.join("db/notes.partial")]);
}

/// A tree of many folders is read several folders at once.
#[tokio::test]
async fn a_big_tree_is_listed_completely() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let root = server.folder().join("root");
    let mut wanted = Vec::new();
    for backup in 0..400 {
        let folder = format!("db/2026/{:02}/{backup:04}", backup % 12 + 1);
        fs::create_dir_all(root.join(&folder)).unwrap();
        for name in ["manifest.json", "dump", "SHA256SUMS"] {
            fs::write(root.join(&folder).join(name), name).unwrap();
            wanted.push(format!("{folder}/{name}"));
        }
    }
    wanted.sort_unstable();
    let keys: Vec<_> = storage.list("").await.unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, wanted);
    let months = storage.folders("db/2026").await.unwrap();
    assert_eq!((months.len(), &*months[0]), (12, "01"));
    assert_eq!(storage.folders("db/2026/01").await.unwrap().len(), 34);
}
