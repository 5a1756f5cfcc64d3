//! Two streams side by side: where do they differ, and in how many bytes?

use bytes::Bytes;

use crate::{Result, Source, SourceStream};

/// What tells a damaged file from a good copy of it. Bytes are counted from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// The first byte that differs, and the last. `None` where one is the beginning of the other.
    pub(super) changed: Option<(u64, u64)>,
    /// How many bytes differ, among those that both have.
    pub(super) differing: u64,
    /// Length of the damaged file.
    pub(super) there: u64,
    /// Length of the good copy.
    pub(super) expected: u64,
}

impl Difference {
    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.changed.is_none() && self.there == self.expected
    }

    fn note(&mut self, offset: u64, damaged: &[u8], good: &[u8]) {
        if damaged == good {
            return;
        }
        for (at, _) in (offset..).zip(damaged.iter().zip(good)).filter(|(_, (a, b))| a != b) {
            self.differing += 1;
            let first = self.changed.map_or(at, |(first, _)| first);
            self.changed = Some((first, at));
        }
    }
}

/// Reads both to their ends.
///
/// # Errors
/// When one of them can't be read; [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the
/// damaged one is not there.
pub(super) async fn compare(damaged: &dyn Source, good: &dyn Source) -> Result<Difference> {
    let mut damaged = Ahead::open(damaged).await?;
    let mut good = Ahead::open(good).await?;
    let mut difference = Difference::default();
    loop {
        damaged.fill().await?;
        good.fill().await?;
        let both = damaged.chunk.len().min(good.chunk.len());
        if both == 0 {
            break;
        }
        difference.note(damaged.taken, &damaged.take(both), &good.take(both));
    }
    difference.there = damaged.drain().await?;
    difference.expected = good.drain().await?;
    Ok(difference)
}

/// A stream, and what was read of it but not compared yet.
struct Ahead {
    stream: Box<dyn SourceStream>,
    chunk: Bytes,
    taken: u64,
    at_end: bool,
}

impl Ahead {
    async fn open(source: &dyn Source) -> Result<Self> {
        Ok(Self { stream: source.open().await?, chunk: Bytes::new(), taken: 0, at_end: false })
    }

    /// After it the chunk is empty only at the end.
    async fn fill(&mut self) -> Result<()> {
        while self.chunk.is_empty() && !self.at_end {
            match self.stream.next_chunk().await? {
                Some(chunk) => self.chunk = chunk,
                None => self.at_end = true,
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        self.taken += bytes as u64;
        self.chunk.split_to(bytes)
    }

    /// Reads the rest; says how long all of it was.
    async fn drain(mut self) -> Result<u64> {
        loop {
            self.fill().await?;
            if self.chunk.is_empty() {
                return Ok(self.taken);
            }
            let all = self.chunk.len();
            self.take(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;

    async fn between(damaged: &[u8], good: &[u8]) -> Difference {
        let source = |bytes: &[u8]| InMemory::new("bytes", bytes.to_vec());
        compare(&source(damaged), &source(good)).await.unwrap()
    }

    #[tokio::test]
    async fn each_difference_is_found() {
        let equal = between(b"hello", b"hello").await;
        assert!(equal.is_none());
        let flipped = between(b"hallo", b"hello").await;
        assert_eq!((flipped.changed, flipped.differing), (Some((1, 1)), 1));
        let more = between(b"hEllO world", b"hello world").await;
        assert_eq!((more.changed, more.differing), (Some((1, 4)), 2));
        let cut = between(b"hel", b"hello").await;
        assert_eq!((cut.changed, cut.there, cut.expected), (None, 3, 5));
        let longer = between(b"hello!", b"hello").await;
        assert_eq!((longer.changed, longer.there, longer.expected), (None, 6, 5));
        let empty = between(b"", b"hello").await;
        assert_eq!((empty.changed, empty.there, empty.expected), (None, 0, 5));
        assert!(!cut.is_none() && !longer.is_none() && !empty.is_none());
    }
}
