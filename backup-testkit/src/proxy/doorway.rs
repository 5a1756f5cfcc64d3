//! The proxy's thread: who may come in, and how those who may not are turned away.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use backup_core::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::plan::{Kind, Plan};
use super::{Traffic, cannot, connection};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 256;
/// A connection on this machine that takes longer is not answered.
const LOCAL_ANSWER: Duration = Duration::from_millis(300);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What becomes of new connections.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    Serve,
    Refuse,
    None,
}

impl Answer {
    pub(super) fn of(plan: Plan) -> Self {
        match plan.0 {
            Kind::Refuse => Self::Refuse,
            Kind::Unanswered => Self::None,
            Kind::Pass | Kind::Strike(_) => Self::Serve,
        }
    }
}

/// What the owner asks of the thread.
pub(super) struct Change {
    pub(super) answer: Answer,
    pub(super) done: SyncSender<Result<()>>,
}

/// A port in one of the three states.
enum Doorway {
    Open(TcpListener),
    /// Ours, so that nobody else gets it, but not listened on.
    Closed(TcpSocket),
    /// Its queue is full of our own connections, so further ones are ignored.
    Ignored {
        _listener: TcpListener,
        _queue: Vec<TcpStream>,
    },
}

/// Runs the proxy until its owner is gone.
pub(super) fn run(
    traffic: Arc<Traffic>,
    changes: UnboundedReceiver<Change>,
    address: SyncSender<Result<SocketAddr>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(watch_the_door(traffic, changes, address)),
        Err(e) => drop(address.send(Err(cannot("no runtime").caused_by(e)))),
    }
}

async fn watch_the_door(
    traffic: Arc<Traffic>,
    mut changes: UnboundedReceiver<Change>,
    address: SyncSender<Result<SocketAddr>>,
) {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = bind(anywhere).and_then(|socket| Ok((socket.local_addr()?, socket)));
    let (port, socket) = match bound {
        Ok(bound) => bound,
        Err(e) => return drop(address.send(Err(cannot("no free port").caused_by(e)))),
    };
    address.send(Ok(port)).ok();
    let mut doorway = Some(Doorway::Closed(socket));
    // Dropped at the end, with every connection.
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            change = changes.recv() => {
                let Some(change) = change else { return };
                let changed = Doorway::changed(doorway.take(), change.answer, port).await;
                let result = changed.map(|changed| doorway = Some(changed));
                let result = result.map_err(|e| cannot("cannot listen again").caused_by(e));
                change.done.send(result).ok();
            }
            client = next_client(doorway.as_ref()) => {
                traffic.connections.fetch_add(1, Relaxed);
                served.spawn(connection::serve(client, Arc::clone(&traffic)));
            }
            Some(_) = served.join_next() => {}
        }
    }
}

impl Doorway {
    async fn changed(old: Option<Self>, answer: Answer, port: SocketAddr) -> io::Result<Self> {
        let socket = match (old, answer) {
            (Some(Self::Open(listener)), Answer::Serve) => return Ok(Self::Open(listener)),
            (Some(Self::Closed(socket)), _) => socket,
            (other, _) => {
                // The port is free only when what listened on it is gone.
                drop(other);
                bind(port)?
            }
        };
        match answer {
            Answer::Serve => Ok(Self::Open(socket.listen(BACKLOG)?)),
            Answer::Refuse => Ok(Self::Closed(socket)),
            Answer::None => {
                let listener = socket.listen(0)?;
                let mut queue = Vec::new();
                while let Ok(connected) = timeout(LOCAL_ANSWER, TcpStream::connect(port)).await {
                    queue.push(connected?);
                }
                Ok(Self::Ignored { _listener: listener, _queue: queue })
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of before may still use the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Only an open doorway lets somebody in.
async fn next_client(doorway: Option<&Doorway>) -> TcpStream {
    if let Some(Doorway::Open(listener)) = doorway {
        loop {
            match listener.accept().await {
                Ok((client, _)) => return client,
                // Out of files, say: others may be closed meanwhile.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    std::future::pending().await
}
