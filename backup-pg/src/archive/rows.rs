//! What is inside a data block: rows counted, compression undone and thereby proven.

use backup_core::Result;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::fields::damaged;
use super::toc::ArchiveCompression;

/// Bytes inflated at a time.
const SCRATCH_BYTES: usize = 128 * 1024;

/// Counts the rows of COPY text: its lines, up to the line `\.` and the empty lines that
/// pg_dump writes behind it. Only the end is looked at, so it costs as much as counting
/// newlines: COPY escapes every backslash of a value, no row can be `\.`.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    newlines: u64,
    tail: [u8; RowCounter::TAIL],
    seen: u64,
}

impl RowCounter {
    /// Enough for `\n\.` and the empty lines behind it (three newlines in every pg_dump).
    const TAIL: usize = 8;

    /// Takes the next bytes.
    #[inline]
    pub fn take(&mut self, bytes: &[u8]) {
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.seen += bytes.len() as u64;
        if let Some(last) = bytes.last_chunk() {
            self.tail = *last;
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[Self::TAIL - bytes.len()..].copy_from_slice(bytes);
        }
    }

    /// The number of rows; `None` when the terminator is not where it has to be.
    pub fn rows(&self) -> Option<u64> {
        let seen = usize::try_from(self.seen).unwrap_or(usize::MAX).min(Self::TAIL);
        let tail = &self.tail[Self::TAIL - seen..];
        let end = tail.iter().rposition(|byte| *byte != b'\n')? + 1;
        let closing = tail.len() - end;
        let lines = tail[..end].strip_suffix(b"\\.")?;
        let starts_a_line = match lines.last() {
            Some(before) => *before == b'\n',
            None => self.seen == tail.len() as u64,
        };
        (closing > 0 && starts_a_line).then(|| self.newlines - closing as u64)
    }
}

/// The content of one data block, or of one large object.
pub(super) enum Content {
    /// As it stands; rows counted where they can be.
    Plain(Option<RowCounter>),
    /// A zlib stream.
    Gzip(Option<RowCounter>, Box<Decompress>, Inflation),
    /// zstd frames.
    Zstd(Option<RowCounter>, Box<Decoder<'static>>, Inflation),
    /// Bytes that are only walked over.
    Opaque,
}

/// How far an inflation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inflation {
    /// No byte came: pg_dump writes nothing at all for an empty large object.
    Untouched,
    /// In the middle of it.
    Open,
    /// At its end.
    Ended,
}

impl Content {
    /// Content under `compression`, with its rows counted when `count_rows`.
    pub fn new(compression: ArchiveCompression, count_rows: bool) -> Result<Self> {
        let counter = count_rows.then(RowCounter::default);
        Ok(match compression {
            ArchiveCompression::None => Self::Plain(counter),
            ArchiveCompression::Lz4 => Self::Opaque,
            ArchiveCompression::Gzip => {
                Self::Gzip(counter, Box::new(Decompress::new(true)), Inflation::Untouched)
            }
            ArchiveCompression::Zstd => {
                let decoder = Decoder::new()
                    .map_err(|e| backup_core::Error::from_io(super::fields::STAGE, e))?;
                Self::Zstd(counter, Box::new(decoder), Inflation::Untouched)
            }
        })
    }

    /// Takes the next bytes, which stand at `offset` of the archive.
    #[inline]
    pub fn take(&mut self, bytes: &[u8], offset: u64, scratch: &mut Scratch) -> Result<()> {
        match self {
            Self::Plain(Some(counter)) => counter.take(bytes),
            Self::Plain(None) | Self::Opaque => {}
            Self::Gzip(counter, stream, state) => {
                *state = inflate_zlib(stream, counter, *state, bytes, scratch)
                    .map_err(|why| damaged(offset, why))?;
            }
            Self::Zstd(counter, stream, state) => {
                *state = inflate_zstd(stream, counter, bytes, scratch)
                    .map_err(|why| damaged(offset, why))?;
            }
        }
        Ok(())
    }

    /// Ends it at `offset`: the rows, where they could be counted.
    pub fn finish(self, offset: u64) -> Result<Option<u64>> {
        let counter = match self {
            Self::Plain(counter) => counter,
            Self::Opaque => return Ok(None),
            Self::Gzip(counter, _, state) | Self::Zstd(counter, _, state) => {
                if state == Inflation::Open {
                    return Err(damaged(offset, "the compressed data inside stops in its middle"));
                }
                counter
            }
        };
        let Some(counter) = counter else { return Ok(None) };
        let missing = || damaged(offset, "a table's data ends without its \\. line");
        counter.rows().ok_or_else(missing).map(Some)
    }
}

/// Room for inflated bytes, made when the first compressed block comes.
#[derive(Default)]
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    fn room(&mut self) -> &mut [u8] {
        self.0.resize(SCRATCH_BYTES, 0);
        &mut self.0
    }
}

fn inflate_zlib(
    stream: &mut Decompress,
    counter: &mut Option<RowCounter>,
    mut state: Inflation,
    mut bytes: &[u8],
    scratch: &mut Scratch,
) -> Result<Inflation, String> {
    let room = scratch.room();
    loop {
        if state == Inflation::Ended {
            return match bytes {
                [] => Ok(state),
                _ => Err("bytes follow the end of a compressed stream".to_owned()),
            };
        }
        let (read, written) = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress(bytes, room, FlushDecompress::None)
            .map_err(|e| format!("the gzip data inside is damaged ({e})"))?;
        let read = (stream.total_in() - read) as usize;
        let written = (stream.total_out() - written) as usize;
        bytes = &bytes[read..];
        if let Some(counter) = counter {
            counter.take(&room[..written]);
        }
        state = if status == Status::StreamEnd { Inflation::Ended } else { Inflation::Open };
        if state == Inflation::Open && bytes.is_empty() && written < room.len() {
            return Ok(state);
        }
        if read == 0 && written == 0 && state == Inflation::Open {
            return Err("the gzip data inside makes no progress".to_owned());
        }
    }
}

fn inflate_zstd(
    stream: &mut Decoder<'static>,
    counter: &mut Option<RowCounter>,
    bytes: &[u8],
    scratch: &mut Scratch,
) -> Result<Inflation, String> {
    let room = scratch.room();
    let mut input = InBuffer::around(bytes);
    loop {
        let mut output = OutBuffer::around(&mut *room);
        let hint = stream
            .run(&mut input, &mut output)
            .map_err(|e| format!("the zstd data inside is damaged ({e})"))?;
        let written = output.pos();
        if let Some(counter) = counter {
            counter.take(&room[..written]);
        }
        if input.pos() == bytes.len() && written < room.len() {
            // A hint of zero: the frame is complete and flushed.
            return Ok(if hint == 0 { Inflation::Ended } else { Inflation::Open });
        }
    }
}
