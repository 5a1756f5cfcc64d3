//! Bytes that can be read at any place.

use std::ops::Range;

use bytes::Bytes;

use crate::{Error, Result};

/// Bytes of a known length, any range of which can be read: a stored object, or what a transform
/// makes of one. Blocks its thread.
///
/// Nothing says that the bytes are authentic: whoever reads compares them with a digest first.
pub trait ReadAt: Send + Sync {
    /// How many there are.
    fn length(&self) -> u64;

    /// Exactly the bytes of this range.
    ///
    /// # Errors
    /// When they can't be read, are seen to be damaged, or the range goes past the end.
    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>>;
}

/// Bytes in memory.
impl ReadAt for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let within = |at: u64| usize::try_from(at).ok();
        let found = within(range.start).zip(within(range.end)).and_then(|(a, b)| self.get(a..b));
        found.map(<[u8]>::to_vec).ok_or_else(|| past_the_end("memory", &range, self.length()))
    }
}

/// The error for a range that is none of `length` bytes.
pub(crate) fn past_the_end(stage: &str, range: &Range<u64>, length: u64) -> Error {
    let Range { start, end } = range;
    Error::failed(stage.to_owned(), format!("bytes {start} to {end} of {length} can't be read"))
}
