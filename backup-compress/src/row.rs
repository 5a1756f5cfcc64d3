//! Writes a stream as a row of frames (gzip calls them members), each compressed by whichever
//! thread has its turn.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Scope, scope};

use backup_core::{Error, FramedOutput, Result};

use crate::feed::Feed;

/// More threads than this gain nothing and cost memory.
const MAX_THREADS: usize = 64;

/// How a row is made.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) stage: &'static str,
    /// Plain bytes in a frame; the last one may have less.
    pub(crate) frame_bytes: usize,
    /// How many threads compress; 0 counts as 1.
    pub(crate) threads: usize,
    /// Frames under way for each thread.
    pub(crate) per_thread: usize,
    /// As many frames under way beside these.
    pub(crate) waiting: usize,
    /// Bytes without whose last one a frame is none.
    pub(crate) trailer_bytes: usize,
}

/// Compresses `input` to its end, with what `compressor` makes for each thread.
///
/// Frames are whole files in themselves, so an output that stops between two of them would pass
/// for a complete one. Therefore the trailer of the newest frame is held back until the next
/// frame or the end is certain: after an error the output ends in a cut.
pub(crate) fn write<C>(
    shape: Shape,
    compressor: impl Fn() -> C + Sync,
    input: &mut dyn Read,
    output: &mut FramedOutput<'_>,
) -> Result<()>
where
    C: FnMut(&[u8]) -> Result<Vec<u8>>,
{
    let mut input = Feed::new(input);
    scope(|scope| {
        let mut row = Row::start(scope, shape, &compressor);
        let mut held_back = Vec::new();
        loop {
            let block = next_block(shape, &mut input)?;
            let last = block.len() < shape.frame_bytes;
            // An empty input still needs one frame, to be a compressed file at all.
            if !block.is_empty() || row.sent == 0 {
                row.send(block)?;
            }
            while let Some(mut frame) = row.take(last)? {
                let trailer = frame.split_off(frame.len().saturating_sub(shape.trailer_bytes));
                put_trailer(shape, output, &held_back)?;
                put(shape, output, &frame)?;
                held_back = trailer;
            }
            if last {
                return put_trailer(shape, output, &held_back);
            }
        }
    })
}

fn put(shape: Shape, output: &mut FramedOutput<'_>, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|e| Error::from_io(shape.stage, e))
}

/// The end of a frame, where one was begun.
fn put_trailer(shape: Shape, output: &mut FramedOutput<'_>, trailer: &[u8]) -> Result<()> {
    if trailer.is_empty() {
        return Ok(());
    }
    put(shape, output, trailer)?;
    output.end_frame();
    Ok(())
}

/// The plain bytes of the next frame, less at the end of the input.
fn next_block(shape: Shape, input: &mut Feed<'_>) -> Result<Vec<u8>> {
    let mut block = Vec::with_capacity(shape.frame_bytes);
    match input.by_ref().take(shape.frame_bytes as u64).read_to_end(&mut block) {
        Ok(_) => Ok(block),
        Err(e) => Err(input.failure(shape.stage).unwrap_or_else(|| Error::from_io(shape.stage, e))),
    }
}

/// The threads. Frame n goes to thread n modulo their number and is fetched from there, which
/// keeps the order without looking at it.
struct Row {
    shape: Shape,
    threads: Vec<Compressor>,
    sent: usize,
    taken: usize,
}

/// One thread: plain blocks go in, frames come out in the same order.
struct Compressor {
    blocks: SyncSender<Vec<u8>>,
    frames: Receiver<Result<Vec<u8>>>,
}

impl Compressor {
    fn start<'scope, C>(
        scope: &'scope Scope<'scope, '_>,
        most: usize,
        compressor: &'scope (impl Fn() -> C + Sync),
    ) -> Self
    where
        C: FnMut(&[u8]) -> Result<Vec<u8>>,
    {
        let (blocks, plain) = sync_channel::<Vec<u8>>(most);
        // Needs no bound of its own: never more than `most` are under way.
        let (done, frames) = channel();
        scope.spawn(move || {
            let mut compress = compressor();
            for block in plain {
                let frame = compress(&block);
                drop(block);
                if done.send(frame).is_err() {
                    return;
                }
            }
        });
        Self { blocks, frames }
    }
}

impl Row {
    fn start<'scope, C>(
        scope: &'scope Scope<'scope, '_>,
        shape: Shape,
        compressor: &'scope (impl Fn() -> C + Sync),
    ) -> Self
    where
        C: FnMut(&[u8]) -> Result<Vec<u8>>,
    {
        let shape = Shape { threads: shape.threads.clamp(1, MAX_THREADS), ..shape };
        let most = shape.per_thread + shape.waiting;
        let threads =
            (0..shape.threads).map(|_| Compressor::start(scope, most, compressor)).collect();
        Self { shape, threads, sent: 0, taken: 0 }
    }

    fn is_full(&self) -> bool {
        let Shape { per_thread, waiting, .. } = self.shape;
        self.sent - self.taken >= self.threads.len() * per_thread + waiting
    }

    fn send(&mut self, block: Vec<u8>) -> Result<()> {
        let thread = &self.threads[self.sent % self.threads.len()];
        thread.blocks.send(block).map_err(|_| self.thread_ended())?;
        self.sent += 1;
        Ok(())
    }

    /// The next frame. It is waited for when no further block may be sent, or at the `end`.
    fn take(&mut self, end: bool) -> Result<Option<Vec<u8>>> {
        if self.sent == self.taken {
            return Ok(None);
        }
        let frames = &self.threads[self.taken % self.threads.len()].frames;
        let frame = if end || self.is_full() {
            frames.recv().map_err(|_| self.thread_ended())?
        } else {
            match frames.try_recv() {
                Ok(frame) => frame,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(self.thread_ended()),
            }
        };
        self.taken += 1;
        frame.map(Some)
    }

    fn thread_ended(&self) -> Error {
        Error::failed(self.shape.stage, "a compressing thread ended unexpectedly")
    }
}
