//! What the tests of all object stores have in common.

use std::time::Duration;

use backup_core::{ByteRange, Committed, Error, ErrorKind, Result, Storage};
use backup_storage::Settings;
use backup_testkit::random;

/// The first part's size, in bytes.
pub const PART: usize = 8 << 20;

/// Settings with plain options and secrets, and nothing from the environment.
pub fn settings(options: &[(&str, &str)], secrets: &[(&str, &str)]) -> Settings {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Settings {
        options: options.iter().map(owned).collect(),
        secrets: secrets.iter().map(owned).map(|(name, value)| (name, value.into())).collect(),
        ambient_credentials: false,
        request_timeout: Duration::from_secs(20),
        retry_deadline: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// The same, giving up soon.
pub fn impatient(settings: Settings) -> Settings {
    Settings {
        request_timeout: Duration::from_secs(2),
        retry_deadline: Duration::from_secs(3),
        ..settings
    }
}

pub async fn write(storage: &dyn Storage, key: &str, data: &[u8]) -> Result<Committed> {
    let mut writer = storage.begin(key).await?;
    for piece in data.chunks(256 * 1024) {
        if let Err(error) = writer.write(piece.to_vec().into()).await {
            writer.abort().await?;
            return Err(error);
        }
    }
    writer.commit().await
}

pub async fn read(storage: &dyn Storage, key: &str, range: ByteRange) -> Result<Vec<u8>> {
    let mut stream = storage.open(key, range).await?;
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        assert!(!chunk.is_empty() && chunk.len() <= backup_core::pipeline::CHUNK_BYTES);
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Sizes around the first parts, and one of 200 MB, come back as they went.
pub async fn sizes_come_back(storage: &dyn Storage) {
    let data = random(7, 200_000_000);
    for size in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, data.len()] {
        let key = format!("sizes/{size} ü 🦀");
        let committed = write(storage, &key, &data[..size]).await.unwrap();
        assert_eq!(committed.bytes, size as u64);
        assert_eq!(storage.stat(&key).await.unwrap().unwrap().bytes, size as u64);
        let back = read(storage, &key, ByteRange::ALL).await.unwrap();
        assert!(back == data[..size], "{size} bytes come back");
    }
    let key = format!("sizes/{} ü 🦀", data.len());
    let range = ByteRange { offset: 2 * PART as u64 - 3, length: Some(7) };
    assert_eq!(read(storage, &key, range).await.unwrap(), data[2 * PART - 3..2 * PART + 4]);
}

/// More objects than a page of a listing shows.
pub async fn pages_are_turned(storage: &dyn Storage) {
    const COUNT: usize = 1_234;
    let numbers: Vec<usize> = (0..COUNT).collect();
    for batch in numbers.chunks(32) {
        let writes = batch.iter().map(|number| async move {
            write(storage, &format!("pages/{number:04}/x"), b"x").await.unwrap();
        });
        futures_util::future::join_all(writes).await;
    }
    let listed = storage.list("pages").await.unwrap();
    let keys: Vec<String> = listed.into_iter().map(|object| object.key).collect();
    let wanted: Vec<String> = numbers.iter().map(|number| format!("pages/{number:04}/x")).collect();
    assert_eq!(keys, wanted);
    assert_eq!(storage.folders("pages").await.unwrap().len(), COUNT);
}

/// The whole text of an error: what a user gets to see.
pub fn text(error: &Error) -> String {
    let step = error.advice().unwrap_or("(no advice)");
    format!("{error}\n-> {step}")
}

#[track_caller]
pub fn assert_error(error: &Error, kind: ErrorKind, wanted: &str) {
    assert_eq!(text(error), wanted, "{error:?}");
    assert_eq!(error.kind(), kind, "{error:?}");
}
