//! What is inside a data block: rows counted, compression undone and thereby proven.

use backup_core::Result;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::digest::{HashSum, ObjectDigest, RowDigest, RowKey};
use super::fields::damaged;
use super::toc::ArchiveCompression;

/// Bytes inflated at a time.
const SCRATCH_BYTES: usize = 128 * 1024;

/// Counts the rows of COPY text: its lines, up to the line `\.` and the empty lines that
/// pg_dump writes behind it. Only the end is looked at, so it costs as much as counting
/// newlines: COPY escapes every backslash of a value, no row can be `\.`.
#[derive(Default)]
pub(super) struct RowCounter {
    newlines: u64,
    digest: Option<RowDigest>,
    tail: [u8; RowCounter::TAIL],
    seen: u64,
}

impl RowCounter {
    /// Enough for `\n\.` and the empty lines behind it (three newlines in every pg_dump).
    const TAIL: usize = 8;

    /// A counter, which also makes the rows' digest when there is a key for it.
    pub fn new(key: Option<&RowKey>) -> Self {
        Self { digest: key.map(RowDigest::new), ..Self::default() }
    }

    /// Takes the next bytes.
    #[inline]
    pub fn take(&mut self, bytes: &[u8]) {
        self.newlines += match &mut self.digest {
            Some(digest) => digest.take(bytes),
            None => memchr::memchr_iter(b'\n', bytes).count() as u64,
        };
        self.seen += bytes.len() as u64;
        if let Some(last) = bytes.last_chunk() {
            self.tail = *last;
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[Self::TAIL - bytes.len()..].copy_from_slice(bytes);
        }
    }

    /// The rows; `None` when the terminator is not where it has to be.
    pub fn finish(self) -> Option<Rows> {
        let closing = self.closing_lines()?;
        let digest = self.digest.map(|digest| digest.finish(closing));
        Some(Rows { count: self.newlines - closing, digest })
    }

    /// The lines behind the last row: the terminator and the empty ones after it.
    fn closing_lines(&self) -> Option<u64> {
        let seen = usize::try_from(self.seen).unwrap_or(usize::MAX).min(Self::TAIL);
        let tail = &self.tail[Self::TAIL - seen..];
        let end = tail.iter().rposition(|byte| *byte != b'\n')? + 1;
        let closing = tail.len() - end;
        let lines = tail[..end].strip_suffix(b"\\.")?;
        let starts_a_line = match lines.last() {
            Some(before) => *before == b'\n',
            None => self.seen == tail.len() as u64,
        };
        (closing > 0 && starts_a_line).then_some(closing as u64)
    }
}

/// The rows of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub count: u64,
    pub digest: Option<HashSum>,
}

/// What is made of the plain bytes of a block.
pub(super) enum Reading {
    /// Nothing: they are only walked over.
    Nothing,
    /// Rows of COPY text.
    Rows(Box<RowCounter>),
    /// One large object.
    Object(Box<ObjectDigest>),
}

/// What was made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Nothing.
    Nothing,
    /// These rows.
    Rows(Rows),
    /// The hash of a large object.
    Object([u64; 4]),
}

impl Reading {
    #[inline]
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Nothing => {}
            Self::Rows(counter) => counter.take(bytes),
            Self::Object(digest) => digest.take(bytes),
        }
    }
}

/// The content of one data block, or of one large object.
pub(super) enum Content {
    /// As it stands.
    Plain(Reading),
    /// A zlib stream.
    Gzip(Reading, Box<Decompress>, Inflation),
    /// zstd frames.
    Zstd(Reading, Box<Decoder<'static>>, Inflation),
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
    /// Content under `compression`, of which `reading` makes something.
    pub fn new(compression: ArchiveCompression, reading: Reading) -> Result<Self> {
        Ok(match compression {
            ArchiveCompression::None => Self::Plain(reading),
            ArchiveCompression::Lz4 => Self::Opaque,
            ArchiveCompression::Gzip => {
                Self::Gzip(reading, Box::new(Decompress::new(true)), Inflation::Untouched)
            }
            ArchiveCompression::Zstd => {
                let decoder = Decoder::new()
                    .map_err(|e| backup_core::Error::from_io(super::fields::STAGE, e))?;
                Self::Zstd(reading, Box::new(decoder), Inflation::Untouched)
            }
        })
    }

    /// Takes the next bytes, which stand at `offset` of the archive.
    #[inline]
    pub fn take(&mut self, bytes: &[u8], offset: u64, scratch: &mut Scratch) -> Result<()> {
        match self {
            Self::Plain(reading) => reading.take(bytes),
            Self::Opaque => {}
            Self::Gzip(reading, stream, state) => {
                *state = inflate_zlib(stream, reading, *state, bytes, scratch)
                    .map_err(|why| damaged(offset, why))?;
            }
            Self::Zstd(reading, stream, state) => {
                *state = inflate_zstd(stream, reading, bytes, scratch)
                    .map_err(|why| damaged(offset, why))?;
            }
        }
        Ok(())
    }

    /// Ends it at `offset`: what was made of it, where that could be.
    pub fn finish(self, offset: u64) -> Result<Read> {
        let reading = match self {
            Self::Plain(reading) => reading,
            Self::Opaque => return Ok(Read::Nothing),
            Self::Gzip(reading, _, state) | Self::Zstd(reading, _, state) => {
                if state == Inflation::Open {
                    return Err(damaged(offset, "the compressed data inside stops in its middle"));
                }
                reading
            }
        };
        match reading {
            Reading::Nothing => Ok(Read::Nothing),
            Reading::Object(digest) => Ok(Read::Object(digest.finish())),
            Reading::Rows(counter) => {
                let missing = || damaged(offset, "a table's data ends without its \\. line");
                counter.finish().ok_or_else(missing).map(Read::Rows)
            }
        }
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
    reading: &mut Reading,
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
        reading.take(&room[..written]);
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
    reading: &mut Reading,
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
        reading.take(&room[..written]);
        if input.pos() == bytes.len() && written < room.len() {
            // A hint of zero: the frame is complete and flushed.
            return Ok(if hint == 0 { Inflation::Ended } else { Inflation::Open });
        }
    }
}
