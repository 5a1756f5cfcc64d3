//! An honest transform, and one for each way to break a promise.

use std::io::{Read, Write};

use backup_core::{Digester, Error, FramedOutput, MAX_FRAME_BYTES, ReadAt, Result, Transform};
use bytes::Bytes;

use super::super::{transform, transform_in_full};
use super::assert_found;

const FRAME_BYTES: usize = 64 * 1024;
const MAGIC: &[u8] = b"HON1";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ErrorIsEnd,
    ClosesAfterError,
    IgnoresFullOutput,
    LosesTheReason,
    NoChecksum,
    NoEndMark,
    StopsAtTheEnd,
    Panics,
    ReadsAllFirst,
    WritesAllLast,
    ShortReadIsEnd,
    ShortWrites,
    LosesTheEmptyOne,
    DottedExtension,
    HalfOfTwo,
    TooFewFrames,
    CutFrames,
    WrongPlace,
}

/// Frames of up to 64 KiB behind a length, an empty one at the end, then the digest.
struct Framed(Flaw);

impl Framed {
    fn put(&self, output: &mut dyn Write, bytes: &[u8]) -> Result<()> {
        match self.0 {
            Flaw::IgnoresFullOutput => drop(output.write_all(bytes)),
            Flaw::ShortWrites => drop(output.write(bytes).map_err(failed)?),
            Flaw::LosesTheReason => {
                output.write_all(bytes).map_err(|_| Error::failed("framed", "did not work"))?;
            }
            _ => output.write_all(bytes).map_err(failed)?,
        }
        Ok(())
    }

    fn frame(&self, input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_BYTES];
        let mut filled = 0;
        while filled < FRAME_BYTES {
            match input.read(&mut frame[filled..])? {
                0 => break,
                n => filled += n,
            }
            if self.0 == Flaw::ShortReadIsEnd {
                break;
            }
        }
        frame.truncate(filled);
        Ok(frame)
    }

    fn close(&self, output: &mut dyn Write, digester: Digester) -> Result<()> {
        if self.0 != Flaw::NoEndMark {
            self.put(output, &0_u32.to_be_bytes())?;
        }
        self.put(output, digester.finish().sha256.as_bytes())
    }

    fn run_encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut digester = Digester::default();
        self.put(output, MAGIC)?;
        loop {
            let frame = match self.frame(input) {
                Ok(frame) => frame,
                Err(_) if self.0 == Flaw::ErrorIsEnd => Vec::new(),
                Err(error) => {
                    if self.0 == Flaw::ClosesAfterError {
                        self.close(output, digester)?;
                    }
                    return Err(failed(error));
                }
            };
            let short = frame.len() < FRAME_BYTES && self.0 == Flaw::ShortReadIsEnd;
            if !frame.is_empty() {
                self.put(output, &u32::try_from(frame.len()).unwrap().to_be_bytes())?;
                self.put(output, &frame)?;
                digester.update(&frame);
            }
            if frame.is_empty() || short {
                return self.close(output, digester);
            }
        }
    }

    fn run_decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut digester = Digester::default();
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(failed)?;
        if magic != MAGIC {
            assert_ne!(self.0, Flaw::Panics, "unexpected magic");
            return Err(Error::damaged("framed", "not ours"));
        }
        loop {
            let mut head = [0; 4];
            match input.read_exact(&mut head) {
                Err(e)
                    if self.0 == Flaw::NoEndMark
                        && e.kind() == std::io::ErrorKind::UnexpectedEof =>
                {
                    return Ok(());
                }
                other => other.map_err(failed)?,
            }
            let length = u32::from_be_bytes(head) as usize;
            if self.0 == Flaw::NoEndMark && length > FRAME_BYTES {
                return Ok(());
            }
            if length == 0 {
                break;
            }
            if length > FRAME_BYTES {
                return Err(Error::damaged("framed", "a frame too long"));
            }
            let mut frame = vec![0; length];
            input.read_exact(&mut frame).map_err(failed)?;
            digester.update(&frame);
            self.put(output, &frame)?;
        }
        let mut digest = [0; 64];
        input.read_exact(&mut digest).map_err(failed)?;
        let same = digester.finish().sha256.as_bytes() == digest;
        if !same && self.0 != Flaw::NoChecksum {
            return Err(Error::damaged("framed", "digest differs"));
        }
        self.end(input)
    }

    fn end(&self, input: &mut dyn Read) -> Result<()> {
        if self.0 == Flaw::StopsAtTheEnd {
            return Ok(());
        }
        let mut rest = Vec::new();
        input.read_to_end(&mut rest).map_err(failed)?;
        match rest.len() {
            0 => Ok(()),
            _ if self.0 == Flaw::HalfOfTwo && rest.starts_with(MAGIC) => Ok(()),
            _ => Err(Error::damaged("framed", "bytes behind the end")),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::from_io("framed", error)
}

impl Transform for Framed {
    fn name(&self) -> &str {
        "framed"
    }

    fn extension(&self) -> &str {
        if self.0 == Flaw::DottedExtension { ".framed" } else { "framed" }
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        match self.0 {
            Flaw::ReadsAllFirst => {
                let mut all = Vec::new();
                input.read_to_end(&mut all).map_err(failed)?;
                self.run_encode(&mut &all[..], output)
            }
            Flaw::LosesTheEmptyOne => {
                let mut kept = Vec::new();
                self.run_encode(input, &mut kept)?;
                if kept.len() > 72 { self.put(output, &kept) } else { Ok(()) }
            }
            _ => self.run_encode(input, output),
        }
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        if self.0 == Flaw::WritesAllLast {
            let mut kept = Vec::new();
            self.run_decode(input, &mut kept)?;
            return self.put(output, &kept);
        }
        self.run_decode(input, output)
    }

    fn encode_in_frames(&self, input: &mut dyn Read, output: &mut FramedOutput<'_>) -> Result<()> {
        match self.0 {
            Flaw::TooFewFrames => output.in_frames_of(1024),
            Flaw::CutFrames => {
                let (mut plain, mut encoded) = (Vec::new(), Vec::new());
                input.read_to_end(&mut plain).map_err(failed)?;
                self.encode(&mut &plain[..], &mut encoded)?;
                output.in_frames_of(FRAME_BYTES as u64);
                let count = plain.len().div_ceil(FRAME_BYTES).max(1);
                for piece in encoded.chunks(encoded.len().div_ceil(count)) {
                    self.put(output, piece)?;
                    output.end_frame();
                }
                return Ok(());
            }
            _ => output.in_frames_of(MAX_FRAME_BYTES),
        }
        self.encode(input, output)?;
        output.end_frame();
        Ok(())
    }

    fn decode_at(&self, input: Box<dyn ReadAt>) -> Result<Option<Box<dyn ReadAt>>> {
        let mut plain = Vec::new();
        self.decode(&mut &input.read_at(0..input.length())?[..], &mut plain)?;
        if self.0 == Flaw::WrongPlace {
            plain.reverse();
        }
        Ok(Some(Box::new(Bytes::from(plain))))
    }
}

#[test]
fn an_honest_transform_passes_in_full() {
    transform_in_full(&Framed(Flaw::None)).unwrap();
}

#[test]
fn flawed_transforms_are_found() {
    use Flaw::*;
    for (flaw, words) in [
        (ErrorIsEnd, "when input fails after 0 bytes, encode fails"),
        (ClosesAfterError, "refuses what encode wrote when its input failed"),
        (IgnoresFullOutput, "when output fails after 0 bytes, encode fails"),
        (LosesTheReason, "hands on that failure"),
        (NoChecksum, "is refused or gives the original"),
        (NoEndMark, "decode refuses"),
        (StopsAtTheEnd, "decode"),
        (Panics, "never panics"),
        (ReadsAllFirst, "encode streams"),
        (WritesAllLast, "decode streams"),
        (ShortReadIsEnd, "byte by byte"),
        (ShortWrites, "byte by byte"),
        (LosesTheEmptyOne, "must decode its own encoding of 0 bytes"),
        (DottedExtension, "one word without the dot"),
        (HalfOfTwo, "two encodings in a row"),
        (TooFewFrames, "as many frames as"),
        (CutFrames, "decode a frame on its own"),
        (WrongPlace, "the first difference is at byte 0"),
    ] {
        assert_found(transform(&Framed(flaw)), words, &flaw);
    }
}

/// The example of the trait's documentation: no end, no checksum.
struct Invert;

impl Transform for Invert {
    fn name(&self) -> &str {
        "invert"
    }

    fn extension(&self) -> &str {
        "inv"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut all = Vec::new();
        input.read_to_end(&mut all).map_err(failed)?;
        all.iter_mut().for_each(|b| *b = !*b);
        output.write_all(&all).map_err(failed)
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        self.encode(input, output)
    }
}

#[test]
fn a_transform_without_integrity_is_found() {
    assert_found(transform(&Invert), "decode refuses", &"invert");
}
