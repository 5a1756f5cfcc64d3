//! Making a finished file visible, durably and at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use backup_core::{Creation, Error, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::awaited::Awaited;
use super::place::{Draft, Place};

impl Place {
    /// Gives a written draft its final name; an older object of that name is replaced as a
    /// whole. The draft is left to its owner when this fails, and removed when nobody waits.
    pub(super) fn publish(&self, draft: &Draft, awaited: &Awaited) -> Result<u64> {
        let bytes = self.settle(draft)?;
        if let Err(given_up) = awaited.check(self.stage()) {
            self.discard(draft)?;
            return Err(given_up);
        }
        fs::rename(&draft.partial, &draft.target)
            .map_err(|e| self.cant_write("publish", &draft.target, e))?;
        self.sync_above(&draft.target).inspect_err(|_| self.take_back(draft))?;
        Ok(bytes)
    }

    /// Stores a small object if there is none of that name.
    pub(super) fn create_new(&self, key: &str, body: &[u8], awaited: &Awaited) -> Result<Creation> {
        if self.look_to_change(key)?.is_some() {
            return Ok(Creation::Taken);
        }
        let draft = self.draft(key)?;
        let outcome = self.create_from(&draft, body, awaited);
        self.discard(&draft)?;
        outcome
    }

    fn create_from(&self, draft: &Draft, body: &[u8], awaited: &Awaited) -> Result<Creation> {
        (&draft.file)
            .write_all(body)
            .map_err(|e| self.cant_write("write to", &draft.partial, e))?;
        self.settle(draft)?;
        awaited.check(self.stage())?;
        match publish_new(&draft.partial, &draft.target) {
            Ok(Creation::Created) => {
                self.sync_above(&draft.target)?;
                Ok(Creation::Created)
            }
            Ok(Creation::Taken) if draft.target.is_dir() => {
                Err(self.cant_write("create", &draft.target, io::ErrorKind::IsADirectory.into()))
            }
            Ok(Creation::Taken) => Ok(Creation::Taken),
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Err(Error::failed(
                self.stage().to_owned(),
                format!(
                    "the file system of {} can neither rename without replacing nor hard-link",
                    self.root().display()
                ),
            )
            .next_step("use a local disk, NFS or SMB: two runs can't exclude each other here")
            .caused_by(e)),
            Err(e) => Err(self.cant_write("create", &draft.target, e)),
        }
    }

    /// Brings the content of a draft and the folders around it to the disk.
    fn settle(&self, draft: &Draft) -> Result<u64> {
        let settled = || -> io::Result<u64> {
            // A commit's time is now, not that of the last write.
            draft.file.set_modified(SystemTime::now())?;
            draft.file.sync_all()?;
            Ok(draft.file.metadata()?.len())
        };
        let bytes = settled().map_err(|e| self.cant_write("sync", &draft.partial, e))?;
        self.sync_above(&draft.partial)?;
        Ok(bytes)
    }

    /// Syncs the folders from the one of `path` up to the one above the root. All of them, not
    /// only those made by us: who made them may have crashed before syncing. A clean folder
    /// costs next to nothing.
    fn sync_above(&self, path: &Path) -> Result<()> {
        for folder in path.ancestors().skip(1).take_while(|f| f.starts_with(self.root())) {
            sync_folder(folder).map_err(|e| self.cant_write("sync", folder, e))?;
        }
        let Some(above) = self.root().parent() else { return Ok(()) };
        match sync_folder(above) {
            // It belongs to somebody else, who then also made our root.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map_err(|e| self.cant_write("sync", above, e)),
        }
    }

    /// Removes the published file again, unless another writer already replaced it.
    fn take_back(&self, draft: &Draft) {
        let ours = draft.file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = fs::symlink_metadata(&draft.target).map(|m| (m.dev(), m.ino())).ok();
        if ours.is_some()
            && ours == there
            && let Err(error) = fs::remove_file(&draft.target)
        {
            tracing::warn!(file = %draft.target.display(), %error, "can't take back an unsynced object");
        }
    }

    /// Removes a draft, if it is still there, and the folders it leaves empty.
    pub(super) fn discard(&self, draft: &Draft) -> Result<()> {
        match fs::remove_file(&draft.partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(self.cant_write("remove", &draft.partial, e));
            }
            _ => {}
        }
        if let Some(folder) = draft.partial.parent() {
            self.remove_empty_folders(folder);
        }
        Ok(())
    }
}

/// Syncs a folder's entries to the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network and FUSE file systems can't: their own promises then count.
        Err(e)
            if matches!(
                Errno::from_io_error(&e),
                Some(Errno::INVAL | Errno::BADF | Errno::NOTSUP | Errno::NOSYS)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Gives `partial` the name `target` if that is free. Atomic; removes `partial` in both cases.
fn publish_new(partial: &Path, target: &Path) -> io::Result<Creation> {
    match renameat_with(CWD, partial, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Creation::Created),
        Err(Errno::EXIST) => Ok(Creation::Taken),
        // NFS and others don't know the flag, but have hard links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(partial, target),
        Err(other) => Err(other.into()),
    }
}

/// As [`publish_new`], by a hard link: it never replaces either.
fn link_new(partial: &Path, target: &Path) -> io::Result<Creation> {
    match fs::hard_link(partial, target) {
        Ok(()) => Ok(Creation::Created),
        // NFS may have lost the answer to our first try and told of the second: look.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let linked = fs::symlink_metadata(partial)?.nlink() > 1;
            Ok(if linked { Creation::Created } else { Creation::Taken })
        }
        // Linux says EPERM where a file system has no hard links at all.
        Err(e)
            if matches!(
                Errno::from_io_error(&e),
                Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL)
            ) =>
        {
            Err(io::Error::new(io::ErrorKind::Unsupported, e))
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_publish_let_one_win_and_keep_the_first() {
        for publish in [publish_new, link_new] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::write(at("a.partial"), "first").unwrap();
            fs::write(at("b.partial"), "second").unwrap();
            assert_eq!(publish(&at("a.partial"), &at("x")).unwrap(), Creation::Created);
            assert_eq!(publish(&at("b.partial"), &at("x")).unwrap(), Creation::Taken);
            assert_eq!(fs::read(at("x")).unwrap(), b"first");
        }
    }

    #[test]
    fn a_link_whose_answer_was_lost_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, target) = (folder.path().join("a.partial"), folder.path().join("a"));
        fs::write(&partial, "ours").unwrap();
        fs::hard_link(&partial, &target).unwrap();
        assert_eq!(link_new(&partial, &target).unwrap(), Creation::Created);
    }

    #[test]
    fn a_failed_sync_takes_back_ours_and_only_ours() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new("storage x".into(), folder.path().join("root"));
        let draft = place.draft("a").unwrap();
        fs::rename(&draft.partial, &draft.target).unwrap();
        place.take_back(&draft);
        assert!(!draft.target.exists());

        fs::write(&draft.target, "another writer's").unwrap();
        place.take_back(&draft);
        assert!(draft.target.exists());
    }
}
