//! What differs between the services, and what opendal does for all of them.

use std::collections::HashMap;
use std::fmt::Debug;

use async_trait::async_trait;
use backup_core::{ObjectVersion, Protection, layout};
use jiff::Timestamp;
use opendal::options::WriteOptions;
use opendal::{Buffer, ErrorKind, Operator, Writer};

use super::parts::Growth;
use super::probe::Finding;

/// A result in the terms of the service.
pub(super) type Outcome<T> = Result<T, opendal::Error>;

/// Blocks that opendal sends at once.
const CONCURRENT_BLOCKS: usize = 2;

/// One kind of service.
#[async_trait]
pub(super) trait Service: Debug + Send + Sync {
    /// The name under which objects carry the mark of their writer.
    fn mark_name(&self) -> &'static str;

    /// How parts grow.
    fn growth(&self) -> Growth;

    /// Stores an object with a single request; `only_new` refuses to replace one.
    async fn put(&self, object: &Object<'_>, body: Buffer, only_new: bool) -> Outcome<Stored>;

    /// Starts an object of several parts.
    async fn start(&self, object: &Object<'_>) -> Outcome<Box<dyn Upload>>;

    /// Removes an object; one that isn't there is fine.
    async fn delete(&self, key: &str) -> Outcome<()>;

    /// Removes what unfinished writers left in a folder ("" for all) before a time.
    async fn sweep(&self, folder: &str, older_than: Timestamp) -> Outcome<u64>;

    /// Whether [`Service::put`] keeps `only_new` between hosts.
    fn excludes(&self) -> bool {
        true
    }

    /// Whether the calls below mean something here.
    fn may_keep_versions(&self) -> bool {
        false
    }

    /// Every kept version of an object, the newest first.
    async fn versions(&self, _key: &str) -> Outcome<Vec<ObjectVersion>> {
        Ok(Vec::new())
    }

    /// Locks a version until a time, unless it is locked as long already.
    async fn lock_until(&self, _: &str, _: Option<&str>, _: Timestamp) -> Outcome<()> {
        Err(no_locks())
    }

    /// Holds a version, or gives it free; `false` where there are no locks.
    async fn hold(&self, _: &str, _: Option<&str>, _held: bool) -> Outcome<bool> {
        Ok(false)
    }

    /// What keeps a version from being deleted.
    async fn protection(&self, _: &str, _: Option<&str>) -> Outcome<Protection> {
        Err(no_locks())
    }

    /// What to do where [`Service::put`] does not keep `only_new`.
    fn conditional_remedy(&self) -> &'static str;

    /// What of the settings the service refuses, after `error` refused all of them.
    async fn asked_too_much(&self, _: &Object<'_>, _error: &opendal::Error) -> Vec<Finding> {
        Vec::new()
    }

    /// Removes what earlier probes could only hide.
    async fn sweep_probes(&self, _older_than: Timestamp) -> Outcome<()> {
        Ok(())
    }

    /// Tries what is this service's own on a probe object.
    async fn probe_more(&self, _object: &Object<'_>) -> Vec<Finding> {
        Vec::new()
    }
}

fn no_locks() -> opendal::Error {
    opendal::Error::new(ErrorKind::Unsupported, "this kind of storage has no locks")
}

/// An object to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) key: &'a str,
    /// Random for each writer, and kept with the object: so a writer that got no answer can
    /// look whether the object is its own.
    pub(super) mark: &'a str,
    /// It is removed again at once, so a lock may last a minute only.
    pub(super) probes: bool,
    /// It is removed when the run ends: never locked.
    pub(super) passing: bool,
}

impl<'a> Object<'a> {
    /// An object that is to stay.
    pub(super) fn new(key: &'a str, mark: &'a str) -> Self {
        // A claim that is locked could not be given back.
        let passing = layout::is_passing(key);
        Self { key, mark, probes: false, passing }
    }
}

/// What the service said of a stored object.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) version: Option<String>,
}

/// An object on its way, part by part.
#[async_trait]
pub(super) trait Upload: Send {
    /// Takes the next part. It may still be on its way afterwards, so an error may be an
    /// earlier part's.
    async fn part(&mut self, body: Buffer) -> Outcome<()>;

    /// Makes the parts an object. The last part is taken here.
    async fn complete(&mut self, last: Buffer) -> Outcome<Stored>;

    /// Throws the parts away, also after `complete` failed.
    async fn abort(&mut self) -> Outcome<()>;
}

/// Stores an object with one request of opendal.
pub(super) async fn put_with(
    operator: &Operator,
    key: &str,
    body: Buffer,
    only_new: bool,
    metadata: HashMap<String, String>,
) -> Outcome<Stored> {
    let options = WriteOptions {
        if_not_exists: only_new,
        user_metadata: Some(metadata),
        ..WriteOptions::default()
    };
    let metadata = operator.write_options(key, body, options).await?;
    Ok(Stored { version: metadata.version().map(str::to_owned) })
}

/// Removes an object with opendal.
pub(super) async fn delete_with(operator: &Operator, key: &str) -> Outcome<()> {
    match operator.delete(key).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An upload that opendal's writer carries out: each buffer becomes one block.
pub(super) struct Blocks(Writer);

impl Blocks {
    pub(super) async fn start(
        operator: &Operator,
        key: &str,
        options: WriteOptions,
    ) -> Outcome<Self> {
        let options = WriteOptions { concurrent: CONCURRENT_BLOCKS, ..options };
        operator.writer_options(key, options).await.map(Self)
    }
}

#[async_trait]
impl Upload for Blocks {
    async fn part(&mut self, body: Buffer) -> Outcome<()> {
        self.0.write(body).await
    }

    async fn complete(&mut self, last: Buffer) -> Outcome<Stored> {
        self.0.write(last).await?;
        let metadata = self.0.close().await?;
        Ok(Stored { version: metadata.version().map(str::to_owned) })
    }

    async fn abort(&mut self) -> Outcome<()> {
        self.0.abort().await
    }
}
