//! A storage on a folder of this host that survives a power cut.
//!
//! ```text
//! begin    folder/NAME.<random>.partial     0600, in the folder of the final file
//! commit   fsync file, fsync the folders above it, rename to folder/NAME, fsync folder
//! ```
//!
//! At every instant the final name shows no object, the older object, or all of the new one.
//!
//! Architecture invariant: everything that blocks runs on tokio's blocking threads, through
//! [`Local::blocking`] or the batches of [`Writer`] and [`Reader`]; [`Place`] is plain
//! synchronous code that knows no runtime.

mod awaited;
mod explain;
mod partial;
mod place;
mod publish;
mod reader;
mod url;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, Error, ErrorKind, ObjectInfo, Result, Sink, SinkWriter, SourceStream,
    Storage,
};
use bytes::Bytes;
use jiff::Timestamp;

use awaited::Waiting;
use place::{Draft, Place};
use reader::Reader;
use writer::Writer;

pub(crate) use backup_core::pipeline::CHUNK_BYTES;
/// What goes to or comes from the disk in one hop to a blocking thread, in bytes. A writer
/// and a reader hold at most two such batches each (one in the disk's hands) and one chunk.
pub(crate) const BATCH_BYTES: usize = 1024 * 1024;

/// Objects as files under a folder: key `a/b` is the file `a/b` in it.
///
/// - Files are made `0600`, folders `0700`. The folder itself is made by the first write; the
///   one above it must exist, so that a disk that isn't mounted is noticed.
/// - A commit is on the disk when it returns: file, name, and every folder up to the root.
/// - Foreign files in the folder are listed like objects if their names can be keys. Symbolic
///   links are never followed inside the folder: listings skip them, other calls refuse.
///   The folder itself may be a link.
/// - A `create_new` or `commit` whose future is dropped publishes nothing afterwards.
/// - Errors of one `write` may come out of a later one, at the latest out of `commit`.
///
/// Absent on purpose: locking. Two writers of one key don't disturb each other: the one that
/// commits last wins as a whole.
///
/// Needs a tokio runtime.
///
/// ```
/// use backup_core::{ByteRange, Sink, Storage};
/// use backup_storage::Local;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let scratch = tempfile::tempdir().unwrap();
/// let storage = Local::new("local", scratch.path().join("backups"))?;
/// let mut writer = storage.begin("db/note.txt").await?;
/// writer.write("hello".into()).await?;
/// writer.commit().await?;
///
/// assert_eq!(storage.list("db").await?[0].bytes, 5);
/// let mut stream = storage.open("db/note.txt", ByteRange::ALL).await?;
/// assert_eq!(stream.next_chunk().await?.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Local {
    name: String,
    place: Arc<Place>,
}

impl Local {
    /// The storage `name` on the folder `path`. Nothing is touched yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when `path` is relative (it would mean another folder after a
    /// change of directory) or the file system's root.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Result<Self> {
        let (name, root) = (name.into(), path.into());
        let stage = format!("storage {name}");
        if !root.is_absolute() {
            return Err(Error::usage(stage, format!("{} is a relative path", root.display()))
                .next_step("give the whole path, such as /var/backups/app"));
        }
        if root.file_name().is_none() {
            return Err(Error::usage(stage, format!("{} can't hold backups", root.display()))
                .next_step("give a folder of their own, such as /var/backups/app"));
        }
        Ok(Self { name, place: Arc::new(Place::new(stage, root)) })
    }

    /// The storage `name` on the folder of a URL such as `file:///var/backups/app%202`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is no `file` URL, names another host, is relative, or
    /// carries a query or a fragment.
    ///
    /// ```
    /// use backup_storage::Local;
    /// let storage = Local::from_url("local", "file:///var/my%20backups")?;
    /// assert_eq!(storage.root().to_str(), Some("/var/my backups"));
    /// assert!(Local::from_url("local", "file://backups").is_err());
    /// # Ok::<(), backup_core::Error>(())
    /// ```
    pub fn from_url(name: impl Into<String>, url: &str) -> Result<Self> {
        let name = name.into();
        let path = url::folder_of(url).map_err(|wrong| {
            Error::usage(format!("storage {name}"), wrong)
                .next_step("write it as file:///absolute/path")
        })?;
        Self::new(name, path)
    }

    /// The folder that holds the objects.
    pub fn root(&self) -> &Path {
        self.place.root()
    }

    /// Bytes this user may still write to the file system of the folder (of the one above it,
    /// while the folder isn't there yet).
    ///
    /// # Errors
    /// When neither folder can be looked at.
    pub async fn free_bytes(&self) -> Result<u64> {
        self.blocking(Place::free_bytes).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.place);
        match tokio::task::spawn_blocking(move || work(&place)).await {
            Ok(result) => result,
            Err(died) => Err(self.place.thread_died(died)),
        }
    }
}

/// A draft on its way from the disk's thread to its writer. A caller that was stopped meanwhile
/// never takes it; nobody else would remove it then.
struct FreshDraft {
    place: Arc<Place>,
    draft: Option<Draft>,
}

impl Drop for FreshDraft {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft
            && let Err(error) = self.place.discard(draft)
        {
            tracing::warn!(%error, "a leftover stays until it is swept");
        }
    }
}

#[async_trait]
impl Sink for Local {
    fn name(&self) -> &str {
        &self.name
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        let (key, owner) = (key.to_owned(), Arc::clone(&self.place));
        let fresh = self.blocking(move |place| {
            let draft = Some(place.draft(&key)?);
            Ok(FreshDraft { place: owner, draft })
        });
        let draft = fresh.await?.draft.take().ok_or_else(|| {
            Error::failed(self.place.stage().to_owned(), "a draft was taken twice")
        })?;
        Ok(Box::new(Writer::new(Arc::clone(&self.place), draft)))
    }
}

#[async_trait]
impl Storage for Local {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        let key = key.to_owned();
        let (file, path, left) = self.blocking(move |place| place.open_range(&key, range)).await?;
        Ok(Box::new(Reader::new(Arc::clone(&self.place), file, path, left)))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let key = key.to_owned();
        self.blocking(move |place| match place.look(&key)? {
            None => Ok(None),
            Some(file) => place.describe(key, &file).map(Some),
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let prefix = prefix.to_owned();
        self.blocking(move |place| place.list(&prefix)).await
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        self.blocking(move |place| place.folders(&prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.blocking(move |place| place.delete(&key)).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        let key = key.to_owned();
        let waiting = Waiting::default();
        let awaited = waiting.awaited();
        self.blocking(move |place| place.create_new(&key, &body, &awaited)).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        let prefix = prefix.to_owned();
        self.blocking(move |place| place.sweep(&prefix, older_than.into())).await
    }
}

impl Place {
    fn thread_died(&self, died: tokio::task::JoinError) -> Error {
        Error::failed(self.stage().to_owned(), "the thread that works on the disk died")
            .with_kind(if died.is_cancelled() { ErrorKind::Interrupted } else { ErrorKind::Failed })
            .caused_by(died)
    }
}
