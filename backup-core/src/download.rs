//! Reading one object to its end: a broken download goes on from where it stood, if need be
//! from another storage that holds the same bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::copies::Copies;
use crate::pipeline::Context;
use crate::versions::{self, Chosen};
use crate::{ByteRange, Digest, Error, ErrorKind, Result, SourceStream, Storage};

/// Longest pause between two tries.
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// How long a broken download is tried again in one storage, before the next copy is read or
/// the reading fails.
///
/// Both bounds count from the last byte that came: a large object over a bad line takes as many
/// tries as it needs, as long as each brings something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A storage that gives nothing for so long is taken for broken.
    pub stall: Duration,
    /// Pause before the first try; each further one is twice as long, up to ten seconds.
    pub first_pause: Duration,
    /// Most tries without a new byte.
    pub tries: u32,
    /// Longest time without a new byte, with all tries.
    pub give_up: Duration,
}

impl Default for Patience {
    /// Six tries and three minutes; a minute of silence is a broken stream. Less than the half
    /// hour after which the pipeline gives up on a silent source, also with several copies.
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            first_pause: Duration::from_millis(500),
            tries: 6,
            give_up: Duration::from_secs(180),
        }
    }
}

/// What to read, and how.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) copies: Copies,
    pub(crate) key: String,
    /// What it is, where that is known: a stream that ends before its size is broken.
    pub(crate) expected: Option<Digest>,
    /// What to read of it.
    pub(crate) range: ByteRange,
    pub(crate) patience: Patience,
    pub(crate) context: Option<Context>,
}

/// A download that is under way.
pub(crate) struct Download {
    wanted: Wanted,
    storage: Arc<dyn Storage>,
    /// Copies that were not tried yet, the next one last.
    left: Vec<Arc<dyn Storage>>,
    /// Names of the storages that bytes came from.
    pub(crate) came_from: Vec<String>,
    stream: Option<Box<dyn SourceStream>>,
    /// The version that is read, once it was chosen: a download that goes on reads the same.
    pub(crate) version: Option<Chosen>,
    /// Whether a byte came since the stream was opened.
    flowing: bool,
    offset: u64,
    tries: u32,
    last_byte: Instant,
}

impl Download {
    /// Opens the first copy that can be opened. A storage has retries of its own, so here each
    /// gets one chance.
    ///
    /// # Errors
    /// Those of the last copy.
    pub(crate) async fn open(wanted: Wanted) -> Result<Self> {
        Self::open_version(wanted, None).await
    }

    /// As `open`; the version to read from the first copy was chosen before.
    pub(crate) async fn open_version(wanted: Wanted, version: Option<Chosen>) -> Result<Self> {
        let mut left = wanted.copies.of(&wanted.key);
        left.reverse();
        let storage = left.pop().unwrap_or_else(|| Arc::clone(wanted.copies.current()));
        let mut download = Self {
            offset: wanted.range.offset,
            wanted,
            storage,
            left,
            came_from: Vec::new(),
            stream: None,
            version,
            flowing: false,
            tries: 0,
            last_byte: Instant::now(),
        };
        while let Err(error) = download.connect().await {
            match remedy(&error) {
                Remedy::TryAgain | Remedy::OtherCopy => download.next_copy(error)?,
                Remedy::None => return Err(error),
            }
        }
        Ok(download)
    }

    /// The next bytes; `None` at the end of the object.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let error = match self.read_on().await {
                Ok(Some(chunk)) => {
                    self.note_progress(&chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) if self.is_cut_off() => self.broken("ended early"),
                Ok(None) => return Ok(None),
                Err(error) => error,
            };
            self.stream = None;
            match remedy(&error) {
                Remedy::TryAgain if self.may_try_again() => {
                    self.pause_before_next_try(&error).await
                }
                Remedy::TryAgain | Remedy::OtherCopy => self.next_copy(error)?,
                Remedy::None => return Err(error),
            }
        }
    }

    async fn connect(&mut self) -> Result<()> {
        let ByteRange { offset: start, length } = self.wanted.range;
        let length = length.map(|length| length.saturating_sub(self.offset - start));
        let range = ByteRange { offset: self.offset, length };
        let storage = Arc::clone(&self.storage);
        let version = self.version().await;
        let opening = version.open(storage.as_ref(), &self.wanted.key, range);
        let opened = tokio::time::timeout(self.wanted.patience.stall, opening).await;
        self.stream = Some(opened.unwrap_or_else(|_| Err(self.silent()))?);
        self.flowing = false;
        Ok(())
    }

    /// The version to read from this storage. Chosen once: it may take reading some.
    async fn version(&mut self) -> Chosen {
        if let Some(chosen) = &self.version {
            return chosen.clone();
        }
        let Wanted { key, expected, patience, context, .. } = &self.wanted;
        let chosen = match expected {
            Some(expected) if self.wanted.copies.also_kept => {
                let finished = self.wanted.copies.finished;
                let storage = self.storage.as_ref();
                versions::choose(storage, key, expected, finished, patience.stall).await
            }
            _ => Chosen::Current,
        };
        if let Chosen::Hidden(_) = &chosen {
            let name = self.storage.name();
            let message = format!(
                "{key} was replaced or deleted in storage {name}; the version that the manifest \
                 names is still kept there, and is read"
            );
            tracing::warn!("{message}");
            if let Some(context) = context {
                context.warn(&message);
            }
        }
        self.version.insert(chosen).clone()
    }

    async fn read_on(&mut self) -> Result<Option<Bytes>> {
        if self.stream.is_none() {
            self.connect().await?;
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let next = tokio::time::timeout(self.wanted.patience.stall, stream.next_chunk()).await;
        next.unwrap_or_else(|_| Err(self.silent()))
    }

    fn note_progress(&mut self, chunk: &Bytes) {
        self.offset += chunk.len() as u64;
        self.flowing = true;
        self.tries = 0;
        self.last_byte = Instant::now();
        if self.came_from.last().is_none_or(|last| last != self.storage.name()) {
            self.came_from.push(self.storage.name().to_owned());
        }
    }

    /// An end before the known size. Only when a fresh stream gives nothing either, it really
    /// is the end of what is stored.
    fn is_cut_off(&self) -> bool {
        let ByteRange { offset: start, length } = self.wanted.range;
        let end = match length {
            Some(length) => Some(start + length),
            None => self.wanted.expected.as_ref().map(|whole| whole.bytes),
        };
        self.flowing && end.is_some_and(|end| self.offset < end)
    }

    fn may_try_again(&self) -> bool {
        let patience = &self.wanted.patience;
        self.tries < patience.tries && self.last_byte.elapsed() < patience.give_up
    }

    async fn pause_before_next_try(&mut self, error: &Error) {
        let pause = self.wanted.patience.first_pause * 2_u32.saturating_pow(self.tries.min(16));
        self.tries += 1;
        tracing::warn!(
            storage = self.storage.name(),
            key = self.wanted.key,
            offset = self.offset,
            "a download broke and is taken up again: {error}"
        );
        tokio::time::sleep(pause.min(MOST_PAUSE)).await;
    }

    /// Goes on with the next copy; without one, `error` stands.
    fn next_copy(&mut self, error: Error) -> Result<()> {
        let Some(next) = self.left.pop() else { return Err(error) };
        let message = format!(
            "storage {} failed while {} was read ({error}); going on at byte {} from storage {}",
            self.storage.name(),
            self.wanted.key,
            self.offset,
            next.name()
        );
        tracing::warn!("{message}");
        if let Some(context) = &self.wanted.context {
            context.warn(&message);
        }
        self.wanted.copies.go_on_with(&next);
        self.storage = next;
        self.stream = None;
        self.version = None;
        self.tries = 0;
        self.last_byte = Instant::now();
        Ok(())
    }

    fn silent(&self) -> Error {
        self.broken(&format!("gave nothing for {} s", self.wanted.patience.stall.as_secs_f32()))
    }

    fn broken(&self, how: &str) -> Error {
        let stage = format!("storage {}", self.storage.name());
        Error::new(ErrorKind::Unchecked, stage, format!("{} {how}", self.wanted.key))
            .next_step("look whether the storage is reachable and not overloaded, then try again")
    }
}

enum Remedy {
    TryAgain,
    OtherCopy,
    /// Damage is told, not worked around: the bytes before may be wrong as well.
    None,
}

fn remedy(error: &Error) -> Remedy {
    match error.kind() {
        ErrorKind::NotFound => Remedy::OtherCopy,
        ErrorKind::Damaged
        | ErrorKind::Refused
        | ErrorKind::Usage
        | ErrorKind::Interrupted
        | ErrorKind::Disconnected => Remedy::None,
        _ => Remedy::TryAgain,
    }
}
