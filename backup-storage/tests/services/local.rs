//! The local storage against the conformance suites, and against disks that fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{ByteRange, Error, ErrorKind, Result, Sink, Storage};
use backup_storage::Local;
use backup_testkit::conformance::{self, Inspector};
use backup_testkit::random;
use tempfile::TempDir;

/// A folder looked at with `std::fs` alone.
struct Files(PathBuf);

#[async_trait::async_trait]
impl Inspector for Files {
    async fn look(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(fs::read(self.0.join(key)).ok())
    }
}

#[tokio::test]
async fn keeps_the_promises_of_a_storage_and_of_a_sink() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new("local", scratch.path().join("root")).unwrap();
    conformance::storage(&storage).await.unwrap();
    assert_eq!(fs::read_dir(storage.root()).unwrap().count(), 0, "everything was cleaned up");
    conformance::sink(&storage, &Files(storage.root().into())).await.unwrap();
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
#[tokio::test]
async fn all_sizes_and_all_pages() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new("local", scratch.path().join("root")).unwrap();
    crate::objects::sizes_come_back(&storage).await;
    crate::objects::pages_are_turned(&storage).await;
}

#[tokio::test]
async fn a_committed_object_streams_as_a_source_does() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new("local", scratch.path().join("root")).unwrap();
    let data = random(1, 3_000_000);
    write(&storage, "x", &data).await.unwrap();
    conformance::source(&crate::Stored(&storage, "x"), &data).await.unwrap();
}

async fn write(storage: &Local, key: &str, data: &[u8]) -> Result<()> {
    let mut writer = storage.begin(key).await?;
    for piece in data.chunks(200_000) {
        if let Err(error) = writer.write(piece.to_vec().into()).await {
            writer.abort().await?;
            return Err(error);
        }
    }
    writer.commit().await.map(drop)
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A mount that ends with the test.
struct Mounted(TempDir);

impl Mounted {
    /// Mounts with the given arguments of `mount`; without the right to, says so and gives
    /// `None`.
    fn new(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(arguments).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("SKIPPED: this test may not mount ({other:?})");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().unwrap();
    }
}

fn assert_says(error: &Error, kind: ErrorKind, cause: &str, step: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert_eq!(error.stage(), "storage local");
    assert!(error.to_string().contains(cause), "{error}");
    assert!(error.advice().is_some_and(|advice| advice.contains(step)), "{error:?}");
    assert!(!error.causes().is_empty(), "the error underneath is wrapped: {error:?}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"]) else { return };
    let storage = Local::new("local", disk.path().join("root")).unwrap();
    write(&storage, "db/old", b"an older backup").await.unwrap();
    assert!(storage.free_bytes().await.unwrap() <= 2 << 20);

    // Striking in the middle, and with the very last batch, which only the commit hands over.
    for size in [8_000_000, 2_100_000] {
        let error = write(&storage, "db/2026/new", &random(1, size)).await.unwrap_err();
        assert_says(&error, ErrorKind::Failed, "the disk is full", "prune");
        assert_eq!(files(disk.path()), [storage.root().join("db/old")], "{size}");
        assert!(!storage.root().join("db/2026").exists(), "no empty folder stays");
    }
    // Whoever commits after a failed write has not understood it: even when there is room again
    // by then, half an object must not be published.
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, random(3, 1_800_000)).unwrap();
    let mut writer = storage.begin("db/half").await.unwrap();
    let mut failed = false;
    for _ in 0..2 {
        failed |= writer.write(random(1, 1_200_000).into()).await.is_err();
    }
    fs::remove_file(&ballast).unwrap();
    assert!(failed && writer.commit().await.is_err());
    assert_eq!(files(disk.path()), [storage.root().join("db/old")]);

    let claim = storage.create_new("db/claim", random(2, 3_000_000).into()).await.unwrap_err();
    assert_says(&claim, ErrorKind::Failed, "the disk is full", "prune");
    assert_eq!(files(disk.path()), [storage.root().join("db/old")]);
    write(&storage, "db/new", b"there is room again").await.unwrap();
}

#[tokio::test]
async fn a_disk_without_room_for_a_name_is_named_at_the_beginning() {
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs"]) else { return };
    let storage = Local::new("local", disk.path().join("root")).unwrap();
    let error = storage.begin("a/b/c/d/e").await.err().unwrap();
    assert_says(&error, ErrorKind::Failed, "the disk is full", "prune");
    assert_eq!(fs::read_dir(storage.root()).unwrap().count(), 0, "no empty folder stays");
}

#[tokio::test]
async fn a_read_only_disk_still_reads() {
    let origin = tempfile::tempdir().unwrap();
    let writable = Local::new("local", origin.path().join("root")).unwrap();
    write(&writable, "a/x", b"x").await.unwrap();
    let Some(disk) = Mounted::new(&["--bind", origin.path().to_str().unwrap()]) else { return };
    let remount = ["-o", "remount,bind,ro"];
    assert!(Command::new("mount").args(remount).arg(disk.path()).status().unwrap().success());

    let storage = Local::new("local", disk.path().join("root")).unwrap();
    for error in [
        storage.begin("a/y").await.err().unwrap(),
        storage.begin("new/y").await.err().unwrap(),
        storage.create_new("a/z", "z".into()).await.unwrap_err(),
        storage.delete("a/x").await.unwrap_err(),
        Local::new("local", disk.path().join("fresh")).unwrap().begin("a").await.err().unwrap(),
    ] {
        assert_says(&error, ErrorKind::Failed, "the file system is read-only", "mount it writable");
    }
    storage.delete("a/never").await.unwrap();
    assert_eq!(storage.list("").await.unwrap().len(), 1);
    assert!(storage.open("a/x", ByteRange::ALL).await.is_ok());
}

#[tokio::test]
async fn an_immutable_folder_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new("local", scratch.path().join("root")).unwrap();
    write(&storage, "a/x", b"x").await.unwrap();
    let chattr = |flag: &str| {
        let folder = storage.root().join("a");
        Command::new("chattr").arg(flag).arg(folder).status().is_ok_and(|status| status.success())
    };
    if !chattr("+i") {
        eprintln!("SKIPPED: this test may not set the immutable flag");
        return;
    }
    let outcomes = [storage.begin("a/y").await.err(), storage.delete("a/x").await.err()];
    assert!(chattr("-i"));
    for error in outcomes {
        assert_says(&error.unwrap(), ErrorKind::Failed, "permission denied", "lsattr");
    }
}

/// Permission bits mean nothing to root, so another user looks: this same test, run again.
#[test]
fn a_closed_folder_is_unchecked_to_readers_and_failed_to_writers() {
    const FOLDER: &str = "BACKUP_STORAGE_TEST_CLOSED_FOLDER";
    const NOBODY: u32 = 65534;
    if let Ok(folder) = std::env::var(FOLDER) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(look_at_closed(Path::new(&folder)));
    }
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir_all(scratch.path().join("root/closed")).unwrap();
    fs::write(scratch.path().join("root/open"), "x").unwrap();
    set_mode(scratch.path(), 0o755);
    set_mode(&scratch.path().join("root"), 0o755);
    set_mode(&scratch.path().join("root/open"), 0o600);
    set_mode(&scratch.path().join("root/closed"), 0o700);

    // The test's own program may lie where nobody may look: hand over a copy.
    let program = scratch.path().join("again");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = "local::a_closed_folder_is_unchecked_to_readers_and_failed_to_writers";
    let mut again = Command::new(program);
    again.args(["--exact", name, "--nocapture"]).env(FOLDER, scratch.path());
    std::os::unix::process::CommandExt::uid(&mut again, NOBODY);
    match again.output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("SKIPPED: this test may not become another user ({error})"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn look_at_closed(folder: &Path) {
    let storage = Local::new("local", folder.join("root")).unwrap();
    for error in [
        storage.list("").await.unwrap_err(),
        storage.list("closed").await.unwrap_err(),
        storage.stat("closed/x").await.unwrap_err(),
        storage.open("open", ByteRange::ALL).await.err().unwrap(),
    ] {
        assert_says(&error, ErrorKind::Unchecked, "permission denied", "a user that may read");
    }
    assert!(storage.stat("open").await.unwrap().is_some());
    for error in [
        storage.begin("new").await.err().unwrap(),
        storage.delete("open").await.unwrap_err(),
        storage.begin("closed/x").await.err().unwrap(),
        Local::new("local", folder.join("fresh")).unwrap().begin("a").await.err().unwrap(),
    ] {
        assert_says(&error, ErrorKind::Failed, "permission denied", "chown");
    }
    for error in [
        storage.delete("closed/x").await.unwrap_err(),
        storage.create_new("closed/x", "x".into()).await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Failed, "permission denied", "a user that may");
    }
}
