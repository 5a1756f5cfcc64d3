//! How large the parts of an object are: they grow as they are used up.
//!
//! Nobody knows how long a dump gets, and a service takes only so many parts. Small parts keep
//! the memory of a usual backup small; doubled every so often they still reach the largest
//! object the service knows.

use bytes::Bytes;
use opendal::Buffer;

/// Size of the first parts, in bytes.
pub(super) const FIRST_PART_BYTES: u64 = 8 << 20;

/// The rule by which parts grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    /// The most parts that the service takes.
    pub(super) most_parts: u64,
    /// Parts double after so many.
    pub(super) double_every: u64,
    /// They never grow beyond this, in bytes.
    pub(super) largest: u64,
    /// All parts have this size instead, in bytes.
    pub(super) fixed: Option<u64>,
}

impl Growth {
    /// The size of part `number`, counted from 0; `None` when the service takes no more.
    pub(super) fn bytes_of(&self, number: u64) -> Option<u64> {
        if number >= self.most_parts {
            return None;
        }
        if let Some(fixed) = self.fixed {
            return Some(fixed);
        }
        let doublings = (number / self.double_every).min(32);
        Some((FIRST_PART_BYTES << doublings).min(self.largest))
    }

    /// The longest object that fits, in bytes.
    pub(super) fn longest_object(&self) -> u64 {
        (0..self.most_parts).filter_map(|number| self.bytes_of(number)).sum()
    }
}

/// Chunks on their way to become a part. They are kept as they came: nothing is copied.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Gathered {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        if !chunk.is_empty() {
            self.chunks.push(chunk);
        }
    }

    /// Takes the first `bytes` out.
    pub(super) fn take(&mut self, bytes: u64) -> Buffer {
        let mut all = Buffer::from(std::mem::take(&mut self.chunks));
        let part = all.split_to(usize::try_from(bytes).unwrap_or(usize::MAX).min(all.len()));
        self.bytes = all.len() as u64;
        self.chunks = all.collect();
        part
    }

    /// Takes everything out.
    pub(super) fn take_all(&mut self) -> Buffer {
        self.bytes = 0;
        Buffer::from(std::mem::take(&mut self.chunks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: Growth =
        Growth { most_parts: 10_000, double_every: 800, largest: 1 << 30, fixed: None };

    #[test]
    fn parts_grow_to_the_largest_object_of_s3() {
        assert_eq!(S3.bytes_of(0), Some(8 << 20));
        assert_eq!(S3.bytes_of(799), Some(8 << 20));
        assert_eq!(S3.bytes_of(800), Some(16 << 20));
        assert_eq!(S3.bytes_of(9_999), Some(1 << 30));
        assert_eq!(S3.bytes_of(10_000), None);
        assert!(S3.longest_object() >= 5 << 40, "{}", S3.longest_object());
    }

    #[test]
    fn a_fixed_size_stays() {
        let fixed = Growth { fixed: Some(5 << 20), ..S3 };
        assert_eq!(fixed.bytes_of(9_999), Some(5 << 20));
        assert_eq!(fixed.longest_object(), 10_000 * (5 << 20));
    }

    #[test]
    fn what_is_taken_out_is_what_went_in() {
        let mut gathered = Gathered::default();
        for chunk in ["abc", "", "defg", "h"] {
            gathered.push(Bytes::from(chunk));
        }
        assert_eq!(gathered.bytes(), 8);
        assert_eq!(gathered.take(5).to_vec(), b"abcde");
        assert_eq!(gathered.bytes(), 3);
        assert_eq!(gathered.take_all().to_vec(), b"fgh");
        assert_eq!(gathered.bytes(), 0);
    }
}
