//! zstd: the default, faster and smaller than gzip.

use std::io::{Read, Write};
use std::ops::RangeInclusive;

use backup_core::{Error, FramedOutput, Result, Transform};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, compress_bound,
    get_error_name, is_error_kind, zstd_sys::ZSTD_ErrorCode,
};

use crate::feed::{Feed, READ_BYTES};
use crate::row::{self, Shape};

const STAGE: &str = "zstd";

/// The largest window that reading accepts, as a power of two: 128 MiB. Stock `zstd -d` has the
/// same limit; a hostile file could otherwise ask for gigabytes.
const WINDOW_LOG_MAX: u32 = 27;

/// Plain bytes in one frame: what has to be read, decrypted and decompressed to see one row.
/// Shorter ones compress worse, since each begins with an empty window, and make a longer list.
/// docs/decisions/frames.md has the figures.
const FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of checksum that end a frame.
const CHECKSUM_BYTES: usize = 4;

/// zstd (RFC 8878), with a checksum of the content in every frame.
///
/// Reading refuses a cut, a wrong checksum, and anything behind the last frame that is no further
/// frame. Skippable frames are skipped.
///
/// It writes one frame for every 16 MiB of input, on several threads; `zstd -d` and every other
/// reader see one file, because frames one after the other *are* one file.
///
/// Memory: reading takes the window the writer chose, at most 128 MiB (2 MiB at level 3), and
/// under 1 MiB beside it. Writing takes, with T threads, (2T + 2) × 16 MiB for input and output,
/// and T times the tables of the level (3 MiB at level 3, 90 MiB at 19).
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
        self.write(FRAME_BYTES, input, &mut FramedOutput::new(output))
    }

    fn encode_in_frames(&self, input: &mut dyn Read, output: &mut FramedOutput<'_>) -> Result<()> {
        output.in_frames_of(FRAME_BYTES as u64);
        self.write(FRAME_BYTES, input, output)
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut context = decompressor()?;
        let mut input = Feed::new(input);
        let mut packed = vec![0; READ_BYTES];
        let mut plain = vec![0; READ_BYTES];
        let mut frames = Standing::default();
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
    /// Writes frames of so many plain bytes.
    pub(crate) fn write(
        &self,
        frame_bytes: usize,
        input: &mut dyn Read,
        output: &mut FramedOutput<'_>,
    ) -> Result<()> {
        if !Self::LEVELS.contains(&self.level) {
            let message = format!("{} is no zstd level, 1 to 19 are", self.level);
            return Err(Error::usage(STAGE, message));
        }
        let shape = Shape {
            stage: STAGE,
            frame_bytes,
            threads: self.threads,
            per_thread: 1,
            waiting: 1,
            trailer_bytes: CHECKSUM_BYTES,
        };
        let compressor = || {
            let mut context = self.compressor();
            move |plain: &[u8]| match &mut context {
                Ok(context) => compress(context, plain),
                Err(_) => Err(no_memory()),
            }
        };
        row::write(shape, compressor, input, output)
    }

    fn compressor(&self) -> Result<CCtx<'static>> {
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        for parameter in [CParameter::CompressionLevel(self.level), CParameter::ChecksumFlag(true)]
        {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(context)
    }
}

/// One whole frame.
fn compress(context: &mut CCtx<'_>, plain: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(compress_bound(plain.len()));
    context.compress2(&mut frame, plain).map_err(failed)?;
    Ok(frame)
}

fn decompressor() -> Result<DCtx<'static>> {
    let mut context = DCtx::try_create().ok_or_else(no_memory)?;
    context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
    Ok(context)
}

/// Where in the row of frames reading stands.
#[derive(Default)]
struct Standing {
    /// Whole frames behind us.
    complete: u64,
    /// Whether a frame was begun and not ended.
    inside: bool,
}

impl Standing {
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
