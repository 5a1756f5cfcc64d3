//! A client program's standard output in large chunks, at next to no cost.

use std::os::fd::AsFd;
use std::time::Duration;

use backup_core::pipeline::CHUNK_BYTES;
use backup_core::{Error, Result};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::time::{sleep, timeout};

/// Size asked for the pipe between child and reader, in bytes: the most that Linux allows
/// everybody.
const PIPE_BYTES: usize = 1024 * 1024;

/// A read that brings less than this found the pipe nearly empty, in bytes.
const SMALL_READ_BYTES: usize = 64 * 1024;

/// The pause after a small read. pg_dump writes 4 KiB at a time: without a pause there is a
/// wake-up for each of them, on both sides. In this time the pipe can't fill up
/// ([`PIPE_BYTES`] in 1 ms is 1 GB/s), so nobody waits.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads a child's output.
pub(crate) struct Output {
    stdout: ChildStdout,
    gathered: BytesMut,
    stage: &'static str,
    stall: Duration,
    /// Whether the pipe is large enough to pause.
    large: bool,
}

impl Output {
    /// Reads `stdout` of the child `stage`, which may be silent for `stall`.
    pub(crate) fn new(stdout: ChildStdout, stage: &'static str, stall: Duration) -> Self {
        let large = enlarge(&stdout);
        Self { stdout, gathered: BytesMut::new(), stage, stall, large }
    }

    /// The next [`CHUNK_BYTES`], fewer at the end, `None` after it. The end of the output says
    /// nothing about how the child ended.
    ///
    /// # Errors
    /// When nothing came for too long, or reading failed.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        self.gathered.reserve(CHUNK_BYTES);
        while self.gathered.len() < CHUNK_BYTES {
            let room = CHUNK_BYTES - self.gathered.len();
            let mut free = (&mut self.gathered).limit(room);
            let count = match timeout(self.stall, self.stdout.read_buf(&mut free)).await {
                Ok(Ok(count)) => count,
                Ok(Err(e)) => {
                    return Err(Error::failed(self.stage, "its output can't be read").caused_by(e));
                }
                Err(_) => return Err(self.stalled()),
            };
            if count == 0 {
                break;
            }
            if self.large && count < SMALL_READ_BYTES.min(room) {
                sleep(PAUSE).await;
            }
        }
        let chunk = self.gathered.split().freeze();
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn stalled(&self) -> Error {
        let seconds = self.stall.as_secs();
        Error::failed(self.stage, format!("sent nothing for {seconds} s")).next_step(
            "look at what its session waits for: select pid, wait_event, query from pg_stat_activity where application_name like 'pg_dump%'; check the network to the server",
        )
    }
}

/// Enlarges the pipe where the system lets us.
#[cfg(target_os = "linux")]
fn enlarge(stdout: &ChildStdout) -> bool {
    rustix::pipe::fcntl_setpipe_size(stdout.as_fd(), PIPE_BYTES)
        .is_ok_and(|size| size >= PIPE_BYTES)
}

/// Only Linux has a call for it.
#[cfg(not(target_os = "linux"))]
fn enlarge(_stdout: &ChildStdout) -> bool {
    false
}
