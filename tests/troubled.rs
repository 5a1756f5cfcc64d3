//! A storage whose n-th call meets trouble that a plain failure does not show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{
    ByteRange, Committed, Creation, Error, ObjectInfo, Result, Sink, SinkWriter, SourceStream,
    Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

#[derive(Clone)]
pub enum Trouble {
    /// The call does its work, and says that it failed.
    LostAnswer,
    /// The call never comes back.
    Stall,
    /// The caller is interrupted just before the call.
    Interrupt(Cancel),
    /// Every call takes so long, whatever its number.
    Distant(Duration),
}

#[derive(Clone)]
pub struct Troubled {
    inner: Arc<dyn Storage>,
    calls: Calls,
}

#[derive(Clone)]
struct Calls {
    at: u64,
    trouble: Trouble,
    made: Arc<AtomicU64>,
}

impl Calls {
    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        if let Trouble::Distant(latency) = &self.trouble {
            tokio::time::sleep(*latency).await;
        } else if number != self.at {
            return work.await;
        }
        match &self.trouble {
            Trouble::LostAnswer => {
                work.await?;
                Err(Error::failed("storage", "the answer was lost"))
            }
            Trouble::Stall => std::future::pending().await,
            Trouble::Interrupt(cancel) => {
                cancel.interrupt("a test interrupted it");
                work.await
            }
            Trouble::Distant(_) => work.await,
        }
    }
}

impl Troubled {
    /// `inner`, whose call number `at` (the first is 1) meets `trouble`.
    pub fn new(inner: Arc<dyn Storage>, at: u64, trouble: Trouble) -> Self {
        Self { inner, calls: Calls { at, trouble, made: Arc::default() } }
    }

    /// Whether the call was reached.
    pub fn struck(&self) -> bool {
        self.calls.made.load(Ordering::SeqCst) >= self.calls.at
    }
}

#[async_trait]
impl Sink for Troubled {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        let inner = self.calls.call(self.inner.begin(key)).await?;
        Ok(Box::new(TroubledWriter { inner, calls: self.calls.clone() }))
    }
}

struct TroubledWriter {
    inner: Box<dyn SinkWriter>,
    calls: Calls,
}

#[async_trait]
impl SinkWriter for TroubledWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.calls.call(self.inner.write(chunk)).await
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        self.calls.call(self.inner.commit()).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.calls.call(self.inner.abort()).await
    }
}

#[async_trait]
impl Storage for Troubled {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.calls.call(self.inner.open(key, range)).await
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.calls.call(self.inner.stat(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.calls.call(self.inner.list(prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.calls.call(self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.calls.call(self.inner.delete(key)).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        self.calls.call(self.inner.create_new(key, body)).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.calls.call(self.inner.sweep(prefix, older_than)).await
    }
}
