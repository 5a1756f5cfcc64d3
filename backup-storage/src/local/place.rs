//! The folder of a storage: looking at objects, making room for them, removing them.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backup_core::layout::check_key;
use backup_core::{ByteRange, Error, ErrorKind, ObjectInfo, Result};
use jiff::Timestamp;
use rustix::fs::OFlags;

use super::explain::explain;
use super::partial;
use crate::failure::Doing;

/// How often folders are made again that a delete on the side removed as empty.
const FOLDER_ATTEMPTS: u32 = 100;

/// Synchronous file work below one root folder.
#[derive(Debug)]
pub(super) struct Place {
    stage: String,
    root: PathBuf,
}

/// A file being written, and where it will go.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) file: File,
    pub(super) partial: PathBuf,
    pub(super) target: PathBuf,
}

impl Place {
    pub(super) fn new(stage: String, root: PathBuf) -> Self {
        Self { stage, root }
    }

    pub(super) fn stage(&self) -> &str {
        &self.stage
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// An error that struck while reading, in this storage's name.
    pub(super) fn cant_read(&self, verb: &str, path: &Path, error: io::Error) -> Error {
        explain(&self.stage, Doing::Read, verb, path, error)
    }

    /// An error that struck while writing, in this storage's name.
    pub(super) fn cant_write(&self, verb: &str, path: &Path, error: io::Error) -> Error {
        explain(&self.stage, Doing::Write, verb, path, error)
    }

    /// Whether the root folder is there. When it isn't, the one above it must be.
    ///
    /// # Errors
    /// When there is no telling: a disk that isn't mounted must not look like an empty storage.
    pub(super) fn is_there(&self) -> Result<bool> {
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(self.cant_read("use", &self.root, io::ErrorKind::NotADirectory.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.require_above()?;
                Ok(false)
            }
            Err(e) => Err(self.cant_read("look at", &self.root, e)),
        }
    }

    fn above(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    fn require_above(&self) -> Result<()> {
        let above = self.above();
        // A link that leads nowhere is a disk that isn't mounted, too.
        let dangling = fs::symlink_metadata(&self.root).is_ok_and(|found| found.is_symlink());
        match fs::metadata(above) {
            Ok(found) if found.is_dir() && !dangling => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(self.cant_read("look at", above, e))
            }
            _ => {
                let (what, missing) = if dangling {
                    ("is a link to nothing", &*self.root)
                } else {
                    ("does not exist", above)
                };
                Err(Error::failed(self.stage.clone(), format!("{} {what}", missing.display()))
                    .next_step("mount the disk that should be there, or make that folder"))
            }
        }
    }

    /// What lies under `key`, without following links; `None` unless it is a file.
    pub(super) fn look(&self, key: &str) -> Result<Option<Metadata>> {
        check_key(key)?;
        Ok(self.find(key)?.filter(Metadata::is_file))
    }

    /// As [`Place::look`], on the way to change something.
    pub(super) fn look_to_change(&self, key: &str) -> Result<Option<Metadata>> {
        self.look(key).map_err(unchecked_is_failed)
    }

    /// File or folder at `relative`, which is a clean key.
    pub(super) fn find(&self, relative: &str) -> Result<Option<Metadata>> {
        use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
        if !self.is_there()? {
            return Ok(None);
        }
        let mut path = self.root.clone();
        let mut found = None;
        for segment in relative.split('/') {
            path.push(segment);
            match fs::symlink_metadata(&path) {
                Ok(link) if link.is_symlink() => return Err(self.refuse_link(&path)),
                Ok(other) => found = Some(other),
                Err(e) if matches!(e.kind(), NotFound | NotADirectory | InvalidFilename) => {
                    return Ok(None);
                }
                Err(e) => return Err(self.cant_read("look at", &path, e)),
            }
        }
        Ok(found)
    }

    fn refuse_link(&self, path: &Path) -> Error {
        Error::refused(self.stage.clone(), format!("{} is a symbolic link", path.display()))
            .next_step("put a real folder there (or a bind mount): links inside a storage are not followed")
    }

    /// What a listing shows of a file.
    pub(super) fn describe(&self, key: String, file: &Metadata) -> Result<ObjectInfo> {
        let modified = file
            .modified()
            .and_then(|time| Timestamp::try_from(time).map_err(io::Error::other))
            .map_err(|e| self.cant_read("read the time of", &self.root.join(&key), e))?;
        Ok(ObjectInfo { key, bytes: file.len(), modified })
    }

    /// Opens an object; also its path and how many bytes of the range there are.
    pub(super) fn open_range(&self, key: &str, range: ByteRange) -> Result<(File, PathBuf, u64)> {
        let absent = || {
            Error::new(ErrorKind::NotFound, self.stage.clone(), format!("there is no {key}"))
                .next_step("`marb-backup list` shows what there is")
        };
        self.look(key)?.ok_or_else(absent)?;
        let path = self.root.join(key);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .and_then(|mut file| {
                let bytes = file.metadata()?.len();
                // Not past the end: file systems refuse to seek to just anywhere.
                let start = file.seek(SeekFrom::Start(range.offset.min(bytes)))?;
                let left = bytes - start;
                Ok((file, range.length.map_or(left, |wanted| wanted.min(left))))
            });
        match opened {
            Ok((file, left)) => Ok((file, path, left)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(absent()),
            Err(e) => Err(self.cant_read("read", &path, e)),
        }
    }

    /// Starts a file that will become `key`. Leaves nothing when it fails.
    pub(super) fn draft(&self, key: &str) -> Result<Draft> {
        check_key(key)?;
        let target = self.root.join(key);
        let (Some(folder), Some(name)) = (target.parent(), key.rsplit('/').next()) else {
            return Err(Error::usage(self.stage.clone(), format!("{key:?} is no key")));
        };
        self.make_root()?;
        for _ in 0..FOLDER_ATTEMPTS {
            let made = self
                .make_folders(folder)
                .and_then(|()| self.check_target(&target))
                .and_then(|()| partial::create(folder, name));
            match made {
                Ok((file, partial)) => return Ok(Draft { file, partial, target }),
                // A delete on the side found our new folder empty.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    self.remove_empty_folders(folder);
                    return Err(self.cant_write("write", &target, e));
                }
            }
        }
        Err(self.cant_write("write to", folder, io::ErrorKind::NotFound.into()))
    }

    /// Finds out now, not after hours of writing, that this name can't be taken.
    fn check_target(&self, target: &Path) -> io::Result<()> {
        match fs::symlink_metadata(target) {
            Ok(found) if found.is_symlink() => Err(self.refuse_link(target).into_io()),
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn make_root(&self) -> Result<()> {
        if self.is_there().map_err(unchecked_is_failed)? {
            return Ok(());
        }
        match private_folder(&self.root) {
            Ok(()) => {
                tracing::info!(storage = self.stage, folder = %self.root.display(), "made the storage's folder");
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(self.cant_write("make", &self.root, e)),
        }
    }

    /// Makes what is missing between the root and `folder`. It is made durable by the commit.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        let below = folder.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut path = self.root.clone();
        for segment in below {
            path.push(segment);
            match private_folder(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let found = fs::symlink_metadata(&path)?;
                    if found.is_symlink() {
                        return Err(self.refuse_link(&path).into_io());
                    }
                    if !found.is_dir() {
                        return Err(io::ErrorKind::NotADirectory.into());
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes an object, durably, and the folders that it leaves empty.
    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let path = self.root.join(key);
        if self.look_to_change(key)?.is_some() {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(self.cant_write("delete", &path, e));
                }
                // Else a manifest could come back after a power cut, without its parts.
                _ => self.sync_after_removal(&path)?,
            }
        }
        if self.is_there()?
            && let Some(folder) = path.parent()
        {
            self.remove_empty_folders(folder);
        }
        Ok(())
    }

    fn sync_after_removal(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        match super::publish::sync_folder(folder) {
            // Somebody else deleted its last file and removed it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| self.cant_write("sync", folder, e)),
        }
    }

    /// Removes `folder` and those above it, below the root, as long as they are empty. What
    /// can't be removed stays: an empty folder harms nobody.
    pub(super) fn remove_empty_folders(&self, folder: &Path) {
        let mut next = Some(folder);
        while let Some(folder) = next.filter(|f| *f != self.root && f.starts_with(&self.root)) {
            match fs::remove_dir(folder) {
                // Also gone on the side, or never made: the one above may be empty all the same.
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return,
            }
            next = folder.parent();
        }
    }

    /// Bytes an unprivileged user may still write.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        let folder = if self.is_there()? { self.root() } else { self.above() };
        rustix::fs::statvfs(folder)
            .map(|space| space.f_bavail.saturating_mul(space.f_frsize))
            .map_err(|e| self.cant_read("ask for the free space of", folder, e.into()))
    }
}

/// "Could not be looked at" is an answer to a reader; to a writer it is a failure.
fn unchecked_is_failed(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unchecked => error.with_kind(ErrorKind::Failed),
        _ => error,
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}
