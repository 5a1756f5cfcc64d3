//! Streams a file, many requests ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{ByteRange, Error, Result, SourceStream};
use bytes::{Bytes, BytesMut};

use super::WINDOW_BYTES;
use super::connection::{Connection, Handle, read_request};
use super::link::Failed;
use super::packet::Attributes;
use super::place::Place;
use super::session::{Answer, Ticket};

/// How often in a row a reading goes on over a new connection that then brings nothing.
const REOPENINGS: u32 = 5;
/// Requests ahead at the beginning; each good answer makes it one more. Somebody who wants a
/// few bytes doesn't pay for megabytes.
const FIRST_AHEAD: usize = 2;

/// One reading of an object or of a range of it.
///
/// When the connection is lost, it goes on over a new one where it stood, if the object is
/// still the same.
pub(super) struct Reader {
    place: Arc<Place>,
    key: String,
    open: Open,
    /// What the object was when it was opened.
    object: Attributes,
    /// The first byte that wasn't handed out.
    position: u64,
    end: u64,
    /// The first byte that wasn't asked for.
    asked: u64,
    ahead: VecDeque<Ahead>,
    ahead_max: usize,
    /// The most that the server gave, if that is less than what it promised.
    request_bytes: u32,
    reopened: u32,
}

struct Ahead {
    ticket: Ticket,
    bytes: u32,
}

/// An open file, closed when it is dropped.
pub(super) struct Open {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.close_quietly(&self.handle);
    }
}

impl Reader {
    /// Reads `left` bytes from `offset` on; fewer in it are an error.
    pub(super) fn new(
        place: Arc<Place>,
        key: String,
        open: Open,
        object: Attributes,
        offset: u64,
        left: u64,
    ) -> Self {
        let request_bytes = u32::try_from(open.connection.offers.read_bytes).unwrap_or(u32::MAX);
        let end = if left == 0 { offset } else { offset.saturating_add(left) };
        Self {
            place,
            key,
            open,
            object,
            position: offset,
            end,
            asked: offset,
            ahead: VecDeque::new(),
            ahead_max: FIRST_AHEAD,
            request_bytes,
            reopened: 0,
        }
    }

    async fn ask_ahead(&mut self) -> Answer<()> {
        while self.ahead.len() < self.ahead_max && self.asked < self.end {
            let left = u32::try_from(self.end - self.asked).unwrap_or(u32::MAX);
            let bytes = left.min(self.request_bytes);
            let slot = self.open.connection.slot().await?;
            let ticket = slot.send(read_request(&self.open.handle, self.asked, bytes))?;
            self.asked += u64::from(bytes);
            self.ahead.push_back(Ahead { ticket, bytes });
        }
        Ok(())
    }

    /// The next bytes as they come; `None` for the end of the file.
    async fn next_answer(&mut self) -> Answer<Option<Bytes>> {
        self.ask_ahead().await?;
        let Some(next) = self.ahead.front_mut() else { return Ok(None) };
        let data = self.open.connection.data(&mut next.ticket).await;
        let wanted = next.bytes;
        self.ahead.pop_front();
        let Some(mut data) = data? else { return Ok(None) };
        let got = u32::try_from(data.len()).unwrap_or(u32::MAX).min(wanted);
        data.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        self.position += data.len() as u64;
        self.reopened = 0;
        if got < wanted {
            // Servers may give less than was asked for: go on behind it.
            self.ahead.clear();
            self.asked = self.position;
            self.request_bytes = self.request_bytes.min(got.max(1));
        }
        let most = WINDOW_BYTES / usize::try_from(self.request_bytes).unwrap_or(1).max(1);
        self.ahead_max = (self.ahead_max + 1).min(most.max(FIRST_AHEAD));
        Ok(Some(data))
    }

    /// Opens the object again on a new connection, to go on where it stood.
    async fn reopen(&mut self) -> Result<()> {
        let (place, key) = (Arc::clone(&self.place), self.key.clone());
        let opened = place.link.retrying(|c| {
            let (place, key) = (&place, &key);
            async move {
                let (handle, found, _) = place.open_range(&c, key, ByteRange::ALL).await?;
                Ok((Open { connection: c, handle }, found))
            }
        });
        let (open, found) = opened.await?;
        if (found.bytes, found.modified) != (self.object.bytes, self.object.modified) {
            let message = format!("{} became another object while it was read", self.key);
            return Err(
                Error::damaged(self.place.stage().to_owned(), message).next_step("run it again")
            );
        }
        tracing::warn!(key, from = self.position, "goes on over a new connection");
        self.ahead.clear();
        self.asked = self.position;
        self.ahead_max = FIRST_AHEAD;
        self.open = open;
        Ok(())
    }
}

#[async_trait]
impl SourceStream for Reader {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        let path = self.place.path(&self.key);
        while self.position < self.end {
            let trouble = match self.next_answer().await {
                Ok(Some(data)) if !data.is_empty() => return Ok(Some(data)),
                Ok(_) => {
                    let message = format!("{path} became shorter while it was read");
                    return Err(Error::damaged(self.place.stage().to_owned(), message)
                        .next_step("read it from another storage"));
                }
                Err(trouble) => trouble,
            };
            match self.place.reading("read", &path).failed(trouble) {
                Failed::Told(error) => return Err(error),
                Failed::Lost(why) if self.reopened >= REOPENINGS => {
                    return Err(self.place.link.lost(&self.open.connection, &why));
                }
                Failed::Lost(_) => {
                    self.reopened += 1;
                    self.reopen().await?;
                }
            }
        }
        Ok(None)
    }
}

impl Place {
    /// The first bytes of an open file, at most `most`.
    pub(super) async fn read_up_to(
        &self,
        c: &Connection,
        handle: &Handle,
        most: usize,
    ) -> Answer<Bytes> {
        let mut all = BytesMut::new();
        while all.len() < most {
            let wanted = (most - all.len()).min(c.offers.read_bytes);
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            let mut ticket = c.send(read_request(handle, all.len() as u64, wanted)).await?;
            match c.data(&mut ticket).await? {
                Some(data) if !data.is_empty() => all.extend_from_slice(&data),
                _ => break,
            }
        }
        Ok(all.freeze())
    }
}
