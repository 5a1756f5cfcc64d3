//! Our side of the comparison of storages: standard input becomes one object.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::Storage;
use backup_core::pipeline::CHUNK_BYTES;
use backup_storage::{S3, Settings, Sftp};
use bytes::BytesMut;
use secrecy::SecretString;
use tokio::io::AsyncReadExt;

use crate::Outcome;

/// First argument of the putting child; then the URL, options as `NAME=VALUE`.
pub const FLAG: &str = "--put";

/// Secrets come as variables of this prefix, so that nobody sees them with `ps`.
pub const SECRET: &str = "BENCH_SECRET_";

/// The putting child.
pub fn put(arguments: &[String]) -> Outcome<()> {
    let url = arguments.first().ok_or("no URL")?;
    let options = arguments[1..].iter().filter_map(|option| option.split_once('='));
    let secrets = std::env::vars().filter_map(|(name, value)| {
        Some((name.strip_prefix(SECRET)?.to_lowercase(), SecretString::from(value)))
    });
    let settings = Settings {
        options: options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        secrets: secrets.collect::<BTreeMap<_, _>>(),
        ..Settings::default()
    };
    let storage: Arc<dyn Storage> = if url.starts_with("s3:") {
        Arc::new(S3::from_url("bench", url, &settings)?)
    } else {
        Arc::new(Sftp::from_url("bench", url, &settings)?)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut writer = storage.begin("object").await?;
        let mut input = tokio::io::stdin();
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            while chunk.len() < CHUNK_BYTES && input.read_buf(&mut chunk).await? > 0 {}
            if chunk.is_empty() {
                writer.commit().await?;
                return Ok(());
            }
            writer.write(chunk.freeze()).await?;
        }
    })
}
