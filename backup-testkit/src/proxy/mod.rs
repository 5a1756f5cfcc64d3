//! A TCP proxy between a client and a real server that breaks connections on purpose.
//!
//! It resets, truncates, stalls and delays at a byte that a [`Plan`] names or draws from a seed,
//! in either direction, once or again; or lets nobody connect. What a client reads and writes up
//! to that byte is the real server's.
//!
//! ```no_run
//! use backup_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
//! # fn f(server: std::net::SocketAddr) -> backup_core::Result<()> {
//! let plan = Plan::after_bytes(5 << 20, Direction::Up, Fault::Reset);
//! let proxy = FaultProxy::start(server, plan)?;
//! println!("http://{}", proxy.address());
//! // … the client writes, meets the reset, and tries again …
//! assert_eq!(proxy.strikes(), 1);
//! proxy.set_plan(Plan::refuse())?;
//! # Ok(())
//! # }
//! ```

mod connection;
mod doorway;
mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Direction, Fault, Plan};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use backup_core::{Error, Result};
use tokio::sync::{mpsc, watch};

use doorway::{Answer, Change};
use plan::Course;

const STAGE: &str = "fault proxy";

/// A proxy of one's own on a free port of 127.0.0.1; it ends when dropped, with its connections.
///
/// It runs on a thread of its own, so a test may block while it works.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    /// Closed, it ends the thread.
    changes: Option<mpsc::UnboundedSender<Change>>,
    thread: Option<JoinHandle<()>>,
}

/// What all connections share.
#[derive(Debug)]
struct Traffic {
    upstream: SocketAddr,
    course: Mutex<Course>,
    /// Changes with each new plan: what a stalled connection waits for.
    plans: watch::Sender<()>,
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    /// Of plans that were replaced.
    strikes_before: AtomicU64,
}

impl FaultProxy {
    /// Starts a proxy to `upstream` with its plan in effect.
    ///
    /// # Errors
    /// Without a free port or thread.
    pub fn start(upstream: SocketAddr, plan: Plan) -> Result<Self> {
        let traffic = Arc::new(Traffic::new(upstream, plan));
        let (changes, receiver) = mpsc::unbounded_channel();
        let (address_sender, address) = sync_channel(1);
        let shared = Arc::clone(&traffic);
        let thread = std::thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || doorway::run(shared, receiver, address_sender))
            .map_err(|e| cannot("no thread").caused_by(e))?;
        let address = address.recv().map_err(|e| cannot("it did not start").caused_by(e))??;
        let proxy = Self { address, traffic, changes: Some(changes), thread: Some(thread) };
        proxy.open(plan)?;
        Ok(proxy)
    }

    /// Where clients connect to, in place of the real server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts another plan in effect, which counts bytes anew. Stalled connections go on; those
    /// that are delayed stay so.
    ///
    /// # Errors
    /// When the port can no longer be listened on.
    pub fn set_plan(&self, plan: Plan) -> Result<()> {
        self.traffic.begin(plan);
        self.open(plan)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.traffic.connections.load(Relaxed)
    }

    /// How many bytes were passed on in `direction`, of all connections and plans.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.traffic.counter(direction).load(Relaxed)
    }

    /// How often a fault happened, of all plans; refused connections do not count.
    pub fn strikes(&self) -> u64 {
        let now = self.traffic.course().strikes();
        self.traffic.strikes_before.load(Relaxed) + now
    }

    fn open(&self, plan: Plan) -> Result<()> {
        let (done, answer) = sync_channel(1);
        let changes = self.changes.as_ref().ok_or_else(|| cannot("it ended"))?;
        let change = Change { answer: Answer::of(plan), done };
        changes.send(change).map_err(|_| cannot("it ended"))?;
        answer.recv().map_err(|e| cannot("it ended").caused_by(e))?
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Traffic {
    fn new(upstream: SocketAddr, plan: Plan) -> Self {
        Self {
            upstream,
            course: Mutex::new(Course::new(plan)),
            plans: watch::Sender::new(()),
            connections: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            strikes_before: AtomicU64::new(0),
        }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, plan: Plan) {
        let mut course = self.course();
        self.strikes_before.fetch_add(course.strikes(), Relaxed);
        *course = Course::new(plan);
        drop(course);
        self.plans.send_replace(());
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Waits as a stalled connection does.
    async fn stalled(&self, pause: Option<Duration>) {
        let mut plans = self.plans.subscribe();
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            _ = plans.changed() => {}
        }
    }
}

fn cannot(what: &str) -> Error {
    Error::failed(STAGE, what)
}
