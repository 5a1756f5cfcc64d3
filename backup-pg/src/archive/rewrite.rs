//! Writes the head of an archive anew: with other texts, or without some of its entries.
//!
//! A restore that wants something changed (roles, tablespaces, a schema, a choice of tables)
//! changes a copy of the table of contents. What differs between the two is put into the bytes;
//! everything else, also what this program does not understand, stays byte for byte.

use std::ops::Range;

use backup_core::{Error, Result};

use super::fields::{STAGE, put_int};
use super::toc::{Toc, TocEntry};

/// The head of an archive, up to where its data starts.
pub(crate) struct NewHead {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Entries that are in it, each with the place in `bytes` where the state and the offset of its
    /// data stand.
    pub data_states: Vec<(i64, usize)>,
}

/// The head of the archive that `edited` describes. `head` starts at the archive's first byte
/// and reaches behind its table of contents at least; the entries of `edited` are some of those
/// of `toc`, in their order.
///
/// The offsets of data blocks in it are off afterwards; nobody who reads from a pipe uses them.
///
/// # Errors
/// When a text would have to become another one in an entry whose texts are not UTF-8.
pub(crate) fn rewrite_head(head: &[u8], toc: &Toc, edited: &Toc) -> Result<NewHead> {
    let mut out = Head { old: head, new: Vec::with_capacity(head.len()), kept: 0 };
    let mut data_states = Vec::with_capacity(edited.entries.len());
    let mut wanted = edited.entries.iter().peekable();
    if let Some(first) = toc.entries.first() {
        let count_bytes = 1 + toc.header.int_bytes as u64;
        let start = first.places.entry.start;
        out.replace(&(start - count_bytes..start), |new| {
            put_int(new, edited.entries.len() as u64, toc.header.int_bytes);
        });
    }
    for entry in &toc.entries {
        match wanted.next_if(|edited| edited.dump_id == entry.dump_id) {
            None => out.replace(&entry.places.entry, |_| {}),
            Some(edited) => {
                put_texts(&mut out, entry, edited, toc.header.int_bytes)?;
                let state = entry.places.data_state.start;
                data_states.push((entry.dump_id, out.new_place(state)));
            }
        }
    }
    let bytes = out.finish(toc.end);
    Ok(NewHead { bytes, data_states })
}

/// Puts the texts that differ, in the order in which they stand.
fn put_texts(out: &mut Head<'_>, old: &TocEntry, new: &TocEntry, int_bytes: usize) -> Result<()> {
    let places = &old.places;
    let texts = [
        (&places.defn, &old.defn, &new.defn),
        (&places.drop_stmt, &old.drop_stmt, &new.drop_stmt),
        (&places.copy_stmt, &old.copy_stmt, &new.copy_stmt),
        (&places.namespace, &old.namespace, &new.namespace),
        (&places.tablespace, &old.tablespace, &new.tablespace),
        (&places.owner, &old.owner, &new.owner),
    ];
    for (place, was, text) in texts {
        if was == text {
            continue;
        }
        if !old.exact && !text.is_empty() {
            let what = format!("the {} {:?} is not written in UTF-8", old.desc, old.tag);
            return Err(Error::refused(STAGE, format!("{what}, so it can't be changed"))
                .next_step("restore it as it is, and change it in the database"));
        }
        out.replace(place, |new| {
            put_int(new, text.len() as u64, int_bytes);
            new.extend_from_slice(text.as_bytes());
        });
    }
    Ok(())
}

/// Bytes on their way from the old head to the new one.
struct Head<'a> {
    old: &'a [u8],
    new: Vec<u8>,
    /// Up to here the old one was taken over.
    kept: usize,
}

impl Head<'_> {
    fn replace(&mut self, place: &Range<u64>, put: impl FnOnce(&mut Vec<u8>)) {
        self.keep_to(place.start);
        put(&mut self.new);
        self.kept = position(place.end);
    }

    fn keep_to(&mut self, offset: u64) {
        let end = position(offset);
        self.new.extend_from_slice(self.old.get(self.kept..end).unwrap_or_default());
        self.kept = end;
    }

    /// Where in the new head that stands which is at `offset` of the old one, behind all that
    /// was replaced so far.
    fn new_place(&self, offset: u64) -> usize {
        self.new.len() + position(offset) - self.kept
    }

    fn finish(mut self, end: u64) -> Vec<u8> {
        self.keep_to(end);
        self.new
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArchiveReader;

    fn read(bytes: &[u8]) -> Toc {
        let mut reader = ArchiveReader::new();
        reader.feed(bytes).unwrap();
        reader.toc().unwrap().clone()
    }

    const ARCHIVES: [&[u8]; 3] = [
        include_bytes!("fixtures/tablespace.dump"),
        include_bytes!("fixtures/pg15-none.dump"),
        include_bytes!("fixtures/pg18-none.dump"),
    ];

    #[test]
    fn nothing_changes_where_nothing_differs() {
        for archive in ARCHIVES {
            let toc = read(archive);
            let head = rewrite_head(archive, &toc, &toc).unwrap();
            assert_eq!(head.bytes, &archive[..toc.end as usize]);
            for ((id, place), entry) in head.data_states.iter().zip(&toc.entries) {
                assert_eq!((*id, *place as u64), (entry.dump_id, entry.places.data_state.start));
            }
        }
    }

    #[test]
    fn every_text_can_be_another_and_any_entry_missing() {
        for archive in ARCHIVES {
            let toc = read(archive);
            let mut edited = toc.clone();
            let mut turn = 0;
            edited.entries.retain(|_| {
                turn += 1;
                turn % 3 != 0
            });
            for entry in edited.entries.iter_mut().filter(|entry| entry.exact) {
                for text in [
                    &mut entry.defn,
                    &mut entry.drop_stmt,
                    &mut entry.copy_stmt,
                    &mut entry.namespace,
                    &mut entry.tablespace,
                    &mut entry.owner,
                ] {
                    *text =
                        if text.len() % 2 == 0 { format!("{text} 😀\"") } else { String::new() };
                }
            }
            let head = rewrite_head(archive, &toc, &edited).unwrap();
            let again = read(&head.bytes);
            assert_eq!(again.end, head.bytes.len() as u64);
            assert_eq!(again.entries.len(), edited.entries.len());
            for (i, (found, wanted)) in again.entries.iter().zip(&edited.entries).enumerate() {
                let place = found.places.data_state.start as usize;
                assert_eq!(head.data_states[i], (found.dump_id, place));
                assert_eq!(found, &TocEntry { places: found.places.clone(), ..wanted.clone() });
            }
        }
    }

    #[test]
    fn what_is_not_utf8_is_not_changed_by_guesses() {
        let archive = ARCHIVES[1];
        let mut toc = read(archive);
        toc.entries[3].exact = false;
        let mut edited = toc.clone();
        assert!(rewrite_head(archive, &toc, &edited).is_ok());
        edited.entries[3].owner = "other".to_owned();
        assert!(rewrite_head(archive, &toc, &edited).is_err());
        edited.entries[3].owner.clear();
        assert!(rewrite_head(archive, &toc, &edited).is_ok(), "nothing is easily written");
    }
}
