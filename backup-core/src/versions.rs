//! Which kept version of an object is the one that a manifest names: somebody may have replaced or
//! deleted it since.
//!
//! Its digest tells, and nothing else: no record of versions could be the same in every storage,
//! and one that lies beside the objects could be replaced like them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    ByteRange, Digest, Digester, Error, ErrorKind, ObjectVersion, Result, SourceStream, Storage,
    Versioned,
};

/// So many bytes are read at most to find the right one of several versions of the right size;
/// above that the oldest is read, and its digest checked as ever: who replaces something comes later.
const MOST_CHECKED_BYTES: u64 = 4 << 30;

/// How much later than the end of its backup a version may have been stored: clocks differ.
const SLACK: SignedDuration = SignedDuration::from_hours(1);

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
    finished: Option<Timestamp>,
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
    likely_first(&mut candidates, finished);
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

/// Puts what the run itself may have stored first, the oldest before all. What was stored after
/// its end comes last: `copy` and `repair` store later, too.
fn likely_first(candidates: &mut [ObjectVersion], finished: Option<Timestamp>) {
    let end = finished.and_then(|finished| finished.checked_add(SLACK).ok());
    let late = |version: &ObjectVersion| end.is_some_and(|end| version.modified > end);
    candidates.sort_by_key(|version| (late(version), version.modified));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, modified: &str) -> ObjectVersion {
        let modified = modified.parse().unwrap();
        ObjectVersion { id: id.into(), bytes: 5 << 30, modified, current: id == "newest" }
    }

    fn order(finished: Option<&str>) -> Vec<String> {
        let mut all = vec![
            version("newest", "2026-01-03T00:00:00Z"),
            version("replaced", "2026-01-02T00:00:00Z"),
            version("ours", "2026-01-01T00:00:00Z"),
            version("within", "2026-01-01T01:30:00Z"),
        ];
        likely_first(&mut all, finished.map(|text| text.parse().unwrap()));
        all.into_iter().map(|version| version.id).collect()
    }

    #[test]
    fn what_the_run_stored_comes_before_what_came_later() {
        let wanted = ["ours", "within", "replaced", "newest"];
        assert_eq!(order(Some("2026-01-01T01:00:00Z")), wanted);
        assert_eq!(order(None), wanted);
        // A copy of a backup that was made long before: all are later than its end.
        assert_eq!(order(Some("2025-01-01T00:00:00Z")), wanted);
        // An object that was there before by another run's doing is no candidate by its id.
        assert_eq!(order(Some("2026-01-01T00:10:00Z"))[0], "ours");
    }
}
