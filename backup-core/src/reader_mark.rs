//! Marks of those who read a backup for long: while one is fresh, a prune leaves the backup alone.
//!
//! A mark is an object `readers/<random>.json` in the folder of the copy. It counts by the
//! storage's own time of it, so that the reader's clock does not matter, and for so long only that a
//! reader which died holds nothing up for good. Leaving one is a courtesy to the reader: where it
//! can't be left, as with credentials that may only read, the backup is read all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::ReaderSeen;
use crate::{Storage, layout};

/// So long a mark counts after it was left.
pub const READER_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// A reader that goes on leaves a new mark so long after its last one.
const RENEW_AFTER: Duration = Duration::from_secs(8 * 60 * 60);
/// So far the clocks of a storage and of a prune may be apart.
const CLOCK_GRACE: SignedDuration = SignedDuration::from_hours(1);
/// Longest wait for a mark to be left before the reading begins without.
const LEAVING: Duration = Duration::from_secs(10);
/// Longest wait for a mark to be removed.
const REMOVING: Duration = Duration::from_secs(5);

impl ReaderSeen {
    /// Whether the reader who left it may still be reading at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        let timeout = SignedDuration::try_from(READER_TIMEOUT).unwrap_or(SignedDuration::MAX);
        let over = self.left.checked_add(timeout).and_then(|over| over.checked_add(CLOCK_GRACE));
        over.is_ok_and(|over| over > now)
    }
}

/// All marks of an application: who ends its process waits for them to be gone. Clones are the same.
#[derive(Debug, Clone)]
pub struct ReaderMarks(Arc<watch::Sender<usize>>);

impl Default for ReaderMarks {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// The marks of one reader, in every copy that it may read. They go when this is dropped or
/// [ended](ReaderMark::end).
#[derive(Debug)]
pub struct ReaderMark {
    end: CancellationToken,
    keepers: Vec<JoinHandle<()>>,
}

impl ReaderMarks {
    /// Marks the backup of `folder` as being read in each of the `storages`, by the verb `reader`.
    ///
    /// Never an error: what can't be marked is read without.
    pub async fn leave<'a>(
        &self,
        folder: &str,
        storages: impl IntoIterator<Item = &'a Arc<dyn Storage>>,
        reader: &str,
    ) -> ReaderMark {
        let end = CancellationToken::new();
        let (mut keepers, mut left) = (Vec::new(), Vec::new());
        for storage in storages {
            let (tell, told) = oneshot::channel();
            let keeper = Keeper {
                storage: Arc::clone(storage),
                folder: folder.to_owned(),
                reader: reader.to_owned(),
                end: end.clone(),
                _counted: Counted::new(&self.0),
            };
            keepers.push(tokio::spawn(keeper.keep(tell)));
            left.push(told);
        }
        // One that comes later than that is removed like the others.
        let _ = tokio::time::timeout(LEAVING, join_all(left)).await;
        ReaderMark { end, keepers }
    }

    /// Waits until every mark is gone whose reader has ended, but not for ever: one that stays
    /// ends by itself.
    pub async fn settled(&self) {
        let mut count = self.0.subscribe();
        let _ = tokio::time::timeout(REMOVING, count.wait_for(|count| *count == 0)).await;
    }
}

impl ReaderMark {
    /// Removes the marks, and waits until they are gone.
    pub async fn end(mut self) {
        self.end.cancel();
        let keepers = std::mem::take(&mut self.keepers);
        let _ = tokio::time::timeout(REMOVING, join_all(keepers)).await;
    }
}

impl Drop for ReaderMark {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// One more mark that is or may be there.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Leaves one mark, renews it, and removes it in the end.
struct Keeper {
    storage: Arc<dyn Storage>,
    folder: String,
    reader: String,
    end: CancellationToken,
    _counted: Counted,
}

impl Keeper {
    async fn keep(self, left: oneshot::Sender<()>) {
        let mut mark = self.leave().await;
        let _ = left.send(());
        while let Some(old) = mark.take() {
            let renew = tokio::select! {
                biased;
                () = self.end.cancelled() => false,
                () = tokio::time::sleep(RENEW_AFTER) => true,
            };
            if renew {
                // The new one first: there is no moment without.
                mark = self.leave().await;
            }
            self.remove(&old).await;
        }
    }

    async fn leave(&self) -> Option<String> {
        let name: u64 = rand::thread_rng().r#gen();
        let key = format!("{}/{}/{name:016x}.json", self.folder, layout::READERS);
        let body = serde_json::json!({
            "reader": self.reader, "started": Timestamp::now(),
            "timeout_seconds": READER_TIMEOUT.as_secs(),
        });
        match self.storage.create_new(&key, Bytes::from(body.to_string())).await {
            Ok(_) => Some(key),
            Err(error) => {
                tracing::debug!(storage = self.storage.name(), "no mark of a reader: {error}");
                None
            }
        }
    }

    async fn remove(&self, key: &str) {
        if let Err(error) = self.storage.delete(key).await {
            tracing::debug!(storage = self.storage.name(), "{key} stays: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_for_a_day_whatever_the_clocks_differ_by() {
        let seen =
            |left: &str| ReaderSeen { file: "x.json".to_owned(), left: left.parse().unwrap() };
        let now = "2026-11-22T02:00:00Z".parse().unwrap();
        assert!(seen("2026-11-22T01:59:59Z").is_live(now));
        assert!(seen("2026-11-22T09:00:00Z").is_live(now), "the storage's clock is ahead");
        assert!(seen("2026-11-21T01:30:00Z").is_live(now), "or behind");
        assert!(!seen("2026-11-21T00:59:59Z").is_live(now));
    }
}
