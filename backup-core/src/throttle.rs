//! A limit on what goes to and comes from a storage.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    ByteRange, Committed, Creation, Error, Findings, ObjectInfo, ObjectVersion, Protection, Result,
    Sink, SinkWriter, SourceStream, Storage, Versioned,
};

/// Least rate that may be asked for, in bytes a second: a chunk of the pipeline then takes four
/// seconds, far below every limit on a silent storage.
pub const MIN_RATE: u64 = 64 * 1024;
/// How much unused time a storage may catch up on: after a pause, so much goes at full speed.
const BURST: Duration = Duration::from_secs(1);

/// A storage that takes and gives no more than so many bytes a second, in both directions and
/// by all its writers and readers together.
///
/// What counts is what is handed over here. A storage that gathers large pieces sends each as
/// fast as it can, and then waits: the average holds. Listings and the like are not counted.
///
/// ```
/// # use std::sync::Arc;
/// # use backup_core::{Storage, Throttled};
/// # fn limit(storage: Arc<dyn Storage>) -> backup_core::Result<()> {
/// let evenings = Throttled::new(storage, 20_000_000)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Throttled {
    inner: Arc<dyn Storage>,
    bucket: Bucket,
}

impl Throttled {
    /// `inner` with at most `bytes_per_second`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for less than [`MIN_RATE`].
    pub fn new(inner: Arc<dyn Storage>, bytes_per_second: u64) -> Result<Self> {
        if bytes_per_second < MIN_RATE {
            let stage = format!("storage {}", inner.name());
            let message = format!("{bytes_per_second} bytes a second are too few");
            return Err(Error::usage(stage, message)
                .next_step(format!("set max_rate to {MIN_RATE} bytes a second or more")));
        }
        let free_at = Arc::new(Mutex::new(None));
        Ok(Self { inner, bucket: Bucket { bytes_per_second, free_at } })
    }
}

/// A line that carries one thing after the other at a fixed speed.
#[derive(Clone)]
struct Bucket {
    bytes_per_second: u64,
    /// When everything that was let through so far has had its time.
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Bucket {
    /// Waits until so many more bytes have had their time.
    async fn let_through(&self, bytes: usize) {
        // Nanoseconds in 128 bits: no rate and no size overflows, nothing is lost to rounding.
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let now = Instant::now();
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = free_at.map_or(now, |at| at.max(now.checked_sub(BURST).unwrap_or(now)));
            *free_at.insert(earliest + takes)
        };
        tokio::time::sleep_until(until).await;
    }
}

#[async_trait]
impl Sink for Throttled {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        let inner = self.inner.begin(key).await?;
        Ok(Box::new(ThrottledWriter { inner, bucket: self.bucket.clone() }))
    }
}

#[async_trait]
impl Storage for Throttled {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        let inner = self.inner.open(key, range).await?;
        Ok(Box::new(ThrottledStream { inner, bucket: self.bucket.clone() }))
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
        self.bucket.let_through(body.len()).await;
        self.inner.create_new(key, body).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.inner.sweep(prefix, older_than).await
    }

    fn versioned(&self) -> Option<&dyn Versioned> {
        self.inner.versioned().map(|_| self as &dyn Versioned)
    }
}

impl Throttled {
    fn keeper(&self) -> Result<&dyn Versioned> {
        self.inner.versioned().ok_or_else(|| {
            Error::failed(format!("storage {}", self.inner.name()), "it keeps no versions")
        })
    }
}

#[async_trait]
impl Versioned for Throttled {
    async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>> {
        self.keeper()?.versions(key).await
    }

    async fn open_version(
        &self,
        key: &str,
        version: &str,
        range: ByteRange,
    ) -> Result<Box<dyn SourceStream>> {
        let inner = self.keeper()?.open_version(key, version, range).await?;
        Ok(Box::new(ThrottledStream { inner, bucket: self.bucket.clone() }))
    }

    async fn lock_until(&self, key: &str, version: Option<&str>, until: Timestamp) -> Result<()> {
        self.keeper()?.lock_until(key, version, until).await
    }

    async fn hold(&self, key: &str, version: Option<&str>, held: bool) -> Result<bool> {
        self.keeper()?.hold(key, version, held).await
    }

    async fn protection(&self, key: &str, version: Option<&str>) -> Result<Protection> {
        self.keeper()?.protection(key, version).await
    }
}

struct ThrottledWriter {
    inner: Box<dyn SinkWriter>,
    bucket: Bucket,
}

#[async_trait]
impl SinkWriter for ThrottledWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bucket.let_through(chunk.len()).await;
        self.inner.write(chunk).await
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

struct ThrottledStream {
    inner: Box<dyn SourceStream>,
    bucket: Bucket,
}

#[async_trait]
impl SourceStream for ThrottledStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.inner.next_chunk().await?;
        if let Some(chunk) = &chunk {
            self.bucket.let_through(chunk.len()).await;
        }
        Ok(chunk)
    }

    fn findings(&mut self) -> Findings {
        self.inner.findings()
    }
}
