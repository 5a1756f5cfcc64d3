//! A folder held open, and names below it: no step ever follows a symbolic link.
//!
//! Whoever may write to a folder on the way could swap a part of a path for a link at any
//! moment. So a path is never handed to the kernel as a whole: each part is opened by itself, in
//! the folder that was opened before, and refused when it is a link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// What the kernel says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub kind: FileType,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub device: u64,
    pub inode: u64,
}

impl Look {
    #[allow(trivial_numeric_casts, clippy::unnecessary_cast, reason = "types differ by platform")]
    fn new(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }

    /// What is open.
    pub(crate) fn of(file: &impl AsFd) -> io::Result<Self> {
        Ok(Self::new(&rustix::fs::fstat(file)?))
    }
}

/// The folder's part of a path and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

impl Folder {
    /// Opens a folder by its path, which the caller trusts: links in it are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder below this one. A link on the way is "not a directory".
    pub(crate) fn descend(&self, path: &[u8]) -> io::Result<Self> {
        let mut at = Self(self.0.try_clone()?);
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            at = at.step(part)?;
        }
        Ok(at)
    }

    fn step(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// What a name stands for, a link for itself; `None` when there is nothing.
    pub(crate) fn look(&self, name: &[u8]) -> io::Result<Option<Look>> {
        match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Look::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens a file for reading. Does not wait for the other end of a fifo.
    pub(crate) fn read(&self, name: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Opens a folder below, or this one as `.`, so that its attributes can be read and set.
    pub(crate) fn read_folder(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Makes a new file that only its owner can read, whatever the umask says.
    pub(crate) fn create(&self, name: &[u8]) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(file))
    }

    /// Makes a folder; false when it is there.
    pub(crate) fn make_folder(&self, name: &[u8], mode: u32) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(mode)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn make_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    pub(crate) fn link_target(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// Gives a file a second name here, which must be free.
    pub(crate) fn add_name(&self, name: &[u8], second: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, name, &self.0, second, AtFlags::empty())?)
    }

    /// Gives a file another name here, in place of what has it.
    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// The same, where the other name must be free.
    pub(crate) fn rename_to_free(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            // Some file systems can't promise it: a second name that must be free can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.add_name(from, to)?;
                self.remove(from)
            }
            other => Ok(other?),
        }
    }

    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    pub(crate) fn remove_folder(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// The names in it.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.read_folder(b".")?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Makes names that were given or taken here survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.read_folder(b".")?.sync_all()
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_followed_on_the_way() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real", place.path().join("link")).unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.descend(b"real/deep").unwrap();
        for path in [&b"link"[..], b"link/deep", b"real/deep/nothing"] {
            folder.descend(path).unwrap_err();
        }
        folder.read(b"link").unwrap_err();
        assert_eq!(folder.link_target(b"link").unwrap(), b"real");
        assert_eq!(folder.names().unwrap().len(), 2);
    }

    #[test]
    fn a_path_splits_at_its_last_slash() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
