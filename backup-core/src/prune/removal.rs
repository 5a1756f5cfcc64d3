//! One backup's folder is removed, so that a crash at any point leaves it listed and whole, or
//! not listed and marked as nobody's.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::backup::claim::{Hold, Purpose};
use crate::pipeline::{Context, Limits, within};
use crate::{BackupId, Manifest, ObjectInfo, ReaderSeen, Result, Storage, layout};

/// Most files of a folder that are removed at the same time.
const REMOVALS_AT_ONCE: usize = 8;

/// A folder in one storage, and by whom it is worked on.
pub(crate) struct Folder<'a> {
    pub(crate) storage: &'a Arc<dyn Storage>,
    pub(crate) id: BackupId,
    pub(crate) path: String,
    /// Of a folder that is listed.
    pub(crate) manifest: Option<&'a Manifest>,
    pub(crate) host: &'a str,
    pub(crate) purpose: Purpose<'a>,
    /// Whether a pin is of no matter: another backup has it now.
    pub(crate) pin_carried: bool,
    pub(crate) now: Timestamp,
    pub(crate) context: &'a Context,
}

/// What became of a folder.
#[derive(Debug)]
pub(crate) enum Removal {
    /// It is gone. So many bytes of it are still kept, where versions are.
    Done { held_bytes: u64 },
    /// It stays, for this reason.
    Left(String),
}

fn limits() -> Limits {
    Limits::default()
}

impl Folder<'_> {
    fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.path)
    }

    async fn asked<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.storage.name(), limits().commit, work).await
    }

    async fn delete(&self, file: &str) -> Result<()> {
        self.asked(self.storage.delete(&self.key(file))).await
    }

    async fn files(&self) -> Result<Vec<ObjectInfo>> {
        self.asked(self.storage.list(&self.path)).await
    }

    fn name_of<'o>(&self, object: &'o ObjectInfo) -> Option<&'o str> {
        object.key.strip_prefix(&self.path)?.strip_prefix('/')
    }

    async fn hold(&self) -> Result<Option<Hold>> {
        let (manifest, purpose) = (self.manifest, self.purpose);
        Hold::take(self.storage, &self.path, manifest, purpose, self.now, limits()).await
    }

    /// Removes the folder of a listed backup, unless somebody has begun to work with it since.
    pub(crate) async fn remove(&self) -> Result<Removal> {
        let Some(hold) = self.hold().await? else { return Ok(busy()) };
        let removed = self.remove_held(&hold).await;
        self.end(hold, removed).await
    }

    /// Goes on where an earlier prune did not get to the end.
    pub(crate) async fn finish(&self) -> Result<Removal> {
        let Some(hold) = self.hold().await? else { return Ok(busy()) };
        let finished = self.finish_held(&hold).await;
        self.end(hold, finished).await
    }

    /// The tombstone goes after the claim: a claim alone would be found by a sweep only.
    async fn end(&self, hold: Hold, done: Result<Removal>) -> Result<Removal> {
        hold.release(self.context).await;
        if !matches!(done, Ok(Removal::Done { .. })) {
            return done;
        }
        // Where the claim stays, so does what the next run finds it by.
        if self.asked(self.storage.stat(&self.key(layout::CLAIM))).await?.is_none() {
            self.delete(layout::PRUNED).await?;
        }
        done
    }

    /// Takes back what an earlier prune said of a backup that stays.
    pub(super) async fn heal(&self) -> Result<()> {
        let Some(hold) = self.hold().await? else { return Ok(()) };
        let healed = self.delete(layout::PRUNED).await;
        hold.release(self.context).await;
        healed
    }

    async fn remove_held(&self, hold: &Hold) -> Result<Removal> {
        let body = serde_json::json!({
            "backup": self.id.to_string(), "host": self.host, "pruned": self.now,
        });
        let tombstone = self.key(layout::PRUNED);
        // An older one says the same.
        self.asked(self.storage.create_new(&tombstone, Bytes::from(body.to_string()))).await?;
        // Whoever pins or reads it from here on sees the tombstone, and whoever did before is
        // seen here: of the two, one notices the other.
        let files = self.files().await?;
        if let Some(why) = self.wanted_by(&files) {
            self.delete(layout::PRUNED).await?;
            return Ok(Removal::Left(why));
        }
        if !hold.is_ours().await? {
            return Ok(busy());
        }
        self.delete(layout::MANIFEST).await?;
        self.remove_rest(&files).await
    }

    async fn finish_held(&self, hold: &Hold) -> Result<Removal> {
        let files = self.files().await?;
        let has = |file: &str| files.iter().any(|object| self.name_of(object) == Some(file));
        // Somebody copied it here anew, or somebody else has finished.
        if has(layout::MANIFEST) || !has(layout::PRUNED) || !hold.is_ours().await? {
            return Ok(busy());
        }
        self.remove_rest(&files).await
    }

    /// Why a backup may not go after all.
    fn wanted_by(&self, files: &[ObjectInfo]) -> Option<String> {
        let marks = format!("{}/", layout::READERS);
        let is_read = |object: &ObjectInfo| {
            let file = self.name_of(object).and_then(|name| name.strip_prefix(&marks));
            file.is_some_and(|file| {
                ReaderSeen { file: file.to_owned(), left: object.modified }.is_live(self.now)
            })
        };
        let is_pin = |object: &ObjectInfo| self.name_of(object) == Some(layout::PIN);
        if !self.pin_carried && files.iter().any(is_pin) {
            return Some("it was pinned just now".to_owned());
        }
        files.iter().any(is_read).then(|| "somebody began to read it just now".to_owned())
    }

    /// Removes everything else of a folder that is not listed any more, but for what tells that
    /// it is nobody's.
    async fn remove_rest(&self, files: &[ObjectInfo]) -> Result<Removal> {
        // Without these the rest looks like nothing that could be restored, to any version.
        for file in [layout::SHA256SUMS, layout::SIGNATURE] {
            self.delete(file).await?;
        }
        self.remove_all(files).await?;
        // A mark of a reader, or a proof, that came in the meantime.
        let late = self.files().await?;
        self.remove_all(&late).await?;
        Ok(Removal::Done { held_bytes: self.still_held(files).await })
    }

    async fn remove_all(&self, files: &[ObjectInfo]) -> Result<()> {
        let kept = [layout::PRUNED, layout::CLAIM, layout::SHA256SUMS, layout::SIGNATURE];
        let rest = files.iter().filter_map(|object| self.name_of(object));
        let rest = rest.filter(|name| !kept.contains(name) && *name != layout::MANIFEST);
        let rest: Vec<String> = rest.map(str::to_owned).collect();
        let removals = rest.into_iter().map(|name| async move { self.delete(&name).await });
        stream::iter(removals).buffer_unordered(REMOVALS_AT_ONCE).try_collect().await
    }

    /// Bytes that the storage keeps of what was just removed.
    async fn still_held(&self, files: &[ObjectInfo]) -> u64 {
        let Some(versioned) = self.storage.versioned() else { return 0 };
        // The claim and the tombstone go later, and what else comes and goes is never locked.
        let gone = files.iter().filter(|object| !layout::is_passing(&object.key));
        let gone: Vec<String> = gone.map(|object| object.key.clone()).collect();
        let looks = gone.into_iter().map(|key| async move {
            let versions = self.asked(versioned.versions(&key)).await;
            versions.unwrap_or_default().iter().map(|version| version.bytes).sum::<u64>()
        });
        let looks = stream::iter(looks).buffer_unordered(REMOVALS_AT_ONCE);
        looks.fold(0, |sum, bytes| async move { sum + bytes }).await
    }
}

fn busy() -> Removal {
    Removal::Left("somebody else is at work in its folder".to_owned())
}
