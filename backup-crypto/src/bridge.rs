//! Lets the OpenPGP library work on a thread of its own, over an input and an output that may not
//! leave theirs.
//!
//! The caller's thread serves requests in the order they come: fill this block, write that one.
//! Read-ahead keeps both busy. Memory: the blocks of [`READ_AHEAD`] and [`WRITES`].

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backup_core::{Error, Result};

use crate::STAGE;
use crate::ends::{BLOCK_BYTES, fill};

/// Blocks being filled or waiting to be used.
const READ_AHEAD: usize = 2;

/// Requests waiting to be served.
const WRITES: usize = 2;

enum Request {
    Fill(Block),
    Write(Vec<u8>),
}

struct Block {
    bytes: Vec<u8>,
    filled: usize,
}

/// Runs `work` on a thread of its own. The failure of either end is reported before whatever
/// `work` made of it; a panic in there is reported as damaged data.
pub(crate) fn run<W>(input: &mut dyn Read, output: &mut dyn Write, work: W) -> Result<()>
where
    W: FnOnce(Inlet, &mut Outlet) -> Result<()> + Send,
{
    let (asks, requests) = sync_channel(READ_AHEAD + WRITES);
    let (answer, answers) = sync_channel(READ_AHEAD);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let inlet = Inlet::new(asks.clone(), answers);
            let mut outlet = Outlet { asks, block: Vec::with_capacity(BLOCK_BYTES) };
            work(inlet, &mut outlet)?;
            outlet.hand_over().map_err(|error| Error::from_io(STAGE, error))
        });
        let served = serve(input, output, requests, answer);
        let worked = worker.join();
        served?;
        worked.unwrap_or_else(|_| Err(Error::damaged(STAGE, "the message is malformed")))
    })
}

/// Serves until the worker is done. Leaving drops both channels, which ends the worker.
fn serve(
    input: &mut dyn Read,
    output: &mut dyn Write,
    requests: Receiver<Request>,
    answer: SyncSender<Block>,
) -> Result<()> {
    let mut ended = false;
    for request in requests {
        match request {
            Request::Fill(mut block) => {
                block.filled = if ended { 0 } else { fill(input, &mut block.bytes)? };
                ended |= block.filled < block.bytes.len();
                // Nobody waits for it any more: the worker is about to end.
                let _ = answer.send(block);
            }
            Request::Write(bytes) => {
                output.write_all(&bytes).map_err(|error| Error::from_io(STAGE, error))?;
            }
        }
    }
    Ok(())
}

/// The worker's input.
pub(crate) struct Inlet {
    asks: SyncSender<Request>,
    answers: Receiver<Block>,
    current: Block,
    position: usize,
    ended: bool,
}

impl Inlet {
    fn new(asks: SyncSender<Request>, answers: Receiver<Block>) -> Self {
        for _ in 1..READ_AHEAD {
            // A failure to send shows when the answer is missing.
            let _ = asks.send(Request::Fill(Block { bytes: vec![0; BLOCK_BYTES], filled: 0 }));
        }
        let current = Block { bytes: vec![0; BLOCK_BYTES], filled: 0 };
        Self { asks, answers, current, position: 0, ended: false }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let used = std::mem::replace(&mut self.current, Block { bytes: Vec::new(), filled: 0 });
        self.position = 0;
        self.asks.send(Request::Fill(used)).map_err(|_| end_is_gone())?;
        self.current = self.answers.recv().map_err(|_| end_is_gone())?;
        self.ended = self.current.filled == 0;
        Ok(())
    }
}

impl BufRead for Inlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.filled && !self.ended {
            self.next_block()?;
        }
        Ok(&self.current.bytes[self.position..self.current.filled])
    }

    fn consume(&mut self, bytes: usize) {
        self.position = (self.position + bytes).min(self.current.filled);
    }
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl fmt::Debug for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inlet")
    }
}

/// The worker's output.
pub(crate) struct Outlet {
    asks: SyncSender<Request>,
    block: Vec<u8>,
}

impl Outlet {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK_BYTES {
            self.hand_over().map_err(|error| Error::from_io(STAGE, error))?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES * 2));
        self.asks.send(Request::Write(block)).map_err(|_| end_is_gone())
    }
}

fn end_is_gone() -> io::Error {
    io::Error::other("an end of the stream failed")
}
