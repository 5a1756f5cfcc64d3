//! Listing and sweeping: walks over the files below a folder.

use std::fs::{self, DirEntry, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use backup_core::layout::check_key;
use backup_core::{ObjectInfo, Result};

use super::place::Place;
use crate::partial;

/// The folder that fsck keeps at the top of a disk, closed to everybody but root.
const LOST_AND_FOUND: &str = "lost+found";

/// A file below the root.
struct Found {
    key: String,
    path: PathBuf,
    file: Metadata,
}

impl Place {
    /// Every object below `prefix`, sorted by key.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = Vec::new();
        self.walk(prefix, |found| {
            // A leftover's name can't be a key; nor can many a foreign one.
            if check_key(&found.key).is_ok() {
                objects.push(self.describe(found.key, &found.file)?);
            }
            Ok(())
        })?;
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// The folders directly in `prefix` with an object somewhere below, sorted.
    pub(super) fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (key, entry) in self.entries_of(prefix)? {
            if self.kind_of(&entry)?.is_some_and(|kind| kind.is_dir()) && self.holds_object(&key)? {
                names.push(name_of(&key).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Looks no further than the first object.
    fn holds_object(&self, folder: &str) -> Result<bool> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for (key, entry) in self.entries(&folder)? {
                match self.kind_of(&entry)? {
                    Some(kind) if kind.is_dir() => folders.push(key),
                    Some(kind) if kind.is_file() && check_key(&key).is_ok() => return Ok(true),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Removes leftovers below `prefix` last written before `older_than`; says how many.
    pub(super) fn sweep(&self, prefix: &str, older_than: SystemTime) -> Result<u64> {
        let mut old = Vec::new();
        self.walk(prefix, |found| {
            let is_old = found.file.modified().is_ok_and(|touched| touched < older_than);
            if partial::is_leftover(name_of(&found.key)) && is_old {
                old.push(found.path);
            }
            Ok(())
        })?;
        let mut removed = 0;
        for leftover in old {
            match fs::remove_file(&leftover) {
                Ok(()) => removed += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(self.cant_write("remove", &leftover, e)),
            }
            if let Some(folder) = leftover.parent() {
                self.remove_empty_folders(folder);
            }
        }
        Ok(removed)
    }

    /// Shows every file below the folder `prefix`. What vanishes meanwhile is skipped, so are
    /// links and what is neither file nor folder.
    fn walk(&self, prefix: &str, mut show: impl FnMut(Found) -> Result<()>) -> Result<()> {
        let mut folders = Vec::new();
        let mut next = Some(self.entries_of(prefix)?);
        while let Some(entries) = next {
            for (key, entry) in entries {
                let path = entry.path();
                let Some(kind) = self.kind_of(&entry)? else { continue };
                if kind.is_dir() {
                    folders.push(key);
                } else if kind.is_file() {
                    match unless_gone(entry.metadata()) {
                        Ok(Some(file)) => show(Found { key, path, file })?,
                        Ok(None) => {}
                        Err(e) => return Err(self.cant_read("look at", &path, e)),
                    }
                } else {
                    tracing::warn!(path = %path.display(), "neither file nor folder: skipped");
                }
            }
            next = folders.pop().map(|folder: String| self.entries(&folder)).transpose()?;
        }
        Ok(())
    }

    /// What lies in the folder `prefix` ("" for the root); nothing when it isn't there.
    fn entries_of(&self, prefix: &str) -> Result<Vec<(String, DirEntry)>> {
        let is_folder = if prefix.is_empty() {
            self.is_there()?
        } else {
            check_key(prefix)?;
            self.find(prefix)?.is_some_and(|found| found.is_dir())
        };
        if is_folder { self.entries(prefix) } else { Ok(Vec::new()) }
    }

    /// What an entry is; `None` for what vanished meanwhile.
    fn kind_of(&self, entry: &DirEntry) -> Result<Option<FileType>> {
        unless_gone(entry.file_type()).map_err(|e| self.cant_read("look at", &entry.path(), e))
    }

    /// What lies in a folder, with the key of each.
    fn entries(&self, folder: &str) -> Result<Vec<(String, DirEntry)>> {
        let path = self.root().join(folder);
        let reader = match fs::read_dir(&path) {
            Ok(reader) => reader,
            Err(e) if is_gone(&e) && !folder.is_empty() => return Ok(Vec::new()),
            Err(e) if folder == LOST_AND_FOUND && e.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(self.cant_read("list", &path, e)),
        };
        let mut entries = Vec::new();
        for entry in reader {
            let entry = entry.map_err(|e| self.cant_read("list", &path, e))?;
            // A name that isn't UTF-8 can't be part of a key.
            if let Some(name) = entry.file_name().to_str() {
                let key =
                    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                entries.push((key, entry));
            } else {
                tracing::warn!(path = %entry.path().display(), "name is no UTF-8: skipped");
            }
        }
        Ok(entries)
    }
}

fn name_of(key: &str) -> &str {
    Path::new(key).file_name().and_then(|name| name.to_str()).unwrap_or(key)
}

/// Removed, or replaced by something else, since its name was read.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vanishes_while_it_is_listed_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new("storage x".into(), folder.path().to_owned());
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/x"), "x").unwrap();
        let (_, entry) = place.entries("a").unwrap().pop().unwrap();

        fs::remove_dir_all(folder.path().join("a")).unwrap();
        assert!(place.entries("a").unwrap().is_empty(), "a folder that went");
        assert!(unless_gone(entry.metadata()).unwrap().is_none(), "a file that went");
        fs::write(folder.path().join("a"), "x").unwrap();
        assert!(place.entries("a").unwrap().is_empty(), "a folder that became a file");

        // The root is another matter: without it nothing can be told.
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(place.entries("").is_err());
    }
    #[test]
    fn only_folders_with_an_object_are_shown() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        let place = Place::new("storage x".into(), root.clone());
        assert!(place.folders("").unwrap().is_empty(), "before the first write");
        for folder in ["full/deep/er", "full/empty", "unfinished/deep", "empty"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["file", "full/file", "full/deep/er/x", "unfinished/deep/x.partial"] {
            fs::write(root.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(root.join("full"), root.join("link")).unwrap();
        assert_eq!(place.folders("").unwrap(), ["full"]);
        assert_eq!(place.folders("full").unwrap(), ["deep"]);
        assert!(
            place.folders("file").unwrap().is_empty() && place.folders("no").unwrap().is_empty()
        );
    }
}
