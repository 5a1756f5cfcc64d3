//! Frames: pieces of an encoded stream that can be decoded each on its own.

use std::io::{self, Read, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Digest, Digester, Error, ErrorKind, Result, Transform};

/// Most frames that are noted of one part; beyond, none are, and the part is read whole. Each
/// takes some 90 bytes of the contents, which are limited by
/// [`SMALL_OBJECT_BYTES`](crate::SMALL_OBJECT_BYTES): these are 24 MiB. With frames of 16 MiB they
/// hold 4 TiB.
pub const MAX_FRAMES: usize = 256 * 1024;

/// Largest frame that is read by itself, in bytes: before and after decoding it is held in memory.
pub const MAX_FRAME_BYTES: u64 = 64 << 20;

/// The frames of a part, in order; one after the other they are the whole encoded stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// Plain bytes in each frame; the last one may have less.
    pub plain_bytes: u64,
    /// Of each frame the size and the digest of its encoded bytes.
    #[serde(with = "one_line_each")]
    pub list: Vec<Digest>,
}

impl Frames {
    /// Whether these can be the frames of so many plain bytes, and each can be held in memory.
    pub fn fit(&self, plain: u64) -> bool {
        let small = |bytes: u64| bytes <= MAX_FRAME_BYTES;
        let wanted = match self.plain_bytes {
            0 => return false,
            each => plain.div_ceil(each).max(1),
        };
        small(self.plain_bytes)
            && self.list.len() as u64 == wanted
            && self.list.iter().all(|frame| small(frame.bytes))
    }

    /// The size of all frames together, in bytes.
    pub fn encoded_bytes(&self) -> u64 {
        self.list.iter().map(|frame| frame.bytes).fold(0, u64::saturating_add)
    }

    /// Which of `plain` bytes the frame `index` holds.
    pub(crate) fn plain_range(&self, index: usize, plain: u64) -> Range<u64> {
        let start = (index as u64).saturating_mul(self.plain_bytes).min(plain);
        start..start.saturating_add(self.plain_bytes).min(plain)
    }
}

/// The list as texts like `4211342 9f86d0…`: the contents are written with a line for each value.
mod one_line_each {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::Digest;

    pub(super) fn serialize<S: Serializer>(list: &[Digest], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|frame| format!("{} {}", frame.bytes, frame.sha256)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Digest>, D::Error> {
        let lines: Vec<String> = Vec::deserialize(from)?;
        let frame = |line: &String| {
            let (bytes, sha256) = line.split_once(' ')?;
            Some(Digest { bytes: bytes.parse().ok()?, sha256: sha256.to_owned() })
        };
        let read =
            |line| frame(line).ok_or_else(|| D::Error::custom("a frame is no size and digest"));
        lines.iter().map(read).collect()
    }
}

/// Where a transform writes that may tell where its frames end.
pub struct FramedOutput<'a> {
    output: &'a mut dyn Write,
    notes: Option<Notes>,
}

struct Notes {
    frames: Frames,
    current: Digester,
    /// Bytes of the frame that was begun and not ended.
    open: u64,
}

impl<'a> FramedOutput<'a> {
    /// Passes everything on to `output`.
    pub fn new(output: &'a mut dyn Write) -> Self {
        Self { output, notes: None }
    }

    /// Says, before the first byte, that what follows are frames of so many plain bytes each. Only
    /// then anything is noted.
    pub fn in_frames_of(&mut self, plain_bytes: u64) {
        let frames = Frames { plain_bytes, list: Vec::new() };
        self.notes = Some(Notes { frames, current: Digester::default(), open: 0 });
    }

    /// Says that a frame ends behind what was written.
    pub fn end_frame(&mut self) {
        if let Some(notes) = &mut self.notes {
            let ended = std::mem::take(&mut notes.current).finish();
            notes.open = 0;
            // One more than the most is enough to know that they are too many.
            if notes.frames.list.len() <= MAX_FRAMES {
                notes.frames.list.push(ended);
            }
        }
    }

    /// The frames; `None` when there are none, too many, or bytes behind the last one.
    pub fn finish(self) -> Option<Frames> {
        let Notes { frames, open, .. } = self.notes?;
        let noted = open == 0 && (1..=MAX_FRAMES).contains(&frames.list.len());
        noted.then_some(frames)
    }
}

impl Write for FramedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write_all(bytes)?;
        if let Some(notes) = &mut self.notes {
            notes.current.update(bytes);
            notes.open += bytes.len() as u64;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Decodes one frame by itself into memory; its digest was checked. It must give exactly
/// `plain_bytes`, and never takes more memory than these.
pub(crate) fn decode_frame(
    transform: &dyn Transform,
    encoded: &[u8],
    plain_bytes: u64,
) -> Result<Vec<u8>> {
    let capacity = usize::try_from(plain_bytes.min(MAX_FRAME_BYTES)).unwrap_or_default();
    let mut plain = Vec::with_capacity(capacity);
    let mut counted = Counted { output: &mut plain, bytes: 0, most: plain_bytes };
    transform.decode(&mut &encoded[..], &mut counted)?;
    let found = counted.bytes;
    if found == plain_bytes { Ok(plain) } else { Err(other_length(transform, found, plain_bytes)) }
}

/// Decodes a whole stream, each frame by itself, as somebody does who reads a single one. `Ok`
/// says that the `frames` are those of the stream, which holds `plain` bytes.
pub(crate) fn decode_frame_by_frame(
    transform: &dyn Transform,
    frames: &Frames,
    plain: u64,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<()> {
    if !frames.fit(plain) {
        let (count, each) = (frames.list.len(), frames.plain_bytes);
        let message = format!("{count} frames of {each} bytes can't be those of {plain} bytes");
        return Err(unfit(transform, message));
    }
    for (index, frame) in frames.list.iter().enumerate() {
        let range = frames.plain_range(index, plain);
        let wanted = range.end - range.start;
        let mut encoded = Hashed { input, left: frame.bytes, digester: Digester::default() };
        let mut counted = Counted { output, bytes: 0, most: wanted };
        let decoded = transform.decode(&mut encoded, &mut counted);
        let bytes = counted.bytes;
        // A wrong list cuts frames in two: that it is wrong says more than what that looks like.
        io::copy(&mut encoded, &mut io::sink())
            .map_err(|e| Error::from_io(transform.name().to_owned(), e))?;
        let found = encoded.digester.finish();
        if found != *frame {
            let number = index + 1;
            let message = format!("frame {number} is {found}, and {frame} is recorded");
            return Err(unfit(transform, message));
        }
        decoded.map_err(|error| match error.kind() {
            ErrorKind::Damaged => {
                unfit(transform, "a frame does not decode on its own".to_owned()).caused_by(error)
            }
            _ => error,
        })?;
        if bytes != wanted {
            return Err(other_length(transform, bytes, wanted));
        }
    }
    Ok(())
}

fn unfit(transform: &dyn Transform, message: String) -> Error {
    let name = transform.name().to_owned();
    Error::damaged(name, format!("the recorded frames do not fit the data: {message}"))
        .next_step("take a new backup; read from its beginning, this one may still be whole")
}

fn other_length(transform: &dyn Transform, found: u64, wanted: u64) -> Error {
    unfit(transform, format!("a frame holds {found} plain bytes or more, not {wanted}"))
}

/// Passes on up to `left` bytes, and takes their digest.
struct Hashed<'a> {
    input: &'a mut dyn Read,
    left: u64,
    digester: Digester,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.input.read(&mut buffer[..most])?;
        self.left -= n as u64;
        self.digester.update(&buffer[..n]);
        Ok(n)
    }
}

/// Passes on at most so many bytes; an error with one more.
struct Counted<'a> {
    output: &'a mut dyn Write,
    bytes: u64,
    most: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.most {
            let message = format!("a frame holds more than {} plain bytes", self.most);
            return Err(Error::damaged("frames", message).into_io());
        }
        self.output.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(plain_bytes: u64, sizes: &[u64]) -> Frames {
        let frame = |bytes: &u64| Digest { bytes: *bytes, sha256: format!("{bytes:064x}") };
        Frames { plain_bytes, list: sizes.iter().map(frame).collect() }
    }

    #[test]
    fn a_frame_takes_one_line_of_the_document() {
        let three = frames(16 << 20, &[5_000_000, 16_777_900, 1]);
        let json = serde_json::to_string_pretty(&three).unwrap();
        assert_eq!(json.lines().count(), 5 + 3, "{json}");
        assert_eq!(serde_json::from_str::<Frames>(&json).unwrap(), three);
        for wrong in [r#""5""#, r#""x 00""#, r#""-1 00""#, "7"] {
            let json = format!(r#"{{"plain_bytes":1,"list":[{wrong}]}}"#);
            assert!(serde_json::from_str::<Frames>(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn frames_fit_as_many_plain_bytes_as_they_can_hold() {
        let two = frames(10, &[3, 4]);
        let fitting: Vec<u64> = (0..40).filter(|plain| two.fit(*plain)).collect();
        assert_eq!(fitting, (11..=20).collect::<Vec<_>>());
        assert!(frames(10, &[3]).fit(0) && frames(10, &[3]).fit(10));
        assert!(!frames(0, &[3]).fit(0) && !frames(10, &[]).fit(0));
        assert!(!frames(MAX_FRAME_BYTES + 1, &[3]).fit(1));
        assert!(!frames(10, &[MAX_FRAME_BYTES + 1]).fit(1));
        assert_eq!(two.plain_range(1, 13), 10..13);
    }

    #[test]
    fn only_whole_frames_that_were_announced_are_noted() {
        let mut out = Vec::new();
        let mut quiet = FramedOutput::new(&mut out);
        quiet.write_all(b"abc").unwrap();
        quiet.end_frame();
        assert_eq!(quiet.finish(), None);

        let mut output = FramedOutput::new(&mut out);
        output.in_frames_of(2);
        output.write_all(b"ab").unwrap();
        output.end_frame();
        output.write_all(b"c").unwrap();
        output.end_frame();
        let list = vec![Digest::of(b"ab"), Digest::of(b"c")];
        assert_eq!(output.finish(), Some(Frames { plain_bytes: 2, list }));

        let mut output = FramedOutput::new(&mut out);
        output.in_frames_of(2);
        output.write_all(b"ab").unwrap();
        output.end_frame();
        output.write_all(b"c").unwrap();
        assert_eq!(output.finish(), None, "a frame without an end");

        for (count, noted) in [(MAX_FRAMES, true), (MAX_FRAMES + 1, false), (MAX_FRAMES + 9, false)]
        {
            let mut output = FramedOutput::new(&mut out);
            output.in_frames_of(1);
            (0..count).for_each(|_| output.end_frame());
            assert_eq!(output.finish().is_some(), noted, "{count}");
        }
    }
}
