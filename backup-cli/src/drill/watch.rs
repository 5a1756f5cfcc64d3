//! Watches a restore from between its source and pg_restore: where the time goes, and the
//! archive's table of contents, which the definitions are compared with later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::{Committed, Result, Sink, SinkWriter};
use backup_pg::{ArchiveReader, PgRestore, Toc};
use bytes::Bytes;

/// What was seen of a restore.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The archive's table of contents.
    pub toc: Option<Toc>,
    /// Time without a byte to restore.
    pub waiting: Duration,
    /// Time in which pg_restore took bytes.
    pub loading: Duration,
    /// Time after the last byte.
    pub finishing: Duration,
}

/// A restore that is watched. Clones see the same.
#[derive(Clone)]
pub(super) struct Watched {
    restore: PgRestore,
    seen: Arc<Mutex<Seen>>,
}

impl Watched {
    pub fn new(restore: PgRestore) -> Self {
        Self { restore, seen: Arc::default() }
    }

    /// What was seen, once the restore ended, well or not.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Sink for Watched {
    fn name(&self) -> &str {
        self.restore.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        let inner = self.restore.begin(key).await?;
        let reader = Some(ArchiveReader::new());
        Ok(Box::new(WatchedWriter { inner, reader, seen: self.seen.clone(), last: Instant::now() }))
    }
}

struct WatchedWriter {
    inner: Box<dyn SinkWriter>,
    /// Until the table of contents is there.
    reader: Option<ArchiveReader>,
    seen: Arc<Mutex<Seen>>,
    last: Instant,
}

impl WatchedWriter {
    fn note(&mut self, put: impl FnOnce(&mut Seen, Duration)) {
        let now = Instant::now();
        let took = now.duration_since(self.last);
        self.last = now;
        put(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner), took);
    }

    fn read_head(&mut self, chunk: &Bytes) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.feed(chunk)?;
        if let Some(toc) = reader.toc().cloned() {
            self.reader = None;
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).toc = Some(toc);
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for WatchedWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.note(|seen, took| seen.waiting += took);
        self.read_head(&chunk)?;
        let written = self.inner.write(chunk).await;
        self.note(|seen, took| seen.loading += took);
        written
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        let mut this = *self;
        this.note(|seen, took| seen.waiting += took);
        let Self { inner, seen, last, .. } = this;
        let committed = inner.commit().await;
        seen.lock().unwrap_or_else(PoisonError::into_inner).finishing = last.elapsed();
        committed
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
