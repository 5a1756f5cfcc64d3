//! Writes one object: gathers parts, sends them on, and settles what became of the commit.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;
use opendal::Buffer;

use super::answer::{NoAnswer, Refusal};
use super::explain::Doing;
use super::parts::{Gathered, Growth};
use super::service::{Object, Outcome, Stored, Upload};
use super::store::Store;
use crate::leftover::with_leftover;

/// An object being written. Holds the part being gathered; the upload holds those on their way.
pub(super) struct Writer {
    store: Arc<Store>,
    key: String,
    mark: String,
    growth: Growth,
    gathered: Gathered,
    /// Parts that were sent.
    parts: u64,
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
            let object = Object::new(&self.key, &self.mark);
            self.upload = Some(self.store.service.start(&object).await?);
        }
        match &mut self.upload {
            Some(upload) => upload.part(part).await,
            None => Ok(()),
        }
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

    /// Looks what became of a commit that was not answered clearly.
    async fn settle(&mut self, error: opendal::Error) -> Result<Stored> {
        if is_clear(&error) {
            let error = self.explain(error);
            return Err(self.clean_up(error).await);
        }
        match self.store.look(&self.key).await {
            Ok(Some(seen)) if seen.mark.as_deref() == Some(&self.mark) => {
                tracing::debug!("{}: the answer for {} was lost", self.store.stage, self.key);
                Ok(Stored { version: seen.version })
            }
            Ok(_) => {
                let error = self.explain(error);
                Err(self.clean_up(error).await)
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

    /// Removes the unfinished upload of a commit that failed; where it can't, `error` says so.
    async fn clean_up(&mut self, error: Error) -> Error {
        let Some(mut upload) = self.upload.take() else { return error };
        match upload.abort().await {
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
        let sent = self.send_full_parts().await;
        self.failed |= sent.is_err();
        sent
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        if self.failed {
            let message = format!("{} was not written whole, so it can't be committed", self.key);
            let error = Error::failed(self.store.stage.clone(), message);
            return Err(self.clean_up(error).await);
        }
        let stored = match self.publish().await {
            Ok(stored) => stored,
            Err(error) => self.settle(error).await?,
        };
        Ok(Committed { bytes: self.bytes, version: stored.version })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
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
