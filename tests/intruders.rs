//! Somebody else's manifest, written where ours was about to go: it is not ours to remove.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, Error, ErrorKind, ObjectInfo, Result, Sink, SinkWriter, SourceStream,
    Storage, layout,
};
use backup_testkit::Memory;
use bytes::Bytes;
use jiff::Timestamp;

use crate::copies::{backed_up, copy_to};
use crate::rig::{memory, plan_at, run_quietly};

const FOREIGN: &str = "another backup's";

/// A storage in which another writes the manifest just before us; `blind`, it can't be read then.
/// `prunes`: another removes the manifest as soon as a part is begun.
struct Intruded {
    inner: Arc<Memory>,
    blind: bool,
    prunes: bool,
}

#[async_trait]
impl Sink for Intruded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        if self.prunes {
            let folder = key.rsplit_once('/').unwrap().0;
            self.inner.delete(&format!("{folder}/{}", layout::MANIFEST)).await?;
        }
        self.inner.begin(key).await
    }
}

#[async_trait]
impl Storage for Intruded {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        if self.blind && key.ends_with(layout::MANIFEST) {
            return Err(Error::failed("storage", "can't be read"));
        }
        self.inner.open(key, range).await
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        if key.ends_with(layout::MANIFEST) {
            self.inner.plant(key, FOREIGN);
        }
        self.inner.create_new(key, body).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.inner.sweep(prefix, older_than).await
    }
}

#[tokio::test]
async fn a_backup_leaves_what_may_be_somebody_elses() {
    for blind in [false, true] {
        let memory = memory("memory");
        let intruded: Arc<dyn Storage> =
            Arc::new(Intruded { inner: memory.clone(), blind, prunes: false });
        // Reading is tried again, with pauses.
        tokio::time::pause();
        let started = "2026-11-20T02:00:00Z".parse().unwrap();
        run_quietly(plan_at(started, vec![intruded])).await.unwrap_err();
        tokio::time::resume();
        let manifest = memory.keys().into_iter().find(|key| key.ends_with(layout::MANIFEST));
        let manifest = manifest.expect("the other's manifest was removed");
        assert_eq!(memory.object(&manifest).unwrap(), FOREIGN, "blind: {blind}");
    }
}

/// A prune of another host takes a copy away while what it lacks is brought: what stays is no
/// backup, and that is said.
#[tokio::test]
async fn a_listed_copy_that_is_removed_meanwhile_is_no_success() {
    let (from, entry) = backed_up().await;
    let to = memory("to");
    copy_to(&entry, &from, to.clone()).await.unwrap();
    to.delete(&entry.key(&entry.manifest.parts[0].file)).await.unwrap();
    let pruned = Arc::new(Intruded { inner: to.clone(), blind: false, prunes: true });
    let error = copy_to(&entry, &from, pruned).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}
