//! Our side of the comparison of storages: standard input becomes one object.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use backup_core::Storage;
use backup_core::pipeline::{CHUNK_BYTES, PIPE_DEPTH};
use backup_storage::{S3, Settings, Sftp};
use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

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
        let (chunks, mut read) = mpsc::channel(PIPE_DEPTH);
        let reading = std::thread::spawn(move || read_input(&chunks));
        while let Some(chunk) = read.recv().await {
            writer.write(chunk).await?;
        }
        reading.join().map_err(|_| "the reader died")??;
        writer.commit().await?;
        Ok(())
    })
}

/// Standard input in chunks, on a thread of its own as the stages of a backup are.
fn read_input(chunks: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() || chunks.blocking_send(chunk.into()).is_err() {
            return Ok(());
        }
    }
}
