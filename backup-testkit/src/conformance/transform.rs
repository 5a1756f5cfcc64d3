//! What every transform must do.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use backup_core::{Digest, FramedOutput, Frames, Result, Transform};
use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::ends::{
    FailsAfter, FullAfter, MARK, NotesFirstWrite, NotesProgress, SingleBytes, SmallWrites,
};
use super::{Must, SIZES, broken, require, require_same};
use crate::{random, text};

/// Cases per kind of damage in [`transform`]; [`transform_in_full`] tries every one.
const SAMPLES: usize = 20;
/// Input of the check that a transform streams, in bytes.
const STREAM_BYTES: usize = 48 * 1024 * 1024;
/// Input of the check of frames, in bytes: enough for more than one of 16 MiB.
const FRAMED_BYTES: usize = 33 * 1024 * 1024 + 5;

/// Checks `transform`, with 20 cases of each kind of damage (always the same ones):
///
/// - what `encode` wrote, `decode` gives back: no byte, one byte, around chunk sizes, 5 MiB;
///   also when input comes byte by byte and output is taken in small pieces,
/// - a failing input or output comes out as that failure, from both directions, and what was
///   written until then does not decode as if it were complete,
/// - cut, foreign or extended input is refused; with a flipped bit it is refused, or gives
///   the original bytes; nothing panics,
/// - it streams: output begins before input ends,
/// - the frames it tells of are those it wrote, and decode each on its own,
/// - what it lets be read at any place is what `decode` gives.
///
/// Takes seconds for a quick transform.
///
/// # Errors
/// The first promise found broken.
pub fn transform(transform: &dyn Transform) -> Result<()> {
    Checks { transform, samples: Some(SAMPLES) }.run()
}

/// As [`transform`], with every cut and every single flipped bit of a small message: minutes
/// for one that derives keys.
///
/// # Errors
/// The first promise found broken.
pub fn transform_in_full(transform: &dyn Transform) -> Result<()> {
    Checks { transform, samples: None }.run()
}

struct Checks<'a> {
    transform: &'a dyn Transform,
    samples: Option<usize>,
}

impl Checks<'_> {
    fn run(&self) -> Result<()> {
        self.names()?;
        self.round_trips()?;
        self.small_steps()?;
        self.failing_input()?;
        self.failing_output()?;
        self.cuts()?;
        self.flips()?;
        self.more_than_there_should_be()?;
        self.foreign_input()?;
        self.streams()?;
        self.frames()?;
        self.any_place()
    }

    fn encode(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.transform
            .encode(&mut &plain[..], &mut out)
            .must(format!("encode {} bytes", plain.len()))?;
        Ok(out)
    }

    /// Decodes what may be damaged; a panic is a broken promise.
    fn try_decode(&self, encoded: &[u8], what: &str) -> Result<Result<Vec<u8>>> {
        let mut out = Vec::new();
        let decoded =
            catch_unwind(AssertUnwindSafe(|| self.transform.decode(&mut &encoded[..], &mut out)));
        match decoded {
            Ok(result) => Ok(result.map(|()| out)),
            Err(_) => Err(broken(format!("decode never panics, but did with {what}"))),
        }
    }

    fn require_refused(&self, encoded: &[u8], what: &str) -> Result<()> {
        let decoded = self.try_decode(encoded, what)?;
        require(decoded.is_err(), || format!("decode refuses {what}"))
    }

    fn names(&self) -> Result<()> {
        require(!self.transform.name().trim().is_empty(), || "a transform has a name".into())?;
        let extension = self.transform.extension();
        require(!extension.is_empty() && !extension.contains(['.', '/']), || {
            format!("an extension is one word without the dot, not {extension:?}")
        })
    }

    fn round_trips(&self) -> Result<()> {
        for size in SIZES {
            let plain = if size % 2 == 0 { random(1, size) } else { text(1, size) };
            let encoded = self.encode(&plain)?;
            let decoded = self
                .try_decode(&encoded, "what encode wrote")?
                .must(format!("decode its own encoding of {size} bytes"))?;
            require_same(&decoded, &plain, format!("{size} bytes there and back"))?;
        }
        Ok(())
    }

    fn small_steps(&self) -> Result<()> {
        let plain = text(2, 20_000);
        let mut encoded = SmallWrites(Vec::new());
        self.transform
            .encode(&mut SingleBytes(&plain), &mut encoded)
            .must("encode byte by byte")?;
        let mut decoded = SmallWrites(Vec::new());
        self.transform
            .decode(&mut SingleBytes(&encoded.0), &mut decoded)
            .must("decode byte by byte")?;
        require_same(&decoded.0, &plain, "byte by byte there and back")
    }

    fn failing_input(&self) -> Result<()> {
        let plain = random(3, 300_000);
        for at in [0, 1, plain.len() / 2, plain.len()] {
            let mut out = Vec::new();
            let mut input = FailsAfter(&plain[..at]);
            let told = self.transform.encode(&mut input, &mut out);
            require_mark(told, || format!("when input fails after {at} bytes, encode"))?;
            let what = format!("what encode wrote when its input failed after {at} bytes");
            self.require_refused(&out, &what)?;
        }
        let encoded = self.encode(&plain)?;
        for at in [0, 1, encoded.len() / 2, encoded.len()] {
            let mut input = FailsAfter(&encoded[..at]);
            let told = self.transform.decode(&mut input, &mut io::sink());
            require_mark(told, || {
                format!("when input fails after {at} of {} bytes, decode", encoded.len())
            })?;
        }
        Ok(())
    }

    fn failing_output(&self) -> Result<()> {
        let plain = random(4, 300_000);
        let encoded = self.encode(&plain)?;
        // Not the very last byte: an encoding may come out some bytes shorter the next time.
        for at in [0, 1, plain.len() / 2, encoded.len().saturating_sub(8)] {
            let told = self.transform.encode(&mut &plain[..], &mut FullAfter(at));
            require_mark(told, || format!("when output fails after {at} bytes, encode"))?;
        }
        for at in [0, 1, plain.len() / 2, plain.len() - 1] {
            let told = self.transform.decode(&mut &encoded[..], &mut FullAfter(at));
            require_mark(told, || format!("when output fails after {at} bytes, decode"))?;
        }
        Ok(())
    }

    /// Positions below `end`: every one, or a sample with both ends in it.
    fn positions(&self, end: usize, seed: u64) -> Vec<usize> {
        let Some(samples) = self.samples else { return (0..end).collect() };
        let mut rng = StdRng::seed_from_u64(seed);
        let edges = [0, 1, end - 1].into_iter().filter(|at| *at < end);
        edges.chain((0..samples).map(|_| rng.gen_range(0..end))).collect()
    }

    fn cuts(&self) -> Result<()> {
        let small = self.encode(&text(5, 600))?;
        let positions = self.positions(small.len(), 5);
        let large = self.encode(&random(5, 600_000))?;
        let sampled = Checks { transform: self.transform, samples: Some(SAMPLES) };
        for (encoded, cuts) in [(&small, positions), (&large, sampled.positions(large.len(), 6))] {
            for at in cuts {
                let what = format!("{} bytes cut off after {at}", encoded.len());
                self.require_refused(&encoded[..at], &what)?;
            }
        }
        Ok(())
    }

    fn flips(&self) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(7);
        for (plain, full) in [(text(7, 600), self.samples.is_none()), (random(7, 600_000), false)] {
            let mut encoded = self.encode(&plain)?;
            let checks = if full { self } else { &Checks { samples: Some(SAMPLES), ..*self } };
            for at in checks.positions(encoded.len(), 7) {
                let bits = if full {
                    0..8
                } else {
                    let bit = rng.gen_range(0..8);
                    bit..bit + 1
                };
                for bit in bits {
                    encoded[at] ^= 1 << bit;
                    let what =
                        format!("{} bytes with bit {bit} of byte {at} flipped", encoded.len());
                    if let Ok(decoded) = self.try_decode(&encoded, &what)? {
                        let promise = format!("decode of {what} is refused or gives the original");
                        require_same(&decoded, &plain, promise)?;
                    }
                    encoded[at] ^= 1 << bit;
                }
            }
        }
        Ok(())
    }

    fn more_than_there_should_be(&self) -> Result<()> {
        let plain = text(8, 5_000);
        let encoded = self.encode(&plain)?;
        for (garbage, what) in [
            (vec![0], "a zero byte"),
            (vec![b'\n'], "a line end"),
            (vec![0; 4096], "4096 zero bytes"),
            (random(8, 1_000), "1000 random bytes"),
        ] {
            let extended = [&encoded[..], &garbage[..]].concat();
            self.require_refused(&extended, &format!("{what} behind the end"))?;
        }
        // gzip and zstd define two streams in a row as their sum; half of it would be a loss.
        let twice = encoded.repeat(2);
        match self.try_decode(&twice, "two encodings in a row")? {
            Err(_) => Ok(()),
            Ok(decoded) => require_same(
                &decoded,
                &plain.repeat(2),
                "decode of two encodings in a row is refused or gives both",
            ),
        }
    }

    fn foreign_input(&self) -> Result<()> {
        for size in [0, 1, 10, 1_000, 200_000] {
            self.require_refused(&random(9, size), &format!("{size} random bytes"))?;
        }
        self.require_refused(&text(9, 10_000), "plain text")
    }

    fn streams(&self) -> Result<()> {
        let plain = random(10, STREAM_BYTES);
        let encoded = streams_through(&plain, "encode", |i, o| self.transform.encode(i, o))?;
        let decoded = streams_through(&encoded, "decode", |i, o| self.transform.decode(i, o))?;
        require_same(&decoded, &plain, "48 MiB there and back")
    }

    fn frames(&self) -> Result<()> {
        for size in SIZES.into_iter().chain([FRAMED_BYTES]) {
            let plain = text(11, size);
            let mut encoded = Vec::new();
            let mut output = FramedOutput::new(&mut encoded);
            let done = self.transform.encode_in_frames(&mut &plain[..], &mut output);
            done.must(format!("encode {size} bytes in frames"))?;
            let frames = output.finish();
            let decoded = self
                .try_decode(&encoded, "what was encoded in frames")?
                .must(format!("decode {size} bytes that were encoded in frames"))?;
            require_same(&decoded, &plain, format!("{size} bytes there in frames and back"))?;
            if let Some(frames) = frames {
                self.frames_are(&frames, &plain, &encoded)?;
            }
        }
        Ok(())
    }

    fn frames_are(&self, frames: &Frames, plain: &[u8], encoded: &[u8]) -> Result<()> {
        let size = plain.len();
        require(frames.fit(size as u64), || {
            let (count, each) = (frames.list.len(), frames.plain_bytes);
            format!("as many frames as {size} bytes need, not {count} of {each}")
        })?;
        require(frames.encoded_bytes() == encoded.len() as u64, || {
            format!("the frames of {size} bytes are all that was written")
        })?;
        let mut rest = encoded;
        // They fit, so none is empty.
        let pieces = plain.chunks(frames.plain_bytes as usize).chain([&plain[..0]]);
        for (frame, piece) in frames.list.iter().zip(pieces) {
            let (bytes, behind) = rest.split_at(frame.bytes as usize);
            rest = behind;
            require(Digest::of(bytes) == *frame, || {
                format!("a frame's digest is that of its bytes, of {size} bytes")
            })?;
            let decoded = self.try_decode(bytes, "a frame")?.must("decode a frame on its own")?;
            require_same(&decoded, piece, format!("a frame of {size} bytes on its own"))?;
        }
        Ok(())
    }

    fn any_place(&self) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(12);
        for size in SIZES {
            let plain = random(12, size);
            let encoded: Bytes = self.encode(&plain)?.into();
            let opened = self.transform.decode_at(Box::new(encoded));
            let Some(there) = opened.must(format!("open {size} bytes at any place"))? else {
                continue;
            };
            let end = size as u64;
            require(there.length() == end, || {
                format!("{size} bytes at any place are as many, not {}", there.length())
            })?;
            let mut ranges =
                vec![0..end, 0..0, end..end, 0..end.min(1), end.saturating_sub(1)..end];
            for _ in 0..SAMPLES {
                let (a, b) = (rng.gen_range(0..=end), rng.gen_range(0..=end));
                ranges.push(a.min(b)..a.max(b));
            }
            for range in ranges {
                let what = format!("bytes {} to {} of {size}", range.start, range.end);
                let read = there.read_at(range.clone()).must(format!("read {what}"))?;
                let wanted = &plain[range.start as usize..range.end as usize];
                require_same(&read, wanted, what)?;
            }
            require(there.read_at(0..end + 1).is_err(), || {
                format!("a range past the end of {size} bytes is an error")
            })?;
        }
        Ok(())
    }
}

/// Runs one direction; output must come while there is input left.
fn streams_through(
    input: &[u8],
    verb: &str,
    run: impl Fn(&mut dyn Read, &mut dyn Write) -> Result<()>,
) -> Result<Vec<u8>> {
    let left = AtomicUsize::new(input.len());
    let mut output = NotesFirstWrite { input_left: &left, at_first: None, bytes: Vec::new() };
    run(&mut NotesProgress { input, left: &left }, &mut output)
        .must(format!("{verb} {} bytes", input.len()))?;
    require(output.at_first.is_some_and(|left| left > 0), || {
        format!("{verb} streams: output begins before {} bytes of input end", input.len())
    })?;
    Ok(output.bytes)
}

/// An input that fails must come out as that failure.
fn require_mark(told: Result<()>, who: impl Fn() -> String) -> Result<()> {
    let Err(error) = told else {
        return Err(broken(format!("{} fails, and does not say Ok", who())));
    };
    let whole = error.to_string() + &error.causes().concat();
    require(whole.contains(MARK), || format!("{} hands on that failure, but said: {error}", who()))
}
