//! Streams a file in chunks, one batch ahead.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Error, Result, SourceStream};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::place::Place;
use super::{BATCH_BYTES, CHUNK_BYTES};

/// One reading of an object or of a range of it.
///
/// While one batch is being handed out, the next is read: at most two are in memory.
pub(super) struct Reader {
    place: Arc<Place>,
    path: PathBuf,
    ready: VecDeque<Bytes>,
    ahead: Option<JoinHandle<io::Result<Batch>>>,
}

/// What one hop to the disk brought, and what is left to do.
struct Batch {
    bytes: Bytes,
    rest: Option<(File, u64)>,
}

impl Reader {
    /// Reads the next `left` bytes of `file`; fewer in it are an error.
    pub(super) fn new(place: Arc<Place>, file: File, path: PathBuf, left: u64) -> Self {
        let ahead = (left > 0).then(|| read_ahead(file, left));
        Self { place, path, ready: VecDeque::new(), ahead }
    }
}

#[async_trait]
impl SourceStream for Reader {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.ready.pop_front() {
            return Ok(Some(chunk));
        }
        let Some(ahead) = self.ahead.as_mut() else { return Ok(None) };
        let batch = ahead.await.map_err(|died| self.place.thread_died(died))?;
        self.ahead = None;
        let Batch { mut bytes, rest } = batch.map_err(|e| self.failed(e))?;
        self.ahead = rest.map(|(file, left)| read_ahead(file, left));
        while !bytes.is_empty() {
            self.ready.push_back(bytes.split_to(bytes.len().min(CHUNK_BYTES)));
        }
        Ok(self.ready.pop_front())
    }
}

impl Reader {
    fn failed(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::damaged(
                self.place.stage().to_owned(),
                format!("{} became shorter while it was read", self.path.display()),
            )
            .next_step("read it from another storage");
        }
        self.place.cant_read("read", &self.path, error)
    }
}

fn read_ahead(mut file: File, left: u64) -> JoinHandle<io::Result<Batch>> {
    tokio::task::spawn_blocking(move || {
        let wanted = usize::try_from(left).unwrap_or(BATCH_BYTES).min(BATCH_BYTES);
        let mut bytes = BytesMut::zeroed(wanted);
        file.read_exact(&mut bytes)?;
        let left = left - wanted as u64;
        Ok(Batch { bytes: bytes.freeze(), rest: (left > 0).then_some((file, left)) })
    })
}
