//! Reads one object, and goes on where it stood when the connection breaks.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use backup_core::pipeline::CHUNK_BYTES;
use backup_core::{ByteRange, Error, Result, SourceStream};
use bytes::Bytes;
use futures_util::StreamExt;

use opendal::options::ReaderOptions;
use opendal::{Buffer, BufferStream, BytesRange, ErrorKind};

use super::answer::{NoAnswer, Refusal};
use super::probe::why;
use super::service::Outcome;
use super::store::Store;
use crate::failure::Doing;

/// An object being read. Holds what the network handed over last; the rest waits in the
/// kernel's buffers until it is asked for.
pub(super) struct Reader {
    store: Arc<Store>,
    key: String,
    /// Which version; `None` for what is there now.
    version: Option<String>,
    /// Where the next byte lies.
    offset: u64,
    /// Bytes still wanted; `None` for all there are.
    left: Option<u64>,
    stream: Option<BufferStream>,
    here: Buffer,
    /// Since when nothing came.
    waiting_since: Instant,
}

impl Reader {
    /// Opens the object and waits for its first bytes.
    pub(super) async fn open(
        store: Arc<Store>,
        key: &str,
        version: Option<&str>,
        range: ByteRange,
    ) -> Result<Self> {
        let mut reader = Self {
            store,
            key: key.to_owned(),
            version: version.map(str::to_owned),
            offset: range.offset,
            left: range.length,
            stream: None,
            here: Buffer::new(),
            waiting_since: Instant::now(),
        };
        let nothing_wanted = range.length == Some(0) || i64::try_from(range.offset).is_err();
        if nothing_wanted {
            reader.require_object().await?;
            reader.left = Some(0);
        } else {
            reader.fetch().await?;
        }
        Ok(reader)
    }

    /// A range of nothing asks the service nothing, and yet the object has to be there.
    async fn require_object(&mut self) -> Result<()> {
        match self.store.look_at(&self.key, self.version.as_deref()).await? {
            Some(_) => Ok(()),
            None => Err(self.store.not_found(&self.key)),
        }
    }

    /// Waits until something is here, or the end was reached.
    async fn fetch(&mut self) -> Result<()> {
        self.waiting_since = Instant::now();
        while self.here.is_empty() && self.left != Some(0) {
            match self.next().await {
                Ok(Some(buffer)) => self.take_in(buffer),
                Ok(None) => self.left = Some(0),
                Err(error) if error.kind() == ErrorKind::RangeNotSatisfied => self.left = Some(0),
                Err(error) => self.go_on_after(error).await?,
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Outcome<Option<Buffer>> {
        // The first wait holds a whole request with its repetitions, which are bounded below.
        let (mut stream, limit) = match self.stream.take() {
            Some(stream) => (stream, self.store.request_timeout),
            None => {
                let limit = self.store.retry_deadline + self.store.request_timeout;
                (self.connect().await?, limit)
            }
        };
        let next = tokio::time::timeout(limit, stream.next()).await;
        let next = next.map_err(|_| NoAnswer::Silent(limit).into_error())?.transpose()?;
        self.stream = Some(stream);
        Ok(next)
    }

    async fn connect(&mut self) -> Outcome<BufferStream> {
        // What no object can have is left open, so that no sum overflows.
        let end = self.left.and_then(|left| self.offset.checked_add(left));
        let length = end.filter(|end| i64::try_from(*end).is_ok()).and(self.left);
        let options = ReaderOptions { version: self.version.clone(), ..ReaderOptions::default() };
        let reader = self.store.operator.reader_options(&self.key, options).await?;
        reader.into_stream(BytesRange::new(self.offset, length)).await
    }

    fn take_in(&mut self, mut buffer: Buffer) {
        if let Some(left) = &mut self.left {
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
            buffer.truncate(wanted);
            *left -= wanted as u64;
        }
        self.offset = self.offset.saturating_add(buffer.len() as u64);
        self.here = buffer;
    }

    /// Whether the object has no more. A range past its end is cut short, which opendal takes
    /// for an error; and where nothing is left, not every service says so properly.
    async fn is_at_end(&mut self) -> Result<bool> {
        let seen = self.store.look_at(&self.key, self.version.as_deref()).await?;
        Ok(seen.is_some_and(|seen| seen.info.bytes <= self.offset))
    }

    /// A connection that broke is made anew, unless nothing came for too long.
    async fn go_on_after(&mut self, error: opendal::Error) -> Result<()> {
        self.stream = None;
        let waited = self.waiting_since.elapsed();
        let verb = format!("read {}", self.key);
        if error.kind() == ErrorKind::NotFound {
            self.store.require_bucket().await?;
            return Err(self.store.not_found(&self.key));
        }
        let answered = Refusal::inside(&error).is_some();
        let silent = NoAnswer::inside(&error).is_some();
        if !answered && !silent && self.is_at_end().await? {
            self.left = Some(0);
            return Ok(());
        }
        // Of a request without an answer this is the last of many tries, but a stream that broke
        // was not tried again yet.
        let broke = !answered || error.is_temporary();
        if !broke || waited >= self.store.retry_deadline {
            return Err(self.store.explain(Doing::Read, &verb, error));
        }
        let (stage, offset, why) = (&self.store.stage, self.offset, why(&error));
        tracing::debug!("{stage}: {verb} goes on at byte {offset}: {why}");
        tokio::time::sleep(super::line::jittered(super::line::FIRST_PAUSE)).await;
        Ok(())
    }
}

#[async_trait]
impl SourceStream for Reader {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.here.is_empty() {
            self.fetch().await?;
        }
        if self.here.is_empty() {
            return Ok(None);
        }
        let size = self.here.len().min(CHUNK_BYTES);
        Ok(Some(self.here.split_to(size).to_bytes()))
    }
}
