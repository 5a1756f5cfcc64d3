//! Requests and replies over one connection: many at once, each with a deadline.
//!
//! Two tasks own the stream, one for each direction. A reply finds its request by its id. Who
//! stops waiting takes its request back: it is not sent if it wasn't yet, and a handle that
//! arrives for nobody is closed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::packet::{self, Reply, Request};

/// Requests that wait to be sent, at most.
const QUEUE: usize = 16;
/// Longest packet that is taken, in bytes: OpenSSH's own are at most 256 KiB.
const LONGEST_PACKET: usize = 1024 * 1024;
/// What is read from the connection at once, at least, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// What is handed to the connection at once, in slices.
const SLICES: usize = 64;
/// A request may take this many deadlines in all, as long as bytes move on the connection: on a
/// slow line it queues behind others.
const DEADLINES: u32 = 10;

/// Why a request has no good answer.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The server says no.
    Status { code: u32, message: String },
    /// The connection is gone; it says why. What was asked may have been done or not.
    Lost(String),
}

pub(super) type Answer<T> = Result<T, Trouble>;

/// One connection that speaks SFTP.
#[derive(Debug)]
pub(super) struct Session {
    outgoing: mpsc::Sender<Frame>,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
    deadline: Duration,
}

#[derive(Debug)]
struct Frame {
    /// Only sent while somebody waits for its reply; `None` for what nobody waits for.
    awaited: Option<u32>,
    head: Bytes,
    data: Vec<Bytes>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds from the start to when a byte last moved.
    moved: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u32,
    replies: HashMap<u32, oneshot::Sender<Reply>>,
    lost: Option<String>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_moved(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    fn last_moved(&self) -> Instant {
        self.started + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Ends the connection for everybody who waits. The first reason stays.
    fn lose(&self, why: impl Into<String>) {
        let mut waiting = self.waiting();
        waiting.lost.get_or_insert_with(|| why.into());
        waiting.replies.clear();
    }

    fn why_lost(&self) -> Trouble {
        let why = self.waiting().lost.clone();
        Trouble::Lost(why.unwrap_or_else(|| "the connection ended".to_owned()))
    }
}

impl Session {
    /// Greets the server at the other end of `read` and `write`, waiting for it with `patience`;
    /// also gives the extensions that it offers. Later requests have the `deadline`.
    pub(super) async fn start(
        mut read: impl AsyncRead + Unpin + Send + 'static,
        mut write: impl AsyncWrite + Unpin + Send + 'static,
        deadline: Duration,
        patience: Duration,
    ) -> Answer<(Self, BTreeMap<String, String>)> {
        let greeting = async {
            write.write_all(&packet::init()).await?;
            let mut buffer = BytesMut::new();
            let packet = next_packet(&mut read, &mut buffer, || {}).await?;
            let offered = packet::parse_version(packet).map_err(|_| garbled())?;
            io::Result::Ok((offered, buffer))
        };
        let (offered, buffer) = match tokio::time::timeout(patience, greeting).await {
            Ok(greeted) => greeted.map_err(|e| Trouble::Lost(e.to_string()))?,
            Err(_) => return Err(Trouble::Lost(no_answer(patience))),
        };
        let shared = Arc::new(Shared {
            started: Instant::now(),
            moved: AtomicU64::new(0),
            waiting: Mutex::default(),
        });
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let tasks = [
            tokio::spawn(send_all(write, queue, Arc::clone(&shared))),
            tokio::spawn(receive_all(read, buffer, outgoing.downgrade(), Arc::clone(&shared))),
        ];
        Ok((Self { outgoing, shared, tasks, deadline }, offered))
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.outgoing.is_closed() && self.shared.waiting().lost.is_none()
    }

    /// Room in the queue for one more request.
    pub(super) async fn slot(&self) -> Answer<Slot<'_>> {
        match self.in_time(self.outgoing.reserve(), self.deadline).await? {
            Ok(permit) => Ok(Slot { session: self, permit }),
            Err(_) => Err(self.shared.why_lost()),
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, request: Request) -> Answer<Reply> {
        self.ask_patiently(request, 1).await
    }

    /// As [`Session::ask`], for what takes a server `times` as long as anything else.
    pub(super) async fn ask_patiently(&self, request: Request, times: u32) -> Answer<Reply> {
        let mut ticket = self.slot().await?.send(request)?;
        self.in_time(ticket.answer(), self.deadline * times).await?
    }

    /// The reply to a request that was sent.
    pub(super) async fn reply(&self, ticket: &mut Ticket) -> Answer<Reply> {
        self.in_time(ticket.answer(), self.deadline).await?
    }

    /// Closes a handle without waiting; when the queue is full, the end of the connection does.
    pub(super) fn close_quietly(&self, handle: &Bytes) {
        close_for_nobody(&self.outgoing, &self.shared, handle);
    }

    /// Waits for `work` as long as bytes move, and not for ever.
    async fn in_time<T>(&self, work: impl Future<Output = T>, deadline: Duration) -> Answer<T> {
        let mut work = std::pin::pin!(work);
        let began = Instant::now();
        let last = began + deadline * DEADLINES;
        loop {
            let until = (self.shared.last_moved().max(began) + deadline).min(last);
            match tokio::time::timeout_at(until.into(), &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => {
                    let now = Instant::now();
                    if now < last && now < self.shared.last_moved() + deadline {
                        continue;
                    }
                    let why = no_answer(deadline);
                    self.shared.lose(why.clone());
                    return Err(Trouble::Lost(why));
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lose("the connection was given up");
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Room for one request.
pub(super) struct Slot<'a> {
    session: &'a Session,
    permit: mpsc::Permit<'a, Frame>,
}

impl Slot<'_> {
    /// Sends it, without waiting for anything.
    pub(super) fn send(self, request: Request) -> Answer<Ticket> {
        let shared = &self.session.shared;
        let (reply, receiver) = oneshot::channel();
        let mut waiting = shared.waiting();
        if waiting.lost.is_some() {
            drop(waiting);
            return Err(shared.why_lost());
        }
        let id = waiting.next_id;
        waiting.next_id = id.wrapping_add(1);
        waiting.replies.insert(id, reply);
        drop(waiting);
        let head = request.head(id);
        self.permit.send(Frame { awaited: Some(id), head, data: request.data });
        Ok(Ticket { id, shared: Arc::clone(shared), receiver })
    }
}

/// Waits for one reply. Dropping it takes the request back, as far as that is still possible.
#[derive(Debug)]
pub(super) struct Ticket {
    id: u32,
    shared: Arc<Shared>,
    receiver: oneshot::Receiver<Reply>,
}

impl Ticket {
    async fn answer(&mut self) -> Answer<Reply> {
        match (&mut self.receiver).await {
            Ok(Reply::Status { code, message }) if code != packet::OK => {
                Err(Trouble::Status { code, message })
            }
            Ok(reply) => Ok(reply),
            Err(_) => Err(self.shared.why_lost()),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.waiting().replies.remove(&self.id);
    }
}

fn close_for_nobody(outgoing: &mpsc::Sender<Frame>, shared: &Shared, handle: &Bytes) {
    let id = {
        let mut waiting = shared.waiting();
        waiting.next_id = waiting.next_id.wrapping_add(1);
        waiting.next_id.wrapping_sub(1)
    };
    let head = Request::new(packet::CLOSE).string(handle).head(id);
    let _ = outgoing.try_send(Frame { awaited: None, head, data: Vec::new() });
}

async fn send_all(
    mut write: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
    shared: Arc<Shared>,
) {
    let mut ready: VecDeque<Bytes> = VecDeque::new();
    let why = loop {
        while ready.len() < SLICES {
            match queue.try_recv() {
                Ok(frame) => push_wanted(&shared, &mut ready, frame),
                Err(_) => break,
            }
        }
        if ready.is_empty() {
            match queue.recv().await {
                Some(frame) => push_wanted(&shared, &mut ready, frame),
                None => return,
            }
            continue;
        }
        let slices: Vec<IoSlice<'_>> =
            ready.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        match write.write_vectored(&slices).await {
            Ok(0) => break "the connection takes nothing more".to_owned(),
            Ok(sent) => advance(&mut ready, sent),
            Err(error) => break error.to_string(),
        }
        shared.has_moved();
    };
    shared.lose(why);
}

/// Queues the bytes of a frame, unless nobody waits for its reply any more.
fn push_wanted(shared: &Shared, ready: &mut VecDeque<Bytes>, frame: Frame) {
    let wanted = frame.awaited.is_none_or(|id| shared.waiting().replies.contains_key(&id));
    if wanted {
        ready.push_back(frame.head);
        ready.extend(frame.data.into_iter().filter(|piece| !piece.is_empty()));
    }
}

fn advance(ready: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(first) = ready.front_mut() {
        if sent < first.len() {
            first.advance(sent);
            return;
        }
        sent -= first.len();
        ready.pop_front();
    }
}

async fn receive_all(
    mut read: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
    outgoing: mpsc::WeakSender<Frame>,
    shared: Arc<Shared>,
) {
    let why = loop {
        let packet = match next_packet(&mut read, &mut buffer, || shared.has_moved()).await {
            Ok(packet) => packet,
            Err(error) => break error.to_string(),
        };
        let Ok((id, reply)) = packet::parse_reply(packet) else { break garbled().to_string() };
        let asked = shared.waiting().replies.remove(&id);
        let unwanted = match asked {
            Some(asked) => asked.send(reply).err(),
            None => Some(reply),
        };
        if let (Some(Reply::Handle(handle)), Some(outgoing)) = (unwanted, outgoing.upgrade()) {
            close_for_nobody(&outgoing, &shared, &handle);
        }
    };
    shared.lose(why);
}

/// The next packet without its length, and nothing copied that needn't be.
async fn next_packet(
    read: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    moved: impl Fn(),
) -> io::Result<Bytes> {
    loop {
        let mut missing = READ_BYTES;
        if let Some(length) = buffer.first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > LONGEST_PACKET {
                return Err(garbled());
            }
            if buffer.len() >= 4 + length {
                buffer.advance(4);
                return Ok(buffer.split_to(length).freeze());
            }
            missing = missing.max(4 + length - buffer.len());
        }
        buffer.reserve(missing);
        if read.read_buf(buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        moved();
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, GARBLED)
}

/// What is said of a server that speaks something else.
pub(super) const GARBLED: &str = "what answers does not speak SFTP";

fn no_answer(deadline: Duration) -> String {
    format!("no answer within {} s", deadline.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A session and its server's end, which holds 64 bytes.
    async fn started() -> (Session, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (read, write) = tokio::io::split(ours);
        let greeting = async {
            theirs.read_exact(&mut [0; 9]).await.unwrap();
            theirs.write_all(b"\0\0\0\x05\x02\0\0\0\x03").await.unwrap();
        };
        let (session, ()) = tokio::join!(Session::start(read, write, PATIENCE, PATIENCE), greeting);
        (session.unwrap().0, theirs)
    }

    async fn send(session: &Session, kind: u8, bytes: usize) -> Ticket {
        let slot = session.slot().await.unwrap();
        slot.send(Request::new(kind).string(&vec![b'x'; bytes])).unwrap()
    }

    /// The kind and the id of the next request.
    async fn received(theirs: &mut DuplexStream) -> (u8, u32) {
        let length = theirs.read_u32().await.unwrap();
        let head = (theirs.read_u8().await.unwrap(), theirs.read_u32().await.unwrap());
        let mut rest = vec![0; usize::try_from(length).unwrap() - 5];
        theirs.read_exact(&mut rest).await.unwrap();
        head
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_sent_and_its_handle_is_closed() {
        let (session, mut theirs) = started().await;
        let open = send(&session, packet::OPEN, 1000).await;
        // The stream is full with it now.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(send(&session, packet::RENAME, 1).await);
        let _stat = send(&session, packet::STAT, 1).await;
        assert_eq!(received(&mut theirs).await, (packet::OPEN, 0));
        assert_eq!(received(&mut theirs).await, (packet::STAT, 2));
        drop(open);
        theirs.write_all(b"\0\0\0\x0a\x66\0\0\0\0\0\0\0\x01h").await.unwrap();
        assert_eq!(received(&mut theirs).await.0, packet::CLOSE);
    }

    #[tokio::test]
    async fn everybody_learns_that_the_connection_ended() {
        let (session, theirs) = started().await;
        let mut ticket = send(&session, packet::STAT, 1).await;
        drop(theirs);
        assert!(matches!(session.reply(&mut ticket).await, Err(Trouble::Lost(_))));
        assert!(!session.is_alive());
        assert!(matches!(session.ask(Request::new(packet::STAT)).await, Err(Trouble::Lost(_))));
    }
}
