//! One file read into the archive, as it was at one moment.
//!
//! The size stands in front of the data. So a small file is read whole before anything of it is
//! written, and read again when it changed meanwhile. A large one streams; when it changed, what
//! was written stays and a second entry of the same name follows: of two, the later one counts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use backup_core::{Error, Result};
use rustix::fs::FileType;

use crate::archive::{Entry, Kind, Tally, head, padding, slashed};
use crate::attributes::{of_look, of_open};
use crate::folder::{Folder, Look, split};
use crate::select::Found;
use crate::users::Users;

/// Files up to this size are read whole, in bytes.
pub(crate) const WHOLE_BYTES: u64 = 8 << 20;
/// How often a file that changes is read again.
const READ_AGAIN: u32 = 3;
/// How coarse the kernel's clock for files may be: a change right after another one may carry
/// the same time. So what changed just now is left alone for so long.
const CLOCK_TICK: Duration = Duration::from_millis(20);
/// Bytes that are read at once of a large file.
const BLOCK_BYTES: usize = 256 * 1024;

/// Reads files into an archive.
pub(crate) struct Reading<'a, W: Write> {
    pub root: Folder,
    pub users: Users,
    pub tally: Tally,
    pub output: &'a mut W,
}

impl<W: Write> Reading<'_, W> {
    /// Adds one file.
    ///
    /// # Errors
    /// When it can't be read, is something else than it was found to be, or does not stand still.
    pub(crate) fn add(&mut self, path: &[u8], found: Found) -> Result<()> {
        let (folder, name) = split(path);
        let folder = self.root.descend(folder).map_err(|e| unreadable(path, e))?;
        match found {
            Found::File => self.file(path, &folder, name),
            Found::Directory => self.directory(path, &folder, name),
            Found::Link => self.link(path, &folder, name),
        }
    }

    fn directory(&mut self, path: &[u8], folder: &Folder, name: &[u8]) -> Result<()> {
        let (_, entry) = self
            .opened(path, folder.read_folder(name), FileType::Directory, Kind::Directory)
            .map_err(|e| unreadable(path, e))?;
        self.write_head(&entry)
    }

    fn link(&mut self, path: &[u8], folder: &Folder, name: &[u8]) -> Result<()> {
        let look = folder.look(name).and_then(|look| look.ok_or_else(vanished));
        let look = look.map_err(|e| unreadable(path, e))?;
        let target = folder.link_target(name).map_err(|e| unreadable(path, e))?;
        let attributes = of_look(&look, &mut self.users);
        self.write_head(&Entry { path: path.to_vec(), kind: Kind::Link { target }, attributes })
    }

    fn file(&mut self, path: &[u8], folder: &Folder, name: &[u8]) -> Result<()> {
        for _ in 0..=READ_AGAIN {
            let kind = Kind::File { size: 0 };
            let (file, mut entry) = self
                .opened(path, folder.read(name), FileType::RegularFile, kind)
                .map_err(|e| unreadable(path, e))?;
            let before = self.settled(&file).map_err(|e| unreadable(path, e))?;
            entry.kind = Kind::File { size: before.size };
            let stood_still = if before.size <= WHOLE_BYTES {
                self.whole(&entry, file, before)?
            } else {
                self.stream(&entry, file, before)?
            };
            if stood_still {
                return Ok(());
            }
        }
        let message =
            format!("{} changes while it is read, {READ_AGAIN} times again", slashed(path));
        Err(Error::failed("files", message).next_step(
            "back up at a quieter time; a log or a database file belongs into `exclude`",
        ))
    }

    /// An open file, and its entry without a size.
    fn opened(
        &mut self,
        path: &[u8],
        file: io::Result<File>,
        kind: FileType,
        entry: Kind,
    ) -> io::Result<(File, Entry)> {
        let file = file?;
        let look = Look::of(&file)?;
        if look.kind != kind {
            return Err(io::Error::other("it is something else than a moment ago"));
        }
        let attributes = of_open(&file, &look, &mut self.users)?;
        Ok((file, Entry { path: path.to_vec(), kind: entry, attributes }))
    }

    /// The look at a file before it is read; the next change will show in its time.
    fn settled(&self, file: &File) -> io::Result<Look> {
        let look = Look::of(file)?;
        let changed = SystemTime::UNIX_EPOCH
            + Duration::new(u64::try_from(look.ctime.0).unwrap_or(0), look.ctime.1);
        if changed.elapsed().unwrap_or_default() < CLOCK_TICK {
            sleep(CLOCK_TICK);
        }
        Look::of(file)
    }

    /// Writes a small file, unless it changed.
    fn whole(&mut self, entry: &Entry, file: File, before: Look) -> Result<bool> {
        let failed = |e| unreadable(&entry.path, e);
        let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or(0) + 1);
        (&file).take(before.size + 1).read_to_end(&mut bytes).map_err(failed)?;
        let after = Look::of(&file).map_err(failed)?;
        if after != before || bytes.len() as u64 != before.size {
            return Ok(false);
        }
        let entry = self.with_attributes_of(entry, &file, before)?;
        self.write_head(&entry)?;
        self.write(&bytes)?;
        self.write(&vec![0; padding(before.size)])?;
        Ok(true)
    }

    /// Writes a large file as it comes, and tells whether it stood still.
    fn stream(&mut self, entry: &Entry, mut file: File, before: Look) -> Result<bool> {
        let failed = |e| unreadable(&entry.path, e);
        let entry = self.with_attributes_of(entry, &file, before)?;
        self.write_head(&entry)?;
        let mut left = before.size;
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut short = false;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let mut n = if short { 0 } else { file.read(&mut buffer[..want]).map_err(failed)? };
            if n == 0 {
                // The size is written: what is missing is filled up, and read again.
                short = true;
                buffer[..want].fill(0);
                n = want;
            }
            self.write(&buffer[..n])?;
            left -= n as u64;
        }
        self.write(&vec![0; padding(before.size)])?;
        let more = file.read(&mut buffer[..1]).map_err(failed)?;
        let after = Look::of(&file).map_err(failed)?;
        Ok(!short && more == 0 && after == before)
    }

    /// The entry with the attributes that belong to this look.
    fn with_attributes_of(&mut self, entry: &Entry, file: &File, look: Look) -> Result<Entry> {
        let attributes =
            of_open(file, &look, &mut self.users).map_err(|e| unreadable(&entry.path, e))?;
        Ok(Entry { attributes, ..entry.clone() })
    }

    fn write_head(&mut self, entry: &Entry) -> Result<()> {
        entry.check_path()?;
        self.tally.note(entry);
        let bytes = head(entry)?;
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(|e| Error::from_io("files", e))
    }
}

fn vanished() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it is gone")
}

fn unreadable(path: &[u8], error: io::Error) -> Error {
    let message = format!("{} can't be read: {error}", slashed(path));
    Error::failed("files", message)
        .next_step(
            "what comes and goes belongs into `exclude`; else look at its rights and its disk",
        )
        .caused_by(error)
}
