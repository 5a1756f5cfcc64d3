//! What stock tar writes and this program does not: long names in entries of their own, names
//! that begin with `./` or `/`, and second names of one file.
//!
//! GNU tar writes a second name also without hard links on the disk: where two of its arguments
//! lead to the same file, or with `-h` a link and what it leads to.

use std::collections::BTreeMap;

use backup_core::{Error, Result};

use super::{Entry, Kind, MAX_PATH_BYTES, shown};

/// Longest name in an entry of its own, with the zero behind it.
pub(super) const MAX_NAME_BYTES: u64 = MAX_PATH_BYTES as u64 + 1;

/// Who wrote an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// This program. What it would not write is not taken for good.
    #[default]
    Own,
    /// GNU tar or another stock tar: in the POSIX format or GNU's, second names of files, names
    /// with `/` or `./` in front, which are taken off as stock tar does.
    Stock,
}

/// Names that did not fit into the next header.
#[derive(Default)]
pub(super) struct Names {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
}

impl Names {
    /// Keeps the data of an entry of type `L` or `K`, which ends with a zero.
    pub(super) fn set(&mut self, which: u8, mut name: Vec<u8>) {
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        *(if which == b'L' { &mut self.path } else { &mut self.link }) = Some(name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none()
    }
}

/// A name without what leads nowhere: slashes in front and behind, `.` and doubled slashes. What
/// leads out of the folder stays, and is refused later.
pub(super) fn plain(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<&[u8]>>().join(&b'/')
}

/// Where the data of a second name is.
pub(super) enum Source {
    /// It names itself: one file that was named twice.
    Itself,
    /// In the entry of this number, so many bytes.
    File(u64, u64),
    /// Nowhere: it is a symbolic link to this.
    Link(Vec<u8>),
}

/// The entries so far: of files the number of the entry with their data.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<Vec<u8>, (u64, Kind)>);

impl Seen {
    pub(super) fn note(&mut self, entry: &Entry, source: u64) {
        self.0.insert(entry.path.clone(), (source, entry.kind.clone()));
    }

    /// What the second name `path` of `target` stands for.
    pub(super) fn find(&self, path: &[u8], target: &[u8]) -> Result<Source> {
        match self.0.get(target) {
            Some((_, Kind::File { .. } | Kind::Link { .. })) if path == target => {
                Ok(Source::Itself)
            }
            Some((source, Kind::File { size })) => Ok(Source::File(*source, *size)),
            Some((_, Kind::Link { target })) => Ok(Source::Link(target.clone())),
            Some((_, Kind::Directory)) | None => {
                let (path, target) = (shown(path), shown(target));
                let message = format!("{path:?} is the same file as {target:?}, which is missing");
                Err(Error::damaged("tar", message).next_step("use another copy"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_taken_off_a_name_and_what_leads_out_is_not() {
        for (name, plain_name) in [
            ("etc/nginx/", "etc/nginx"),
            ("./etc/nginx", "etc/nginx"),
            ("/etc//nginx/./a", "etc/nginx/a"),
            ("./", ""),
            ("../etc", "../etc"),
            ("a/../../b", "a/../../b"),
            (".env", ".env"),
        ] {
            assert_eq!(plain(name.as_bytes()), plain_name.as_bytes(), "{name}");
        }
    }
}
