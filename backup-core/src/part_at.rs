//! Reading some bytes of a part: only the frames that hold them are fetched and decoded.
//!
//! Each frame is compared with its digest in the contents before it is decoded. The contents are
//! a part that was read and checked whole, so these digests are as good as the part's own.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;

use crate::copies::Copies;
use crate::download::{Download, Wanted};
use crate::frames::decode_frame;
use crate::object::{advice_after_damage, missing_is_damage};
use crate::pipeline::Context;
use crate::read_at::past_the_end;
use crate::versions::Chosen;
use crate::{
    BackupReader, ByteRange, Contents, Digest, Error, ErrorKind, Frames, Part, ReadAt, Result,
    Storage, Transform,
};

/// The plain bytes of a part, to be read at any place.
///
/// Memory: the last frame that was decoded is kept, since who reads one place mostly goes on
/// behind it. While another is fetched, its encoded bytes come to that, up to four times. A frame
/// is at most [`MAX_FRAME_BYTES`](crate::MAX_FRAME_BYTES); zstd makes them of 16 MiB.
pub struct PartAt {
    file: String,
    plain: u64,
    frames: Arc<Frames>,
    /// Where each frame begins in the encoded bytes.
    starts: Vec<u64>,
    codec: Arc<dyn Transform>,
    place: Place,
    context: Option<Context>,
    /// Keeps the copies marked as being read.
    _reader: BackupReader,
    state: tokio::sync::Mutex<State>,
}

/// Where the encoded bytes are.
struct Place {
    /// What was done to them after the frames were made, the last first.
    outer: Vec<Arc<dyn Transform>>,
    wanted: Wanted,
    copies: Copies,
}

#[derive(Default)]
struct State {
    /// The copies that were opened.
    opened: Vec<(Arc<dyn Storage>, Arc<dyn ReadAt>)>,
    last: Option<(usize, Bytes)>,
}

impl BackupReader {
    /// Opens a part to read it at any place. `None` when that can't be done, and it has to be read
    /// from its beginning: the backup recorded no frames, or it is encrypted in a way that allows
    /// no other.
    ///
    /// The `contents` must be this backup's ([`BackupReader::contents`]). Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when no copy is what the contents record, as far as the look goes;
    /// [`ErrorKind::Unchecked`] when none can be read or opened with the keys at hand.
    pub async fn at_any_place(&self, part: &Part, contents: &Contents) -> Result<Option<PartAt>> {
        let Some(recorded) = contents.part(&part.name) else { return Ok(None) };
        let (Some(frames), Some((codec, outer))) =
            (&recorded.frames, part.transforms.split_first())
        else {
            return Ok(None);
        };
        if !frames.fit(recorded.bytes) {
            return Ok(None);
        }
        let outer = outer.iter().rev().map(|name| self.decoders.get(name));
        let begins = |sum: &mut u64, frame: &Digest| {
            let start = *sum;
            *sum = sum.saturating_add(frame.bytes);
            Some(start)
        };
        let part_at = PartAt {
            file: part.file.clone(),
            plain: recorded.bytes,
            frames: Arc::new(frames.clone()),
            starts: frames.list.iter().scan(0, begins).collect(),
            codec: self.decoders.get(codec)?,
            place: Place {
                outer: outer.collect::<Result<_>>()?,
                wanted: self.checked(&part.file, part.digest()).wanted,
                copies: self.copies.clone(),
            },
            context: self.context.clone(),
            _reader: self.clone(),
            state: tokio::sync::Mutex::default(),
        };
        Ok(part_at.is_possible().await?.then_some(part_at))
    }
}

impl PartAt {
    /// How many plain bytes there are.
    pub fn bytes(&self) -> u64 {
        self.plain
    }

    /// How many plain bytes a frame holds: so many are fetched and decoded for each byte, or its
    /// neighbours, that is asked for.
    pub fn frame_bytes(&self) -> u64 {
        self.frames.plain_bytes
    }

    /// Exactly the plain bytes of `range`, all of them checked. They are held in memory.
    ///
    /// Where one copy is damaged or can't be read, another one is. One call works at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when a frame is damaged in the copies that can be read,
    /// [`ErrorKind::Unchecked`] when none can.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.plain {
            return Err(past_the_end(&self.file, &range, self.plain));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let each = self.frames.plain_bytes;
        let (first, last) = (range.start / each, (range.end - 1) / each);
        let mut state = self.state.lock().await;
        let mut pieces = BytesMut::new();
        for index in first..=last {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let held = self.frames.plain_range(index, self.plain);
            let frame = self.frame(&mut state, index).await?;
            // Both ends lie within the frame, which is held in memory.
            let start = (range.start.max(held.start) - held.start) as usize;
            let end = (range.end.min(held.end) - held.start) as usize;
            if first == last {
                return Ok(frame.slice(start..end));
            }
            pieces.extend_from_slice(&frame[start..end]);
        }
        Ok(pieces.freeze())
    }

    /// Whether some copy can be read in this way; it is opened.
    async fn is_possible(&self) -> Result<bool> {
        let mut state = self.state.lock().await;
        let (mut failure, mut impossible) = (None, false);
        for storage in self.place.copies.of(&self.place.wanted.key) {
            match self.open(&mut state, &storage).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) => impossible = true,
                Err(error) => failure = Some(graver(failure, error)),
            }
        }
        match failure {
            Some(error) if !impossible => Err(error),
            _ => Ok(false),
        }
    }

    /// The plain bytes of a frame, from the first copy that has it whole.
    async fn frame(&self, state: &mut State, index: usize) -> Result<Bytes> {
        if let Some((_, bytes)) = state.last.as_ref().filter(|(kept, _)| *kept == index) {
            return Ok(bytes.clone());
        }
        state.last = None;
        let mut failure: Option<Error> = None;
        let mut read_from = Vec::new();
        for storage in self.place.copies.of(&self.place.wanted.key) {
            if let Some(error) = &failure {
                self.warn(&format!("{error}; trying the copy in storage {}", storage.name()));
            }
            match self.frame_from(state, &storage, index).await {
                Ok(bytes) => {
                    self.place.copies.go_on_with(&storage);
                    state.last = Some((index, bytes.clone()));
                    return Ok(bytes);
                }
                Err(error) => {
                    if error.kind() == ErrorKind::Damaged {
                        read_from.push(storage.name().to_owned());
                    }
                    failure = Some(graver(failure, error));
                }
            }
        }
        let error = failure.unwrap_or_else(|| Error::failed("storage", "there is no copy"));
        match error.kind() {
            ErrorKind::Damaged => {
                Err(error.next_step(advice_after_damage(&self.place.copies, &read_from)))
            }
            _ => Err(error),
        }
    }

    async fn frame_from(
        &self,
        state: &mut State,
        storage: &Arc<dyn Storage>,
        index: usize,
    ) -> Result<Bytes> {
        let encoded = self.open(state, storage).await?.ok_or_else(|| {
            let message = format!("{} in storage {} is not as it was", self.file, storage.name());
            Error::damaged("storage", message)
        })?;
        let range = self.frames.plain_range(index, self.plain);
        let (codec, frames) = (Arc::clone(&self.codec), Arc::clone(&self.frames));
        let (start, plain_bytes) = (self.starts[index], range.end - range.start);
        let read = on_a_thread(move || {
            let frame = &frames.list[index];
            let bytes = encoded.read_at(start..start + frame.bytes)?;
            let found = Digest::of(&bytes);
            if found != *frame {
                let message = format!("sha256 {} instead of {}", found.sha256, frame.sha256);
                return Err(Error::damaged("frames", message));
            }
            decode_frame(codec.as_ref(), &bytes, plain_bytes).map(Bytes::from)
        });
        read.await.map_err(|error| match error.kind() {
            ErrorKind::Damaged => self.damaged(storage, index, error),
            _ => error,
        })
    }

    /// One copy's encoded bytes; `None` where they can't be read at any place.
    async fn open(
        &self,
        state: &mut State,
        storage: &Arc<dyn Storage>,
    ) -> Result<Option<Arc<dyn ReadAt>>> {
        let known = state.opened.iter().find(|(opened, _)| Arc::ptr_eq(opened, storage));
        if let Some((_, encoded)) = known {
            return Ok(Some(Arc::clone(encoded)));
        }
        let stored = Stored {
            wanted: Wanted { copies: self.place.copies.only(storage), ..self.place.wanted.clone() },
            length: self.place.wanted.expected.as_ref().map_or(0, |whole| whole.bytes),
            version: Mutex::default(),
            runtime: Handle::current(),
        };
        let outer = self.place.outer.clone();
        let opened = on_a_thread(move || {
            let mut bytes: Box<dyn ReadAt> = Box::new(stored);
            for transform in &outer {
                match transform.decode_at(bytes)? {
                    Some(inner) => bytes = inner,
                    None => return Ok(None),
                }
            }
            Ok(Some(bytes))
        });
        let Some(encoded) = opened.await? else { return Ok(None) };
        let (found, recorded) = (encoded.length(), self.frames.encoded_bytes());
        if found != recorded {
            let place = format!("{} in storage {}", self.file, storage.name());
            let message = format!("{place} holds {found} encoded bytes, its frames {recorded}");
            return Err(Error::damaged("frames", message));
        }
        let encoded: Arc<dyn ReadAt> = Arc::from(encoded);
        state.opened.push((Arc::clone(storage), Arc::clone(&encoded)));
        Ok(Some(encoded))
    }

    fn damaged(&self, storage: &Arc<dyn Storage>, index: usize, error: Error) -> Error {
        let Range { start, end } = self.frames.plain_range(index, self.plain);
        let message = format!(
            "{} in storage {} is damaged: frame {} of {} (plain bytes {start} to {end}) is not what \
             was written",
            self.file,
            storage.name(),
            index + 1,
            self.frames.list.len()
        );
        Error::damaged("frames", message).caused_by(error)
    }

    fn warn(&self, message: &str) {
        tracing::warn!("{message}");
        if let Some(context) = &self.context {
            context.warn(message);
        }
    }
}

/// Of two failures the one to tell: damage is certain, and stays so.
fn graver(earlier: Option<Error>, later: Error) -> Error {
    match earlier {
        Some(error) if error.kind() == ErrorKind::Damaged => error,
        Some(_) if later.kind() == ErrorKind::Damaged => later,
        Some(error) => error,
        None => later,
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::failed("frames", "reading a part died").caused_by(e)))
}

/// A stored object, for a thread that blocks. A broken download is taken up again, as
/// [`Patience`](crate::Patience) says.
struct Stored {
    wanted: Wanted,
    length: u64,
    /// The version to read, once it was chosen.
    version: Mutex<Option<Chosen>>,
    runtime: Handle,
}

impl ReadAt for Stored {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > self.length {
            return Err(past_the_end("storage", &range, self.length));
        }
        let expected = self.wanted.expected.as_ref();
        self.runtime.block_on(self.fetch(range)).map_err(|e| missing_is_damage(e, expected))
    }
}

impl Stored {
    async fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end - range.start;
        let part = ByteRange { offset: range.start, length: Some(length) };
        let wanted = Wanted { range: part, ..self.wanted.clone() };
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut download = Download::open_version(wanted, version).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        while let Some(chunk) = download.next_chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 >= length {
                break;
            }
        }
        if bytes.len() as u64 != length {
            let found = bytes.len();
            let message = format!("{}: {found} of {length} bytes are there", self.wanted.key);
            return Err(Error::damaged("storage", message));
        }
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = download.version.take();
        Ok(bytes)
    }
}
