//! A relay in front of a real server that loses an answer: the server does what it was asked to,
//! and nobody hears of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A relay that cuts the connection of a request with `mark` in it, after `answer_bytes` of the
/// answer.
pub struct Forgetful {
    pub address: SocketAddr,
    struck: Arc<AtomicBool>,
}

impl Forgetful {
    /// Loses the answer to the first such request.
    pub async fn once(server: SocketAddr, mark: &'static str, answer_bytes: usize) -> Self {
        Self::before(server, mark, answer_bytes, true).await
    }

    /// Loses the answers to all such requests.
    pub async fn always(server: SocketAddr, mark: &'static str) -> Self {
        Self::before(server, mark, 0, false).await
    }

    async fn before(
        server: SocketAddr,
        mark: &'static str,
        answer_bytes: usize,
        once: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let struck = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&struck);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                let strike = Strike { mark, answer_bytes, once, struck: Arc::clone(&shared) };
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
    answer_bytes: usize,
    once: bool,
    struck: Arc<AtomicBool>,
}

async fn relay(client: TcpStream, server: TcpStream, strike: Strike) {
    let answer_bytes = strike.answer_bytes;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let doomed = Arc::new(AtomicBool::new(false));
    let dooms = Arc::clone(&doomed);
    let up = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..read.min(4096)]);
            let meant = text.contains(strike.mark);
            if meant && !(strike.struck.swap(true, Ordering::SeqCst) && strike.once) {
                dooms.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    });
    let (mut buffer, mut passed) = (vec![0; 64 * 1024], 0);
    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
        if doomed.load(Ordering::SeqCst) {
            passed += read;
            if passed > answer_bytes {
                break;
            }
        }
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    up.abort();
}
