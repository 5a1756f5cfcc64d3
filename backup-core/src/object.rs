//! A stored object as a source, checked against its recorded digest while it is read.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{ByteRange, Digest, Digester, Error, ErrorKind, Result, Source, SourceStream, Storage};

/// Largest object that [`read_small`] takes, in bytes: manifests, contents, globals.
pub const SMALL_OBJECT_BYTES: u64 = 64 << 20;

/// An object of a storage.
///
/// With an expected digest its stream's last word is `Err` when the bytes are not the recorded
/// ones, so nothing downstream ever commits them.
pub struct StoredObject {
    storage: Arc<dyn Storage>,
    key: String,
    expected: Option<Digest>,
}

impl StoredObject {
    /// An object whose stored bytes are known.
    pub fn checked(storage: Arc<dyn Storage>, key: impl Into<String>, expected: Digest) -> Self {
        Self { storage, key: key.into(), expected: Some(expected) }
    }

    /// An object of which nothing is known.
    pub fn unchecked(storage: Arc<dyn Storage>, key: impl Into<String>) -> Self {
        Self { storage, key: key.into(), expected: None }
    }
}

#[async_trait]
impl Source for StoredObject {
    fn name(&self) -> &str {
        self.storage.name()
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let stream = self.storage.open(&self.key, ByteRange::ALL).await.map_err(|error| {
            // A part that a manifest promises and that isn't there is damage.
            match (error.kind(), &self.expected) {
                (ErrorKind::NotFound, Some(_)) => error.with_kind(ErrorKind::Damaged),
                _ => error,
            }
        })?;
        Ok(Box::new(Checked {
            stream,
            place: format!("{} in storage {}", self.key, self.storage.name()),
            expected: self.expected.clone(),
            digester: Digester::default(),
        }))
    }
}

struct Checked {
    stream: Box<dyn SourceStream>,
    place: String,
    expected: Option<Digest>,
    digester: Digester,
}

#[async_trait]
impl SourceStream for Checked {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.stream.next_chunk().await? {
            self.digester.update(&chunk);
            return Ok(Some(chunk));
        }
        let found = std::mem::take(&mut self.digester).finish();
        match &self.expected {
            Some(expected) if *expected != found => Err(differs(&self.place, expected, &found)),
            _ => Ok(None),
        }
    }
}

fn differs(place: &str, expected: &Digest, found: &Digest) -> Error {
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
    Error::damaged("storage", format!("{place} {how}"))
        .next_step("restore from another storage's copy or an older backup")
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
