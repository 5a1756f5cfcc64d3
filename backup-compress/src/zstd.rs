//! zstd: the default, faster and smaller than gzip.

use std::io::{Read, Write};
use std::ops::RangeInclusive;

use backup_core::{Error, Result, Transform};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, get_error_name,
    is_error_kind,
    zstd_sys::{ZSTD_EndDirective, ZSTD_ErrorCode},
};

use crate::feed::{Feed, READ_BYTES};

const STAGE: &str = "zstd";

/// The largest window that reading accepts, as a power of two: 128 MiB. Stock `zstd -d` has the
/// same limit; a hostile file could otherwise ask for gigabytes.
const WINDOW_LOG_MAX: u32 = 27;

/// More threads than this gain nothing and cost memory.
const MAX_THREADS: usize = 64;

/// zstd (RFC 8878), with a checksum of the content in every frame.
///
/// Reading refuses a cut, a wrong checksum, and anything behind the last frame that is no further
/// frame. Skippable frames are skipped.
///
/// Memory: reading takes the window the writer chose, at most 128 MiB (2 MiB at level 3), and
/// under 1 MiB beside it. Writing takes, with the window W of the level (2 MiB at level 3, 4 MiB
/// at 6 and 9, 8 MiB from 16 on) and T > 1 threads, about (T + 2) × 4 W of input, up to as much
/// again of output not yet taken, and T times the tables of the level (3 MiB at level 3, 90 MiB
/// at 19). One thread takes W, the tables and a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zstd {
    /// 1 (fastest) to 19 (smallest).
    pub level: i32,
    /// How many threads compress; 0 counts as 1. Reading uses one.
    pub threads: usize,
}

impl Zstd {
    /// The level of `zstd` itself.
    pub const DEFAULT_LEVEL: i32 = 3;
    /// Levels one may ask for. The "ultra" levels 20 to 22 are left out: with threads they take
    /// gigabytes.
    pub const LEVELS: RangeInclusive<i32> = 1..=19;
}

impl Default for Zstd {
    fn default() -> Self {
        Self { level: Self::DEFAULT_LEVEL, threads: 1 }
    }
}

impl Transform for Zstd {
    fn name(&self) -> &str {
        "zstd"
    }

    fn extension(&self) -> &str {
        "zst"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut context = self.compressor()?;
        let mut input = Feed::new(input);
        let mut plain = vec![0; READ_BYTES];
        let mut packed = vec![0; READ_BYTES];
        loop {
            // An error leaves the frame open: nobody can take what was written for complete.
            let length = read(&mut input, &mut plain)?;
            let last = length == 0;
            let directive = if last {
                ZSTD_EndDirective::ZSTD_e_end
            } else {
                ZSTD_EndDirective::ZSTD_e_continue
            };
            compress(&mut context, &plain[..length], directive, &mut packed, output)?;
            if last {
                return Ok(());
            }
        }
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut context = decompressor()?;
        let mut input = Feed::new(input);
        let mut packed = vec![0; READ_BYTES];
        let mut plain = vec![0; READ_BYTES];
        let mut frames = Frames::default();
        loop {
            let length = read(&mut input, &mut packed)?;
            if length == 0 {
                return frames.end();
            }
            let mut source = InBuffer::around(&packed[..length]);
            loop {
                let before = source.pos();
                let mut target = OutBuffer::around(&mut plain[..]);
                let hint = context
                    .decompress_stream(&mut target, &mut source)
                    .map_err(|code| frames.explain(code))?;
                let taken = source.pos() - before;
                let made = target.pos();
                frames.advance(hint, taken);
                write(output, &plain[..made])?;
                // A full target may hide more output even when the source is used up.
                if source.pos() == length && made < READ_BYTES {
                    break;
                }
            }
        }
    }
}

impl Zstd {
    fn compressor(&self) -> Result<CCtx<'static>> {
        if !Self::LEVELS.contains(&self.level) {
            let message = format!("{} is no zstd level, 1 to 19 are", self.level);
            return Err(Error::usage(STAGE, message));
        }
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        let workers = match self.threads.clamp(1, MAX_THREADS) {
            // Without a worker thread zstd compresses right here, with a quarter of the memory.
            1 => 0,
            several => several as u32,
        };
        for parameter in [
            CParameter::CompressionLevel(self.level),
            CParameter::ChecksumFlag(true),
            CParameter::NbWorkers(workers),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(context)
    }
}

fn decompressor() -> Result<DCtx<'static>> {
    let mut context = DCtx::try_create().ok_or_else(no_memory)?;
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
    Ok(context)
}

/// Hands `plain` to zstd and writes what comes out; with the end directive, until all has.
fn compress(
    context: &mut CCtx<'_>,
    plain: &[u8],
    directive: ZSTD_EndDirective,
    packed: &mut [u8],
    output: &mut dyn Write,
) -> Result<()> {
    let ending = matches!(directive, ZSTD_EndDirective::ZSTD_e_end);
    let mut source = InBuffer::around(plain);
    loop {
        let mut target = OutBuffer::around(&mut *packed);
        let left = context.compress_stream2(&mut target, &mut source, directive).map_err(failed)?;
        let made = target.pos();
        write(output, &packed[..made])?;
        let done = if ending { left == 0 } else { source.pos() == plain.len() };
        if done {
            return Ok(());
        }
    }
}

/// Where in the row of frames reading stands.
#[derive(Default)]
struct Frames {
    /// Whole frames behind us.
    complete: u64,
    /// Whether a frame was begun and not ended.
    inside: bool,
}

impl Frames {
    fn advance(&mut self, hint: usize, taken: usize) {
        if hint == 0 {
            // Between frames zstd says 0 again for an empty call; only a frame takes bytes.
            if self.inside || taken > 0 {
                self.complete += 1;
            }
            self.inside = false;
        } else {
            self.inside |= taken > 0;
        }
    }

    fn end(&self) -> Result<()> {
        if self.inside || self.complete == 0 {
            return Err(Error::damaged(STAGE, "the data is cut off: it ends inside a zstd frame"));
        }
        Ok(())
    }

    fn explain(&self, code: ErrorCode) -> Error {
        let is = |kind| is_error_kind(code, kind);
        let message = if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
            return Error::new(
                backup_core::ErrorKind::Unchecked,
                STAGE,
                format!(
                    "reading it needs a window of more than {} MiB",
                    (1u64 << WINDOW_LOG_MAX) >> 20
                ),
            )
            .next_step("unpack it once with `zstd -d --long=31`, where the memory is");
        } else if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) && self.complete == 0 {
            "the data does not start as zstd data does"
        } else if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) {
            "something that is no zstd frame follows the end of the data"
        } else if is(ZSTD_ErrorCode::ZSTD_error_checksum_wrong) {
            "the data is damaged: it does not decompress to what its checksum promises"
        } else {
            "the data is damaged: it does not decompress"
        };
        Error::damaged(STAGE, message).caused_by(get_error_name(code))
    }
}

fn read(input: &mut Feed<'_>, buffer: &mut [u8]) -> Result<usize> {
    let read = input.read(buffer);
    read.map_err(|e| input.failure(STAGE).unwrap_or_else(|| Error::from_io(STAGE, e)))
}

fn write(output: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|e| Error::from_io(STAGE, e))
}

fn failed(code: ErrorCode) -> Error {
    Error::failed(STAGE, "zstd failed").caused_by(get_error_name(code))
}

fn no_memory() -> Error {
    Error::failed(STAGE, "no memory for zstd")
}
