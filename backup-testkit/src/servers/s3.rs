//! S3: SeaweedFS with several identities.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use backup_core::Result;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::process::{Process, free_addresses, new_folder, started};
use super::programs::Programs;
use super::shared::Shared;
use super::{BUCKET, cannot, http};

/// What an access key of the server is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Access {
    /// Everything, in every bucket.
    Admin,
    /// Uploads, multipart ones and their abort included, and tags, to [`BUCKET`] only; no read,
    /// no list, no delete: an IAM policy of `s3:PutObject` and `s3:PutObjectTagging`.
    WriteOnly,
    /// Reads and lists of [`BUCKET`] only.
    ReadOnly,
}

/// An access key and its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct S3Keys {
    /// Says who asks.
    pub access_key: &'static str,
    /// Signs what is asked.
    pub secret_key: &'static str,
}

/// The S3 interface of a SeaweedFS of one's own; it ends when dropped.
///
/// ```no_run
/// use backup_testkit::servers::{BUCKET, S3Access, S3Server};
/// # async fn f() -> backup_core::Result<()> {
/// let server = S3Server::start().await?;
/// let keys = server.keys(S3Access::WriteOnly);
/// println!("{}/{BUCKET}, {}, {}", server.endpoint(), S3Server::REGION, keys.access_key);
/// server.make_locked_bucket("locked").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct S3Server {
    process: Process,
    weed: PathBuf,
    s3: SocketAddr,
    master: SocketAddr,
    master_grpc: SocketAddr,
    volume: SocketAddr,
    scheme: &'static str,
}

static SHARED: Shared<S3Server> = Shared::new();

impl S3Server {
    /// The region to sign for.
    pub const REGION: &str = "us-east-1";

    /// Starts a server that has [`BUCKET`], without versions.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same over TLS, with a certificate and its key in PEM files.
    pub async fn start_over_tls(certificate: &Path, key: &Path) -> Result<Self> {
        Self::start_with(Some((certificate, key))).await
    }

    async fn start_with(tls: Option<(&Path, &Path)>) -> Result<Self> {
        let server = started(|| Self::prepared(tls), Self::up).await?;
        server.make_bucket(BUCKET).await?;
        Ok(server)
    }

    /// The server that tests of this process share; it ends with the last that holds it.
    pub async fn shared() -> Result<Arc<Self>> {
        SHARED.get(Self::start()).await
    }

    fn prepared(tls: Option<(&Path, &Path)>) -> Result<Self> {
        let weed = Programs::listed().weed()?;
        let [s3, s3_grpc, filer, filer_grpc, volume, volume_grpc, master, master_grpc] =
            free_addresses()?;
        let mut process = Process::new("SeaweedFS", &weed, new_folder()?)?;
        let config = process.folder().join("s3.json");
        std::fs::write(&config, identities().to_string())
            .map_err(|e| cannot("cannot write s3.json").caused_by(e))?;
        let command = process.command();
        command.args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        command.args(["-dir=.", "-filer", "-s3", "-s3.config=s3.json", "-master.telemetry=false"]);
        command.args(["-volume.max=200", "-master.volumeSizeLimitMB=64"]);
        // Nobody to vote with: else a restart takes a quarter of a minute.
        command.args(["-master.peers=none", "-master.electionTimeout=300ms"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]);
        if let Some((certificate, key)) = tls {
            command.arg(format!("-s3.cert.file={}", certificate.display()));
            command.arg(format!("-s3.key.file={}", key.display()));
        }
        let ports = [
            ("s3", s3, s3_grpc),
            ("filer", filer, filer_grpc),
            ("volume", volume, volume_grpc),
            ("master", master, master_grpc),
        ];
        for (part, port, grpc) in ports {
            command.arg(format!("-{part}.port={}", port.port()));
            command.arg(format!("-{part}.port.grpc={}", grpc.port()));
        }
        // It is not asked where to put these.
        process.removes_at_the_end(ports.map(|(part, _, grpc)| {
            PathBuf::from(format!("/tmp/seaweedfs-{part}-grpc-{}.sock", grpc.port()))
        }));
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Self { process, weed, s3, master, master_grpc, volume, scheme })
    }

    async fn up(mut self) -> Result<Self> {
        self.come_up().await.map(|()| self)
    }

    async fn come_up(&mut self) -> Result<()> {
        let (s3, master, volume) = (self.s3, self.master, self.volume.to_string());
        let volume = &volume;
        self.process
            .start(|| async move {
                // Refused without a signature (or without TLS), which is an answer.
                http::request(s3, "GET /", "", "").await.is_ok()
                    // Before the volumes are announced, reads and writes fail or wait.
                    && http::request(master, "GET /dir/status", "", "")
                        .await
                        .is_ok_and(|answer| answer.text.contains(volume))
            })
            .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.s3
    }

    /// The URL for clients, which must put the bucket into the path.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.s3)
    }

    /// The credentials with the rights asked for.
    pub fn keys(&self, access: S3Access) -> S3Keys {
        keys(access)
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Makes a bucket without versions; names have at least three characters.
    pub async fn make_bucket(&self, name: &str) -> Result<()> {
        self.shell(&format!("s3.bucket.create -name {name}\n")).await
    }

    /// Makes a bucket with versions and object lock, without a default retention.
    pub async fn make_locked_bucket(&self, name: &str) -> Result<()> {
        self.shell(&format!(
            "s3.bucket.create -name {name}\ns3.bucket.versioning -name {name} -status Enabled\n\
             s3.bucket.lock -name {name} -enable\n"
        ))
        .await
    }

    /// Runs commands of `weed shell`, which says what failed and succeeds all the same.
    async fn shell(&self, commands: &str) -> Result<()> {
        let failed = |e| cannot("`weed shell` failed").caused_by(e);
        let mut shell = Command::new(&self.weed);
        let master = format!("-master={}.{}", self.master, self.master_grpc.port());
        shell.args(["-logtostderr=true", "shell", &master]);
        shell.env("TMPDIR", self.process.folder()).current_dir(self.process.folder());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = shell.kill_on_drop(true).spawn().map_err(failed)?;
        if let Some(mut input) = shell.stdin.take() {
            input.write_all(commands.as_bytes()).await.map_err(failed)?;
        }
        let output = shell.wait_with_output().await.map_err(failed)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() && !errors.contains("error") {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        Err(cannot(format!("`weed shell` refused {commands:?}: {said} {errors}")))
    }

    /// Ends it as a crash would: asked to end, it takes a quarter of a minute.
    pub async fn end(&mut self) -> Result<()> {
        self.process.kill();
        Ok(())
    }

    /// Starts it again, on its port with its data.
    pub async fn start_again(&mut self) -> Result<()> {
        self.come_up().await
    }
}

fn keys(access: S3Access) -> S3Keys {
    // Characters that are special in URLs and headers, as real secrets have them.
    let (access_key, secret_key) = match access {
        S3Access::Admin => ("TESTADMIN", "admin/secret+of=the/test"),
        S3Access::WriteOnly => ("TESTWRITER", "writer/secret+of=the/test"),
        S3Access::ReadOnly => ("TESTREADER", "reader/secret+of=the/test"),
    };
    S3Keys { access_key, secret_key }
}

fn identities() -> serde_json::Value {
    let credentials = |access| {
        let S3Keys { access_key, secret_key } = keys(access);
        json!([{ "accessKey": access_key, "secretKey": secret_key }])
    };
    // Its own action "Write" would allow deletes too.
    let put_only = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:PutObjectTagging"],
            "Resource": [format!("arn:aws:s3:::{BUCKET}/*")],
        }],
    });
    json!({
        "identities": [
            { "name": "admin", "credentials": credentials(S3Access::Admin),
              "actions": ["Admin", "Read", "Write", "List", "Tagging"] },
            { "name": "writer", "credentials": credentials(S3Access::WriteOnly),
              "policyNames": ["put-only"] },
            { "name": "reader", "credentials": credentials(S3Access::ReadOnly),
              "actions": [format!("Read:{BUCKET}"), format!("List:{BUCKET}")] },
        ],
        "policies": [{ "name": "put-only", "content": put_only.to_string() }],
    })
}
