//! The atoms of the archive format, taken out of bytes that arrive in pieces.

use backup_core::Error;

/// Most bytes of header and table of contents taken from one archive. A database of a million
/// objects needs about a third of it; a length field with flipped bits asks for more at once.
pub const MAX_TOC_BYTES: u64 = 1 << 30;

/// The stage that errors of this module name.
pub(super) const STAGE: &str = "archive";

/// Most bytes of an integer: a sign and eight bytes of value.
pub(super) const MAX_INT_BYTES: usize = 9;

/// Why an atom could not be taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its last byte has not arrived.
    More,
    /// It can't be what the bytes say.
    Damaged(Error),
}

/// What is damaged, and at which byte of the archive.
pub(super) fn damaged(offset: u64, what: impl std::fmt::Display) -> Error {
    Error::damaged(STAGE, format!("byte {offset}: {what}"))
        .next_step("use another copy of this backup")
}

/// A text of the table of contents.
pub(super) struct Text {
    /// The text; bytes that are no UTF-8 came out as U+FFFD.
    pub text: String,
    /// Whether it is exact.
    pub exact: bool,
}

/// A queue of archive bytes; every atom is taken whole or not at all, at a cost that does not
/// depend on how much of it is missing.
pub(super) struct Fields {
    bytes: Vec<u8>,
    at: usize,
    /// Offset in the archive of `bytes[0]`.
    base: u64,
    /// Bytes of an integer's value, from the header.
    pub int_bytes: usize,
    /// Bytes of a data offset, from the header.
    pub offset_bytes: usize,
}

impl Fields {
    /// For bytes that start at `base` of the archive.
    pub fn starting_at(base: u64) -> Self {
        Self { bytes: Vec::new(), at: 0, base, int_bytes: 4, offset_bytes: 8 }
    }

    /// Offset in the archive of the next byte taken.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Bytes that arrived and were not taken.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Adds the next bytes of the archive.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.base += self.at as u64;
            self.at = 0;
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// The next `count` bytes, left where they are.
    pub fn peek(&self, count: usize) -> Result<&[u8], Stop> {
        let end = self.at.checked_add(count).ok_or(Stop::More)?;
        self.bytes.get(self.at..end).ok_or(Stop::More)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek(1)?[0];
        self.at += 1;
        Ok(byte)
    }

    /// The next `count` bytes, thrown away.
    pub fn skip(&mut self, count: usize) -> Result<(), Stop> {
        self.peek(count)?;
        self.at += count;
        Ok(())
    }

    /// An integer: a sign byte, then the value with its lowest byte first.
    pub fn int(&mut self) -> Result<i64, Stop> {
        let width = 1 + self.int_bytes;
        let value = int_of(self.peek(width)?)
            .ok_or_else(|| Stop::Damaged(damaged(self.offset(), "is no integer")))?;
        self.at += width;
        Ok(value)
    }

    /// A text: its length as an integer, -1 for none at all, then its bytes.
    pub fn text(&mut self) -> Result<Option<Text>, Stop> {
        let start = self.at;
        let taken = self.text_at();
        if taken.is_err() {
            self.at = start;
        }
        taken
    }

    fn text_at(&mut self) -> Result<Option<Text>, Stop> {
        let offset = self.offset();
        let Ok(length) = usize::try_from(match self.int()? {
            -1 => return Ok(None),
            length => length,
        }) else {
            return Err(Stop::Damaged(damaged(offset, "is the length of no text")));
        };
        if length as u64 > MAX_TOC_BYTES {
            let text = format!("a text of {length} bytes does not fit a table of contents");
            return Err(Stop::Damaged(damaged(offset, text)));
        }
        let bytes = self.peek(length)?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Text { text: text.to_owned(), exact: true },
            Err(_) => Text { text: String::from_utf8_lossy(bytes).into_owned(), exact: false },
        };
        self.at += length;
        Ok(Some(text))
    }
}

/// The value of an integer's bytes (sign, then value); `None` when they are no integer.
pub(super) fn int_of(bytes: &[u8]) -> Option<i64> {
    let (sign, digits) = bytes.split_first()?;
    let mut value: u64 = 0;
    for (i, digit) in digits.iter().enumerate() {
        value |= u64::from(*digit).checked_shl(8 * i as u32)?;
    }
    let value = i64::try_from(value).ok()?;
    match sign {
        0 => Some(value),
        1 => Some(-value),
        _ => None,
    }
}
/// Writes an integer: a sign, then the value with its lowest byte first.
pub(crate) fn put_int(out: &mut impl Extend<u8>, value: u64, int_bytes: usize) {
    out.extend([0].into_iter().chain(value.to_le_bytes().into_iter().take(int_bytes)));
}
