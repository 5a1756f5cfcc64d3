//! A storage in memory that keeps every promise except to outlive its process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backup_core::layout::check_key;
use backup_core::{
    ByteRange, Committed, Creation, Error, ErrorKind, ObjectInfo, Result, Sink, SinkWriter,
    SourceStream, Storage,
};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use crate::Given;

/// What a stream out of [`Memory`] hands on at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A [`Storage`] in memory. Clones share their objects.
///
/// A writer that was dropped leaves a leftover, as one on a disk does: it is counted by
/// [`Memory::unfinished`] and swept by its age.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use backup_core::Sink;
/// use backup_testkit::Memory;
///
/// let storage = Memory::new("memory");
/// let mut writer = storage.begin("a/b").await?;
/// writer.write("hello".into()).await?;
/// assert_eq!(storage.object("a/b"), None);
/// writer.commit().await?;
/// assert_eq!(storage.object("a/b"), Some("hello".into()));
/// assert_eq!(storage.unfinished(), 0);
/// # Ok::<(), backup_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Memory {
    name: String,
    state: Arc<Mutex<State>>,
    excludes: bool,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    drafts: HashMap<u64, Draft>,
    next_draft: u64,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    modified: Timestamp,
}

#[derive(Debug)]
struct Draft {
    key: String,
    body: BytesMut,
    touched: Timestamp,
}

impl Memory {
    /// An empty storage.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: Arc::default(), excludes: true }
    }

    /// The same, but of two callers of `create_new` both may win, as in a storage without
    /// conditional writes; it says so ([`Storage::excludes`]).
    #[must_use]
    pub fn without_conditions(mut self) -> Self {
        self.excludes = false;
        self
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|object| object.body.clone())
    }

    /// Puts bytes under a key past every rule, to damage an object or to plant one.
    pub fn plant(&self, key: &str, body: impl Into<Bytes>) {
        let object = Object { body: body.into(), modified: Timestamp::now() };
        self.state().objects.insert(key.to_owned(), object);
    }

    /// Takes an object away past every rule, as an intruder or a crash does.
    pub fn remove(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// The keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// Writers that were begun and neither committed nor aborted, dropped ones included.
    pub fn unfinished(&self) -> usize {
        self.state().drafts.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self, key: &str) -> Error {
        Error::failed(self.name.clone(), format!("the unfinished {key} was swept away"))
    }
}

/// Whether `key` lies in the folder `prefix` ("" for all).
fn lies_in(key: &str, prefix: &str) -> bool {
    prefix.is_empty() || key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix) }
}

#[async_trait]
impl Sink for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        check_key(key)?;
        let mut state = self.state();
        let id = state.next_draft;
        state.next_draft += 1;
        let draft = Draft { key: key.to_owned(), body: BytesMut::new(), touched: Timestamp::now() };
        state.drafts.insert(id, draft);
        Ok(Box::new(MemoryWriter { memory: self.clone(), id, key: key.to_owned() }))
    }
}

struct MemoryWriter {
    memory: Memory,
    id: u64,
    key: String,
}

#[async_trait]
impl SinkWriter for MemoryWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let mut state = self.memory.state();
        let draft = state.drafts.get_mut(&self.id).ok_or_else(|| self.memory.gone(&self.key))?;
        draft.body.extend_from_slice(&chunk);
        draft.touched = Timestamp::now();
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        let mut state = self.memory.state();
        let draft = state.drafts.remove(&self.id).ok_or_else(|| self.memory.gone(&self.key))?;
        let body = draft.body.freeze();
        let bytes = body.len() as u64;
        state.objects.insert(draft.key, Object { body, modified: Timestamp::now() });
        Ok(Committed { bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.memory.state().drafts.remove(&self.id);
        Ok(())
    }
}

#[async_trait]
impl Storage for Memory {
    async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
        check_key(key)?;
        let body = self.object(key).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, self.name.clone(), format!("there is no {key}"))
        })?;
        let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
        let start = position(range.offset);
        let end = range.length.map_or(body.len(), |l| position(range.offset.saturating_add(l)));
        Ok(Box::new(Given::new(body.slice(start..end), CHUNK_BYTES)))
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        check_key(key)?;
        Ok(self.state().objects.get(key).map(|object| object.info(key)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        check_prefix(prefix)?;
        let state = self.state();
        let inside = state.objects.iter().filter(|(key, _)| lies_in(key, prefix));
        Ok(inside.map(|(key, object)| object.info(key)).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.state().objects.remove(key);
        Ok(())
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        check_key(key)?;
        let mut state = self.state();
        if self.excludes && state.objects.contains_key(key) {
            return Ok(Creation::Taken);
        }
        state.objects.insert(key.to_owned(), Object { body, modified: Timestamp::now() });
        Ok(Creation::Created)
    }

    fn excludes(&self) -> bool {
        self.excludes
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        check_prefix(prefix)?;
        let mut state = self.state();
        let before = state.drafts.len();
        state.drafts.retain(|_, draft| !lies_in(&draft.key, prefix) || draft.touched >= older_than);
        Ok((before - state.drafts.len()) as u64)
    }
}

impl Object {
    fn info(&self, key: &str) -> ObjectInfo {
        ObjectInfo { key: key.to_owned(), bytes: self.body.len() as u64, modified: self.modified }
    }
}
