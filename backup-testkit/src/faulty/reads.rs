//! A storage whose downloads break.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, ObjectInfo, Result, Sink, SinkWriter, SourceStream, Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::{injected, stall};

/// How a download breaks. Positions are bytes of the object, wherever the reading began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// It can't be opened.
    Open,
    /// It fails before this byte.
    FailAt(u64),
    /// It never comes back before this byte.
    StallAt(u64),
    /// It ends before this byte, as if that were all.
    EndAt(u64),
    /// It fails after so many bytes of each reading.
    FailAfter(u64),
}

/// A storage with a fault in what is read from it; everything else works as it should.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::{ByteRange, Storage};
/// use backup_testkit::{FaultyReads, Memory, ReadFault};
///
/// let memory = Memory::new("offsite");
/// memory.plant("a", "abcdef");
/// let storage = FaultyReads::new(Arc::new(memory), ReadFault::FailAt(4)).times(1);
/// let mut stream = storage.open("a", ByteRange::ALL).await?;
/// assert_eq!(stream.next_chunk().await?.as_deref(), Some(&b"abcd"[..]));
/// assert!(stream.next_chunk().await.is_err());
/// let mut rest = storage.open("a", ByteRange { offset: 4, length: None }).await?;
/// assert_eq!(rest.next_chunk().await?.as_deref(), Some(&b"ef"[..]));
/// assert_eq!(storage.opened(), [("a".to_owned(), 0), ("a".to_owned(), 4)]);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct FaultyReads {
    inner: Arc<dyn Storage>,
    fault: ReadFault,
    keys: String,
    left: Arc<AtomicU32>,
    opened: Arc<Mutex<Vec<(String, u64)>>>,
}

impl FaultyReads {
    /// `inner`, with `fault` in every download.
    pub fn new(inner: Arc<dyn Storage>, fault: ReadFault) -> Self {
        let left = Arc::new(AtomicU32::new(u32::MAX));
        Self { inner, fault, keys: String::new(), left, opened: Arc::default() }
    }

    /// Breaks so often only.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        self.left.store(times, Ordering::SeqCst);
        self
    }

    /// Breaks only where the key contains `text`.
    #[must_use]
    pub fn only_keys_with(mut self, text: impl Into<String>) -> Self {
        self.keys = text.into();
        self
    }

    fn note(&self, key: &str, range: ByteRange) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.push((key.to_owned(), range.offset));
    }

    /// What was opened, in order, and from which byte on.
    pub fn opened(&self) -> Vec<(String, u64)> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes one of the strikes that are left.
fn strike(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Sink for FaultyReads {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.inner.begin(key).await
    }
}

#[async_trait]
impl Storage for FaultyReads {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.note(key, range);
        if !key.contains(&self.keys) {
            return self.inner.open(key, range).await;
        }
        if self.fault == ReadFault::Open && strike(&self.left) {
            return injected(format!("{key} can't be opened"));
        }
        let limit = match self.fault {
            ReadFault::Open => u64::MAX,
            ReadFault::FailAt(at) | ReadFault::StallAt(at) | ReadFault::EndAt(at) => at,
            ReadFault::FailAfter(bytes) => range.offset.saturating_add(bytes),
        };
        Ok(Box::new(FaultyDownload {
            inner: self.inner.open(key, range).await?,
            fault: self.fault,
            left: Arc::clone(&self.left),
            room: limit.saturating_sub(range.offset),
            rest: Bytes::new(),
        }))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.folders(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        self.inner.create_new(key, body).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.inner.sweep(prefix, older_than).await
    }
}

struct FaultyDownload {
    inner: Box<dyn SourceStream>,
    fault: ReadFault,
    left: Arc<AtomicU32>,
    /// Bytes before the fault.
    room: u64,
    rest: Bytes,
}

#[async_trait]
impl SourceStream for FaultyDownload {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.rest.is_empty() {
            match self.inner.next_chunk().await? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(None),
            }
        }
        if self.room == 0 {
            if strike(&self.left) {
                return match self.fault {
                    ReadFault::StallAt(_) => stall().await,
                    ReadFault::EndAt(_) => Ok(None),
                    _ => injected("the download broke"),
                };
            }
            self.room = u64::MAX;
        }
        let part = self.rest.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= part as u64;
        Ok(Some(self.rest.split_to(part)))
    }
}
