//! A storage between whose caller and whose inside a test stands.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, Error, ErrorKind, ObjectInfo, ObjectVersion, Protection, Result, Sink,
    SinkWriter, SourceStream, Storage, Versioned,
};
use bytes::Bytes;
use jiff::Timestamp;

/// A call of a storage. `folders` is none: it is read from a listing. Of the versions only `hold`
/// is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Sink::begin`]
    Begin,
    /// [`Storage::open`]
    Open,
    /// [`Storage::stat`]
    Stat,
    /// [`Storage::list`]
    List,
    /// [`Storage::delete`]
    Delete,
    /// [`Storage::create_new`]
    CreateNew,
    /// [`Storage::sweep`]
    Sweep,
    /// [`Versioned::hold`]
    Hold,
}

impl Call {
    /// What a key may do that can't harm older backups.
    pub const WRITING: &[Call] = &[Call::Begin, Call::CreateNew];
    /// What a key may do that can't change anything.
    pub const READING: &[Call] = &[Call::Open, Call::Stat, Call::List];
}

type Before = dyn Fn(Call, &str) -> Result<()> + Send + Sync;
type After = dyn Fn(Call, &str) + Send + Sync;

/// A storage that asks a test before each call, and tells it after each that went well. A hook
/// is handed the call and its key or prefix.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use backup_core::Storage;
/// use backup_testkit::{Call, Intercepted, Memory};
///
/// let memory = Memory::new("offsite");
/// let storage = Intercepted::permitting(Arc::new(memory.clone()), Call::WRITING);
/// storage.create_new("a", "x".into()).await?;
/// assert!(storage.stat("a").await.is_err());
/// assert!(storage.delete("a").await.is_err());
///
/// let another = memory.clone();
/// let storage = Intercepted::new(Arc::new(memory.clone())).after(move |call, key| {
///     if call == Call::Delete {
///         another.plant(&format!("{key}-again"), "y");
///     }
/// });
/// storage.delete("a").await?;
/// assert_eq!(memory.keys(), ["a-again"]);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
pub struct Intercepted {
    inner: Arc<dyn Storage>,
    before: Vec<Box<Before>>,
    after: Vec<Box<After>>,
    unlisted: Option<String>,
}

impl Intercepted {
    /// `inner`, with no hook yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, before: Vec::new(), after: Vec::new(), unlisted: None }
    }

    /// `inner`, by a key that may do only this: every other call is refused.
    pub fn permitting(inner: Arc<dyn Storage>, permitted: &'static [Call]) -> Self {
        let stage = format!("storage {}", inner.name());
        Self::new(inner).before(move |call, key| {
            if permitted.contains(&call) {
                return Ok(());
            }
            let kind = match call {
                Call::Begin | Call::CreateNew | Call::Delete | Call::Hold => ErrorKind::Failed,
                Call::Open | Call::Stat | Call::List | Call::Sweep => ErrorKind::Unchecked,
            };
            Err(Error::new(kind, stage.clone(), format!("access denied: {call:?} {key}"))
                .next_step("none: a test wanted this refusal"))
        })
    }

    /// Calls `hook` before each call, which is not made when the hook refuses it.
    #[must_use]
    pub fn before(
        mut self,
        hook: impl Fn(Call, &str) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before.push(Box::new(hook));
        self
    }

    /// Calls `hook` after each call that went well.
    #[must_use]
    pub fn after(mut self, hook: impl Fn(Call, &str) + Send + Sync + 'static) -> Self {
        self.after.push(Box::new(hook));
        self
    }

    /// Listings lag behind: they do not show the object `key`.
    #[must_use]
    pub fn unlisted(mut self, key: impl Into<String>) -> Self {
        self.unlisted = Some(key.into());
        self
    }

    async fn call<T>(
        &self,
        call: Call,
        key: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        for hook in &self.before {
            hook(call, key)?;
        }
        let done = work.await?;
        for hook in &self.after {
            hook(call, key);
        }
        Ok(done)
    }
}

#[async_trait]
impl Sink for Intercepted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        self.call(Call::Begin, key, self.inner.begin(key)).await
    }
}

#[async_trait]
impl Storage for Intercepted {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.call(Call::Open, key, self.inner.open(key, range)).await
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.call(Call::Stat, key, self.inner.stat(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = self.call(Call::List, prefix, self.inner.list(prefix)).await?;
        objects.retain(|object| self.unlisted.as_ref() != Some(&object.key));
        Ok(objects)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call(Call::Delete, key, self.inner.delete(key)).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        self.call(Call::CreateNew, key, self.inner.create_new(key, body)).await
    }

    fn excludes(&self) -> bool {
        self.inner.excludes()
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        self.call(Call::Sweep, prefix, self.inner.sweep(prefix, older_than)).await
    }

    fn versioned(&self) -> Option<&dyn Versioned> {
        self.inner.versioned().map(|_| self as &dyn Versioned)
    }
}

impl Intercepted {
    fn kept(&self) -> Result<&dyn Versioned> {
        let none = || Error::failed(format!("storage {}", self.inner.name()), "keeps no versions");
        self.inner.versioned().ok_or_else(none)
    }
}

#[async_trait]
impl Versioned for Intercepted {
    async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>> {
        self.kept()?.versions(key).await
    }

    async fn open_version(
        &self,
        key: &str,
        version: &str,
        range: ByteRange,
    ) -> Result<Box<dyn SourceStream>> {
        self.kept()?.open_version(key, version, range).await
    }

    async fn lock_until(&self, key: &str, version: Option<&str>, until: Timestamp) -> Result<()> {
        self.kept()?.lock_until(key, version, until).await
    }

    async fn hold(&self, key: &str, version: Option<&str>, held: bool) -> Result<bool> {
        self.call(Call::Hold, key, self.kept()?.hold(key, version, held)).await
    }

    async fn protection(&self, key: &str, version: Option<&str>) -> Result<Protection> {
        self.kept()?.protection(key, version).await
    }
}
