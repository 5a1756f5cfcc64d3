//! The one file that names the concrete types: which storage for which URL, which codec for
//! which word.

use std::sync::Arc;

use backup_core::{Error, Result, Storage, Transform};
use backup_pg::{Connection, Server};
use secrecy::ExposeSecret;

use crate::Deployment;
use crate::config::Value;

/// The storage for a URL.
pub(crate) fn storage(name: &str, url: &str) -> Result<Arc<dyn Storage>> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        #[cfg(feature = "local")]
        "file" => Ok(Arc::new(backup_storage::Local::from_url(name, url)?)),
        _ => Err(Error::usage(
            "storage",
            format!("storage {name:?}: this program can't write to {scheme:?}"),
        )
        .next_step("use a URL like file:///backups")),
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
