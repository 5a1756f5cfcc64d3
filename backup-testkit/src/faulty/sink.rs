//! A sink that breaks while it is written, and a storage around it.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Committed, Creation, ObjectInfo, Result, Sink, SinkWriter, SourceStream, Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::{injected, stall};

/// How a sink breaks. Positions are bytes of one object taken before it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkFault {
    /// `begin` fails.
    Begin,
    /// `write` fails after this many bytes.
    FailAt(u64),
    /// `write` never comes back after this many bytes.
    StallAt(u64),
    /// `commit` fails; nothing is visible, nothing is left.
    Commit,
    /// `commit` never comes back; nothing is visible.
    StallCommit,
    /// `commit` says one byte less than there are.
    Miscount,
    /// `abort` fails and leaves something behind.
    Abort,
}

/// A sink with a fault in every writer, or in those of chosen keys.
#[derive(Clone)]
pub struct FaultySink {
    inner: Arc<dyn Sink>,
    fault: SinkFault,
    keys: String,
}

impl FaultySink {
    /// `inner`, with `fault`.
    pub fn new(inner: Arc<dyn Sink>, fault: SinkFault) -> Self {
        Self { inner, fault, keys: String::new() }
    }

    /// Breaks only where the key contains `text`.
    #[must_use]
    pub fn only_keys_with(mut self, text: impl Into<String>) -> Self {
        self.keys = text.into();
        self
    }
}

#[async_trait]
impl Sink for FaultySink {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        if !key.contains(&self.keys) {
            return self.inner.begin(key).await;
        }
        if self.fault == SinkFault::Begin {
            return injected(format!("{key} can't be begun"));
        }
        let inner = self.inner.begin(key).await?;
        Ok(Box::new(FaultyWriter { inner, fault: self.fault, key: key.to_owned(), taken: 0 }))
    }
}

struct FaultyWriter {
    inner: Box<dyn SinkWriter>,
    fault: SinkFault,
    key: String,
    taken: u64,
}

#[async_trait]
impl SinkWriter for FaultyWriter {
    async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        let (SinkFault::FailAt(limit) | SinkFault::StallAt(limit)) = self.fault else {
            return self.inner.write(chunk).await;
        };
        let room = usize::try_from(limit - self.taken).unwrap_or(usize::MAX);
        if room > 0 {
            let part = chunk.split_to(chunk.len().min(room));
            self.taken += part.len() as u64;
            self.inner.write(part).await?;
        }
        if chunk.is_empty() {
            return Ok(());
        }
        match self.fault {
            SinkFault::StallAt(_) => stall().await,
            _ => injected(format!("writing {} failed after {limit} bytes", self.key)),
        }
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        match self.fault {
            SinkFault::Commit => {
                self.inner.abort().await?;
                injected(format!("{} can't be committed", self.key))
            }
            SinkFault::StallCommit => stall().await,
            SinkFault::Miscount => {
                let committed = self.inner.commit().await?;
                Ok(Committed { bytes: committed.bytes.saturating_sub(1), ..committed })
            }
            _ => self.inner.commit().await,
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        match self.fault {
            SinkFault::Abort => injected(format!("{} can't be aborted", self.key)),
            _ => self.inner.abort().await,
        }
    }
}

/// A storage that breaks while it is written; it reads, lists and deletes as it should.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::Sink;
/// use backup_testkit::{FaultyStorage, Memory, SinkFault};
///
/// let memory = Memory::new("offsite");
/// let storage = FaultyStorage::new(Arc::new(memory.clone()), SinkFault::FailAt(3));
/// let mut writer = storage.begin("a").await?;
/// writer.write("abc".into()).await?;
/// assert!(writer.write("d".into()).await.is_err());
/// writer.abort().await?;
/// assert!(memory.keys().is_empty());
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    sink: FaultySink,
}

impl FaultyStorage {
    /// `inner`, with `fault` in what is written through `begin`.
    pub fn new(inner: Arc<dyn Storage>, fault: SinkFault) -> Self {
        let sink: Arc<dyn Sink> = Arc::clone(&inner) as _;
        Self { inner, sink: FaultySink::new(sink, fault) }
    }

    /// Breaks only where the key contains `text`.
    #[must_use]
    pub fn only_keys_with(mut self, text: impl Into<String>) -> Self {
        self.sink = self.sink.only_keys_with(text);
        self
    }
}

#[async_trait]
impl Sink for FaultyStorage {
    fn name(&self) -> &str {
        self.sink.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.sink.begin(key).await
    }
}

#[async_trait]
impl Storage for FaultyStorage {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.inner.open(key, range).await
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
