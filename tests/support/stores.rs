//! A server of every kind of storage, and the configuration of a scratch that uses them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::Storage;
use backup_storage::{Azure, Gcs, S3, Settings, Sftp};
use backup_testkit::servers::{AzureServer, BUCKET, GcsServer, S3Access, S3Server, SftpServer};

use super::Scratch;

/// The names of the storages that [`Stores::configure`] adds.
pub const STORES: [&str; 4] = ["s3", "azure", "gcs", "sftp"];

/// One server of each kind.
pub struct Stores {
    pub s3: S3Server,
    pub azure: AzureServer,
    pub gcs: GcsServer,
    pub sftp: SftpServer,
}

impl Stores {
    /// Starts them.
    pub async fn start() -> Self {
        let (s3, azure, gcs, sftp) = tokio::join!(
            S3Server::start(),
            AzureServer::start(),
            GcsServer::start(),
            SftpServer::start()
        );
        Self { s3: s3.unwrap(), azure: azure.unwrap(), gcs: gcs.unwrap(), sftp: sftp.unwrap() }
    }

    /// Adds a storage for each server to the config, and all of them to the job, behind `local`.
    pub fn configure(&self, scratch: &Scratch) {
        let names = STORES.map(|name| format!("'{name}'")).join(", ");
        scratch.edit_config("storages = ['local']", &format!("storages = ['local', {names}]"));
        let sections = self.s3_section() + &azure_section(&self.azure) + &gcs_section(&self.gcs);
        scratch.edit_config(
            "[encryption]",
            &format!("{sections}{}[encryption]", sftp_section(&self.sftp)),
        );
    }

    /// `[storage.s3]`.
    pub fn s3_section(&self) -> String {
        s3_section(&self.s3, &self.s3.endpoint())
    }
}

/// `[storage.azure]` for a server.
pub fn azure_section(server: &AzureServer) -> String {
    format!(
        "[storage.azure]\nurl = 'az://{BUCKET}/backups'\noptions = {{ endpoint = '{}', account_name = '{}' }}\n\
         secrets = {{ account_key = '{}' }}\n",
        server.endpoint(),
        AzureServer::ACCOUNT,
        AzureServer::KEY
    )
}

/// `[storage.gcs]` for a server.
pub fn gcs_section(server: &GcsServer) -> String {
    format!(
        "[storage.gcs]\nurl = 'gs://{BUCKET}/backups'\noptions = {{ endpoint = '{}', anonymous = 'yes' }}\n",
        server.endpoint()
    )
}

/// `[storage.sftp]` for a server.
pub fn sftp_section(server: &SftpServer) -> String {
    format!(
        "[storage.sftp]\nurl = '{}/backups'\noptions = {{ identity_file = '{}', known_hosts = '{}' }}\n",
        server.url(),
        server.key_file().display(),
        server.known_hosts_file().display()
    )
}

/// `[storage.s3]` for a server that is reached at `endpoint`, impatient.
pub fn s3_section(server: &S3Server, endpoint: &str) -> String {
    let keys = server.keys(S3Access::Admin);
    format!(
        "[storage.s3]\nurl = 's3://{BUCKET}/backups'\noptions = {{ endpoint = '{endpoint}', region = '{}' }}\n\
         secrets = {{ access_key_id = '{}', secret_access_key = '{}' }}\n\
         request_timeout = '2s'\nretry_deadline = '4s'\n",
        S3Server::REGION,
        keys.access_key,
        keys.secret_key
    )
}

/// One server beyond this host, and the ways to it.
pub enum Service {
    S3(S3Server),
    Azure(AzureServer),
    Gcs(GcsServer),
    Sftp(SftpServer),
}

impl Service {
    /// Starts the server of one of [`STORES`].
    pub async fn start(name: &str) -> Self {
        match name {
            "s3" => Self::S3(S3Server::start().await.unwrap()),
            "azure" => Self::Azure(AzureServer::start().await.unwrap()),
            "gcs" => Self::Gcs(GcsServer::start().await.unwrap()),
            "sftp" => Self::Sftp(SftpServer::start().await.unwrap()),
            other => panic!("no server of {other}"),
        }
    }

    /// Its name among [`STORES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Azure(_) => "azure",
            Self::Gcs(_) => "gcs",
            Self::Sftp(_) => "sftp",
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::S3(server) => server.address(),
            Self::Azure(server) => server.address(),
            Self::Gcs(server) => server.address(),
            Self::Sftp(server) => server.address(),
        }
    }

    /// `[storage.NAME]`, its objects below `backups`.
    pub fn section(&self) -> String {
        match self {
            Self::S3(server) => s3_section(server, &server.endpoint()),
            Self::Azure(server) => azure_section(server),
            Self::Gcs(server) => gcs_section(server),
            Self::Sftp(server) => sftp_section(server),
        }
    }

    /// The storage on one of its folders, reached at `via`. Impatient.
    pub fn storage(&self, folder: &str, via: SocketAddr) -> Arc<dyn Storage> {
        let mut settings = Settings {
            ambient_credentials: false,
            request_timeout: Duration::from_secs(2),
            retry_deadline: Duration::from_secs(6),
            ..Settings::default()
        };
        let mut option = |name: &str, value: String| settings.options.insert(name.into(), value);
        match self {
            Self::S3(server) => {
                option("endpoint", format!("http://{via}"));
                option("region", S3Server::REGION.to_owned());
                option("part_size", "5MiB".to_owned());
                let keys = server.keys(S3Access::Admin);
                for (name, value) in
                    [("access_key_id", keys.access_key), ("secret_access_key", keys.secret_key)]
                {
                    settings.secrets.insert(name.into(), value.to_owned().into());
                }
                Arc::new(S3::from_url("s3", &format!("s3://{BUCKET}/{folder}"), &settings).unwrap())
            }
            Self::Azure(_) => {
                option("endpoint", format!("http://{via}/{}", AzureServer::ACCOUNT));
                option("account_name", AzureServer::ACCOUNT.to_owned());
                option("part_size", "5MiB".to_owned());
                settings.secrets.insert("account_key".into(), AzureServer::KEY.to_owned().into());
                let url = format!("az://{BUCKET}/{folder}");
                Arc::new(Azure::from_url("azure", &url, &settings).unwrap())
            }
            Self::Gcs(_) => {
                option("endpoint", format!("http://{via}"));
                option("anonymous", "yes".to_owned());
                Arc::new(
                    Gcs::from_url("gcs", &format!("gs://{BUCKET}/{folder}"), &settings).unwrap(),
                )
            }
            Self::Sftp(server) => {
                let known_hosts = server.folder().join(format!("{folder}-{}", via.port()));
                let line = format!("[{}]:{} {}\n", via.ip(), via.port(), server.host_key());
                if !known_hosts.exists() {
                    std::fs::write(&known_hosts, line).unwrap();
                }
                option("known_hosts", known_hosts.display().to_string());
                option("identity_file", server.key_file().display().to_string());
                let place = server.folder().join(folder);
                let url = format!("sftp://{}@{via}{}", server.user(), place.display());
                Arc::new(Sftp::from_url("sftp", &url, &settings).unwrap())
            }
        }
    }

    /// How much was begun below a folder and neither finished nor removed, as the server itself
    /// tells: unfinished uploads, files of another name. GCS and Azure don't show theirs.
    pub async fn pending(&self, folder: &str) -> usize {
        match self {
            Self::S3(server) => {
                let keys = server.keys(S3Access::Admin);
                let listed = tokio::process::Command::new("curl")
                    .args(["-sS", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
                    .arg(format!("{}:{}", keys.access_key, keys.secret_key))
                    .arg(format!("{}/{BUCKET}?prefix={folder}%2F&uploads=", server.endpoint()))
                    .output()
                    .await
                    .unwrap();
                assert!(listed.status.success(), "{listed:?}");
                String::from_utf8_lossy(&listed.stdout).matches("<UploadId>").count()
            }
            Self::Sftp(server) => {
                let partial = |path: &PathBuf| path.extension().is_some_and(|e| e == "partial");
                files_below(&server.folder().join(folder)).iter().filter(|p| partial(p)).count()
            }
            Self::Azure(_) | Self::Gcs(_) => 0,
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    super::collect_files(folder, &mut files);
    files
}
