//! The one file that names the concrete types: which storage for which URL, which codec for
//! which word.

mod settings;

use std::sync::Arc;

use backup_core::{Error, Result, Storage, Throttled, Transform};
use backup_pg::{Connection, Server};
use secrecy::ExposeSecret;

use crate::Deployment;
use crate::config::{Environment, ObjectsConfig, StorageConfig, Value};

/// What a storage's URL looks like.
const URLS: [&str; 5] = [
    "file:///backups",
    "s3://bucket/prefix",
    "gs://bucket/prefix",
    "az://container/prefix",
    "sftp://user@host/path",
];

/// The storage that a `[storage.NAME]` describes, to keep objects as `objects` says.
pub(crate) async fn storage(
    name: &str,
    config: &StorageConfig,
    objects: &ObjectsConfig,
    environment: &Environment,
) -> Result<Arc<dyn Storage>> {
    let url = config.url.as_str();
    let settings = settings::settings(name, config, objects, environment).await?;
    let storage: Arc<dyn Storage> = match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "local")]
        "file" => {
            settings.refuse_all(name)?;
            Arc::new(backup_storage::Local::from_url(name, url)?)
        }
        #[cfg(feature = "s3")]
        "s3" => Arc::new(backup_storage::S3::from_url(name, url, &settings)?),
        #[cfg(feature = "gcs")]
        "gs" => Arc::new(backup_storage::Gcs::from_url(name, url, &settings)?),
        #[cfg(feature = "azure")]
        "az" => Arc::new(backup_storage::Azure::from_url(name, url, &settings)?),
        #[cfg(feature = "sftp")]
        "sftp" | "scp" => Arc::new(backup_storage::Sftp::from_url(name, url, &settings)?),
        scheme => {
            return Err(Error::usage(
                "storage",
                format!("storage {name:?}: this program can't write to {scheme:?}"),
            )
            .next_step(format!("use a URL like {}", URLS.join(" or "))));
        }
    };
    match config.max_rate {
        Some(rate) => Ok(Arc::new(Throttled::new(storage, rate)?)),
        None => Ok(storage),
    }
}

/// The codec for a word of the configuration; `none` has none.
pub(crate) fn compression(word: &str) -> Result<Option<Arc<dyn Transform>>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let codec = backup_compress::Compression::parse(word)?;
    Ok(codec.transform(threads).map(Arc::from))
}

/// Every codec that can be undone here.
pub(crate) fn codecs() -> Vec<Arc<dyn Transform>> {
    ["zstd", "gzip"].into_iter().filter_map(backup_compress::decoder).map(Arc::from).collect()
}

/// The name of this host, for manifests.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Deployment {
    /// Connects to the database that `url` names.
    pub(crate) async fn connect(&self, url: &Value, what: &'static str) -> Result<Server> {
        Server::connect(&self.connection(url, what).await?, &self.tool_search()).await
    }

    /// The connection that `url` names.
    pub(crate) async fn connection(&self, url: &Value, what: &'static str) -> Result<Connection> {
        url.fetch(what, self.environment()).await?.expose_secret().trim().parse()
    }
}
