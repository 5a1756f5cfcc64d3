//! The storages by their types: what a URL's scheme opens, and what each can tell of itself.

use std::sync::Arc;

use backup_core::{Error, Result, Storage};
use backup_storage::Settings;

/// What a storage's URL looks like.
const URLS: [&str; 5] = [
    "file:///backups",
    "s3://bucket/prefix",
    "gs://bucket/prefix",
    "az://container/prefix",
    "sftp://user@host/path",
];

/// A storage of a known type.
pub(super) enum Opened {
    #[cfg(feature = "local")]
    Local(backup_storage::Local),
    #[cfg(feature = "s3")]
    S3(backup_storage::S3),
    #[cfg(feature = "gcs")]
    Gcs(backup_storage::Gcs),
    #[cfg(feature = "azure")]
    Azure(backup_storage::Azure),
    #[cfg(feature = "sftp")]
    Sftp(backup_storage::Sftp),
}

/// What a storage can do, or can't and should.
pub(crate) struct Ability {
    /// In words.
    pub(crate) message: String,
    /// What to do where something is missing.
    pub(crate) remedy: Option<String>,
    /// Whether every backup will be refused.
    pub(crate) fatal: bool,
}

impl Opened {
    /// Opens the storage of a URL.
    #[cfg_attr(
        not(any(
            feature = "s3",
            feature = "gcs",
            feature = "azure",
            feature = "sftp",
            feature = "local"
        )),
        allow(unused_variables, reason = "without any storage there is nothing to set")
    )]
    pub(super) fn open(name: &str, url: &str, settings: &Settings) -> Result<Self> {
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            #[cfg(feature = "local")]
            "file" => {
                settings.refuse_all(name)?;
                backup_storage::Local::from_url(name, url).map(Self::Local)
            }
            #[cfg(feature = "s3")]
            "s3" => backup_storage::S3::from_url(name, url, settings).map(Self::S3),
            #[cfg(feature = "gcs")]
            "gs" => backup_storage::Gcs::from_url(name, url, settings).map(Self::Gcs),
            #[cfg(feature = "azure")]
            "az" => backup_storage::Azure::from_url(name, url, settings).map(Self::Azure),
            #[cfg(feature = "sftp")]
            "sftp" | "scp" => backup_storage::Sftp::from_url(name, url, settings).map(Self::Sftp),
            scheme => Err(Error::usage(
                "storage",
                format!("storage {name:?}: this program can't write to {scheme:?}"),
            )
            .next_step(format!("use a URL like {}", URLS.join(" or ")))),
        }
    }

    /// The storage as the verbs know it.
    pub(super) fn into_storage(self) -> Arc<dyn Storage> {
        match self {
            #[cfg(feature = "local")]
            Self::Local(storage) => Arc::new(storage),
            #[cfg(feature = "s3")]
            Self::S3(storage) => Arc::new(storage),
            #[cfg(feature = "gcs")]
            Self::Gcs(storage) => Arc::new(storage),
            #[cfg(feature = "azure")]
            Self::Azure(storage) => Arc::new(storage),
            #[cfg(feature = "sftp")]
            Self::Sftp(storage) => Arc::new(storage),
        }
    }

    /// Finds out, where need be with a real object, what the storage keeps of what is asked.
    pub(super) async fn probe(&self) -> Result<Vec<Ability>> {
        #[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
        let told = |findings: Vec<backup_storage::Finding>| {
            let able = |one: backup_storage::Finding| Ability {
                message: format!("{}: {}", one.ability, one.message),
                remedy: one.remedy,
                fatal: one.fatal,
            };
            findings.into_iter().map(able).collect()
        };
        match *self {
            #[cfg(feature = "local")]
            Self::Local(_) => Ok(Vec::new()),
            #[cfg(feature = "s3")]
            Self::S3(ref storage) => storage.probe().await.map(told),
            #[cfg(feature = "gcs")]
            Self::Gcs(ref storage) => storage.probe().await.map(told),
            #[cfg(feature = "azure")]
            Self::Azure(ref storage) => storage.probe().await.map(told),
            #[cfg(feature = "sftp")]
            Self::Sftp(ref storage) => storage.probe().await.map(|server| sftp_abilities(&server)),
        }
    }
}

#[cfg(feature = "sftp")]
fn sftp_abilities(server: &backup_storage::SftpServer) -> Vec<Ability> {
    let ability = |can: bool, fine: &str, missing: &str, remedy: &str| Ability {
        message: if can { fine } else { missing }.to_owned(),
        remedy: (!can).then(|| remedy.to_owned()),
        fatal: false,
    };
    vec![
        ability(
            server.syncs,
            "what is accepted is on the server's disk (fsync)",
            "accepted, not durable: the server can't sync a file to its disk",
            "use a server with OpenSSH's sftp-server, or count on another storage",
        ),
        ability(
            server.excludes,
            "of two runs one gets an id",
            "the server can't make a name that is not taken (no hard links): what its rename does \
             is tried before each claim, and where it replaces files no backup is stored",
            "use a server with OpenSSH's sftp-server",
        ),
    ]
}
