//! Between a thread that blocks and the tasks of the pipeline: bounded, with an explicit end.
//!
//! **Invariant:** a dropped end is a failure, as in the pipeline's own pipes.

use std::io::{self, Read, Write};

use backup_core::pipeline::{CHUNK_BYTES, PIPE_DEPTH};
use backup_core::{Error, ErrorKind, Findings, Result};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

/// What a reading thread sends.
pub(crate) enum Produced {
    Data(Bytes),
    End(Box<Findings>),
    Failed(Error),
}

/// A channel from a reading thread.
pub(crate) fn produced() -> (Producer, mpsc::Receiver<Produced>) {
    let (sender, receiver) = mpsc::channel(PIPE_DEPTH);
    (Producer { sender, gathered: BytesMut::new() }, receiver)
}

fn gone() -> Error {
    Error::new(ErrorKind::Disconnected, "files", "the neighbouring stage stopped")
}

/// The writing end of a reading thread.
pub(crate) struct Producer {
    sender: mpsc::Sender<Produced>,
    gathered: BytesMut,
}

impl Producer {
    /// Says that the data is complete, or why it is not.
    pub(crate) fn finish(mut self, outcome: Result<Findings>) {
        let last = outcome.and_then(|findings| {
            self.send_gathered().map_err(|e| Error::from_io("files", e))?;
            Ok(findings)
        });
        // Nobody listens any more: then nobody needs to know.
        let _ = self.sender.blocking_send(match last {
            Ok(findings) => Produced::End(Box::new(findings)),
            Err(error) => Produced::Failed(error),
        });
    }

    fn send_gathered(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.gathered).freeze();
        self.sender.blocking_send(Produced::Data(chunk)).map_err(|_| gone().into_io())
    }
}

impl Write for Producer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(CHUNK_BYTES);
        }
        let n = data.len().min(CHUNK_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&data[..n]);
        if self.gathered.len() == CHUNK_BYTES {
            self.send_gathered()?;
        }
        Ok(n)
    }

    /// Does nothing: a chunk goes when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Fed {
    Data(Bytes),
    End,
}

/// A channel to a writing thread.
pub(crate) fn fed() -> (Feeder, FeedReader) {
    let (sender, receiver) = mpsc::channel(PIPE_DEPTH);
    (Feeder(sender), FeedReader { receiver, chunk: Bytes::new(), ended: false })
}

/// The end that tasks write to.
pub(crate) struct Feeder(mpsc::Sender<Fed>);

impl Feeder {
    /// False when the thread reads no more.
    pub(crate) async fn send(&self, chunk: Bytes) -> bool {
        self.0.send(Fed::Data(chunk)).await.is_ok()
    }

    /// Says that the data is complete.
    pub(crate) async fn end(self) {
        // A thread that is gone says why when it is joined.
        let _ = self.0.send(Fed::End).await;
    }
}

/// The end that a thread reads from.
pub(crate) struct FeedReader {
    receiver: mpsc::Receiver<Fed>,
    chunk: Bytes,
    ended: bool,
}

impl Read for FeedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Fed::Data(chunk)) => self.chunk = chunk,
                Some(Fed::End) => self.ended = true,
                None => return Err(gone().into_io()),
            }
        }
        let n = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
