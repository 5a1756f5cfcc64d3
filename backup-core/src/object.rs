//! A stored object as a source, checked against its recorded digest while it is read.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::copies::Copies;
use crate::download::{Download, Patience, Wanted};
use crate::pipeline::Context;
use crate::{ByteRange, Digest, Digester, Error, ErrorKind, Result, Source, SourceStream, Storage};

/// Largest object that [`read_small`] takes, in bytes: manifests, contents, globals.
pub const SMALL_OBJECT_BYTES: u64 = 64 << 20;

/// An object of a storage.
///
/// With an expected digest its stream's last word is `Err` when the bytes are not the recorded
/// ones, so nothing downstream ever commits them. A broken download goes on from where it
/// stood, as [`Patience`] says.
pub struct StoredObject {
    pub(crate) wanted: Wanted,
}

impl StoredObject {
    /// An object whose stored bytes are known.
    pub fn checked(storage: Arc<dyn Storage>, key: impl Into<String>, expected: Digest) -> Self {
        Self::in_copies(Copies::new(storage, Vec::new()), key.into(), Some(expected))
    }

    /// An object of which nothing is known.
    pub fn unchecked(storage: Arc<dyn Storage>, key: impl Into<String>) -> Self {
        Self::in_copies(Copies::new(storage, Vec::new()), key.into(), None)
    }

    /// An object that several storages hold, byte for byte the same: when one fails, also in the
    /// middle, the next one goes on.
    pub(crate) fn in_copies(copies: Copies, key: String, expected: Option<Digest>) -> Self {
        let (range, patience) = (ByteRange::ALL, Patience::default());
        Self { wanted: Wanted { copies, key, expected, range, patience, context: None } }
    }

    /// Tries a broken download again as long as `patience` says.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.wanted.patience = patience;
        self
    }

    /// Tells `context` when it goes on with another copy.
    #[must_use]
    pub(crate) fn telling(mut self, context: Option<Context>) -> Self {
        self.wanted.context = context;
        self
    }
}

#[async_trait]
impl Source for StoredObject {
    fn name(&self) -> &str {
        self.wanted.copies.current().name()
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let download = Download::open(self.wanted.clone()).await;
        Ok(Box::new(Checked {
            download: download.map_err(|e| missing_is_damage(e, self.wanted.expected.as_ref()))?,
            copies: self.wanted.copies.clone(),
            key: self.wanted.key.clone(),
            expected: self.wanted.expected.clone(),
            digester: Digester::default(),
        }))
    }
}

/// A part that a manifest promises and that isn't there is damage.
pub(crate) fn missing_is_damage(error: Error, expected: Option<&Digest>) -> Error {
    match (error.kind(), expected) {
        (ErrorKind::NotFound, Some(_)) => error.with_kind(ErrorKind::Damaged),
        _ => error,
    }
}

struct Checked {
    download: Download,
    copies: Copies,
    key: String,
    expected: Option<Digest>,
    digester: Digester,
}

#[async_trait]
impl SourceStream for Checked {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let next = self.download.next_chunk().await;
        if let Some(chunk) = next.map_err(|e| missing_is_damage(e, self.expected.as_ref()))? {
            self.digester.update(&chunk);
            return Ok(Some(chunk));
        }
        let found = std::mem::take(&mut self.digester).finish();
        match &self.expected {
            Some(expected) if *expected != found => Err(self.differs(expected, &found)),
            _ => Ok(None),
        }
    }
}

impl Checked {
    fn differs(&self, expected: &Digest, found: &Digest) -> Error {
        let read_from = match &self.download.came_from[..] {
            [] => vec![self.copies.current().name().to_owned()],
            storages => storages.to_vec(),
        };
        let how = match found.bytes.cmp(&expected.bytes) {
            std::cmp::Ordering::Less => {
                format!("is cut off: {} of {} bytes are there", found.bytes, expected.bytes)
            }
            std::cmp::Ordering::Greater => {
                format!("is too long: {} bytes instead of {}", found.bytes, expected.bytes)
            }
            std::cmp::Ordering::Equal => {
                format!("was altered: sha256 {} instead of {}", found.sha256, expected.sha256)
            }
        };
        let place = format!("{} in storage {}", self.key, read_from.join(" and then "));
        let error = Error::damaged("storage", format!("{place} {how}"));
        error.next_step(advice_after_damage(&self.copies, &read_from))
    }
}

/// What to do after damage in the storages that were read: is there another copy?
pub(crate) fn advice_after_damage(copies: &Copies, read_from: &[String]) -> String {
    let others = copies.all().map(|storage| storage.name());
    let others: Vec<&str> = others.filter(|name| !read_from.iter().any(|n| n == name)).collect();
    match others[..] {
        [] => "restore from another storage's copy or an older backup".to_owned(),
        _ => format!(
            "another copy is in storage {}: `marb-backup verify ID --repair` brings it over if it is whole",
            others.join(", ")
        ),
    }
}

/// Reads a small object whole.
///
/// # Errors
/// When it can't be read, or is larger than [`SMALL_OBJECT_BYTES`].
pub async fn read_small(source: &dyn Source) -> Result<Vec<u8>> {
    let mut stream = source.open().await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > SMALL_OBJECT_BYTES {
            return Err(Error::damaged(
                source.name().to_owned(),
                format!("a document is larger than {SMALL_OBJECT_BYTES} bytes"),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
