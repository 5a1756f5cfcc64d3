//! Takes chunks and sends them, many requests ahead of their answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::{Bytes, BytesMut};

use super::WINDOW_BYTES;
use super::connection::write_request;
use super::link::Failed;
use super::place::{Draft, Place};
use super::publish::Finished;
use super::session::{Answer, Ticket, Trouble};
use crate::failure::with_leftover;

/// Most chunks in one request, so that tiny ones can't pile up.
const REQUEST_CHUNKS: usize = 1024;
/// Pieces that are handed to the connection as they are; more are put together first.
const PIECES: usize = 16;

/// One object being written.
///
/// At most [`WINDOW_BYTES`] are on their way, and one request's worth is being collected.
pub(super) struct Writer {
    place: Arc<Place>,
    /// There until it is finished or aborted.
    draft: Option<Draft>,
    collected: VecDeque<Bytes>,
    collected_bytes: usize,
    on_the_way: VecDeque<Ticket>,
    /// What was sent, in bytes: the offset of the next request.
    sent: u64,
    failed: bool,
}

impl Writer {
    pub(super) fn new(place: Arc<Place>, draft: Draft) -> Self {
        Self {
            place,
            draft: Some(draft),
            collected: VecDeque::new(),
            collected_bytes: 0,
            on_the_way: VecDeque::new(),
            sent: 0,
            failed: false,
        }
    }

    fn draft(&self) -> Result<&Draft> {
        self.draft.as_ref().ok_or_else(|| self.no_draft())
    }

    fn no_draft(&self) -> Error {
        Error::failed(self.place.stage().to_owned(), "the object is not being written any more")
    }

    /// Sends what was collected, in whole requests, the rest of it too when it is the `last`.
    async fn send(&mut self, last: bool) -> Result<()> {
        let request_bytes = self.draft()?.connection.offers.write_bytes;
        let window = (WINDOW_BYTES / request_bytes).max(1);
        while self.collected_bytes >= request_bytes
            || self.collected.len() >= REQUEST_CHUNKS
            || (last && self.collected_bytes > 0)
        {
            while self.on_the_way.len() >= window {
                self.wait_for_one().await?;
            }
            if let Err(trouble) = self.send_one(request_bytes).await {
                return Err(self.cant_write(trouble).await);
            }
        }
        Ok(())
    }

    async fn send_one(&mut self, request_bytes: usize) -> Answer<()> {
        let Some(draft) = &self.draft else { return Ok(()) };
        let slot = draft.connection.slot().await?;
        // From here on nothing waits: a caller that stops leaves no hole.
        let pieces = cut(&mut self.collected, request_bytes);
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        let ticket = slot.send(write_request(&draft.handle, self.sent, pieces))?;
        self.collected_bytes -= bytes;
        self.sent += bytes as u64;
        self.on_the_way.push_back(ticket);
        Ok(())
    }

    /// Waits for the oldest answer.
    async fn wait_for_one(&mut self) -> Result<()> {
        let connection = Arc::clone(&self.draft()?.connection);
        let Some(ticket) = self.on_the_way.front_mut() else { return Ok(()) };
        // Awaited in place: a caller that gives up waiting here can still abort in order.
        let answered = connection.done(ticket).await;
        self.on_the_way.pop_front();
        match answered {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.cant_write(trouble).await),
        }
    }

    async fn cant_write(&mut self, trouble: Trouble) -> Error {
        self.failed = true;
        let Some(draft) = &self.draft else { return self.no_draft() };
        let attempt = self.place.writing("write to", &draft.partial);
        match attempt.failed_on(&draft.connection, trouble).await {
            Failed::Told(error) => error,
            Failed::Lost(why) => self.place.link.lost(&draft.connection, &why),
        }
    }

    /// Sends the rest, and waits until the server has taken everything.
    async fn finish(&mut self) -> Result<()> {
        if self.failed {
            let partial = &self.draft()?.partial;
            let message = format!("an earlier write to {partial} failed");
            return Err(Error::failed(self.place.stage().to_owned(), message)
                .next_step("abort instead of committing"));
        }
        self.send(true).await?;
        while !self.on_the_way.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    async fn discard(&mut self) -> Result<()> {
        let Some(draft) = self.draft.take() else { return Ok(()) };
        // What wasn't sent yet isn't sent any more.
        self.on_the_way.clear();
        let partial = draft.partial.clone();
        drop(draft);
        self.place.link.retrying(|c| self.place.discard(c, &partial)).await.map(drop)
    }

    /// Publishes the finished file. When that fails for good, removes it; when it is gone by
    /// then, it was published after all.
    async fn publish(&self, file: &Finished) -> Result<()> {
        let place = &self.place;
        let error = match place.link.retrying(|c| place.publish(c, file)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // A lost try may have removed it: then its absence doesn't say that it was published.
        let lost = AtomicBool::new(false);
        let discard = async |c| {
            let outcome = place.discard(c, &file.partial).await;
            lost.fetch_or(matches!(&outcome, Err(Failed::Lost(_))), Ordering::Relaxed);
            outcome
        };
        match place.link.retrying(discard).await {
            Ok(false) if !lost.load(Ordering::Relaxed) => {}
            Ok(_) => return Err(error),
            Err(left) => return Err(with_leftover(error, &file.partial, &left)),
        }
        let found = place.link.retrying(|c| async move { place.find_published(&c, file).await });
        found.await.map_err(|_| error)
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.failed {
            return self.finish().await;
        }
        self.collected_bytes += chunk.len();
        self.collected.push_back(chunk);
        self.send(false).await
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        if let Err(error) = self.finish().await {
            let partial = self.draft.as_ref().map(|draft| draft.partial.clone());
            return Err(match (self.discard().await, partial) {
                (Err(left), Some(partial)) => with_leftover(error, &partial, &left),
                _ => error,
            });
        }
        let draft = self.draft.take().ok_or_else(|| self.no_draft())?;
        let file = Finished::new(draft, self.sent);
        self.publish(&file).await?;
        Ok(Committed { bytes: file.bytes, version: None })
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.discard().await
    }
}

/// Takes up to `wanted` bytes off the front, uncopied unless they are in many small pieces.
fn cut(collected: &mut VecDeque<Bytes>, wanted: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut missing = wanted;
    while let Some(mut first) = collected.pop_front() {
        if first.len() > missing {
            pieces.push(first.split_to(missing));
            collected.push_front(first);
            break;
        }
        missing -= first.len();
        pieces.push(first);
        if missing == 0 {
            break;
        }
    }
    if pieces.len() <= PIECES {
        return pieces;
    }
    let mut joined = BytesMut::with_capacity(wanted - missing);
    pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
    vec![joined.freeze()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_cut_to_size_and_nothing_is_lost() {
        let mut collected: VecDeque<Bytes> =
            [3, 4, 0, 5].iter().map(|len| Bytes::from(vec![*len; usize::from(*len)])).collect();
        let first = cut(&mut collected, 5);
        assert_eq!(first.concat(), [3, 3, 3, 4, 4]);
        assert_eq!(cut(&mut collected, 5).concat(), [4, 4, 5, 5, 5]);
        assert_eq!(cut(&mut collected, 5).concat(), [5, 5]);
        let mut tiny: VecDeque<Bytes> = (0..100).map(|n| Bytes::from(vec![n])).collect();
        let joined = cut(&mut tiny, 50);
        assert_eq!((joined.len(), joined[0][..].to_vec()), (1, (0..50).collect()));
        assert_eq!(tiny.len(), 50);
    }
}
