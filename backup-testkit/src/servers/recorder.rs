//! A way to a server of HTTP that writes down what is asked on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::cannot;

/// Longest head of a request that is understood, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// A relay in front of a server. Passes everything on, unchanged, and keeps the head of every
/// request. It ends when dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    heads: Heads,
    task: JoinHandle<()>,
}

type Heads = Arc<Mutex<Vec<String>>>;

impl Recorder {
    /// A relay in front of `server`.
    pub async fn before(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|e| cannot("no port for a relay").caused_by(e))?;
        let address = listener.local_addr().map_err(|e| cannot("no address").caused_by(e))?;
        let heads = Heads::default();
        let shared = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, heads, task })
    }

    /// Where it listens, as an endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of the requests so far, in order: a line `GET /path?query HTTP/1.1` and one for
    /// each header, names in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, server: SocketAddr, heads: Heads) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let (mut buffer, mut requests) = (vec![0; HEAD_BYTES], Requests::default());
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            requests.take(&buffer[..read], &heads);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}

/// Finds the heads in what one connection sends.
#[derive(Default)]
struct Requests {
    head: Vec<u8>,
    /// Bytes of the current body that are still to come.
    body: usize,
}

impl Requests {
    fn take(&mut self, mut bytes: &[u8], heads: &Heads) {
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.head.push(byte);
            if self.head.ends_with(b"\r\n\r\n") || self.head.len() == HEAD_BYTES {
                let head = head(&std::mem::take(&mut self.head));
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                self.body = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
            }
        }
    }
}

fn head(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.map(|line| match line.split_once(':') {
        Some((name, value)) => format!("\n{}: {}", name.to_lowercase(), value.trim()),
        None => format!("\n{line}"),
    });
    first + &headers.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_between_bodies_however_they_arrive() {
        let sent =
            b"PUT /a HTTP/1.1\r\nContent-Length: 4\r\nX: Y\r\n\r\nGET GET /b HTTP/1.1\r\n\r\n";
        for step in [1, 3, 1000] {
            let (heads, mut requests) = (Heads::default(), Requests::default());
            sent.chunks(step).for_each(|piece| requests.take(piece, &heads));
            let found = heads.lock().unwrap().clone();
            assert_eq!(found, ["PUT /a HTTP/1.1\ncontent-length: 4\nx: Y", "GET /b HTTP/1.1"]);
        }
    }
}
