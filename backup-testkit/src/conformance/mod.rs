//! Suites that every implementation of a trait passes, first of all ours.
//!
//! Each takes an implementation and says `Ok`, or which promise was broken and how: the error's
//! stage is `conformance`, its message names the promise. They print nothing and assume
//! nothing but the trait, so they also run against a real bucket: all keys lie under a fresh
//! folder `conformance-<random>`.
//!
//! | suite | for | leaves behind |
//! | --- | --- | --- |
//! | [`source`] | [`Source`](backup_core::Source) | |
//! | [`transform`] | [`Transform`](backup_core::Transform) | |
//! | [`sink`] | [`Sink`] | its objects: a sink can't delete |
//! | [`storage`] | [`Storage`], runs [`sink`] too | nothing |
//! | [`retention`] | [`RetentionPolicy`](backup_core::RetentionPolicy) | |
//!
//! A suite whose trait is synchronous is synchronous too.

mod ends;
mod listing;
mod retention;
mod sink;
mod source;
mod storage;
mod transform;

#[cfg(test)]
mod tests;

pub use retention::retention;
pub use sink::{Inspector, sink};
pub use source::source;
pub use storage::{storage, storage_without_preconditions};
pub use transform::{transform, transform_in_full};

use std::fmt::Display;

use backup_core::layout::MAX_KEY_BYTES;
use backup_core::{ByteRange, Error, ErrorKind, Result, Sink, SourceStream, Storage};
use rand::Rng;

/// The stage of every error that a suite finds.
pub const STAGE: &str = "conformance";

/// Sizes around which implementations cut their data: 64 KiB and 256 KiB chunks, 1 MiB and
/// 5 MiB parts.
const SIZES: [usize; 10] = [
    0,
    1,
    64 * 1024,
    256 * 1024 - 1,
    256 * 1024,
    256 * 1024 + 1,
    1024 * 1024 - 1,
    1024 * 1024 + 1,
    3 * 1024 * 1024 + 17,
    5 * 1024 * 1024,
];

/// Keys that no storage may take: they leave it, or mean another key elsewhere.
const BAD_KEYS: [&str; 12] =
    ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\nb", "a\\b", "a/b.partial"];

/// What every suite says of a broken promise.
fn broken(promise: impl Into<String>) -> Error {
    Error::failed(STAGE, promise).next_step("read the trait's documentation about this promise")
}

fn require(kept: bool, promise: impl FnOnce() -> String) -> Result<()> {
    if kept { Ok(()) } else { Err(broken(promise())) }
}

/// Gives a failure inside of an implementation its place in the suite.
trait Must<T> {
    fn must(self, what: impl Display) -> Result<T>;
}

impl<T> Must<T> for Result<T> {
    fn must(self, what: impl Display) -> Result<T> {
        self.map_err(|error| broken(format!("must {what}, but: {error}")).caused_by(error))
    }
}

/// Compares what came with what was wanted; names the first difference, not the bytes.
fn require_same(got: &[u8], wanted: &[u8], what: impl Display) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let same = got.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    Err(broken(format!(
        "{what}: {} bytes came, {} were wanted, the first difference is at byte {same}",
        got.len(),
        wanted.len()
    )))
}

/// Reads a stream to its end; it must not hand out empty chunks.
async fn read_to_end(stream: &mut dyn SourceStream, what: impl Display) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.must(format!("read {what} to its end"))? {
        require(!chunk.is_empty(), || format!("{what}: a stream never hands out an empty chunk"))?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// What a reader sees under a key of a storage.
async fn read_object(storage: &dyn Storage, key: &str) -> Result<Option<Vec<u8>>> {
    match storage.open(key, ByteRange::ALL).await {
        Ok(mut stream) => read_to_end(stream.as_mut(), key).await.map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).must(format!("open {key}, or say that it isn't found")),
    }
}

/// Writes one object in the given pieces and commits it.
async fn store(sink: &dyn Sink, key: &str, pieces: &[&[u8]]) -> Result<()> {
    let mut writer = sink.begin(key).await.must(format!("begin {key}"))?;
    for piece in pieces {
        writer.write(piece.to_vec().into()).await.must(format!("write to {key}"))?;
    }
    let committed = writer.commit().await.must(format!("commit {key}"))?;
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    require(committed.bytes == bytes, || {
        format!("commit says how many bytes the object has: {} instead of {bytes}", committed.bytes)
    })
}

/// A fresh folder for one run of a suite.
fn fresh_folder() -> String {
    format!("conformance-{:016x}", rand::thread_rng().r#gen::<u64>())
}

/// Keys that every storage must take, in `folder`.
fn odd_keys(folder: &str) -> Vec<String> {
    let mut keys: Vec<String> = [
        "case",
        "CASE",
        "with space/and  two",
        "ünïcödé/日本語/🦀",
        ".hidden",
        "..dots/...",
        "percent%20%2F",
        "percent %2F",
        "a+b&c=d?e#f;g,h@i:j",
        "quotes '\" $HOME `x`",
        "~",
        "-dash",
        "partial",
        "x.partial/inside",
        "x.partial-1234",
        "a/b/c/d/e/f/g/h",
    ]
    .map(|name| format!("{folder}/{name}"))
    .to_vec();
    let mut long = folder.to_owned();
    while long.len() < MAX_KEY_BYTES {
        long.push('/');
        long.push_str(&"n".repeat((MAX_KEY_BYTES - long.len()).min(200)));
    }
    keys.push(long);
    keys
}
