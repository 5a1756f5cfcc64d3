//! Reads PostgreSQL's custom archive format (`pg_dump -Fc`) as it streams past.
//!
//! [`ArchiveReader`] is pushed the bytes of an archive in pieces of any size. It keeps the
//! table of contents, which stands in front, and walks the data behind it without keeping or
//! copying any: it counts the rows of every table and, at the end, proves that every entry that
//! promises data had it in full. So a dump gets an inventory at no cost to the database, and a
//! backup can be verified without a server.
//!
//! Formats 1.12 to 1.16, written by pg_dump 10 to 18. Not here: writing archives, the directory
//! and the tar format. docs/decisions/archive-reader.md says why this is not a library.

mod blocks;
mod check;
mod digest;
mod fields;
mod head;
mod head_only;
mod kinds;
mod pattern;
mod rewrite;
mod rows;
mod select;
mod selected;
mod summary;
#[cfg(test)]
mod tests;
mod toc;
mod toc_parser;

use backup_core::Result;
use blocks::Blocks;
pub(crate) use blocks::{BlockSpan, LARGE_OBJECTS_BLOCK, TABLE_BLOCK, block_start, has_lines};
use fields::damaged;
pub(crate) use fields::put_int;
use toc_parser::TocParser;

pub use check::ArchiveCheck;
pub use digest::RowKey;
pub use fields::MAX_TOC_BYTES;
pub use head::ARCHIVE_MAGIC;
pub use head_only::ArchiveHead;
pub(crate) use kinds::{SETTINGS, belongs_to_others, is_relation};
pub(crate) use rewrite::{NewHead, rewrite_head};
pub(crate) use select::{Present, list_of, select};
pub use select::{SelectedPart, Selection};
pub use selected::SelectedArchive;
pub use summary::ArchiveSummary;
pub use toc::{ArchiveCompression, ArchiveHeader, ArchiveVersion, Section, Toc, TocEntry};

/// A reader that is pushed the bytes of one archive.
///
/// Its memory is the table of contents (at most [`MAX_TOC_BYTES`]), whatever the size of the
/// data.
///
/// ```
/// use backup_pg::ArchiveReader;
/// use backup_core::ErrorKind;
///
/// let mut reader = ArchiveReader::new();
/// reader.feed(b"PGDMP")?;
/// assert!(reader.toc().is_none());
/// // Nothing that was cut off passes:
/// assert_eq!(reader.finish().unwrap_err().kind(), ErrorKind::Damaged);
/// # Ok::<(), backup_core::Error>(())
/// ```
pub struct ArchiveReader {
    place: Place,
    /// Makes digests of the rows, where one is given.
    key: Option<RowKey>,
}

enum Place {
    Head(Box<TocParser>),
    Data(Box<Data>),
}

struct Data {
    toc: Toc,
    blocks: Blocks,
    tail: Tail,
}

/// What stands behind the last data block.
enum Tail {
    Nothing,
    /// The table of contents once more, see [`TocParser::second`].
    SecondToc(Box<TocParser>),
    Ended {
        bytes: u64,
    },
}

impl Data {
    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let behind = self.blocks.feed(bytes)?;
        if behind.is_empty() {
            return Ok(());
        }
        if let Tail::Nothing = self.tail {
            let parser = TocParser::second(&self.toc.header, self.blocks.offset());
            self.tail = Tail::SecondToc(Box::new(parser));
        }
        let end = self.blocks.offset();
        let not_archive = || damaged(end, "bytes that are no archive follow its end");
        let Tail::SecondToc(parser) = &mut self.tail else { return Err(not_archive()) };
        if let Some((second, left)) = parser.feed(behind).map_err(|_| not_archive())? {
            if left > 0 || !self.toc.is_repeated_by(second) {
                return Err(not_archive());
            }
            self.tail = Tail::Ended { bytes: parser.offset() };
        }
        Ok(())
    }

    fn offset(&self) -> u64 {
        match &self.tail {
            Tail::Nothing => self.blocks.offset(),
            Tail::SecondToc(parser) => parser.offset(),
            Tail::Ended { bytes } => *bytes,
        }
    }
}

impl Default for ArchiveReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ArchiveReader {
    /// A reader before the first byte.
    pub fn new() -> Self {
        Self { place: Place::Head(Box::new(TocParser::new())), key: None }
    }

    /// The same, which also makes a digest of every table's rows (and of the large objects) under
    /// this key. Costs about 0.1 µs for each row and 0.1 s for each GB.
    #[must_use]
    pub fn with_row_key(self, key: RowKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Takes the next bytes of the archive.
    ///
    /// # Errors
    /// Of kind `Damaged`, naming the offset, when they can't belong to an archive; of kind
    /// `Unchecked` for a format newer or older than those read here. The reader is not to be
    /// used any more then.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Data(data) => data.feed(bytes),
            Place::Head(parser) => {
                let Some((toc, left)) = parser.feed(bytes)? else { return Ok(()) };
                let behind = &bytes[bytes.len().saturating_sub(left)..];
                let blocks = Blocks::new(&toc, self.key.clone());
                let mut data = Box::new(Data { toc, blocks, tail: Tail::Nothing });
                let fed = data.feed(behind);
                self.place = Place::Data(data);
                fed
            }
        }
    }

    /// Header and table of contents, as soon as they are complete: before any data.
    pub fn toc(&self) -> Option<&Toc> {
        match &self.place {
            Place::Data(data) => Some(&data.toc),
            Place::Head(_) => None,
        }
    }

    /// Where the data of each entry stands, as far as it came: one span for each block.
    pub(crate) fn blocks(&self) -> &[BlockSpan] {
        match &self.place {
            Place::Data(data) => data.blocks.spans(),
            Place::Head(_) => &[],
        }
    }

    /// Whether all the data that the table of contents promises was there: pg_restore reads no
    /// further.
    pub fn is_complete(&self) -> bool {
        matches!(&self.place, Place::Data(data) if data.blocks.is_complete())
    }

    /// Offset of the next byte it wants.
    pub fn offset(&self) -> u64 {
        match &self.place {
            Place::Data(data) => data.offset(),
            Place::Head(parser) => parser.offset(),
        }
    }

    /// Ends the archive here.
    ///
    /// # Errors
    /// Of kind `Damaged`, unless every entry that promises data had its block, in full, and
    /// nothing follows them (but for the second table of contents that pg_dump 17 and 18 leave
    /// behind in `pg_dump -Fc db > file`).
    pub fn finish(self) -> Result<ArchiveSummary> {
        match self.place {
            Place::Head(parser) => {
                Err(damaged(parser.offset(), format!("the archive ends {}", parser.describe())))
            }
            Place::Data(data) => {
                let bytes = data.offset();
                if let Tail::SecondToc(_) = data.tail {
                    return Err(damaged(bytes, "the archive ends in what follows its data"));
                }
                let Data { toc, blocks, .. } = *data;
                Ok(ArchiveSummary::new(toc, blocks.finish()?, bytes))
            }
        }
    }
}
