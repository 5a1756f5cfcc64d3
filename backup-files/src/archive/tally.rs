//! What an archive holds, counted while it is written and again while it is read.

use std::collections::BTreeMap;

use backup_core::{FileKind, FilesContents, ListedFile};

use super::{Entry, below_no_folder};

/// Most files that are listed by name.
const LISTED_FILES: usize = 10_000;
/// Most bytes of their names together.
const LISTED_BYTES: usize = 4 << 20;

/// Counts entries; the later one of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By its path: what it is, its size, and its place in the list.
    seen: BTreeMap<Vec<u8>, (FileKind, u64, Option<usize>)>,
    listed: Vec<ListedFile>,
    listed_bytes: usize,
    superseded: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, entry: &Entry) {
        let listed = entry.listed();
        let before = self.seen.get(&entry.path).copied();
        self.superseded += u64::from(before.is_some());
        let kind = listed.kind;
        let place = match before {
            Some((_, _, place)) => place,
            None => self.has_room_for(&listed).then_some(self.listed.len()),
        };
        match place {
            Some(at) if at < self.listed.len() => self.listed[at] = listed,
            Some(_) => self.listed.push(listed),
            None => {}
        }
        self.seen.insert(entry.path.clone(), (kind, entry.size(), place));
    }

    fn has_room_for(&mut self, listed: &ListedFile) -> bool {
        let bytes = listed.path.len() + listed.target.as_ref().map_or(0, String::len);
        let room = self.listed.len() < LISTED_FILES && self.listed_bytes + bytes <= LISTED_BYTES;
        if room {
            self.listed_bytes += bytes;
        }
        room
    }

    /// A name that lies below a file or a link of the archive, and that one.
    pub(crate) fn below_no_folder(&self) -> Option<(&[u8], &[u8])> {
        let files = self.seen.iter().filter(|(_, (kind, ..))| *kind != FileKind::Directory);
        below_no_folder(files.map(|(path, _)| &path[..]), &self.seen)
    }

    pub(crate) fn finish(self) -> FilesContents {
        let mut contents =
            FilesContents { superseded: self.superseded, ..FilesContents::default() };
        for (kind, size, place) in self.seen.values() {
            match kind {
                FileKind::Directory => contents.directories += 1,
                FileKind::Link => contents.links += 1,
                _ => contents.files += 1,
            }
            contents.bytes += size;
            contents.unlisted += u64::from(place.is_none());
        }
        contents.listed = self.listed;
        contents
    }
}
