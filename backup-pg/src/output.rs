//! A client program's standard output in large chunks, at next to no cost.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use backup_core::pipeline::CHUNK_BYTES;
use backup_core::{Error, Result};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};
use tokio::process::ChildStdout;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Size asked for the pipe between child and reader, in bytes: the most that Linux allows
/// everybody.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1024 * 1024;

/// A read that brings less than this found the pipe nearly empty, in bytes.
const SMALL_READ_BYTES: usize = 64 * 1024;

/// The pause after a small read. pg_dump writes 4 KiB at a time: without a pause, each of them
/// wakes the reader up, which costs more than the copying. In this time a large pipe can't fill
/// up (1 MiB in 1 ms is 1 GB/s), so nobody waits.
const PAUSE: Duration = Duration::from_millis(1);

/// A chunk that took longer than this goes on as it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads a child's output.
///
/// The pipe is read by plain blocking calls: waking an event loop for every 4 KiB costs more
/// than the rest of the reading. A call that is still waiting when this is dropped ends with
/// the child.
pub(crate) struct Output {
    pipe: Arc<OwnedFd>,
    stage: &'static str,
    stall: Duration,
    pause: Option<Duration>,
}

impl Output {
    /// Reads `stdout` of the child `stage`, which may be silent for `stall`.
    ///
    /// # Errors
    /// When the system refuses to change the pipe.
    pub(crate) fn new(stdout: ChildStdout, stage: &'static str, stall: Duration) -> Result<Self> {
        let pipe = stdout
            .into_owned_fd()
            .map_err(|e| Error::failed(stage, "its output can't be read").caused_by(e))?;
        let pause = is_large(&pipe).then_some(PAUSE);
        Ok(Self { pipe: Arc::new(pipe), stage, stall, pause })
    }

    /// The next bytes, mostly [`CHUNK_BYTES`] of them; `None` at the end of the output, which
    /// says nothing about how the child ended.
    ///
    /// # Errors
    /// When nothing came for too long, or reading failed.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let (pipe, pause) = (Arc::clone(&self.pipe), self.pause);
        let filled = timeout(self.stall, spawn_blocking(move || fill(&pipe, pause))).await;
        let broken = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::failed(self.stage, "its output can't be read").caused_by(cause)
        };
        match filled {
            Ok(Ok(Ok(chunk))) if chunk.is_empty() => Ok(None),
            Ok(Ok(Ok(chunk))) => Ok(Some(chunk.into())),
            Ok(Ok(Err(error))) => Err(broken(error.into())),
            Ok(Err(error)) => Err(broken(error.into())),
            Err(_) => Err(self.stalled()),
        }
    }

    fn stalled(&self) -> Error {
        let seconds = self.stall.as_secs();
        Error::failed(self.stage, format!("sent nothing for {seconds} s")).next_step(
            "look at what its session waits for: select pid, wait_event, query from pg_stat_activity where application_name like 'pg_dump%'; check the network to the server",
        )
    }
}

/// Reads one chunk; empty at the end.
fn fill(pipe: &OwnedFd, pause: Option<Duration>) -> Result<Vec<u8>, Errno> {
    let started = Instant::now();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while chunk.len() < chunk.capacity() {
        let count = match read(pipe, spare_capacity(&mut chunk)) {
            Ok(0) => break,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if started.elapsed() > PATIENCE {
            break;
        }
        if let Some(pause) = pause.filter(|_| count < SMALL_READ_BYTES) {
            thread::sleep(pause);
        }
    }
    Ok(chunk)
}

/// Enlarges the pipe where the system lets us.
#[cfg(target_os = "linux")]
fn is_large(pipe: &OwnedFd) -> bool {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES).is_ok_and(|size| size >= PIPE_BYTES)
}

/// Only Linux has a call for it.
#[cfg(not(target_os = "linux"))]
fn is_large(_pipe: &OwnedFd) -> bool {
    false
}
