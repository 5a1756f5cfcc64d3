//! GCS: fake-gcs-server, which is there once with its files and asks for no credentials.

use std::net::SocketAddr;
use std::sync::Arc;

use backup_core::Result;
use serde_json::json;

use super::process::{Process, free_addresses, new_folder, started};
use super::programs::Programs;
use super::shared::Shared;
use super::{BUCKET, cannot, http};

/// A fake-gcs-server of one's own; it ends when dropped.
///
/// Its resumable uploads lead back to the host that was asked, so they stay behind a proxy.
#[derive(Debug)]
pub struct GcsServer {
    process: Process,
    address: SocketAddr,
}

static SHARED: Shared<GcsServer> = Shared::new();

impl GcsServer {
    /// Starts a server that has [`BUCKET`].
    pub async fn start() -> Result<Self> {
        let server = started(Self::prepared, Self::up).await?;
        server.make_bucket(BUCKET).await?;
        Ok(server)
    }

    /// The server that tests of this process share; it ends with the last that holds it.
    pub async fn shared() -> Result<Arc<Self>> {
        SHARED.get(Self::start()).await
    }

    fn prepared() -> Result<Self> {
        let program = Programs::listed().fake_gcs()?;
        let [address] = free_addresses()?;
        let mut process = Process::new("fake-gcs-server", &program, new_folder()?)?;
        let files = process.folder().join("files");
        std::fs::create_dir(&files).map_err(|e| cannot("no folder for files").caused_by(e))?;
        let command = process.command();
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port"]);
        command.arg(address.port().to_string());
        command.args(["-backend", "filesystem", "-filesystem-root"]).arg(files);
        command.args(["-log-level", "warn"]);
        Ok(Self { process, address })
    }

    async fn up(mut self) -> Result<Self> {
        self.come_up().await.map(|()| self)
    }

    async fn come_up(&mut self) -> Result<()> {
        let target = "GET /storage/v1/b";
        let address = self.address;
        self.process
            .start(|| async move {
                http::request(address, target, "", "").await.is_ok_and(|a| a.status == 200)
            })
            .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Makes a bucket.
    pub async fn make_bucket(&self, name: &str) -> Result<()> {
        let body = json!({ "name": name }).to_string();
        let head = "Content-Type: application/json\r\n";
        let answer = http::request(self.address, "POST /storage/v1/b", head, &body).await?;
        answer.succeeded(&format!("the bucket {name}"))
    }

    /// Ends it; unfinished resumable uploads are lost, files stay.
    pub async fn end(&mut self) -> Result<()> {
        self.process.end().await
    }

    /// Starts it again, on its port with its files.
    pub async fn start_again(&mut self) -> Result<()> {
        self.come_up().await
    }
}
