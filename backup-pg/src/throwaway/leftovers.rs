//! Folders of throwaway servers that are gone for sure: with their owner, or by the next one.
//!
//! Whoever made a folder holds a lock on it, which the kernel frees however he ends. So a folder
//! that can be locked is nobody's, and what lies in it are leftovers.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use backup_core::{Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Pid, Signal, getuid, kill_process};

use super::account::unprivileged_account;
use super::process::POLL;
use super::{STAGE, STOP_TIMEOUT, cannot};

/// So many names are tried: another sweep can take a new folder for a leftover.
const ATTEMPTS: u32 = 10;

/// An empty folder of one's own, 0700, which [`sweep`] takes for a leftover once this is dropped
/// or its process has ended. Dropping it removes it.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
    /// Held as long as it is ours.
    _lock: File,
}

impl ScratchFolder {
    /// Makes one in `parent`; its name starts with `prefix`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make(parent: &Path, prefix: &str) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("{prefix}{:016x}", rand::random::<u64>()));
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(|e| cannot("make", &path, e))?;
            let lock = open_folder(&path).map_err(|e| cannot("open", &path, e))?;
            let mine = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if mine && is_still(&lock, &path) {
                let mode = fs::set_permissions(&path, Permissions::from_mode(0o700));
                mode.map_err(|e| cannot("protect", &path, e))?;
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(Error::failed(STAGE, format!("no folder could be kept in {}", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Ends the servers of dead owners in `parent` and removes their folders, those whose names start
/// with `prefix`. Returns what it removed, and what it could not.
///
/// Folders of other users, and those whose owner is alive, are not touched.
pub fn sweep(parent: &Path, prefix: &str) -> (Vec<PathBuf>, Vec<Error>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    let Ok(entries) = fs::read_dir(parent) else { return (removed, failed) };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let path = entry.path();
        let Some(lock) = lock_of_nobody(&path) else { continue };
        end_server(&path);
        match fs::remove_dir_all(&path) {
            Ok(()) => removed.push(path),
            Err(e) => failed.push(cannot("remove", &path, e)),
        }
        drop(lock);
    }
    (removed, failed)
}

/// The lock on a folder of ours that nobody holds.
fn lock_of_nobody(path: &Path) -> Option<File> {
    let lock = open_folder(path).ok()?;
    let owner = lock.metadata().ok()?.uid();
    let server_user = || unprivileged_account().is_ok_and(|account| account.uid == owner);
    let ours = owner == getuid().as_raw() || (getuid().is_root() && server_user());
    (ours && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()).then_some(lock)
}

/// A folder and no link to one: in a folder for everybody, anybody can lay links.
fn open_folder(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?.into())
}

/// Whether `path` is the folder that was locked, and not swept away in between.
fn is_still(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::symlink_metadata(path)) {
        (Ok(locked), Ok(there)) => locked.ino() == there.ino() && locked.dev() == there.dev(),
        _ => false,
    }
}

/// Ends the server that runs in this folder. One that can't be told from others (no `/proc`) is
/// left alone: it ends by itself when its files are gone.
fn end_server(folder: &Path) {
    let data = folder.join("data");
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else {
        return;
    };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let owner = |path: &Path| fs::metadata(path).map(|found| found.uid()).ok();
    let runs_here = || {
        let here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data);
        here && owner(&process) == owner(folder)
    };
    let Some(id) = Pid::from_raw(pid).filter(|_| runs_here()) else { return };
    for signal in [Signal::QUIT, Signal::KILL] {
        kill_process(id, signal).ok();
        let asked = Instant::now();
        while runs_here() && asked.elapsed() < STOP_TIMEOUT {
            sleep(POLL);
        }
    }
}
