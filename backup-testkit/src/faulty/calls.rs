//! A storage that records every call and fails chosen ones.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    ByteRange, Committed, Creation, Findings, ObjectInfo, Result, Sink, SinkWriter, SourceStream,
    Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::injected;

/// Which calls of a [`CountedStorage`] fail; the first call is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailCalls {
    /// None: only count.
    Never,
    /// This one.
    Only(u64),
    /// This one and every later one: the storage went down.
    From(u64),
}

/// A storage that counts every call, those of its writers and streams included, and fails
/// chosen ones before anything happens inside.
///
/// Run something once with [`FailCalls::Never`] to learn how many calls it makes, then once
/// with each of them failing:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::Storage;
/// use backup_testkit::{CountedStorage, FailCalls, Memory};
///
/// let storage = CountedStorage::new(Arc::new(Memory::new("m")), FailCalls::Only(2));
/// storage.stat("a").await?;
/// assert!(storage.delete("a").await.is_err());
/// storage.delete("a").await?;
/// assert_eq!(storage.calls(), ["stat a", "delete a", "delete a"]);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct CountedStorage {
    inner: Arc<dyn Storage>,
    tally: Tally,
}

#[derive(Clone)]
struct Tally {
    fail: FailCalls,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Tally {
    /// Records a call; an error when it is to fail.
    fn call(&self, name: &str, key: &str) -> Result<()> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(format!("{name} {key}").trim_end().to_owned());
        let number = calls.len() as u64;
        let fails = match self.fail {
            FailCalls::Never => false,
            FailCalls::Only(k) => number == k,
            FailCalls::From(k) => number >= k,
        };
        if fails { injected(format!("call {number}, {name} {key}, fails")) } else { Ok(()) }
    }
}

impl CountedStorage {
    /// `inner`, counted.
    pub fn new(inner: Arc<dyn Storage>, fail: FailCalls) -> Self {
        Self { inner, tally: Tally { fail, calls: Arc::default() } }
    }

    /// What was called so far, in order: "begin KEY", "write KEY", "commit KEY",
    /// "next_chunk KEY", "list PREFIX" and so on. Failed calls are in it.
    pub fn calls(&self) -> Vec<String> {
        self.tally.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for CountedStorage {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.tally.call("begin", key)?;
        let inner = self.inner.begin(key).await?;
        Ok(Box::new(CountedWriter { inner, tally: self.tally.clone(), key: key.to_owned() }))
    }
}

#[async_trait]
impl Storage for CountedStorage {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.tally.call("open", key)?;
        let inner = self.inner.open(key, range).await?;
        Ok(Box::new(CountedStream { inner, tally: self.tally.clone(), key: key.to_owned() }))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.tally.call("stat", key)?;
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.tally.call("list", prefix)?;
        self.inner.list(prefix).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.tally.call("folders", prefix)?;
        self.inner.folders(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.tally.call("delete", key)?;
        self.inner.delete(key).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        self.tally.call("create_new", key)?;
        self.inner.create_new(key, body).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.tally.call("sweep", prefix)?;
        self.inner.sweep(prefix, older_than).await
    }
}

struct CountedWriter {
    inner: Box<dyn SinkWriter>,
    tally: Tally,
    key: String,
}

#[async_trait]
impl SinkWriter for CountedWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.tally.call("write", &self.key)?;
        self.inner.write(chunk).await
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        if let Err(error) = self.tally.call("commit", &self.key) {
            // A failed commit cleans up after itself.
            self.inner.abort().await?;
            return Err(error);
        }
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.tally.call("abort", &self.key)?;
        self.inner.abort().await
    }
}

struct CountedStream {
    inner: Box<dyn SourceStream>,
    tally: Tally,
    key: String,
}

#[async_trait]
impl SourceStream for CountedStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        self.tally.call("next_chunk", &self.key)?;
        self.inner.next_chunk().await
    }

    fn findings(&mut self) -> Findings {
        self.inner.findings()
    }
}
