//! The look before the reading: everything that the patterns find, and everything that is in
//! the way, named at once.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use backup_core::{Error, Result};
use rustix::fs::FileType;

use super::exclude::Excluded;
use super::{FilesSelection, pattern};
use crate::archive::{MAX_ENTRIES, shown, slashed};
use crate::folder::{Folder, Look, split};

/// Most names that an error lists.
const NAMED: usize = 20;

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    File,
    Directory,
    Link,
}

/// What the patterns found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By the path without the leading slash; a folder stands before what is in it.
    pub found: BTreeMap<Vec<u8>, Found>,
    /// Sockets, fifos, devices, and mounts where only one file system is wanted.
    pub skipped: Vec<String>,
    /// Patterns of `optional` that found nothing.
    pub missing: Vec<String>,
    /// Links that a pattern found, and whose target is not among what was found.
    pub links_outside: Vec<String>,
}

/// Finds everything. Opens every file once, so that one that can't be read shows before
/// anything is written.
pub(crate) fn scan(selection: &FilesSelection) -> Result<Scan> {
    let root = Folder::open(Path::new("/"))
        .map_err(|e| Error::failed("files", "the root folder can't be opened").caused_by(e))?;
    let mut looking = Looking {
        root,
        excluded: Excluded::new(&selection.exclude)?,
        one_file_system: selection.one_file_system,
        scan: Scan::default(),
        unreadable: Vec::new(),
    };
    let mut absent = Vec::new();
    let mut links = Vec::new();
    for (text, needed) in wanted(selection) {
        let before = looking.unreadable.len();
        let mut any = false;
        for path in pattern::expand(text, &mut looking.unreadable)? {
            any |= looking.add(&path, &mut links)?;
        }
        if !any && looking.unreadable.len() == before {
            if needed {
                absent.push(text.clone());
            } else {
                looking.scan.missing.push(text.clone());
            }
        }
    }
    let Looking { mut scan, unreadable, .. } = looking;
    if !unreadable.is_empty() {
        return Err(Error::failed("files", format!("can't be read: {}", list(&unreadable)))
            .next_step("back up as a user who may read them, or exclude them"));
    }
    if !absent.is_empty() {
        return Err(Error::failed("files", format!("there is nothing at {}", list(&absent)))
            .next_step("correct `paths`; what may be absent goes into `optional`"));
    }
    scan.skipped.sort_unstable();
    scan.skipped.dedup();
    for path in links {
        // A target that is gone is outside, too.
        let target =
            Path::new(std::ffi::OsStr::from_bytes(&[b"/", &path[..]].concat())).canonicalize();
        let inside = target.is_ok_and(|t| scan.found.contains_key(without_slash(&t)));
        if !inside && scan.found.contains_key(&path) {
            scan.links_outside.push(slashed(&path));
        }
    }
    Ok(scan)
}

fn wanted(selection: &FilesSelection) -> impl Iterator<Item = (&String, bool)> {
    let paths = selection.paths.iter().map(|text| (text, true));
    paths.chain(selection.optional.iter().map(|text| (text, false)))
}

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

fn without_slash(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}

struct Looking {
    root: Folder,
    excluded: Excluded,
    one_file_system: bool,
    scan: Scan,
    unreadable: Vec<String>,
}

impl Looking {
    /// Adds what a pattern found, under the real path of its folder: so no link is on the way
    /// when it is read, nor when it is restored. Answers whether there was anything.
    fn add(&mut self, path: &Path, links: &mut Vec<Vec<u8>>) -> Result<bool> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(false);
        };
        let real = match parent.canonicalize() {
            Ok(parent) => parent.join(name),
            Err(e) => {
                self.unreadable.push(format!("{} ({e})", path.display()));
                return Ok(false);
            }
        };
        let path = without_slash(&real).to_vec();
        let (folder, name) = split(&path);
        let opened = self.root.descend(folder);
        let look = opened.and_then(|folder| Ok((folder.look(name)?, folder)));
        match look {
            Ok((Some(look), _)) => {
                if look.kind == FileType::Symlink {
                    links.push(path.clone());
                }
                self.walk(path, look)
            }
            Ok((None, _)) => Ok(false),
            Err(e) => {
                self.unreadable.push(format!("{} ({e})", slashed(&path)));
                Ok(false)
            }
        }
    }

    fn walk(&mut self, path: Vec<u8>, look: Look) -> Result<bool> {
        let device = look.device;
        let mut open = vec![(path, look)];
        let mut any = false;
        while let Some((path, look)) = open.pop() {
            if self.excluded.has(&path) {
                continue;
            }
            any = true;
            let found = match look.kind {
                _ if self.one_file_system && look.device != device => None,
                FileType::RegularFile => Some(Found::File),
                FileType::Directory => Some(Found::Directory),
                FileType::Symlink => Some(Found::Link),
                _ => None,
            };
            let Some(found) = found else {
                self.scan.skipped.push(slashed(&path));
                continue;
            };
            if self.scan.found.insert(path.clone(), found).is_some() && found != Found::Directory {
                continue;
            }
            if self.scan.found.len() as u64 > MAX_ENTRIES {
                return Err(too_many(&path));
            }
            let seen = match found {
                Found::Directory => self.list(&path, &mut open),
                Found::File => self.try_reading(&path),
                Found::Link => Ok(()),
            };
            if let Err(e) = seen {
                self.unreadable.push(format!("{} ({e})", slashed(&path)));
            }
        }
        Ok(any)
    }

    fn list(&self, path: &[u8], open: &mut Vec<(Vec<u8>, Look)>) -> std::io::Result<()> {
        let folder = self.root.descend(path)?;
        for name in folder.names()? {
            // What is gone again by now was never there.
            if let Some(look) = folder.look(&name)? {
                open.push(([path, b"/", &name].concat(), look));
            }
        }
        Ok(())
    }

    fn try_reading(&self, path: &[u8]) -> std::io::Result<()> {
        let (folder, name) = split(path);
        self.root.descend(folder)?.read(name).map(drop)
    }
}

fn too_many(path: &[u8]) -> Error {
    let message = format!("more than {MAX_ENTRIES} files were found, the last at {}", shown(path));
    Error::failed("files", message).next_step("this is for configuration: exclude the data")
}
