//! Which kept version of an object is the one that a manifest names: somebody may have replaced or
//! deleted it since.
//!
//! Its digest tells, and nothing else: no record of versions could be the same in every storage,
//! and one that lies beside the objects could be replaced like them.

use std::time::Duration;

use crate::{
    ByteRange, Digest, Digester, Error, ErrorKind, ObjectVersion, Result, SourceStream, Storage,
    Versioned,
};

/// So many bytes are read at most to find the right one of several versions of the right size;
/// above that the newest is read, and its digest checked as ever.
const MOST_CHECKED_BYTES: u64 = 4 << 30;

/// The version to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// What is there now. Not by its name, which would take a right of its own.
    Current,
    /// One that was replaced or deleted.
    Hidden(String),
}

impl Chosen {
    pub(crate) async fn open(
        &self,
        storage: &dyn Storage,
        key: &str,
        range: ByteRange,
    ) -> Result<Box<dyn SourceStream>> {
        match (self, storage.versioned()) {
            (Self::Hidden(id), Some(versioned)) => versioned.open_version(key, id, range).await,
            _ => storage.open(key, range).await,
        }
    }
}

/// Chooses the version of `key` with the `expected` digest; the one that is there when none
/// has it, or when the versions can't be looked at: then its own digest tells what is wrong.
pub(crate) async fn choose(
    storage: &dyn Storage,
    key: &str,
    expected: &Digest,
    stall: Duration,
) -> Chosen {
    let Some(versioned) = storage.versioned() else { return Chosen::Current };
    let listed = tokio::time::timeout(stall, versioned.versions(key)).await;
    let mut candidates = match listed {
        Ok(Ok(versions)) => versions,
        Ok(Err(error)) => {
            tracing::debug!(storage = storage.name(), "versions of {key} are not known: {error}");
            return Chosen::Current;
        }
        Err(_) => return Chosen::Current,
    };
    candidates.retain(|version| version.bytes == expected.bytes);
    let few = expected.bytes.saturating_mul(candidates.len() as u64) <= MOST_CHECKED_BYTES;
    if candidates.len() > 1 && few {
        let mut right = None;
        for version in candidates {
            match has_digest(versioned, key, &version, expected, stall).await {
                Ok(false) => {}
                Ok(true) => {
                    right = Some(version);
                    break;
                }
                Err(error) => {
                    tracing::debug!(storage = storage.name(), "a version of {key}: {error}");
                }
            }
        }
        candidates = right.into_iter().collect();
    }
    match candidates.into_iter().next() {
        Some(version) if !version.current => Chosen::Hidden(version.id),
        _ => Chosen::Current,
    }
}

async fn has_digest(
    versioned: &dyn Versioned,
    key: &str,
    version: &ObjectVersion,
    expected: &Digest,
    stall: Duration,
) -> Result<bool> {
    let silent = |_| Err(Error::new(ErrorKind::Unchecked, "storage", format!("{key} is silent")));
    let opening = versioned.open_version(key, &version.id, ByteRange::ALL);
    let mut stream = tokio::time::timeout(stall, opening).await.unwrap_or_else(silent)?;
    let mut digester = Digester::default();
    loop {
        let next = tokio::time::timeout(stall, stream.next_chunk()).await;
        let silent =
            |_| Err(Error::new(ErrorKind::Unchecked, "storage", format!("{key} is silent")));
        match next.unwrap_or_else(silent)? {
            Some(chunk) => digester.update(&chunk),
            None => return Ok(digester.finish() == *expected),
        }
    }
}
