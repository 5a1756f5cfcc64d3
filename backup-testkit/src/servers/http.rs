//! Just enough of HTTP to see that a server is ready and to ask it for a bucket.

use std::net::SocketAddr;
use std::time::Duration;

use backup_core::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cannot;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A server's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Head and body as they came.
    pub(super) text: String,
}

impl Answer {
    /// An error that says what was asked for, unless the status is one of success.
    pub(super) fn succeeded(self, what: &str) -> Result<()> {
        if (200..300).contains(&self.status) {
            return Ok(());
        }
        Err(cannot(format!("{what} was refused: {}", self.text)))
    }
}

/// Sends one request on a connection of its own; `head` are further header lines, each with CRLF.
pub(super) async fn request(
    server: SocketAddr,
    method_and_target: &str,
    head: &str,
    body: &str,
) -> Result<Answer> {
    let request = format!(
        "{method_and_target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Length: {}\r\n{head}\r\n{body}",
        body.len()
    );
    let answer = timeout(ANSWER_TIMEOUT, exchange(server, request.as_bytes()));
    let failed = |cause| cannot(format!("no answer from {server}")).caused_by(cause);
    let bytes = answer.await.map_err(|e| failed(e.into()))?.map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| cannot(format!("{server} does not speak HTTP: {text}")))?;
    Ok(Answer { status, text })
}

async fn exchange(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(request).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(answer)
}
