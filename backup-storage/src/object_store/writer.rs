//! Writes one object: gathers parts, sends them on, and settles what became of the commit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;
use opendal::Buffer;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{NoAnswer, Refusal};
use super::parts::{Gathered, Growth};
use super::service::{Object, Outcome, Stored, Upload};
use super::store::Store;
use crate::failure::Doing;
use crate::failure::with_leftover;

/// How long an abort waits for the answer to the start of an upload, whose id it needs.
const START_GRACE: Duration = Duration::from_secs(60);
/// How long it may take to look what became of a commit that took too long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(45);
/// How long it may take to remove the upload of a commit that failed.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// The upload that a task of its own starts: an answer is never lost with the one that waits.
type Starting = oneshot::Receiver<Outcome<Box<dyn Upload>>>;

/// An object being written. Holds the part being gathered; the upload holds those on their way.
pub(super) struct Writer {
    store: Arc<Store>,
    key: String,
    mark: String,
    growth: Growth,
    gathered: Gathered,
    /// Parts that were sent.
    parts: u64,
    starting: Option<Starting>,
    upload: Option<Box<dyn Upload>>,
    bytes: u64,
    failed: bool,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, key: &str) -> Self {
        Self {
            growth: store.service.growth(),
            store,
            key: key.to_owned(),
            mark: fresh_mark(),
            gathered: Gathered::default(),
            parts: 0,
            starting: None,
            upload: None,
            bytes: 0,
            failed: false,
        }
    }

    fn explain(&self, error: opendal::Error) -> Error {
        self.store.explain(Doing::Write, &format!("write {}", self.key), error)
    }

    /// Sends what is a whole part, as long as something comes after it: the last part belongs
    /// to the commit, and an object of one part is stored with a single request.
    async fn send_full_parts(&mut self) -> Result<()> {
        loop {
            let Some(size) = self.growth.bytes_of(self.parts) else {
                return Err(self.too_long());
            };
            if self.gathered.bytes() <= size {
                return Ok(());
            }
            let part = self.gathered.take(size);
            self.send(part).await.map_err(|error| self.explain(error))?;
            self.parts += 1;
        }
    }

    async fn send(&mut self, part: Buffer) -> Outcome<()> {
        if self.upload.is_none() {
            if self.starting.is_none() {
                self.starting = Some(self.start());
            }
            self.upload = self.started().await?;
        }
        match &mut self.upload {
            Some(upload) => upload.part(part).await,
            None => Ok(()),
        }
    }

    /// Starts the upload. When nobody waits for it any more, it is aborted again.
    fn start(&self) -> Starting {
        let (tell, starting) = oneshot::channel();
        let (store, key, mark) = (Arc::clone(&self.store), self.key.clone(), self.mark.clone());
        tokio::spawn(async move {
            let started = store.service.start(&Object::new(&key, &mark)).await;
            let Err(Ok(mut unwanted)) = tell.send(started) else { return };
            if let Err(error) = unwanted.abort().await {
                let verb = format!("remove the unfinished {key}");
                tracing::warn!("{}", store.explain(Doing::Write, &verb, error));
            }
        });
        starting
    }

    /// The upload, once it is started; `None` when none is being started. May be given up and
    /// asked again.
    async fn started(&mut self) -> Outcome<Option<Box<dyn Upload>>> {
        let Some(starting) = &mut self.starting else { return Ok(None) };
        let started = starting.await.unwrap_or_else(|died| {
            Err(NoAnswer::Broken(format!("the start was given up: {died}")).into_error())
        });
        self.starting = None;
        started.map(Some)
    }

    fn too_long(&self) -> Error {
        let (parts, bytes) = (self.growth.most_parts, self.growth.longest_object());
        let error = Error::failed(
            self.store.stage.clone(),
            format!(
                "{} is too long: the service takes {parts} parts, which hold {bytes} bytes",
                self.key
            ),
        );
        match self.growth.fixed {
            Some(_) => error.next_step("set a larger `part_size`, or none: parts then grow"),
            None => error.next_step("split what is backed up into several jobs"),
        }
    }

    async fn publish(&mut self) -> Outcome<Stored> {
        let last = self.gathered.take_all();
        match &mut self.upload {
            Some(upload) => upload.complete(last).await,
            None => {
                let object = Object::new(&self.key, &self.mark);
                self.store.service.put(&object, last, false).await
            }
        }
    }

    /// As [`Writer::publish`], not longer than the service may take for it.
    async fn publish_in_time(&mut self) -> Outcome<Stored> {
        let limit = self.store.commit_timeout;
        let published = timeout(limit, self.publish()).await;
        published.unwrap_or_else(|_| Err(NoAnswer::Silent(limit).into_error()))
    }

    /// Looks what became of a commit that was not answered clearly.
    async fn settle(&mut self, error: opendal::Error, until: Instant) -> Result<Stored> {
        if is_clear(&error) {
            let error = self.explain(error);
            return Err(self.clean_up(error).await);
        }
        match self.look_for_ours(until).await {
            Ok(Some(stored)) => Ok(stored),
            Ok(None) => {
                let had_parts = self.upload.is_some();
                let error = self.explain(error);
                let error = self.clean_up(error).await;
                // Between the look and the end of the upload it may have been completed after all.
                let again = if had_parts { self.look_for_ours(until).await } else { Ok(None) };
                again.ok().flatten().ok_or(error)
            }
            Err(blind) => {
                let error = self.explain(error);
                let message =
                    format!("{}; and whether it is there can't be told: {blind}", error.message());
                let unknown = Error::failed(self.store.stage.clone(), message);
                let unknown = unknown.next_step("run again: what this run left is removed in time");
                Err(self.clean_up(unknown).await)
            }
        }
    }

    /// What this writer stored, if it did.
    async fn look_for_ours(&mut self, until: Instant) -> Result<Option<Stored>> {
        let Ok(seen) = timeout_at(until, self.store.look(&self.key)).await else {
            let silent = NoAnswer::Silent(LOOK_TIMEOUT).into_error();
            return Err(self.store.explain(Doing::Read, &format!("look at {}", self.key), silent));
        };
        let ours = seen?.filter(|seen| seen.mark.as_deref() == Some(&self.mark));
        Ok(ours.map(|seen| {
            tracing::debug!("{}: the answer for {} was lost", self.store.stage, self.key);
            Stored { version: seen.version }
        }))
    }

    /// Removes the unfinished upload of a commit that failed; where it can't, `error` says so.
    async fn clean_up(&mut self, error: Error) -> Error {
        let Some(mut upload) = self.upload.take() else { return error };
        let aborted = timeout(CLEAN_UP_TIMEOUT, upload.abort()).await;
        match aborted.unwrap_or_else(|_| Err(NoAnswer::Silent(CLEAN_UP_TIMEOUT).into_error())) {
            Ok(()) => error,
            Err(left) => with_leftover(error, "its unfinished upload", &self.explain(left)),
        }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        self.gathered.push(chunk);
        // Whoever gives up waiting loses the part that was to be sent.
        let failed = std::mem::replace(&mut self.failed, true);
        let sent = self.send_full_parts().await;
        self.failed = failed || sent.is_err();
        sent
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        if self.failed {
            let message = format!("{} was not written whole, so it can't be committed", self.key);
            let error = Error::failed(self.store.stage.clone(), message);
            return Err(self.clean_up(error).await);
        }
        let until = Instant::now() + self.store.commit_timeout + LOOK_TIMEOUT;
        let stored = match self.publish_in_time().await {
            Ok(stored) => stored,
            Err(error) => self.settle(error, until).await?,
        };
        Ok(Committed { bytes: self.bytes, version: stored.version })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        match timeout(START_GRACE, self.started()).await {
            Ok(Ok(Some(upload))) => self.upload = Some(upload),
            // None was wanted, or the service said that there is none.
            Ok(_) => {}
            Err(_) => {
                let seconds = START_GRACE.as_secs();
                let message = format!(
                    "{} was begun and not answered for {seconds} s: an unfinished upload may stay",
                    self.key
                );
                return Err(Error::failed(self.store.stage.clone(), message)
                    .next_step("run again later: the sweep removes it in time"));
            }
        }
        match self.upload.take() {
            None => Ok(()),
            Some(mut upload) => upload.abort().await.map_err(|error| {
                let verb = format!("remove the unfinished {}", self.key);
                self.store.explain(Doing::Write, &verb, error)
            }),
        }
    }
}

/// A mark that no other writer has.
pub(super) fn fresh_mark() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Whether an error says for certain that nothing was stored.
pub(super) fn is_clear(error: &opendal::Error) -> bool {
    let refused = Refusal::inside(error).is_some_and(|refusal| {
        let by_status = matches!(refusal.status, 400 | 401 | 403) && !refusal.doubtful;
        by_status || refusal.is_missing_bucket()
    });
    refused || NoAnswer::inside(error).is_some_and(|silence| !silence.may_be_done())
}

#[cfg(test)]
#[cfg(feature = "s3")]
#[path = "writer_tests.rs"]
mod tests;
