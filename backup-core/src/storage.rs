//! Where backups live: a sink that can also be read, listed and cleaned.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{Result, Sink, SourceStream};

/// A place that keeps objects under keys: a folder, a bucket.
///
/// Keys are relative, `/`-separated and clean ([`layout::check_key`](crate::layout::check_key)).
/// The conformance suite in `backup-testkit` says in code what every storage must do.
///
/// Absent on purpose: rename, append, overwrite in place. An object is written once
/// ([`Sink::begin`] may replace an older object of the same key as a whole).
#[async_trait]
pub trait Storage: Sink {
    /// Reads an object, whole or a range.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none.
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>>;

    /// Looks at an object without reading it; `None` when there is none.
    ///
    /// # Errors
    /// When it could not be looked at, which is not the same as "not there".
    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>>;

    /// Every committed object whose key starts with the folder `prefix` ("" for all), sorted
    /// by key. All or nothing: an incomplete listing is an error. Never shows a leftover.
    ///
    /// # Errors
    /// When the listing could not be completed.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;

    /// Names of the folders directly in the folder `prefix` ("" for the top) that hold a
    /// committed object at any depth, sorted.
    ///
    /// As it stands it reads a whole listing; a storage that can ask for less should.
    ///
    /// # Errors
    /// When the listing could not be completed.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let objects = self.list(prefix).await?;
        let inside = objects.iter().filter_map(|object| {
            let key = object.key.strip_prefix(prefix)?;
            Some(key.trim_start_matches('/').split_once('/')?.0.to_owned())
        });
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Removes an object. Removing what isn't there is fine.
    ///
    /// # Errors
    /// When the object may still be there.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Creates a small object if there is none under this key: of two callers, one wins.
    /// As durable as a commit.
    ///
    /// # Errors
    /// When it is not known whether the object was created, or storing failed.
    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation>;

    /// Whether [`Storage::create_new`] keeps its promise between hosts: of two callers one wins.
    ///
    /// Where a storage has no means for that it says `false`, and the ids of backups in it get
    /// random letters.
    fn excludes(&self) -> bool {
        true
    }

    /// Removes leftovers of crashed writers under the folder `prefix` that were last touched
    /// before `older_than`; says how many. Never touches a committed object.
    ///
    /// # Errors
    /// When leftovers could not be looked for or removed.
    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64>;

    /// What it can do where it keeps older versions of its objects; `None` where it can't.
    fn versioned(&self) -> Option<&dyn Versioned> {
        None
    }
}

/// A storage that may keep what was replaced or deleted, and lock what it keeps.
#[async_trait]
pub trait Versioned: Send + Sync {
    /// Every kept version of an object, the newest first, also where it is hidden. Empty where
    /// nothing is kept, and where it isn't known whether anything is.
    ///
    /// # Errors
    /// When they could not be listed.
    async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>>;

    /// As [`Storage::open`], of one version.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such version.
    async fn open_version(
        &self,
        key: &str,
        version: &str,
        range: ByteRange,
    ) -> Result<Box<dyn SourceStream>>;

    /// Locks a version (`None`: the newest) until a time, so that nobody deletes it before. A
    /// lock that lasts longer stays: this never shortens one.
    ///
    /// # Errors
    /// When it may not be locked so long; among them a storage without locks.
    async fn lock_until(&self, key: &str, version: Option<&str>, until: Timestamp) -> Result<()>;

    /// Holds a version (`None`: the newest) whatever its lock says, until this is called with
    /// `false`. Doing either twice is fine. Tells whether the storage can hold anything: `false`
    /// says that it has no locks.
    ///
    /// # Errors
    /// When that could not be set, or nobody knows whether it was.
    async fn hold(&self, key: &str, version: Option<&str>, held: bool) -> Result<bool>;

    /// What keeps a version (`None`: the newest) from being deleted.
    ///
    /// # Errors
    /// When it could not be asked.
    async fn protection(&self, key: &str, version: Option<&str>) -> Result<Protection>;
}

/// One kept version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Its name with the storage.
    pub id: String,
    /// Its size.
    pub bytes: u64,
    /// When it was stored.
    pub modified: Timestamp,
    /// Whether it is what [`Storage::open`] reads; of a deleted object none is.
    pub current: bool,
}

/// What keeps an object from being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// Until when it is locked.
    pub locked_until: Option<Timestamp>,
    /// Whether it is held.
    pub held: bool,
}

/// What to read of an object, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteRange {
    /// First byte wanted.
    pub offset: u64,
    /// How many; `None` up to the end. A range past the end gives what there is.
    pub length: Option<u64>,
}

impl ByteRange {
    /// The whole object.
    pub const ALL: ByteRange = ByteRange { offset: 0, length: None };
}

/// A committed object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// When it was committed.
    pub modified: Timestamp,
}

/// What [`Storage::create_new`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// The object is ours.
    Created,
    /// Somebody else's object was there; it is untouched.
    Taken,
}
