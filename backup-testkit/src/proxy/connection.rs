//! One connection through the proxy: two lanes that pass bytes on until the plan strikes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::Traffic;
use super::plan::{Direction, Fault};

/// The most that is read before it is passed on.
const CHUNK_BYTES: usize = 16 * 1024;
/// What [`Fault::Flip`] inverts of a byte.
const FLIPPED_BIT: u8 = 0x10;
/// How long ends that were told that there is no more may go on sending.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why both lanes stopped.
enum End {
    Struck(Fault),
    /// An end reset the connection or went away.
    Broken,
}

/// What one direction has read and not yet passed on: it outlives an interruption.
struct Lane {
    direction: Direction,
    chunk: Box<[u8]>,
    pending: std::ops::Range<usize>,
    /// The next byte arrives with a bit inverted.
    flips: bool,
    ended: bool,
}

/// Serves a client until either end, or the plan, ends it.
pub(super) async fn serve(mut client: TcpStream, traffic: Arc<Traffic>) {
    let Ok(mut server) = TcpStream::connect(traffic.upstream).await else {
        reset(client);
        return;
    };
    // The client's own packets decide what is sent together.
    client.set_nodelay(true).and(server.set_nodelay(true)).ok();
    let (mut up, mut down) = (Lane::new(Direction::Up), Lane::new(Direction::Down));
    let mut delay = None;
    let mut fault = traffic.course().connected();
    loop {
        match fault.take() {
            Some(Fault::Reset) => {
                reset(client);
                reset(server);
                return;
            }
            Some(Fault::Truncate) => return truncate(client, server).await,
            Some(Fault::Stall(pause)) => traffic.stalled(pause).await,
            Some(Fault::Delay(pause)) => delay = Some(pause),
            // Its lane does so by itself.
            Some(Fault::Flip) | None => {}
        }
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let both = tokio::try_join!(
            up.carry(client_reads, server_writes, delay, &traffic),
            down.carry(server_reads, client_writes, delay, &traffic),
        );
        match both {
            Ok(_) => return,
            Err(End::Struck(struck)) => fault = Some(struck),
            Err(End::Broken) => fault = Some(Fault::Reset),
        }
    }
}

impl Lane {
    fn new(direction: Direction) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        Self { direction, chunk, pending: 0..0, flips: false, ended: false }
    }

    /// Carries bytes until their sender ends; may be abandoned at any await and resumed.
    async fn carry(
        &mut self,
        from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        delay: Option<Duration>,
        traffic: &Traffic,
    ) -> Result<(), End> {
        while !self.ended {
            if self.pending.is_empty() {
                from.readable().await.map_err(|_| End::Broken)?;
                match from.try_read(&mut self.chunk) {
                    Ok(0) => {
                        self.ended = true;
                        break;
                    }
                    Ok(read) => self.pending = 0..read,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => return Err(End::Broken),
                }
                if let Some(delay) = delay {
                    sleep(delay).await;
                }
            }
            if std::mem::take(&mut self.flips) {
                self.chunk[self.pending.start] ^= FLIPPED_BIT;
            }
            to.writable().await.map_err(|_| End::Broken)?;
            self.pass_on(&to, delay.is_some(), traffic)?;
        }
        to.shutdown().await.map_err(|_| End::Broken)
    }

    /// Writes what the plan allows, at one go: other connections count too.
    fn pass_on(&mut self, to: &WriteHalf<'_>, delayed: bool, traffic: &Traffic) -> Result<(), End> {
        let mut course = traffic.course();
        let allowed =
            usize::try_from(course.allowance(self.direction, delayed)).unwrap_or(usize::MAX);
        let written = if allowed == 0 {
            Ok(0)
        } else {
            let allowed = self.pending.start
                ..self.pending.end.min(self.pending.start.saturating_add(allowed));
            to.try_write(&self.chunk[allowed])
        };
        let written = match written {
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(End::Broken),
        };
        self.pending.start += written;
        traffic.counter(self.direction).fetch_add(written as u64, Relaxed);
        match course.pass(self.direction, delayed, written as u64) {
            None => Ok(()),
            Some(Fault::Flip) => {
                self.flips = true;
                Ok(())
            }
            Some(fault) => Err(End::Struck(fault)),
        }
    }
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().ok();
    drop(stream);
}

/// Ends both sides orderly. What still comes is read: closing without would be a reset.
async fn truncate(mut client: TcpStream, mut server: TcpStream) {
    client.shutdown().await.ok();
    server.shutdown().await.ok();
    let drain = async |mut stream: TcpStream| {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    };
    let both = async { tokio::join!(drain(client), drain(server)) };
    timeout(DRAIN_TIMEOUT, both).await.ok();
}
