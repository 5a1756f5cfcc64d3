//! The body of an OpenPGP packet that was written in chunks of one size, to be read at any place.

use std::ops::Range;

use backup_core::{Error, ReadAt, Result};

use crate::STAGE;

/// Most octets of a packet's length.
const MAX_LENGTH_OCTETS: u64 = 5;

/// Fewest bytes in a first chunk (RFC 9580, 4.2.1.4).
const MIN_CHUNK_BYTES: u64 = 512;

/// The bytes of a body, without the lengths between its chunks.
///
/// Every chunk but the last has the same size, which makes places a matter of counting. What was
/// counted on is checked where it is read: each length on the way must be the expected one.
pub(crate) struct Chunked<R> {
    input: R,
    /// Where the first length is in the input.
    start: u64,
    /// Bytes in each chunk before the last.
    chunk: u64,
    /// How many these are.
    full: u64,
    /// The length of the last chunk, as it is written.
    last_length: Vec<u8>,
    last: u64,
    /// How many bytes at the beginning of the body are passed over.
    skipped: u64,
}

/// How a chunk says how long it is.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    /// So many bytes, written in so many octets, and no chunk follows.
    Last { bytes: u64, octets: u64 },
    /// So many bytes, in one octet, and a further chunk.
    Partial(u64),
}

/// What a length's first octets say; `None` when they are too few.
fn length(octets: &[u8]) -> Option<Length> {
    Some(match *octets {
        [one @ 0..=191, ..] => Length::Last { bytes: one.into(), octets: 1 },
        [one @ 192..=223, two, ..] => {
            Length::Last { bytes: ((u64::from(one) - 192) << 8) + u64::from(two) + 192, octets: 2 }
        }
        [one @ 224..=254, ..] => Length::Partial(1 << (one & 0x1f)),
        [255, a, b, c, d, ..] => {
            Length::Last { bytes: u32::from_be_bytes([a, b, c, d]).into(), octets: 5 }
        }
        _ => return None,
    })
}

impl<R: ReadAt> Chunked<R> {
    /// The body whose first length is at `start` and whose last byte is before `end`. `None` when
    /// its chunks are not of one size, or do not end there.
    pub(crate) fn find(input: R, start: u64, end: u64) -> Result<Option<Self>> {
        let Some(span) = end.checked_sub(start) else { return Ok(None) };
        let look = |at: u64| input.read_at(at..(at + MAX_LENGTH_OCTETS).min(end));
        let chunk = match length(&look(start)?) {
            Some(Length::Partial(chunk)) if chunk >= MIN_CHUNK_BYTES => chunk,
            Some(Length::Last { bytes, octets }) if octets + bytes == span => {
                let last_length = input.read_at(start..start + octets)?;
                let (chunk, full, skipped) = (bytes.max(1), 0, 0);
                let found = Self { input, start, chunk, full, last_length, last: bytes, skipped };
                return Ok(Some(found));
            }
            _ => return Ok(None),
        };
        // The last chunk and its length together may be a little longer than a whole one. Where
        // the smaller number is wrong, the length of a whole chunk stands there.
        let most = span / (chunk + 1);
        for full in [most.saturating_sub(1), most] {
            let at = start + full * (chunk + 1);
            if full == 0 || at >= end {
                continue;
            }
            let octets = look(at)?;
            match length(&octets) {
                Some(Length::Last { bytes, octets: n })
                    if bytes < chunk && at + n + bytes == end =>
                {
                    let last_length = octets.into_iter().take(n as usize).collect();
                    let (last, skipped) = (bytes, 0);
                    return Ok(Some(Self {
                        input,
                        start,
                        chunk,
                        full,
                        last_length,
                        last,
                        skipped,
                    }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The same without its first bytes.
    pub(crate) fn skip(mut self, bytes: u64) -> Self {
        self.skipped += bytes;
        self
    }

    fn whole(&self) -> u64 {
        self.full * self.chunk + self.last
    }

    /// Where a byte of the body is in the input.
    fn place(&self, at: u64) -> u64 {
        let chunks = (at / self.chunk).min(self.full);
        let lengths = if chunks < self.full { 1 } else { self.last_length.len() as u64 };
        self.start + at + chunks + lengths
    }

    /// The length before a chunk, as it has to be.
    fn length_of(&self, chunk: u64) -> Vec<u8> {
        if chunk < self.full {
            vec![0xe0 | self.chunk.trailing_zeros() as u8]
        } else {
            self.last_length.clone()
        }
    }

    /// Takes the lengths out of what was read of the input for this range of the body.
    fn without_lengths(&self, raw: &[u8], range: Range<u64>) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(raw.len());
        let mut rest = raw;
        let mut at = range.start;
        while at < range.end {
            let chunk = (at / self.chunk).min(self.full);
            let begin = chunk * self.chunk;
            if at == begin && at != range.start {
                rest = rest.strip_prefix(&self.length_of(chunk)[..])?;
            }
            let end = if chunk < self.full { begin + self.chunk } else { self.whole() };
            let (piece, behind) = rest.split_at_checked((end.min(range.end) - at) as usize)?;
            bytes.extend_from_slice(piece);
            (rest, at) = (behind, end.min(range.end));
        }
        Some(bytes)
    }
}

impl<R: ReadAt> ReadAt for Chunked<R> {
    fn length(&self) -> u64 {
        self.whole().saturating_sub(self.skipped)
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > self.length() {
            let Range { start, end } = range;
            let message = format!("it has no bytes {start} to {end}");
            return Err(Error::failed(STAGE, message));
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let body = range.start + self.skipped..range.end + self.skipped;
        // One request, whatever the number of chunks.
        let raw = self.input.read_at(self.place(body.start)..self.place(body.end - 1) + 1)?;
        self.without_lengths(&raw, body).ok_or_else(|| {
            Error::damaged(STAGE, "the message is damaged: a length in it was altered")
                .next_step("use another copy of the backup")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of so many bytes in chunks, with something around it.
    fn written(body: &[u8], chunk: usize) -> (Vec<u8>, u64, u64) {
        let mut out = vec![0xaa; 7];
        let mut rest = body;
        while rest.len() >= chunk {
            out.push(0xe0 | chunk.trailing_zeros() as u8);
            out.extend_from_slice(&rest[..chunk]);
            rest = &rest[chunk..];
        }
        match rest.len() {
            n @ 0..=191 => out.push(n as u8),
            n @ 192..=8383 => {
                out.extend_from_slice(&[((n - 192) >> 8) as u8 + 192, (n - 192) as u8]);
            }
            n => out.extend([&[255][..], &(n as u32).to_be_bytes()].concat()),
        }
        out.extend_from_slice(rest);
        let end = out.len() as u64;
        out.extend_from_slice(&[0xbb; 9]);
        (out, 7, end)
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 + at / 256) as u8).collect()
    }

    #[test]
    fn every_length_and_range_is_found() {
        for chunk in [512, 16384] {
            let edges = [0, 1, 190, 191, 192, 193, 500, chunk - 7, chunk - 1, chunk, chunk + 1];
            let lengths = edges.iter().flat_map(|n| [*n, n + chunk, n + 3 * chunk]);
            for length in lengths {
                let plain = body(length);
                let (bytes, start, end) = written(&plain, chunk);
                let found = Chunked::find(bytes::Bytes::from(bytes), start, end).unwrap().unwrap();
                assert_eq!(found.length(), length as u64, "{chunk}");
                let places = edges.iter().map(|n| n + chunk).chain(edges).chain([length]);
                let places: Vec<usize> = places.filter(|at| *at <= length).collect();
                for (&a, &b) in places.iter().flat_map(|a| places.iter().map(move |b| (a, b))) {
                    if a <= b {
                        let read = found.read_at(a as u64..b as u64).unwrap();
                        assert!(read == plain[a..b], "{a}..{b} of {length}");
                    }
                }
                assert!(found.read_at(0..length as u64 + 1).is_err());
            }
        }
    }

    #[test]
    fn a_length_that_was_altered_is_noticed_where_it_is_passed() {
        let (bytes, start, end) = written(&body(5000), 1024);
        for chunk in 1..=4 {
            let at = 7 + chunk * 1025;
            let found = Chunked::find(bytes::Bytes::from(bytes.clone()), start, end);
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let found = Chunked { input: bytes::Bytes::from(altered), ..refitted(found) };
            let border = chunk as u64 * 1024;
            assert!(found.read_at(border - 1..border + 1).is_err(), "chunk {chunk}");
            assert!(found.read_at(border..border + 1).is_ok());
            assert!(found.read_at(border - 1..border).is_ok());
        }
    }

    fn refitted(found: Result<Option<Chunked<bytes::Bytes>>>) -> Chunked<bytes::Bytes> {
        found.unwrap().unwrap()
    }

    #[test]
    fn other_layouts_are_not_guessed_at() {
        let (bytes, start, end) = written(&body(3000), 512);
        let find = |bytes: &[u8], end| {
            Chunked::find(bytes::Bytes::copy_from_slice(bytes), start, end).unwrap().is_some()
        };
        assert!(find(&bytes, end));
        assert!(!find(&bytes, end - 1) && !find(&bytes, end + 1), "it ends elsewhere");
        let mut other = bytes.clone();
        other[7] = 0xe0 | 10;
        assert!(!find(&other, end), "a first chunk of another size");
        other[7] = 0xe0 | 3;
        assert!(!find(&other, end), "chunks that are too small");
        // A body of two sizes: 512, then 1024, then the rest.
        let mixed = [&[0; 7][..], &[0xe9], &[1; 512], &[0xea], &[2; 1024], &[5], &[3; 5]].concat();
        assert!(!find(&mixed, mixed.len() as u64));
        assert!(!find(&[0; 7], 7));
    }
}
