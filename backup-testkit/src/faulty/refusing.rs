//! A storage with a key that may only write.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, Error, ErrorKind, ObjectInfo, Result, Sink, SinkWriter, SourceStream,
    Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

/// A storage that takes new objects and refuses everything else: reading, looking, listing,
/// deleting, sweeping. A key on the database host that can't harm older backups.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::Storage;
/// use backup_testkit::{Memory, WriteOnly};
///
/// let memory = Memory::new("offsite");
/// let storage = WriteOnly::new(Arc::new(memory.clone()));
/// storage.create_new("a", "x".into()).await?;
/// assert!(storage.stat("a").await.is_err());
/// assert!(storage.delete("a").await.is_err());
/// assert_eq!(memory.keys(), ["a"]);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct WriteOnly {
    inner: Arc<dyn Storage>,
    may_list: bool,
}

impl WriteOnly {
    /// `inner`, which may only be written.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, may_list: false }
    }

    /// The same, but it may be listed.
    #[must_use]
    pub fn with_listing(mut self) -> Self {
        self.may_list = true;
        self
    }

    fn refused<T>(&self, what: &str) -> Result<T> {
        let stage = format!("storage {}", self.inner.name());
        Err(Error::new(ErrorKind::Unchecked, stage, format!("access denied: {what}"))
            .next_step("none: a test wanted this refusal"))
    }
}

#[async_trait]
impl Sink for WriteOnly {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.inner.begin(key).await
    }
}

#[async_trait]
impl Storage for WriteOnly {
    async fn open(&self, key: &str, _range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.refused(&format!("open {key}"))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.refused(&format!("stat {key}"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        if self.may_list {
            return self.inner.list(prefix).await;
        }
        self.refused(&format!("list {prefix}"))
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        if self.may_list {
            return self.inner.folders(prefix).await;
        }
        self.refused(&format!("list {prefix}"))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.refused::<()>(&format!("delete {key}")).map_err(|e| e.with_kind(ErrorKind::Failed))
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        self.inner.create_new(key, body).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, _older_than: Timestamp) -> Result<u64> {
        self.refused(&format!("sweep {prefix}"))
    }
}
