//! Cuts the data of an archive into pieces on its way, between two rows where that can be.
//!
//! Rows are told apart by their line ends, which COPY's text has nowhere else. So the pieces of one
//! table can go to several sessions.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::archive::{BlockSpan, LARGE_OBJECTS_BLOCK, TABLE_BLOCK, Toc, has_lines, put_int};

/// A piece ends at the next row when it has so many bytes.
pub(super) const PIECE_BYTES: usize = 512 << 10;

/// With so many times its size, a piece ends also inside a row.
const LONGEST_PIECE: usize = 2;

/// Some of an entry's data, in the chunks of an archive: pg_dump makes one of each row, which costs
/// pg_restore and the server more.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    /// The entry.
    pub dump_id: i64,
    /// [`TABLE_BLOCK`] or [`LARGE_OBJECTS_BLOCK`].
    pub kind: u8,
    /// Its bytes.
    pub chunks: Bytes,
    /// Whether what follows it may go to another session.
    pub whole: bool,
    /// Whether it is the entry's last.
    pub last: bool,
}

/// Takes the data blocks of an archive as they come, and gives pieces.
pub(super) struct Cutter {
    piece_bytes: usize,
    int_bytes: usize,
    /// The entries that are wanted; whether their data is lines.
    wanted: BTreeMap<i64, bool>,
    /// Blocks that were dealt with.
    done: usize,
    block: Option<Block>,
    ready: Vec<Piece>,
}

/// The block that is being read.
struct Block {
    dump_id: i64,
    kind: u8,
    has_lines: bool,
    place: Place,
    /// An integer that a cut between two pieces tore apart.
    torn: Vec<u8>,
    /// What the next piece holds so far.
    chunks: BytesMut,
    /// Where in it the length of the chunk stands that is being filled.
    open: Option<usize>,
    /// The last two bytes of the content.
    last: [u8; 2],
}

#[derive(Clone, Copy)]
enum Place {
    ChunkLength,
    Chunk { left: usize },
    Object,
    End,
}

impl Cutter {
    /// For the data of the entries in `restored`.
    pub fn new(restored: &Toc) -> Self {
        Self::with_size(restored, PIECE_BYTES)
    }

    fn with_size(restored: &Toc, piece_bytes: usize) -> Self {
        let with_data = restored.entries.iter().filter(|entry| entry.has_data);
        let wanted = with_data.map(|entry| (entry.dump_id, has_lines(entry)));
        Self {
            piece_bytes,
            int_bytes: restored.header.int_bytes,
            wanted: wanted.collect(),
            done: 0,
            block: None,
            ready: Vec::new(),
        }
    }

    /// Takes `chunk`, which starts at `offset` of the archive and lies in the blocks `spans`.
    /// Gives the pieces that are ready by it.
    pub fn take(&mut self, chunk: &[u8], offset: u64, spans: &[BlockSpan]) -> Vec<Piece> {
        let chunk_end = offset + chunk.len() as u64;
        while let Some(span) = spans.get(self.done) {
            if self.wanted.contains_key(&span.dump_id) {
                let place = |at: u64| usize::try_from(at.clamp(offset, chunk_end) - offset);
                let (from, to) = (place(span.start), place(span.end.unwrap_or(chunk_end)));
                if let (Ok(from), Ok(to)) = (from, to) {
                    self.take_of_block(span, chunk.get(from..to).unwrap_or_default());
                }
            }
            if span.end.is_none_or(|end| end > chunk_end) {
                break;
            }
            self.done += 1;
        }
        std::mem::take(&mut self.ready)
    }

    fn take_of_block(&mut self, span: &BlockSpan, mut bytes: &[u8]) {
        let has_lines = self.wanted.get(&span.dump_id).is_some_and(|has_lines| *has_lines);
        let mut block = self.block.take().unwrap_or_else(|| Block::new(span, has_lines));
        while !bytes.is_empty() {
            match block.place {
                Place::Chunk { left } => self.take_content(&mut block, left, &mut bytes),
                Place::End => break,
                Place::ChunkLength | Place::Object => {
                    let Some(int) = block.take_int(self.int_bytes, &mut bytes) else { break };
                    self.take_number(&mut block, &int);
                }
            }
        }
        if !matches!(block.place, Place::End) {
            self.block = Some(block);
        }
    }

    /// A length or an oid.
    fn take_number(&mut self, block: &mut Block, int: &[u8]) {
        let value = value_of(int);
        match block.place {
            Place::Object if value == 0 => self.end(block),
            Place::Object => {
                block.chunks.put_slice(int);
                block.place = Place::ChunkLength;
            }
            _ if value > 0 => block.place = Place::Chunk { left: value },
            _ if block.kind == LARGE_OBJECTS_BLOCK => {
                block.close_chunk(self.int_bytes);
                put_int(&mut block.chunks, 0, self.int_bytes);
                block.place = Place::Object;
                if block.chunks.len() >= self.piece_bytes {
                    self.cut(block, true);
                }
            }
            _ => self.end(block),
        }
    }

    fn take_content(&mut self, block: &mut Block, left: usize, bytes: &mut &[u8]) {
        let available = &bytes[..left.min(bytes.len())];
        let full = block.chunks.len() >= self.piece_bytes;
        let row_end = if full && block.has_lines { block.row_end(available) } else { None };
        let taken = row_end.unwrap_or(available.len());
        block.append(&available[..taken], self.int_bytes);
        *bytes = &bytes[taken..];
        block.place = match left - taken {
            0 => Place::ChunkLength,
            left => Place::Chunk { left },
        };
        if row_end.is_some() {
            self.cut(block, true);
        } else if block.chunks.len() >= LONGEST_PIECE * self.piece_bytes {
            self.cut(block, false);
        }
    }

    fn end(&mut self, block: &mut Block) {
        block.place = Place::End;
        self.cut(block, true);
        if let Some(piece) = self.ready.last_mut() {
            piece.last = true;
        }
    }

    fn cut(&mut self, block: &mut Block, whole: bool) {
        block.close_chunk(self.int_bytes);
        let (dump_id, kind) = (block.dump_id, block.kind);
        let chunks = block.chunks.split().freeze();
        if !matches!(block.place, Place::End) {
            block.chunks.reserve(LONGEST_PIECE * self.piece_bytes);
        }
        self.ready.push(Piece { dump_id, kind, chunks, whole, last: false });
    }
}

impl Block {
    fn new(span: &BlockSpan, has_lines: bool) -> Self {
        let (kind, place) = match span.large_objects {
            true => (LARGE_OBJECTS_BLOCK, Place::Object),
            false => (TABLE_BLOCK, Place::ChunkLength),
        };
        Self {
            dump_id: span.dump_id,
            kind,
            has_lines,
            place,
            torn: Vec::new(),
            chunks: BytesMut::new(),
            open: None,
            last: [0; 2],
        }
    }

    /// An integer off the front of `bytes`, once all of it is there.
    fn take_int(&mut self, int_bytes: usize, bytes: &mut &[u8]) -> Option<Bytes> {
        let missing = (1 + int_bytes - self.torn.len()).min(bytes.len());
        let (piece, rest) = bytes.split_at(missing);
        *bytes = rest;
        self.torn.extend_from_slice(piece);
        (self.torn.len() > int_bytes).then(|| Bytes::from(std::mem::take(&mut self.torn)))
    }

    /// Adds content to the chunk that is open, or opens one.
    fn append(&mut self, content: &[u8], int_bytes: usize) {
        if self.open.is_none() {
            self.open = Some(self.chunks.len());
            put_int(&mut self.chunks, 0, int_bytes);
        }
        self.chunks.extend_from_slice(content);
        match *content {
            [.., a, b] => self.last = [a, b],
            [b] => self.last = [self.last[1], b],
            [] => {}
        }
    }

    /// Writes how long the open chunk has become.
    fn close_chunk(&mut self, int_bytes: usize) {
        let Some(at) = self.open.take() else { return };
        let start = at + 1 + int_bytes;
        let length = (self.chunks.len() - start) as u64;
        self.chunks[at + 1..start].copy_from_slice(&length.to_le_bytes()[..int_bytes]);
    }

    /// Where in `content`, which comes next, a row ends that others may follow. Not behind the
    /// mark of the end (`\.`), and not in the empty lines after it.
    fn row_end(&self, content: &[u8]) -> Option<usize> {
        let before = |at: usize, back: usize| match at.checked_sub(back) {
            Some(i) => content.get(i).copied().unwrap_or_default(),
            None => self.last[2 + at - back],
        };
        let ends_row = |at: &usize| {
            let previous = [before(*at, 2), before(*at, 1)];
            previous[1] != b'\n' && previous != *b"\\."
        };
        memchr::memchr_iter(b'\n', content).find(ends_row).map(|at| at + 1)
    }
}

/// A sign, then the value with its lowest byte first.
fn value_of(int: &[u8]) -> usize {
    let bytes = int.get(1..).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
