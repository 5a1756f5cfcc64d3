//! Small parts in memory: as a source on the way out, as a sink on the way back.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::object::SMALL_OBJECT_BYTES;
use crate::{Committed, Error, Result, Sink, SinkWriter, Source, SourceStream};

/// Bytes in memory as a [`Source`].
#[derive(Debug, Clone)]
pub struct InMemory {
    name: String,
    bytes: Bytes,
}

impl InMemory {
    /// A source that gives `bytes`.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

#[async_trait]
impl Source for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        Ok(Box::new(Once(Some(self.bytes.clone()).filter(|b| !b.is_empty()))))
    }
}

struct Once(Option<Bytes>);

#[async_trait]
impl SourceStream for Once {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}

/// A [`Sink`] that collects one small object; its bytes appear at commit.
#[derive(Clone, Default)]
pub struct Collect {
    collected: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Collect {
    /// What was committed, once.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl Sink for Collect {
    fn name(&self) -> &str {
        "memory"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Collecting { sink: self.clone(), bytes: Vec::new() }))
    }
}

struct Collecting {
    sink: Collect,
    bytes: Vec<u8>,
}

#[async_trait]
impl SinkWriter for Collecting {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if (self.bytes.len() + chunk.len()) as u64 > SMALL_OBJECT_BYTES {
            return Err(Error::damaged(
                "memory",
                format!("a small part is larger than {SMALL_OBJECT_BYTES} bytes"),
            ));
        }
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        let bytes = self.bytes.len() as u64;
        *self.sink.collected.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.bytes);
        Ok(Committed { bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A [`Sink`] that reads everything and keeps nothing: to prove that a stream can be decoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl Sink for Discard {
    fn name(&self) -> &str {
        "discard"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Discarding(0)))
    }
}

struct Discarding(u64);

#[async_trait]
impl SinkWriter for Discarding {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.0 += chunk.len() as u64;
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        Ok(Committed { bytes: self.0, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
