//! The one place that names the concrete types: which storage for which URL, which codec for
//! which word.

mod opened;
mod settings;

use std::sync::Arc;

use backup_core::{Result, Storage, Throttled, Transform};
use backup_pg::{Connection, Server};
use secrecy::ExposeSecret;

use crate::Deployment;
pub(crate) use opened::Ability;
use opened::Opened;

use crate::config::{Environment, ObjectsConfig, StorageConfig, Value};

/// The storage that a `[storage.NAME]` describes, to keep objects as `objects` says.
pub(crate) async fn storage(
    name: &str,
    config: &StorageConfig,
    objects: &ObjectsConfig,
    environment: &Environment,
) -> Result<Arc<dyn Storage>> {
    let settings = settings::settings(name, config, objects, environment).await?;
    let storage = Opened::open(name, &config.url, &settings)?.into_storage();
    match config.max_rate {
        Some(rate) => Ok(Arc::new(Throttled::new(storage, rate)?)),
        None => Ok(storage),
    }
}

/// What that storage can tell of itself.
pub(crate) async fn probe(
    name: &str,
    config: &StorageConfig,
    objects: &ObjectsConfig,
    environment: &Environment,
) -> Result<Vec<Ability>> {
    let settings = settings::settings(name, config, objects, environment).await?;
    Opened::open(name, &config.url, &settings)?.probe().await
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
