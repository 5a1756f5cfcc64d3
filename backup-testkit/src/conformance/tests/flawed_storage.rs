//! A storage for each way to break a promise, around the honest one in memory.

use std::sync::Mutex;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Committed, Creation, Error, ErrorKind, ObjectInfo, Result, Sink, SinkWriter,
    SourceStream, Storage,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::super::{sink, storage};
use super::assert_found;
use crate::{Given, Memory};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    // of the sink
    VisibleEarly,
    AbortKeeps,
    AbortHurtsOld,
    DropPublishes,
    CutsLargeOnes,
    LosesEmptyOnes,
    MiscountsCommit,
    Appends,
    RemovesOldAtBegin,
    FirstWins,
    MixesWriters,
    FoldsCase,
    DecodesPercent,
    TakesBadKeys,
    // of the storage
    StatsNothingAsEmpty,
    StatsWrongKey,
    StatsEpoch,
    OpensNothingAsEmpty,
    OpensNothingAsFailed,
    IgnoresLength,
    RefusesPastTheEnd,
    EmptyChunks,
    ListsUnsorted,
    ListsByText,
    ListsItself,
    ListsTheFirstOnly,
    ListsUnfinished,
    ListsWrongSize,
    RefusesToDeleteNothing,
    DeletesFolders,
    DeletesNothing,
    CreateReplaces,
    CreateRaces,
    CreateForgetsCommits,
    SweepsObjects,
    SweepsYoung,
    SweepsByText,
    SweepsHalf,
    ReadsBadKeys,
}

struct Flawed {
    flaw: Flaw,
    memory: Memory,
    shared: std::sync::Arc<Mutex<Vec<u8>>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, memory: Memory::new("flawed"), shared: Default::default() }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn place(&self, key: &str) -> String {
        match self.flaw {
            Flaw::FoldsCase => key.to_lowercase(),
            Flaw::DecodesPercent => key.replace("%20", " "),
            Flaw::TakesBadKeys if key.ends_with(".partial") => "bad".into(),
            _ => key.to_owned(),
        }
    }
}

struct Writer {
    inner: Box<dyn SinkWriter>,
    storage: Flawed,
    key: String,
    body: Vec<u8>,
    finished: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.storage.shared.lock().unwrap().clear();
        if self.storage.is(Flaw::DropPublishes) && !self.finished {
            self.storage.memory.plant(&self.key, self.body.clone());
        }
    }
}

/// Stands in for the writer inside when the flaw has replaced what it does.
fn take(inner: &mut Box<dyn SinkWriter>) -> Box<dyn SinkWriter> {
    struct Nothing;
    #[async_trait]
    impl SinkWriter for Nothing {
        async fn write(&mut self, _: Bytes) -> Result<()> {
            Ok(())
        }
        async fn commit(self: Box<Self>) -> Result<Committed> {
            Ok(Committed::default())
        }
        async fn abort(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }
    std::mem::replace(inner, Box::new(Nothing))
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.body.extend_from_slice(&chunk);
        self.storage.shared.lock().unwrap().extend_from_slice(&chunk);
        if self.storage.is(Flaw::VisibleEarly) && self.body.len() > 1_000_000 {
            self.storage.memory.plant(&self.key, self.body.clone());
        }
        self.inner.write(chunk).await
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        self.finished = true;
        let memory = &self.storage.memory;
        let old = memory.object(&self.key);
        let mut committed = take(&mut self.inner).commit().await?;
        match (self.storage.flaw, old) {
            (Flaw::CutsLargeOnes, _) if self.body.len() > 1024 * 1024 => {
                memory.plant(&self.key, self.body[..1024 * 1024].to_vec());
            }
            (Flaw::LosesEmptyOnes, _) if self.body.is_empty() => memory.delete(&self.key).await?,
            (Flaw::Appends, Some(old)) => memory.plant(&self.key, [&old, &self.body[..]].concat()),
            (Flaw::FirstWins, Some(old)) if self.body.len() > old.len() => {
                memory.plant(&self.key, old);
            }
            (Flaw::MixesWriters, _) => {
                let shared = std::mem::take(&mut *self.storage.shared.lock().unwrap());
                memory.plant(&self.key, shared);
            }
            (Flaw::MiscountsCommit, _) => committed.bytes = 0,
            _ => {}
        }
        Ok(committed)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.finished = true;
        if self.storage.is(Flaw::AbortKeeps) && !self.body.is_empty() {
            return take(&mut self.inner).commit().await.map(drop);
        }
        if self.storage.is(Flaw::AbortHurtsOld) {
            self.storage.memory.delete(&self.key).await?;
        }
        take(&mut self.inner).abort().await
    }
}

#[async_trait]
impl Sink for Flawed {
    fn name(&self) -> &str {
        "flawed"
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        let key = self.place(key);
        let inner = self.memory.begin(&key).await?;
        if self.is(Flaw::RemovesOldAtBegin) {
            self.memory.delete(&key).await?;
        }
        if self.is(Flaw::ListsUnfinished) && key.ends_with("dropped/x") {
            self.memory.plant(&format!("{key}.tmp"), "");
        }
        let storage = Flawed { memory: self.memory.clone(), shared: self.shared.clone(), ..*self };
        Ok(Box::new(Writer { inner, storage, key, body: Vec::new(), finished: false }))
    }
}

struct EmptyFirst(Option<Box<dyn SourceStream>>, bool);

#[async_trait]
impl SourceStream for EmptyFirst {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if !std::mem::replace(&mut self.1, true) {
            return Ok(Some(Bytes::new()));
        }
        self.0.as_mut().unwrap().next_chunk().await
    }
}

#[async_trait]
impl Storage for Flawed {
    async fn open(&self, key: &str, mut range: ByteRange) -> Result<Box<dyn SourceStream>> {
        let key = self.place(key);
        let there = self.memory.object(&key);
        match self.flaw {
            Flaw::OpensNothingAsEmpty if there.is_none() => {
                return Ok(Box::new(Given::new("", 1)));
            }
            Flaw::OpensNothingAsFailed if there.is_none() => {
                return Err(Error::failed("flawed", "no such file"));
            }
            Flaw::ReadsBadKeys if key.contains("..") && there.is_none() => {
                return Err(Error::new(ErrorKind::NotFound, "flawed", "outside"));
            }
            Flaw::IgnoresLength => range.length = None,
            Flaw::RefusesPastTheEnd if there.is_some_and(|b| range.offset > b.len() as u64) => {
                return Err(Error::failed("flawed", "416"));
            }
            _ => {}
        }
        let stream = self.memory.open(&key, range).await?;
        if self.is(Flaw::EmptyChunks) {
            return Ok(Box::new(EmptyFirst(Some(stream), false)));
        }
        Ok(stream)
    }

    async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
        let mut info = self.memory.stat(&self.place(key)).await?;
        match (self.flaw, &mut info) {
            (Flaw::StatsNothingAsEmpty, None) => {
                let modified = Timestamp::now();
                info = Some(ObjectInfo { key: key.into(), bytes: 0, modified });
            }
            (Flaw::StatsWrongKey, Some(info)) => info.key = format!("/{key}"),
            (Flaw::StatsEpoch, Some(info)) => info.modified = Timestamp::UNIX_EPOCH,
            _ => {}
        }
        Ok(info)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = self.memory.list(prefix).await?;
        match self.flaw {
            // As a walk from folder to folder gives it.
            Flaw::ListsUnsorted => objects.sort_by_key(|o| o.key.replace('/', "\0")),
            Flaw::ListsByText => {
                objects = self.memory.list("").await?;
                objects.retain(|o| o.key.starts_with(prefix));
            }
            Flaw::ListsItself => objects.extend(self.memory.stat(prefix).await.ok().flatten()),
            Flaw::ListsTheFirstOnly => objects.truncate(20),
            Flaw::ListsWrongSize => objects.iter_mut().for_each(|o| o.bytes += 1),
            _ => {}
        }
        Ok(objects)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.flaw {
            Flaw::RefusesToDeleteNothing if self.stat(key).await?.is_none() => {
                return Err(Error::failed("flawed", "nothing there"));
            }
            Flaw::DeletesNothing => return Ok(()),
            Flaw::DeletesFolders => {
                for object in self.memory.list(key).await? {
                    self.memory.delete(&object.key).await?;
                }
            }
            _ => {}
        }
        self.memory.delete(&self.place(key)).await
    }

    async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
        let there = self.memory.stat(&self.place(key)).await?.is_some();
        match self.flaw {
            Flaw::CreateReplaces if there => {
                self.memory.plant(key, body);
                return Ok(Creation::Taken);
            }
            Flaw::CreateForgetsCommits if key.ends_with("committed") => {
                self.memory.plant(key, body);
                return Ok(Creation::Created);
            }
            Flaw::CreateRaces if !there => {
                tokio::task::yield_now().await;
                self.memory.plant(key, body);
                return Ok(Creation::Created);
            }
            _ => {}
        }
        self.memory.create_new(&self.place(key), body).await
    }

    async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
        match self.flaw {
            Flaw::SweepsObjects => {
                for object in self.memory.list(prefix).await? {
                    if object.modified < older_than {
                        self.memory.delete(&object.key).await?;
                    }
                }
            }
            Flaw::SweepsYoung => {
                return self
                    .memory
                    .sweep(prefix, Timestamp::now() + SignedDuration::from_hours(1))
                    .await;
            }
            Flaw::SweepsByText => {
                let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
                return self.memory.sweep(folder, older_than).await;
            }
            // Says that it did, and left one: the next sweep finds it.
            Flaw::SweepsHalf if older_than > Timestamp::now() => {
                let swept = self.memory.sweep(prefix, older_than).await?;
                drop(self.memory.begin(&format!("{prefix}/again")).await?);
                return Ok(swept);
            }
            _ => {}
        }
        self.memory.sweep(prefix, older_than).await
    }
}

const OF_THE_SINK: [(Flaw, &str); 14] = [
    (Flaw::VisibleEarly, "must not be visible"),
    (Flaw::AbortKeeps, "after an abort"),
    (Flaw::AbortHurtsOld, "after replacing it was aborted"),
    (Flaw::DropPublishes, "after a writer was dropped"),
    (Flaw::CutsLargeOnes, "1048576 bytes came"),
    (Flaw::LosesEmptyOnes, "must be visible"),
    (Flaw::MiscountsCommit, "how many bytes"),
    (Flaw::Appends, "after it was replaced"),
    (Flaw::RemovesOldAtBegin, "while it is being replaced"),
    (Flaw::FirstWins, "commits last wins"),
    (Flaw::MixesWriters, "with another writer still at it"),
    (Flaw::FoldsCase, "under an odd name"),
    (Flaw::DecodesPercent, "under an odd name"),
    (Flaw::TakesBadKeys, "must refuse the key"),
];

#[tokio::test]
async fn flawed_sinks_are_found_by_both_suites() {
    for (flaw, words) in OF_THE_SINK {
        let flawed = Flawed::new(flaw);
        let look = |key: &str| Ok(flawed.memory.object(&flawed.place(key)).map(|b| b.to_vec()));
        assert_found(sink(&flawed, &look).await, words, &flaw);
        assert_found(storage(&Flawed::new(flaw)).await, words, &flaw);
    }
}

#[tokio::test]
async fn flawed_storages_are_found() {
    use Flaw::*;
    for (flaw, words) in [
        (StatsNothingAsEmpty, "stat says None of what never was"),
        (StatsWrongKey, "list and stat tell the same"),
        (StatsEpoch, "list and stat tell the same"),
        (OpensNothingAsEmpty, "must not be visible"),
        (OpensNothingAsFailed, "or say that it isn't found"),
        (IgnoresLength, "the range from 0, length Some(0)"),
        (RefusesPastTheEnd, "must open the range"),
        (EmptyChunks, "empty chunk"),
        (ListsUnsorted, "sorted by key"),
        (ListsByText, "not in it"),
        (ListsItself, "not in it"),
        (ListsTheFirstOnly, "missing"),
        (ListsUnfinished, "not in it"),
        (ListsWrongSize, "list and stat tell the same"),
        (RefusesToDeleteNothing, "delete what never was"),
        (DeletesFolders, "after a delete of its folder's name"),
        (DeletesNothing, "stat says None of a deleted object"),
        (CreateReplaces, "create_new leaves what is there alone"),
        (CreateRaces, "of two racers one wins"),
        (CreateForgetsCommits, "Taken of a commit"),
        (SweepsObjects, "a committed object after a sweep"),
        (SweepsYoung, "spares what is young"),
        (SweepsByText, "sweep works on one folder"),
        (SweepsHalf, "every old leftover at once"),
        (ReadsBadKeys, "open must refuse"),
    ] {
        assert_found(storage(&Flawed::new(flaw)).await, words, &flaw);
    }
}

#[tokio::test]
async fn the_honest_one_passes_and_leaves_nothing() {
    let memory = Memory::new("memory");
    storage(&memory).await.unwrap();
    assert_eq!((memory.keys().len(), memory.unfinished()), (0, 0));
}
