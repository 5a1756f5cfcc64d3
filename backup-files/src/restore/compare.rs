//! What is in the target, beside what comes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use backup_core::{Error, Result};
use rustix::fs::FileType;

use super::plan::{Action, Planned, digest};
use super::text::unified;
use super::{Change, FileChange, FilesTarget};
use crate::archive::{Attributes, Kind, slashed};
use crate::attributes::{differences, of_look, of_open};
use crate::folder::{Folder, Look, split};
use crate::users::Users;

/// Most names that a refusal lists.
const NAMED: usize = 20;

/// Decides what is done to each file.
///
/// # Errors
/// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) naming what is in the way.
pub(super) fn compare(
    planned: &mut BTreeMap<Vec<u8>, Planned>,
    target: &FilesTarget,
) -> Result<Vec<FileChange>> {
    let root = match Folder::open(target.path()) {
        Ok(root) => Some(root),
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_made(target) => None,
        Err(e) => return Err(unusable(target, e)),
    };
    let mut comparing =
        Comparing { replaces: !is_made(target), users: Users::default(), in_the_way: Vec::new() };
    let mut changes = Vec::new();
    for (path, planned) in planned {
        let (action, what, text) = match &root {
            None => (Action::Create, Change::Created, None),
            Some(root) => comparing.one(root, path, planned)?,
        };
        planned.action = action;
        let kind = planned.entry.listed().kind;
        changes.push(FileChange { path: slashed(path), kind, what, text });
    }
    if comparing.in_the_way.is_empty() {
        return Ok(changes);
    }
    let advice = if comparing.replaces {
        "look at them, move them away, and restore again; nothing was changed"
    } else {
        "name an empty folder, or one that does not exist; nothing was changed"
    };
    let count = comparing.in_the_way.len();
    comparing.in_the_way.truncate(NAMED);
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    let names = comparing.in_the_way.join(", ");
    Err(Error::refused("files", format!("in the way: {names}{more}")).next_step(advice))
}

fn is_made(target: &FilesTarget) -> bool {
    matches!(target, FilesTarget::Folder(_))
}

pub(super) fn unusable(target: &FilesTarget, error: io::Error) -> Error {
    let message = format!("{} can't be used: {error}", target.path().display());
    Error::failed("files", message).next_step("name another folder").caused_by(error)
}

struct Comparing {
    /// Whether what is there may be replaced.
    replaces: bool,
    users: Users,
    in_the_way: Vec<String>,
}

type Decided = (Action, Change, Option<String>);

/// What is there.
struct There {
    look: Look,
    attributes: Attributes,
    /// The same content; of a link its target.
    same: bool,
    bytes: Option<Vec<u8>>,
}

impl Comparing {
    fn one(&mut self, root: &Folder, path: &[u8], planned: &Planned) -> Result<Decided> {
        let created = (Action::Create, Change::Created, None);
        let (parent, name) = split(path);
        let folder = match root.descend(parent) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(created),
            Err(e) if is_no_folder(&e) => {
                self.obstacle(path, "lies behind a link or a file");
                return Ok(created);
            }
            Err(e) => return Err(unreadable(path, e)),
        };
        let Some(look) = folder.look(name).map_err(|e| unreadable(path, e))? else {
            return Ok(created);
        };
        let is_folder = look.kind == FileType::Directory;
        let wants_folder = planned.entry.kind == Kind::Directory;
        match look.kind {
            _ if is_folder != wants_folder => {
                self.obstacle(path, if is_folder { "is a folder" } else { "is no folder" });
                return Ok(created);
            }
            FileType::Directory if !self.replaces => {
                return Ok((Action::Leave, Change::Unchanged, None));
            }
            _ if !self.replaces => {
                self.obstacle(path, "is there");
                return Ok(created);
            }
            FileType::Directory | FileType::RegularFile | FileType::Symlink => {}
            _ => {
                self.obstacle(path, "is a socket, a fifo or a device");
                return Ok(created);
            }
        }
        let there =
            self.look_into(&folder, name, look, planned).map_err(|e| unreadable(path, e))?;
        Ok(self.decide(path, planned, there))
    }

    fn obstacle(&mut self, path: &[u8], what: &str) {
        self.in_the_way.push(format!("{} {what}", slashed(path)));
    }

    fn look_into(
        &mut self,
        folder: &Folder,
        name: &[u8],
        look: Look,
        planned: &Planned,
    ) -> io::Result<There> {
        let users = &mut self.users;
        let mut there = There { look, attributes: of_look(&look, users), same: false, bytes: None };
        match look.kind {
            FileType::Symlink => {
                let target = folder.link_target(name)?;
                there.same = planned.entry.kind == Kind::Link { target };
            }
            FileType::Directory => {
                if let Some(file) = readable(folder.read_folder(name))? {
                    there.attributes = of_open(&file, &look, users)?;
                }
                there.same = true;
            }
            _ => {
                // What this user may not read is taken for different.
                let Some(file) = readable(folder.read(name))? else { return Ok(there) };
                there.attributes = of_open(&file, &look, users)?;
                there.bytes = planned.text.as_ref().map(|_| Vec::new());
                let may_be_same = planned.entry.kind == Kind::File { size: look.size };
                if may_be_same || there.bytes.is_some() {
                    const TEXT_BYTES: u64 = 1 << 20;
                    let most = if may_be_same { look.size + 1 } else { TEXT_BYTES };
                    let sha256 = digest(&mut file.take(most), there.bytes.as_mut())
                        .map_err(backup_core::Error::into_io)?;
                    there.same = may_be_same && sha256 == planned.sha256;
                }
            }
        }
        Ok(there)
    }

    fn decide(&mut self, path: &[u8], planned: &Planned, there: There) -> Decided {
        let entry = &planned.entry;
        let attributes =
            differences(&there.attributes, &entry.attributes, &entry.kind, &mut self.users);
        if there.same && attributes.is_empty() {
            return (Action::Leave, Change::Unchanged, None);
        }
        if entry.kind == Kind::Directory {
            return (Action::SetAttributes, Change::Attributes(attributes), None);
        }
        if there.same {
            return (Action::Replace, Change::Attributes(attributes), None);
        }
        let text = match (&there.bytes, &planned.text) {
            (Some(now), Some(backup)) => unified(&slashed(path), now, backup),
            _ => None,
        };
        let replaced = Change::Replaced { from: there.look.size, to: entry.size(), attributes };
        (Action::Replace, replaced, text)
    }
}

/// A link or a file where a folder should be.
pub(super) fn is_no_folder(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn readable(file: io::Result<std::fs::File>) -> io::Result<Option<std::fs::File>> {
    match file {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(e) => Err(e),
    }
}

fn unreadable(path: &[u8], error: io::Error) -> Error {
    let message = format!("what is at {} can't be looked at: {error}", slashed(path));
    Error::failed("files", message).next_step("restore as root, or into a folder").caused_by(error)
}
