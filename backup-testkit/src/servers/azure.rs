//! Azure Blob Storage: Azurite with its well-known account.

use std::net::SocketAddr;
use std::sync::Arc;

use backup_core::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::process::{Process, free_addresses, new_folder, started};
use super::programs::Programs;
use super::shared::Shared;
use super::{BUCKET, cannot, http};

/// The version of the interface that the signatures are of.
const VERSION: &str = "2021-12-02";
/// When a signature ends: no test lasts that long.
const EXPIRY: &str = "2099-01-01T00:00:00Z";

/// An Azurite of one's own; it ends when dropped.
#[derive(Debug)]
pub struct AzureServer {
    process: Process,
    address: SocketAddr,
}

static SHARED: Shared<AzureServer> = Shared::new();

impl AzureServer {
    /// Azurite's account.
    pub const ACCOUNT: &str = "devstoreaccount1";
    /// The account's key in Base64; Azurite's documentation publishes it.
    pub const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts a server that has the container [`BUCKET`].
    pub async fn start() -> Result<Self> {
        let server = started(Self::prepared, Self::up).await?;
        server.make_container(BUCKET).await?;
        Ok(server)
    }

    /// The server that tests of this process share; it ends with the last that holds it.
    pub async fn shared() -> Result<Arc<Self>> {
        SHARED.get(Self::start()).await
    }

    fn prepared() -> Result<Self> {
        let (node, azurite) = Programs::listed().azurite()?;
        let [address] = free_addresses()?;
        let mut process = Process::new("Azurite", &node, new_folder()?)?;
        let command = process.command();
        command.arg(azurite).args(["--blobHost", "127.0.0.1", "--blobPort"]);
        command.arg(address.port().to_string()).args(["--location", "files"]);
        command.args(["--silent", "--skipApiVersionCheck"]);
        Ok(Self { process, address })
    }

    async fn up(mut self) -> Result<Self> {
        self.come_up().await.map(|()| self)
    }

    async fn come_up(&mut self) -> Result<()> {
        let address = self.address;
        let target = &format!("GET /{}?comp=list", Self::ACCOUNT);
        // Refused without a signature, which is an answer.
        self.process
            .start(|| async move { http::request(address, target, "", "").await.is_ok() })
            .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients, with the account in its path.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{}", self.address, Self::ACCOUNT)
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Makes a container.
    pub async fn make_container(&self, name: &str) -> Result<()> {
        let sas = self.sas("cw")?;
        let target = format!("PUT /{}/{name}?restype=container&{sas}", Self::ACCOUNT);
        let head = format!("x-ms-version: {VERSION}\r\n");
        let answer = http::request(self.address, &target, &head, "").await?;
        answer.succeeded(&format!("the container {name}"))
    }

    /// A shared access signature for the account's blobs and containers, as a query string.
    ///
    /// `permissions` are letters of Azure's, in its order: `rwdlacu` is read, write, delete,
    /// list, add, create, update. `"cw"` may upload and neither read, list nor delete.
    ///
    /// # Errors
    /// Never: the key is a constant.
    pub fn sas(&self, permissions: &str) -> Result<String> {
        let account = Self::ACCOUNT;
        let signed = format!("{account}\n{permissions}\nb\nsco\n\n{EXPIRY}\n\n\n{VERSION}\n\n");
        let key = STANDARD.decode(Self::KEY).map_err(|e| cannot("the key").caused_by(e))?;
        let mac = Hmac::<Sha256>::new_from_slice(&key);
        let mut mac = mac.map_err(|e| cannot("the key").caused_by(e))?;
        mac.update(signed.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let expiry = EXPIRY.replace(':', "%3A");
        Ok(format!("sv={VERSION}&ss=b&srt=sco&sp={permissions}&se={expiry}&sig={signature}"))
    }

    /// Ends it; what was committed is kept.
    pub async fn end(&mut self) -> Result<()> {
        self.process.end().await
    }

    /// Starts it again, on its port with its data.
    pub async fn start_again(&mut self) -> Result<()> {
        self.come_up().await
    }
}
