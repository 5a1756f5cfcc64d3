//! Storages on disks that fill up or take nothing. Needs root, for a file system of one's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{CLAIMS, Scratch, cases, claims_server, seed};

/// More than any backup here needs, in KiB.
const PLENTY: u64 = 200 * 1024;

/// A file system in memory, of a size one can choose; unmounted when dropped.
struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one where the scratch has its storage. `None`, with the reason, where that is not
    /// allowed.
    fn of(scratch: &Scratch) -> Option<Self> {
        let path = scratch.path("backups");
        std::fs::create_dir(&path).unwrap();
        let arguments = ["-t", "tmpfs", "-o", &format!("size={PLENTY}k"), "tmpfs"];
        let output = Command::new("mount").args(arguments).arg(&path).output();
        let refused = match output {
            Ok(output) if output.status.success() => return Some(Self { path }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("SKIPPED: no file system can be mounted here: {}", refused.trim());
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap();
        assert!(status.success(), "mount -o {options}");
    }

    fn resize(&self, kib: u64) {
        self.remount(&format!("size={kib}k"));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

fn bytes_of(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum()
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test]
async fn a_disk_full_at_any_size_fails_the_run() {
    let server = claims_server(15, 2_000).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let Some(disk) = Tmpfs::of(&scratch) else { return };
    scratch.run(&["backup"]).await.expect(0);
    let needed = bytes_of(&scratch.stored_files()) / 1024;
    let mut random = StdRng::seed_from_u64(seed());
    for case in 0..cases(8, 60) {
        empty(&scratch.path("backups"));
        let size = if case == 0 { 4 } else { random.gen_range(4..needed) };
        disk.resize(size);
        let run = scratch.run(&["backup"]).await;
        run.expect(1).explains("storage local", "No space left on device");
        assert_eq!(scratch.listed().await, Vec::<String>::new(), "{size} of {needed} KiB");
        assert_eq!(scratch.stored_files(), Vec::<PathBuf>::new(), "{size} of {needed} KiB");
    }
    disk.resize(PLENTY);
    scratch.assert_next_run_works().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_keeps_the_earlier_backup() {
    let server = claims_server(15, 2_000).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let Some(disk) = Tmpfs::of(&scratch) else { return };
    scratch.run(&["backup"]).await.expect(0);
    let before = scratch.holdings().await;
    disk.resize(bytes_of(&before.files) / 1024 * 3 / 2);
    scratch.run(&["backup"]).await.expect(1).explains("storage local", "No space left on device");
    assert_eq!(scratch.holdings().await, before);
    scratch.run(&["verify", "latest"]).await.expect(0);
    disk.resize(PLENTY);
    scratch.assert_next_run_works().await;
}

#[tokio::test]
async fn a_storage_mounted_read_only_fails_the_run() {
    let server = claims_server(15, 10).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let Some(disk) = Tmpfs::of(&scratch) else { return };
    scratch.run(&["backup"]).await.expect(0);
    let before = scratch.holdings().await;
    disk.remount("ro");
    scratch.run(&["backup"]).await.expect(1).explains("storage local", "Read-only file system");
    assert_eq!(scratch.holdings().await, before);
    disk.remount("rw");
    scratch.assert_next_run_works().await;
}
