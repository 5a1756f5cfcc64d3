//! Writes gzip as a row of members, each compressed by whichever thread has its turn.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{Scope, scope};

use backup_core::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::feed::Feed;

/// Plain bytes in one member. Each starts with an empty window, so shorter ones compress worse.
const MEMBER_BYTES: usize = 1024 * 1024;

/// Members under way for each thread: one being compressed, one waiting, one done.
const MEMBERS_PER_THREAD: usize = 3;

/// More threads than this gain nothing and cost memory.
const MAX_THREADS: usize = 64;

/// Bytes of checksum and length that end a member.
const TRAILER_BYTES: usize = 8;

const STAGE: &str = "gzip";

/// Compresses `input` to its end.
///
/// Members are whole files in themselves, so an output that stops between two of them would pass
/// for a complete one. Therefore the trailer of the newest member is held back until the next
/// member or the end is certain: after an error the output ends in a cut.
pub(crate) fn write(
    level: u32,
    threads: usize,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<()> {
    let mut input = Feed::new(input);
    scope(|scope| {
        let mut row = Row::start(scope, level, threads.clamp(1, MAX_THREADS));
        let mut held_back = Vec::new();
        loop {
            let block = next_block(&mut input)?;
            let last = block.len() < MEMBER_BYTES;
            // An empty input still needs one member, to be a gzip file at all.
            if !block.is_empty() || row.sent == 0 {
                row.send(block)?;
            }
            while row.is_full() || (last && !row.is_empty()) {
                let mut member = row.take()?;
                let trailer = member.split_off(member.len().saturating_sub(TRAILER_BYTES));
                put(output, &held_back)?;
                put(output, &member)?;
                held_back = trailer;
            }
            if last {
                return put(output, &held_back);
            }
        }
    })
}

fn put(output: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|e| Error::from_io(STAGE, e))
}

/// The next MiB, less at the end of the input.
fn next_block(input: &mut Feed<'_>) -> Result<Vec<u8>> {
    let mut block = Vec::with_capacity(MEMBER_BYTES);
    match input.by_ref().take(MEMBER_BYTES as u64).read_to_end(&mut block) {
        Ok(_) => Ok(block),
        Err(error) => Err(input.failure(STAGE).unwrap_or_else(|| Error::from_io(STAGE, error))),
    }
}

/// The threads. Member n goes to thread n modulo their number and is fetched from there, which
/// keeps the order without looking at it.
struct Row {
    threads: Vec<Compressor>,
    sent: usize,
    taken: usize,
}

/// One thread: plain blocks go in, members come out in the same order.
struct Compressor {
    blocks: SyncSender<Vec<u8>>,
    members: Receiver<io::Result<Vec<u8>>>,
}

impl Compressor {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, level: u32) -> Self {
        let (blocks, plain) = sync_channel::<Vec<u8>>(MEMBERS_PER_THREAD);
        // Needs no bound of its own: never more than MEMBERS_PER_THREAD are under way.
        let (done, members) = channel();
        scope.spawn(move || {
            for block in plain {
                if done.send(compress(level, &block)).is_err() {
                    return;
                }
            }
        });
        Self { blocks, members }
    }
}

impl Row {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, level: u32, threads: usize) -> Self {
        let threads = (0..threads).map(|_| Compressor::start(scope, level)).collect();
        Self { threads, sent: 0, taken: 0 }
    }

    fn is_full(&self) -> bool {
        self.sent - self.taken >= self.threads.len() * MEMBERS_PER_THREAD
    }

    fn is_empty(&self) -> bool {
        self.sent == self.taken
    }

    fn send(&mut self, block: Vec<u8>) -> Result<()> {
        let thread = &self.threads[self.sent % self.threads.len()];
        thread.blocks.send(block).map_err(|_| thread_ended())?;
        self.sent += 1;
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<u8>> {
        let thread = &self.threads[self.taken % self.threads.len()];
        let member = thread.members.recv().map_err(|_| thread_ended())?;
        self.taken += 1;
        member.map_err(|e| Error::from_io(STAGE, e))
    }
}

fn compress(level: u32, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = GzEncoder::new(Vec::with_capacity(block.len() / 2), Compression::new(level));
    member.write_all(block)?;
    member.finish()
}

fn thread_ended() -> Error {
    Error::failed(STAGE, "a compressing thread ended unexpectedly")
}
