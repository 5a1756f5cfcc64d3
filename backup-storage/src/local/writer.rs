//! Takes chunks, hands them to the disk in batches, and publishes the file.

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::BATCH_BYTES;
use super::awaited::Waiting;
use super::place::{Draft, Place};
use crate::failure::with_leftover;

/// Most chunks in one batch, so that tiny ones can't pile up.
const BATCH_CHUNKS: usize = 1024;

/// One object being written.
///
/// While the disk takes one batch, the next one is collected.
pub(super) struct Writer {
    place: Arc<Place>,
    draft: Arc<Draft>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    disk: Option<JoinHandle<io::Result<()>>>,
    failed: bool,
}

impl Writer {
    pub(super) fn new(place: Arc<Place>, draft: Draft) -> Self {
        let draft = Arc::new(draft);
        Self { place, draft, batch: Vec::new(), batch_bytes: 0, disk: None, failed: false }
    }

    /// Waits until the disk has taken the batch it is at.
    async fn wait_for_disk(&mut self) -> Result<()> {
        let Some(disk) = self.disk.as_mut() else { return Ok(()) };
        // Awaited in place: a caller that gives up waiting here can still abort in order.
        let outcome = disk.await;
        self.disk = None;
        let written = match outcome {
            Ok(written) => {
                written.map_err(|e| self.place.cant_write("write to", &self.draft.partial, e))
            }
            Err(died) => Err(self.place.thread_died(died)),
        };
        self.failed |= written.is_err();
        written
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.wait_for_disk().await?;
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let draft = Arc::clone(&self.draft);
        self.disk = Some(tokio::task::spawn_blocking(move || {
            batch.iter().try_for_each(|chunk| (&draft.file).write_all(chunk))
        }));
        Ok(())
    }

    async fn publish(&mut self) -> Result<u64> {
        if self.failed {
            return Err(Error::failed(
                self.place.stage().to_owned(),
                format!("an earlier write to {} failed", self.draft.partial.display()),
            )
            .next_step("abort instead of committing"));
        }
        self.hand_over().await?;
        self.wait_for_disk().await?;
        let waiting = Waiting::default();
        let awaited = waiting.awaited();
        self.on_disk_thread(move |place, draft| place.publish(draft, &awaited)).await
    }

    async fn discard(&mut self) -> Result<()> {
        // Its outcome no longer matters, but it must not write on meanwhile.
        let _ = self.wait_for_disk().await;
        self.on_disk_thread(Place::discard).await
    }

    async fn on_disk_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place, &Draft) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (place, draft) = (Arc::clone(&self.place), Arc::clone(&self.draft));
        match tokio::task::spawn_blocking(move || work(&place, &draft)).await {
            Ok(result) => result,
            Err(died) => Err(self.place.thread_died(died)),
        }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.batch_bytes += chunk.len();
        self.batch.push(chunk);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_CHUNKS {
            self.hand_over().await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        let error = match self.publish().await {
            Ok(bytes) => return Ok(Committed { bytes, version: None }),
            Err(error) => error,
        };
        let partial = self.draft.partial.display().to_string();
        Err(match self.discard().await {
            Ok(()) => error,
            Err(left) => with_leftover(error, &partial, &left),
        })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.discard().await
    }
}
