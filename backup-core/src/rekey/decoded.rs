//! A stored part, decoded, as a source: what a backup reads when it is made of another backup.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::pipeline::{self, Cancel, Context, Limits, Outcome, PIPE_DEPTH};
use crate::{
    BackupReader, Committed, Contents, Error, ErrorKind, Findings, Part, Result, Sink, SinkWriter,
    Source, SourceStream,
};

/// How long the storages that are written may keep the reading waiting for one chunk.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The plain bytes of a part. Its stream ends well only when the stored bytes and the plain ones
/// have their recorded digests.
pub(super) struct DecodedPart {
    pub(super) reader: BackupReader,
    pub(super) part: Part,
    pub(super) contents: Arc<Contents>,
    pub(super) context: Context,
}

#[async_trait]
impl Source for DecodedPart {
    fn name(&self) -> &str {
        "the old backup"
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let (sender, chunks) = mpsc::channel(PIPE_DEPTH);
        let mut flow =
            self.reader.flow(&self.part, Some(&self.contents), Arc::new(Funnel(sender)))?;
        flow.limits = Limits { sink_stall: PATIENCE, ..Limits::default() };
        // A switch of its own: it ends with the stream.
        let cancel = self.context.cancel.child();
        let context = Context { cancel: cancel.clone(), progress: self.context.progress.clone() };
        let decoding = tokio::spawn(async move { pipeline::run(flow, &context).await });
        let inventory = self.contents.part(&self.part.name).map(|plain| plain.inventory.clone());
        let findings = Findings { inventory: inventory.unwrap_or_default(), ..Findings::default() };
        Ok(Box::new(Decoding { chunks, decoding, cancel, findings, reader: self.reader.clone() }))
    }
}

/// One reading of it.
struct Decoding {
    chunks: mpsc::Receiver<Bytes>,
    decoding: JoinHandle<Result<Outcome>>,
    cancel: Cancel,
    findings: Findings,
    reader: BackupReader,
}

#[async_trait]
impl SourceStream for Decoding {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        // The channel's end says nothing; the run does.
        match (&mut self.decoding).await {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(self.reader.advise(error)),
            Err(e) => Err(Error::failed("rekey", "reading the old backup broke off").caused_by(e)),
        }
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        self.cancel.interrupt("nobody reads the old backup any more");
    }
}

/// The other end of the channel.
struct Funnel(mpsc::Sender<Bytes>);

#[async_trait]
impl Sink for Funnel {
    fn name(&self) -> &str {
        "the new backup"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Pouring { sender: self.0.clone(), bytes: 0 }))
    }
}

struct Pouring {
    sender: mpsc::Sender<Bytes>,
    bytes: u64,
}

#[async_trait]
impl SinkWriter for Pouring {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        let gone = |_| Error::new(ErrorKind::Disconnected, "rekey", "nobody reads any more");
        self.sender.send(chunk).await.map_err(gone)
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        Ok(Committed { bytes: self.bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
