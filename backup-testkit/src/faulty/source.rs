//! A source that breaks while it is read.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Findings, Result, Source, SourceStream};
use bytes::Bytes;

use super::{die, injected, stall};

/// How a source breaks. Positions are bytes handed out before it happens; behind the end of
/// the data they mean its end: after the last byte, before `Ok(None)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceFault {
    /// `open` fails.
    Open,
    /// `next_chunk` fails after this many bytes.
    FailAt(u64),
    /// `next_chunk` never comes back after this many bytes.
    StallAt(u64),
    /// The reading task panics after this many bytes: it ends without saying so.
    DieAt(u64),
    /// Nothing breaks, but chunks hold at most this many bytes (at least 1).
    ShortChunks(usize),
}

/// A source with a fault.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::Source;
/// use backup_testkit::{FaultySource, Given, INJECTED, SourceFault};
///
/// let source = FaultySource::new(Arc::new(Given::new("abcdef", 4)), SourceFault::FailAt(5));
/// let mut stream = source.open().await?;
/// assert_eq!(stream.next_chunk().await?.as_deref(), Some(&b"abcd"[..]));
/// assert_eq!(stream.next_chunk().await?.as_deref(), Some(&b"e"[..]));
/// assert_eq!(stream.next_chunk().await.unwrap_err().stage(), INJECTED);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct FaultySource {
    inner: Arc<dyn Source>,
    fault: SourceFault,
}

impl FaultySource {
    /// `inner`, with `fault` in every stream of it.
    pub fn new(inner: Arc<dyn Source>, fault: SourceFault) -> Self {
        Self { inner, fault }
    }
}

#[async_trait]
impl Source for FaultySource {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        if self.fault == SourceFault::Open {
            return injected("the source can't be opened");
        }
        let inner = self.inner.open().await?;
        Ok(Box::new(FaultyStream { inner, fault: self.fault, handed_out: 0, held: Bytes::new() }))
    }
}

struct FaultyStream {
    inner: Box<dyn SourceStream>,
    fault: SourceFault,
    handed_out: u64,
    held: Bytes,
}

impl FaultyStream {
    /// How many bytes may still be handed out at once; 0 when it is time to break.
    fn allowed(&self) -> usize {
        match self.fault {
            SourceFault::Open => usize::MAX,
            SourceFault::ShortChunks(most) => most.max(1),
            SourceFault::FailAt(at) | SourceFault::StallAt(at) | SourceFault::DieAt(at) => {
                usize::try_from(at - self.handed_out.min(at)).unwrap_or(usize::MAX)
            }
        }
    }

    async fn strike(&mut self) -> Result<Option<Bytes>> {
        match self.fault {
            SourceFault::StallAt(_) => stall().await,
            SourceFault::DieAt(_) => die(),
            _ => injected(format!("the source failed after {} bytes", self.handed_out)),
        }
    }
}

#[async_trait]
impl SourceStream for FaultyStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let allowed = self.allowed();
        if allowed == 0 {
            return self.strike().await;
        }
        if self.held.is_empty() {
            match self.inner.next_chunk().await? {
                Some(chunk) => self.held = chunk,
                None if matches!(self.fault, SourceFault::ShortChunks(_)) => return Ok(None),
                None => return self.strike().await,
            }
        }
        let chunk = self.held.split_to(self.held.len().min(allowed));
        self.handed_out += chunk.len() as u64;
        Ok(Some(chunk))
    }

    fn findings(&mut self) -> Findings {
        self.inner.findings()
    }
}
