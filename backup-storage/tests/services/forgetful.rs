//! A relay in front of a real server that loses an answer, or keeps it back: the server does what
//! it was asked to, and nobody hears of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request with the mark in it.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The connection is cut after so many bytes of the answer.
    Cut(usize),
    /// The answer comes this much later.
    Late(Duration),
    /// It never arrives, and nothing ever comes back.
    Swallowed,
    /// The relay itself answers that it does not know such a thing.
    Refused,
}

/// A relay that does something to the requests with a mark in them.
pub struct Forgetful {
    pub address: SocketAddr,
    struck: Arc<AtomicBool>,
}

impl Forgetful {
    /// Loses the answer to the first such request.
    pub async fn once(server: SocketAddr, mark: &'static str, answer_bytes: usize) -> Self {
        Self::before(server, mark, Fate::Cut(answer_bytes), true).await
    }

    /// Keeps the answer to the first such request back for some time.
    pub async fn late(server: SocketAddr, mark: &'static str, by: Duration) -> Self {
        Self::before(server, mark, Fate::Late(by), true).await
    }

    /// Lets no such request through, and never answers.
    pub async fn swallowing(server: SocketAddr, mark: &'static str) -> Self {
        Self::before(server, mark, Fate::Swallowed, false).await
    }

    /// Refuses all such requests, as a service does that lacks something.
    pub async fn refusing(server: SocketAddr, mark: &'static str) -> Self {
        Self::before(server, mark, Fate::Refused, false).await
    }

    /// Loses the answers to all such requests.
    pub async fn always(server: SocketAddr, mark: &'static str) -> Self {
        Self::before(server, mark, Fate::Cut(0), false).await
    }

    async fn before(server: SocketAddr, mark: &'static str, fate: Fate, once: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let struck = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&struck);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let strike = Strike { mark, fate, once, struck: Arc::clone(&shared) };
                tokio::spawn(relay(client, server, strike));
            }
        });
        Self { address, struck }
    }

    /// Whether an answer was lost.
    pub fn struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst)
    }
}

struct Strike {
    mark: &'static str,
    fate: Fate,
    once: bool,
    struck: Arc<AtomicBool>,
}

impl Strike {
    fn hits(&self, request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(&request[..request.len().min(4096)]);
        let meant = text.to_lowercase().contains(&self.mark.to_lowercase());
        meant && !(self.struck.swap(true, Ordering::SeqCst) && self.once)
    }
}

/// What a service answers that lacks something.
const REFUSAL: &str = "HTTP/1.1 501 Not Implemented\r\ncontent-type: application/xml\r\n\
    content-length: 64\r\nconnection: close\r\n\r\n\
    <Error><Code>NotImplemented</Code><Message>no</Message> </Error>";

async fn relay(client: TcpStream, server: TcpStream, strike: Strike) {
    let fate = strike.fate;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let doomed = Arc::new(AtomicBool::new(false));
    let dooms = Arc::clone(&doomed);
    let up = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if strike.hits(&buffer[..read]) {
                dooms.store(true, Ordering::SeqCst);
            }
            let stopped = matches!(fate, Fate::Swallowed | Fate::Refused);
            if stopped && dooms.load(Ordering::SeqCst) {
                if matches!(fate, Fate::Refused) {
                    break;
                }
                continue;
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        (from_client, to_server)
    });
    let (mut buffer, mut passed) = (vec![0; 64 * 1024], 0);
    if matches!(fate, Fate::Refused) {
        tokio::pin!(up);
        loop {
            tokio::select! {
                ended = &mut up => {
                    if doomed.load(Ordering::SeqCst) && ended.is_ok() {
                        let _ = to_client.write_all(REFUSAL.as_bytes()).await;
                        let _ = to_client.shutdown().await;
                    }
                    return;
                }
                read = from_server.read(&mut buffer) => {
                    let Ok(read @ 1..) = read else { return };
                    if to_client.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
        match fate {
            Fate::Cut(answer_bytes) if doomed.load(Ordering::SeqCst) => {
                passed += read;
                if passed > answer_bytes {
                    break;
                }
            }
            Fate::Late(by) if doomed.swap(false, Ordering::SeqCst) => tokio::time::sleep(by).await,
            _ => {}
        }
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    up.abort();
}
