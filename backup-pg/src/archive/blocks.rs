//! The data of an archive: blocks walked as their bytes arrive, never copied.
//!
//! A block is a type byte (1 table data, 3 large objects), the id of its entry, then chunks:
//! a length, that many bytes, and so on up to a length of zero. Large objects stand one after
//! another, each as its oid and its chunks, up to an oid of zero.

use std::collections::HashMap;

use backup_core::{DataBlock, Result};

use super::digest::{HashSum, ObjectDigest, RowKey};
use super::fields::{MAX_INT_BYTES, damaged, int_of, put_int};
use super::rows::{Content, Read, Reading, RowCounter, Rows, Scratch};
use super::toc::{ArchiveCompression, Toc, TocEntry};

/// Types of data blocks.
pub(crate) const TABLE_BLOCK: u8 = 1;
pub(crate) const LARGE_OBJECTS_BLOCK: u8 = 3;

/// What one entry promises, and whether it came.
struct Promise {
    dump_id: i64,
    tag: String,
    block: u8,
    count_rows: bool,
    kept: Option<Option<Rows>>,
}

/// Where the next byte belongs.
#[derive(Clone, Copy)]
enum Place {
    BlockType,
    DumpId { block: u8 },
    LargeObject,
    ChunkLength,
    Chunk { left: u64 },
}

/// Where the data of one entry stands, behind the block's type and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockSpan {
    /// The entry it belongs to.
    pub dump_id: i64,
    /// Whether it holds large objects.
    pub large_objects: bool,
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte, once that came.
    pub end: Option<u64>,
}

/// What all blocks held.
#[derive(Debug, Clone)]
pub(super) struct Walked {
    /// Rows by the entry's id; `None` where they can't be told.
    pub rows: HashMap<i64, Option<Rows>>,
    /// Large objects.
    pub large_objects: u64,
    /// Sum of their hashes; `None` without a key, or where one could not be read.
    pub objects_sum: Option<HashSum>,
    /// The key of the digests.
    pub key: Option<RowKey>,
    /// Where the blocks stand, in their order.
    pub blocks: Vec<DataBlock>,
}

/// Walks the data blocks behind a table of contents.
pub(super) struct Blocks {
    place: Place,
    int_bytes: usize,
    /// An integer that a cut between two pieces tore apart.
    torn: [u8; MAX_INT_BYTES],
    torn_len: usize,
    compression: ArchiveCompression,
    content: Content,
    scratch: Scratch,
    promises: Vec<Promise>,
    by_id: HashMap<i64, usize>,
    current: Option<usize>,
    /// One for each block that began.
    spans: Vec<BlockSpan>,
    kept: usize,
    /// Makes the digests of rows, where one is given.
    key: Option<RowKey>,
    /// Large objects whose data was there in full.
    large_objects: u64,
    /// The hashes of those that could be read.
    objects_sum: HashSum,
    /// Whether there are large objects that could not.
    unread_objects: bool,
    /// Offset in the archive of the next byte.
    offset: u64,
}

impl Blocks {
    pub fn new(toc: &Toc, key: Option<RowKey>) -> Self {
        let promises: Vec<Promise> =
            toc.entries.iter().filter(|entry| entry.has_data).map(promise).collect();
        let by_id = promises.iter().enumerate().map(|(i, p)| (p.dump_id, i)).collect();
        Self {
            place: Place::BlockType,
            int_bytes: toc.header.int_bytes,
            torn: [0; MAX_INT_BYTES],
            torn_len: 0,
            compression: toc.header.compression,
            content: Content::Opaque,
            scratch: Scratch::default(),
            promises,
            by_id,
            current: None,
            spans: Vec::new(),
            kept: 0,
            key,
            large_objects: 0,
            objects_sum: HashSum::default(),
            unread_objects: false,
            offset: toc.end,
        }
    }

    /// Offset in the archive of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The blocks that began so far, in their order.
    pub fn spans(&self) -> &[BlockSpan] {
        &self.spans
    }

    /// Whether every block that is promised was there in full.
    pub fn is_complete(&self) -> bool {
        self.kept == self.promises.len()
    }

    /// Takes the next bytes. Returns those behind the last block.
    pub fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8]> {
        while !bytes.is_empty() {
            if self.is_complete() {
                return Ok(bytes);
            }
            match self.place {
                Place::Chunk { left } => self.take_chunk(left, &mut bytes)?,
                Place::ChunkLength => self.take_length(&mut bytes)?,
                Place::BlockType => self.take_block_type(&mut bytes)?,
                Place::DumpId { block } => self.take_dump_id(block, &mut bytes)?,
                Place::LargeObject => self.take_large_object(&mut bytes)?,
            }
        }
        Ok(bytes)
    }

    /// An integer off the front of `bytes`; `None` when the rest of it has not arrived.
    #[inline]
    fn take_int(&mut self, bytes: &mut &[u8]) -> Result<Option<i64>> {
        let width = 1 + self.int_bytes;
        let value = if self.torn_len == 0 && bytes.len() >= width {
            let (int, rest) = bytes.split_at(width);
            *bytes = rest;
            self.offset += width as u64;
            int_of(int)
        } else {
            let missing = (width - self.torn_len).min(bytes.len());
            let (piece, rest) = bytes.split_at(missing);
            self.torn[self.torn_len..self.torn_len + missing].copy_from_slice(piece);
            self.torn_len += missing;
            *bytes = rest;
            self.offset += missing as u64;
            if self.torn_len < width {
                return Ok(None);
            }
            self.torn_len = 0;
            int_of(&self.torn[..width])
        };
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(damaged(self.offset - width as u64, "is no integer")),
        }
    }

    #[inline]
    fn take_chunk(&mut self, left: u64, bytes: &mut &[u8]) -> Result<()> {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        self.content.take(piece, self.offset, &mut self.scratch)?;
        self.offset += length as u64;
        *bytes = rest;
        self.place = match left - length as u64 {
            0 => Place::ChunkLength,
            left => Place::Chunk { left },
        };
        Ok(())
    }

    #[inline]
    fn take_length(&mut self, bytes: &mut &[u8]) -> Result<()> {
        match self.take_int(bytes)? {
            None => Ok(()),
            Some(0) => self.end_of_content(),
            Some(length) => match u64::try_from(length) {
                Ok(left) => {
                    self.place = Place::Chunk { left };
                    Ok(())
                }
                Err(_) => Err(damaged(self.offset, format!("a chunk of {length} bytes"))),
            },
        }
    }

    fn take_block_type(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let Some((block, rest)) = bytes.split_first() else { return Ok(()) };
        if !matches!(*block, TABLE_BLOCK | LARGE_OBJECTS_BLOCK) {
            return Err(damaged(self.offset, format!("{block} is no type of data block")));
        }
        self.offset += 1;
        *bytes = rest;
        self.place = Place::DumpId { block: *block };
        Ok(())
    }

    fn take_dump_id(&mut self, block: u8, bytes: &mut &[u8]) -> Result<()> {
        let Some(id) = self.take_int(bytes)? else { return Ok(()) };
        let promised = self.by_id.get(&id).and_then(|i| Some((*i, self.promises.get(*i)?)));
        let Some((index, promise)) = promised else {
            return Err(damaged(self.offset, format!("no entry promises data block {id}")));
        };
        if promise.kept.is_some() {
            return Err(damaged(self.offset, format!("data block {id} is there twice")));
        }
        if promise.block != block {
            return Err(damaged(self.offset, format!("data block {id} is of the wrong type")));
        }
        self.current = Some(index);
        let large_objects = block == LARGE_OBJECTS_BLOCK;
        self.spans.push(BlockSpan { dump_id: id, large_objects, start: self.offset, end: None });
        if block == LARGE_OBJECTS_BLOCK {
            self.place = Place::LargeObject;
        } else {
            let reading = match promise.count_rows {
                true => Reading::Rows(Box::new(RowCounter::new(self.key.as_ref()))),
                false => Reading::Nothing,
            };
            self.content = Content::new(self.compression, reading)?;
            self.place = Place::ChunkLength;
        }
        Ok(())
    }

    fn take_large_object(&mut self, bytes: &mut &[u8]) -> Result<()> {
        match self.take_int(bytes)? {
            None => {}
            Some(0) => self.keep(None),
            Some(oid) => {
                let digest = self.key.as_ref().map(|key| ObjectDigest::new(key, oid));
                let reading =
                    digest.map_or(Reading::Nothing, |digest| Reading::Object(Box::new(digest)));
                self.content = Content::new(self.compression, reading)?;
                self.place = Place::ChunkLength;
            }
        }
        Ok(())
    }

    /// A chunk length of zero: the end of a table's data, or of one large object.
    fn end_of_content(&mut self) -> Result<()> {
        let content = std::mem::replace(&mut self.content, Content::Opaque);
        let read = content.finish(self.offset)?;
        let promise = self.current.and_then(|index| self.promises.get(index));
        if promise.is_some_and(|promise| promise.block == LARGE_OBJECTS_BLOCK) {
            self.large_objects += 1;
            match read {
                Read::Object(hash) => self.objects_sum.add(hash),
                _ => self.unread_objects = true,
            }
            self.place = Place::LargeObject;
        } else {
            self.keep(match read {
                Read::Rows(rows) => Some(rows),
                _ => None,
            });
        }
        Ok(())
    }

    fn keep(&mut self, rows: Option<Rows>) {
        if let Some(promise) = self.current.take().and_then(|i| self.promises.get_mut(i)) {
            promise.kept = Some(rows);
            self.kept += 1;
            if let Some(span) = self.spans.last_mut() {
                span.end = Some(self.offset);
            }
        }
        self.place = Place::BlockType;
    }

    /// Ends the archive here.
    pub fn finish(self) -> Result<Walked> {
        let open = match self.current.and_then(|index| self.promises.get(index)) {
            Some(promise) => Some(promise.tag.clone()),
            None if matches!(self.place, Place::BlockType) => None,
            None => Some("the next entry".to_owned()),
        };
        if let Some(tag) = open {
            return Err(damaged(self.offset, format!("the archive ends inside the data of {tag}")));
        }
        let missing: Vec<&str> =
            self.promises.iter().filter(|p| p.kept.is_none()).map(|p| p.tag.as_str()).collect();
        if let Some(first) = missing.first() {
            return Err(damaged(
                self.offset,
                format!(
                    "the archive ends here; the data of {} of its {} entries is missing, {first} is the first",
                    missing.len(),
                    self.promises.len()
                ),
            ));
        }
        let rows = self.promises.iter().filter_map(|p| Some((p.dump_id, p.kept?))).collect();
        let block = |span: &BlockSpan| {
            Some(DataBlock { entry: span.dump_id, start: span.start, end: span.end? })
        };
        let blocks = self.spans.iter().filter_map(block).collect();
        Ok(Walked {
            rows,
            large_objects: self.large_objects,
            objects_sum: (self.key.is_some() && !self.unread_objects).then_some(self.objects_sum),
            key: self.key,
            blocks,
        })
    }
}

/// The bytes with which the data of an entry begins.
pub(crate) fn block_start(kind: u8, dump_id: i64, int_bytes: usize) -> Vec<u8> {
    let mut start = vec![kind];
    put_int(&mut start, dump_id.unsigned_abs(), int_bytes);
    start
}

/// Whether each line of an entry's data is a row. With --inserts it is statements.
pub(crate) fn has_lines(entry: &TocEntry) -> bool {
    entry.desc == "TABLE DATA" && entry.copy_stmt.starts_with("COPY ")
}

fn promise(entry: &TocEntry) -> Promise {
    // With --load-via-partition-root the server decides which partition a row goes to.
    let own_rows = !entry.defn.starts_with("-- load via partition root");
    Promise {
        dump_id: entry.dump_id,
        tag: match entry.namespace.as_str() {
            "" => entry.tag.clone(),
            schema => format!("{schema}.{}", entry.tag),
        },
        block: if entry.desc == "BLOBS" { LARGE_OBJECTS_BLOCK } else { TABLE_BLOCK },
        count_rows: has_lines(entry) && own_rows,
        kept: None,
    }
}
