//! A thread that reads what a sink is given.

use std::io::Read;

use async_trait::async_trait;
use backup_core::pipeline::{PipeSender, pipe};
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;
use tokio::task::JoinHandle;

type Keep<T> = Box<dyn FnOnce(T) -> Result<()> + Send>;

/// Hands what is written to a function on a thread of its own. When it is committed, and the
/// function read all and was content, `keep` makes it last.
pub(crate) struct Worker<T> {
    pipe: Option<PipeSender>,
    thread: Option<JoinHandle<Result<T>>>,
    keep: Keep<T>,
    bytes: u64,
}

impl<T: Send + 'static> Worker<T> {
    pub(crate) fn start(
        work: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
        keep: impl FnOnce(T) -> Result<()> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = pipe();
        let thread = tokio::task::spawn_blocking(move || work(&mut receiver.reader()));
        Self { pipe: Some(sender), thread: Some(thread), keep: Box::new(keep), bytes: 0 }
    }

    /// What the thread says at its end.
    async fn join(&mut self) -> Result<T> {
        let thread = self.thread.take().ok_or_else(lost)?;
        thread.await.map_err(|e| lost().caused_by(e))?
    }
}

fn lost() -> Error {
    Error::failed("files", "a thread is gone; please report this")
}

#[async_trait]
impl<T: Send + 'static> SinkWriter for Worker<T> {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        if let Some(pipe) = &self.pipe
            && pipe.send(chunk).await.is_ok()
        {
            return Ok(());
        }
        // It stopped reading: it knows why.
        self.join().await?;
        Err(Error::damaged("tar", "there is something behind the end of the archive"))
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        if let Some(pipe) = self.pipe.take() {
            // A thread that is gone says why when it is joined.
            let _ = pipe.end().await;
        }
        let read = self.join().await?;
        let Self { keep, bytes, .. } = *self;
        let kept = tokio::task::spawn_blocking(move || keep(read)).await;
        kept.map_err(|e| lost().caused_by(e))??;
        Ok(Committed { bytes, version: None })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        // Without an end the thread fails, and undoes what it did.
        self.pipe = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.await;
        }
        Ok(())
    }
}
