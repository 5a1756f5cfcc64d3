//! A sink that keeps nothing: it proves that what is written to it is a whole archive.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{Committed, Result, Sink, SinkWriter};
use bytes::Bytes;

use super::{ArchiveReader, ArchiveSummary, RowKey};

/// Walks an archive and refuses to commit unless it is whole: what `verify` reads into, with
/// no server at hand.
///
/// Clones share their [`summary`](Self::summary).
#[derive(Debug, Clone, Default)]
pub struct ArchiveCheck {
    summary: Arc<Mutex<Option<ArchiveSummary>>>,
    key: Option<RowKey>,
}

impl ArchiveCheck {
    /// A check that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, which also makes the digests of the rows; see [`ArchiveReader::with_row_key`].
    #[must_use]
    pub fn with_row_key(self, key: RowKey) -> Self {
        Self { key: Some(key), ..self }
    }

    /// What the archive committed last contains; `None` before a commit succeeded.
    pub fn summary(&self) -> Option<ArchiveSummary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for ArchiveCheck {
    fn name(&self) -> &str {
        "archive"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let reader = match &self.key {
            Some(key) => ArchiveReader::new().with_row_key(key.clone()),
            None => ArchiveReader::new(),
        };
        Ok(Box::new(CheckWriter { reader, summary: self.summary.clone() }))
    }
}

struct CheckWriter {
    reader: ArchiveReader,
    summary: Arc<Mutex<Option<ArchiveSummary>>>,
}

#[async_trait]
impl SinkWriter for CheckWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.reader.feed(&chunk)
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        let summary = self.reader.finish()?;
        let bytes = summary.bytes();
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
        Ok(Committed { bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
