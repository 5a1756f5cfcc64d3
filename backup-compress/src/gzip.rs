//! gzip: the format every machine can open.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::RangeInclusive;

use backup_core::{Error, FramedOutput, Result, Transform};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::feed::{Feed, READ_BYTES};
use crate::row::{self, Shape};

const STAGE: &str = "gzip";

/// Plain bytes in one member. Each starts with an empty window, so shorter ones compress worse.
const MEMBER_BYTES: usize = 1024 * 1024;

/// Members under way for each thread: one being compressed, one waiting, one done.
const MEMBERS_PER_THREAD: usize = 3;

/// Bytes of checksum and length that end a member.
const TRAILER_BYTES: usize = 8;

/// gzip (RFC 1952), compressed on several threads.
///
/// It writes one gzip member per MiB of input; `gunzip`, `zcat` and every other reader see one
/// file, because members one after the other *are* one file.
///
/// Reading refuses a cut, a wrong checksum or length, and anything behind the last member that is
/// no further member. Zero bytes there are refused as well: `gzip` ignores them, because tapes
/// are padded so, but to us every byte of a backup counts, and the error says how to get past it.
///
/// Memory: `threads` × 3 blocks of 1 MiB on both sides, at most 6 MiB for each thread, when
/// writing; half a MiB when reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gzip {
    /// 1 (fastest) to 9 (smallest).
    pub level: u32,
    /// How many threads compress; 0 counts as 1. Reading uses one.
    pub threads: usize,
}

impl Gzip {
    /// The level of `gzip` itself.
    pub const DEFAULT_LEVEL: u32 = 6;
    /// Levels one may ask for.
    pub const LEVELS: RangeInclusive<u32> = 1..=9;
}

impl Default for Gzip {
    fn default() -> Self {
        Self { level: Self::DEFAULT_LEVEL, threads: 1 }
    }
}

impl Transform for Gzip {
    fn name(&self) -> &str {
        "gzip"
    }

    fn extension(&self) -> &str {
        "gz"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        if !Self::LEVELS.contains(&self.level) {
            return Err(Error::usage(
                STAGE,
                format!("{} is no gzip level, 1 to 9 are", self.level),
            ));
        }
        let shape = Shape {
            stage: STAGE,
            frame_bytes: MEMBER_BYTES,
            threads: self.threads,
            per_thread: MEMBERS_PER_THREAD,
            waiting: 0,
            trailer_bytes: TRAILER_BYTES,
        };
        let compressor = || |block: &[u8]| compress(self.level, block);
        row::write(shape, compressor, input, &mut FramedOutput::new(output))
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut packed = BufReader::with_capacity(READ_BYTES, Feed::new(input));
        let mut block = vec![0; READ_BYTES];
        let mut first = true;
        while first || has_more(&mut packed)? {
            read_member(&mut packed, first, &mut block, output)?;
            first = false;
        }
        Ok(())
    }
}

fn compress(level: u32, block: &[u8]) -> Result<Vec<u8>> {
    let mut member = GzEncoder::new(Vec::with_capacity(block.len() / 2), Compression::new(level));
    member.write_all(block).and_then(|()| member.finish()).map_err(|e| Error::from_io(STAGE, e))
}

type Packed<'a> = BufReader<Feed<'a>>;

fn has_more(packed: &mut Packed<'_>) -> Result<bool> {
    match packed.fill_buf() {
        Ok(bytes) => Ok(!bytes.is_empty()),
        Err(error) => Err(explain(packed, true, true, error)),
    }
}

fn read_member(
    packed: &mut Packed<'_>,
    first: bool,
    block: &mut [u8],
    output: &mut dyn Write,
) -> Result<()> {
    let behind_the_end = !first && packed.buffer().first() == Some(&0);
    let mut member = GzDecoder::new(&mut *packed);
    loop {
        match member.read(block) {
            Ok(0) => return Ok(()),
            Ok(n) => output.write_all(&block[..n]).map_err(|e| Error::from_io(STAGE, e))?,
            Err(_) if behind_the_end => return Err(zero_padding()),
            Err(error) => {
                let in_header = member.header().is_none();
                return Err(explain(packed, first, in_header, error));
            }
        }
    }
}

/// Says what is wrong with the data, unless it was the input that failed.
fn explain(packed: &mut Packed<'_>, first: bool, in_header: bool, error: io::Error) -> Error {
    if let Some(failure) = packed.get_mut().failure(STAGE) {
        return failure;
    }
    let message = match (error.kind(), in_header) {
        (io::ErrorKind::UnexpectedEof, _) => "the data is cut off: it ends inside a gzip member",
        (_, true) if first => "the data does not start as gzip data does",
        (_, true) => "something that is no gzip member follows the end of the data",
        (_, false) => "the data is damaged: it does not decompress to what its checksum promises",
    };
    Error::damaged(STAGE, message).caused_by(error)
}

fn zero_padding() -> Error {
    Error::damaged(STAGE, "zero bytes follow the end of the data")
        .next_step("if it came from a tape or a block device, unpack it once with gunzip, which ignores such padding")
}
