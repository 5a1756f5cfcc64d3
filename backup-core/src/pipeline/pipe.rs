//! The pipe between two stages, tasks or threads: bounded, and with an explicit end.
//!
//! **Invariant:** a dropped end is a failure. Only [`PipeSender::end`] means "complete";
//! with an ordinary channel a compressor would close a valid frame over half the data when
//! its producer dies.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{CHUNK_BYTES, PIPE_DEPTH};
use crate::{Error, ErrorKind, Result};

enum Packet {
    Data(Bytes),
    End,
}

/// A pipe that holds at most [`PIPE_DEPTH`] chunks of at most [`CHUNK_BYTES`].
///
/// Its ends are asynchronous; a thread that blocks takes them as [`PipeSender::writer`] and
/// [`PipeReceiver::reader`].
pub fn pipe() -> (PipeSender, PipeReceiver) {
    let (sender, receiver) = mpsc::channel(PIPE_DEPTH);
    (PipeSender(sender), PipeReceiver(receiver))
}

fn disconnected() -> Error {
    Error::new(ErrorKind::Disconnected, "pipeline", "the neighbouring stage stopped")
}

/// The writing end of a [`pipe`]. Dropped without [`PipeSender::end`] it is a failure.
pub struct PipeSender(mpsc::Sender<Packet>);

impl PipeSender {
    /// The same end for a thread that blocks.
    pub fn writer(self) -> PipeWriter {
        PipeWriter { pipe: self, gathered: BytesMut::new(), broken: false }
    }

    /// Sends a chunk; an oversized one goes in pieces, so that the bound on memory holds.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] when the other end is gone.
    pub async fn send(&self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(CHUNK_BYTES));
            self.0.send(Packet::Data(piece)).await.map_err(|_| disconnected())?;
        }
        Ok(())
    }

    /// Says that the data is complete.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] when the other end is gone.
    pub async fn end(self) -> Result<()> {
        self.0.send(Packet::End).await.map_err(|_| disconnected())
    }
}

/// The reading end of a [`pipe`].
pub struct PipeReceiver(mpsc::Receiver<Packet>);

impl PipeReceiver {
    /// The same end for a thread that blocks.
    pub fn reader(self) -> PipeReader {
        PipeReader { pipe: self, chunk: Bytes::new(), state: ReadState::Flowing }
    }

    /// The next chunk; `None` only after the sender said `end`.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] when the sender went away without.
    pub async fn recv(&mut self) -> Result<Option<Bytes>> {
        understand(self.0.recv().await)
    }
}

fn understand(packet: Option<Packet>) -> Result<Option<Bytes>> {
    match packet {
        Some(Packet::Data(chunk)) => Ok(Some(chunk)),
        Some(Packet::End) => Ok(None),
        None => Err(disconnected()),
    }
}

/// The reading end for a thread. It fails where the sender went away without an end.
pub struct PipeReader {
    pipe: PipeReceiver,
    chunk: Bytes,
    state: ReadState,
}

#[derive(Clone, Copy, PartialEq)]
enum ReadState {
    Flowing,
    Ended,
    Broken,
}

impl PipeReader {
    /// Whether the sender went away without an end, whatever the transform made of it.
    pub(super) fn is_broken(&self) -> bool {
        self.state == ReadState::Broken
    }

    /// Whether everything up to the sender's end was read.
    pub(super) fn at_end(&mut self) -> Result<bool> {
        self.fill().map_err(|e| Error::from_io("pipeline", e))?;
        Ok(self.chunk.is_empty())
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() && self.state == ReadState::Flowing {
            match understand(self.pipe.0.blocking_recv()) {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => self.state = ReadState::Ended,
                Err(_) => self.state = ReadState::Broken,
            }
        }
        if self.is_broken() { Err(disconnected().into_io()) } else { Ok(()) }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let n = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// The writing end for a thread. Gathers small writes into whole chunks. Dropped without
/// [`PipeWriter::finish`] it is a failure.
pub struct PipeWriter {
    pipe: PipeSender,
    gathered: BytesMut,
    broken: bool,
}

impl PipeWriter {
    /// Whether the receiver went away, whatever the transform made of it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends what is left and the explicit end. Blocks its thread.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] when the other end is gone.
    pub fn finish(mut self) -> Result<()> {
        self.send_gathered().map_err(|e| Error::from_io("pipeline", e))?;
        self.pipe.0.blocking_send(Packet::End).map_err(|_| disconnected())
    }

    fn send_gathered(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.gathered).freeze();
        self.pipe.0.blocking_send(Packet::Data(chunk)).map_err(|_| {
            self.broken = true;
            disconnected().into_io()
        })
    }
}

impl Write for PipeWriter {
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

    /// Does nothing: a chunk goes when it is full. Codecs flush often, and small chunks cost.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
