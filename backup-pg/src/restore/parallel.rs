//! Several sessions that fill one database at the same time, out of an archive as it streams in.
//!
//! ```text
//!  the stream ──> Cutter ──┬─> pg_restore of some rows ──┐
//!                          └─> pg_restore of others ─────┴─> the database, made before the first
//!                                                            rows; indexes and the rest at the end
//! ```
//!
//! pg_restore's own `--jobs` needs the archive as a file and gives each table to one session. Here
//! nothing is set aside, and a large table is filled by all of them.
//!
//! **Memory:** for each session [`BATCH_BYTES`] or `QUEUED_PIECES`, and a batch that is being
//! gathered.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::STAGE;
use super::pieces::{Cutter, Piece};
use super::run::{Orders, Run};
use super::spool::Spool;
use super::steps::{comes_before_data, rest_of, select, with_no_order};
use crate::archive::{BlockSpan, Toc, TocEntry, block_start, rewrite_head};
use crate::client::tied_shell_is_there;
use crate::{ClientTools, Connection};

/// Tables smaller than this go to one session, several at once; larger ones to all sessions.
const BATCH_BYTES: usize = 8 << 20;

/// Tables that one session gets at once, at most: all others would wait for them.
const BATCH_PIECES: usize = 1000;

/// Of what the sessions say no more is kept when it has so many bytes.
const SAID_BYTES: usize = 64 << 10;

/// Pieces, of half a MiB to a MiB each, that wait for one session.
const QUEUED_PIECES: usize = 4;

/// What every pg_restore of the restore is told.
#[derive(Clone)]
pub(super) struct Sessions {
    pub tools: ClientTools,
    pub connection: Connection,
    pub server_major: u32,
    pub no_tablespaces: bool,
    pub no_owners: bool,
    /// How many work at the same time.
    pub jobs: usize,
    /// How long one may take.
    pub timeout: Duration,
    /// Where the rest's table of contents is set aside.
    pub spool_dir: PathBuf,
}

impl Sessions {
    fn orders(&self) -> Orders<'_> {
        Orders {
            tools: &self.tools,
            connection: &self.connection,
            server_major: self.server_major,
            single_transaction: false,
            no_tablespaces: self.no_tablespaces,
            no_owners: self.no_owners,
            clean: false,
            jobs: 1,
            spooled: None,
        }
    }

    /// Restores an archive of this head, with `blocks` behind it and what `more` brings.
    async fn restore(self, head: Vec<u8>, blocks: Vec<Bytes>, more: More) -> Result<String> {
        let mut run = Run::start(self.orders())?;
        run.write(&head).await?;
        for bytes in blocks {
            run.write(&bytes).await?;
        }
        // Without the word that this was all, the run is dropped, which ends it before its input.
        if let Some(mut more) = more {
            while let Some(bytes) = more.recv().await.ok_or_else(cut_off)? {
                run.write(&bytes).await?;
            }
        }
        run.finish(self.timeout).await
    }
}

/// What is still to come for a session; `None` in it says that this was all.
type More = Option<mpsc::Receiver<Option<Bytes>>>;

/// A restore by several sessions, under way.
pub(super) struct Parallel {
    sessions: Sessions,
    /// The archive's head as it was read, and what is restored of it.
    head: Vec<u8>,
    toc: Toc,
    restored: Toc,
    cutter: Cutter,
    /// Whole tables, until there are enough of them for a session.
    batch: Vec<Piece>,
    batch_bytes: usize,
    /// What came of the table that is being read, until it is known to be a large one.
    begun: Vec<Piece>,
    large: Option<LargeTable>,
    /// As many permits as sessions.
    free: Arc<Semaphore>,
    at_work: JoinSet<Result<String>>,
    /// What comes after the data: several sessions of one pg_restore want it as a file.
    rest: Option<File>,
    /// The head of what must come after everything else, in one session.
    last: Option<Vec<u8>>,
    said: String,
}

/// A table that several sessions fill.
struct LargeTable {
    sessions: Vec<mpsc::Sender<Option<Bytes>>>,
    /// The one that has the beginning of a row, and must get its end.
    bound: Option<usize>,
}

impl Parallel {
    /// Makes everything that data needs. `head` starts at the archive's first byte; `restored`
    /// are the entries to restore, as they are to be written.
    pub async fn start(sessions: Sessions, head: Vec<u8>, toc: Toc, restored: Toc) -> Result<Self> {
        let rest = rewrite_head(&head, &toc, &rest_of(&restored))?;
        // Before anything else: what would be in the way must not be noticed after hours.
        tied_shell_is_there()?;
        let mut spool = Spool::create(&sessions.spool_dir, None)?;
        spool.write(&rest.bytes).await?;
        let rest = Some(spool.into_file().await?);
        let alone = with_no_order(&restored);
        let last = select(&restored, |entry| alone.contains(&entry.dump_id));
        let last = rewrite_head(&head, &toc, &last)?.bytes;
        let before_data = select(&restored, comes_before_data);
        let first = rewrite_head(&head, &toc, &before_data)?.bytes;
        let said = sessions.clone().restore(first, Vec::new(), None).await?;
        Ok(Self {
            cutter: Cutter::new(&restored),
            batch: Vec::new(),
            batch_bytes: 0,
            begun: Vec::new(),
            large: None,
            free: Arc::new(Semaphore::new(sessions.jobs)),
            at_work: JoinSet::new(),
            rest,
            last: (!alone.is_empty()).then_some(last),
            sessions,
            head,
            toc,
            restored,
            said,
        })
    }

    /// Takes `chunk`, which starts at `offset` of the archive and lies in the blocks `spans`.
    /// Waits while all sessions are at work.
    ///
    /// # Errors
    /// The first failure of a session.
    pub async fn take(&mut self, chunk: &[u8], offset: u64, spans: &[BlockSpan]) -> Result<()> {
        for piece in self.cutter.take(chunk, offset, spans) {
            if self.large.is_some() {
                self.add_to_large(piece).await?;
            } else {
                self.gather(piece).await?;
            }
        }
        Ok(())
    }

    /// All data is here: waits for it to be in the database, then makes the rest. Returns what
    /// was said meanwhile.
    pub async fn finish(&mut self) -> Result<String> {
        self.start_batch().await?;
        while let Some(ended) = self.at_work.join_next().await {
            self.note(&outcome(ended)?);
        }
        let (jobs, timeout) = (self.sessions.jobs, self.sessions.timeout);
        let spooled = self.rest.take();
        let mut run = Run::start(Orders { jobs, spooled, ..self.sessions.orders() })?;
        let said = run.finish(timeout).await?;
        self.note(&said);
        if let Some(last) = self.last.take() {
            let said = self.sessions.clone().restore(last, Vec::new(), None).await?;
            self.note(&said);
        }
        Ok(std::mem::take(&mut self.said))
    }

    /// Ends all sessions, before their input.
    pub async fn abort(&mut self) {
        self.at_work.shutdown().await;
    }

    /// Finds out whether the table is a small one.
    async fn gather(&mut self, piece: Piece) -> Result<()> {
        let is_last = piece.last;
        self.begun.push(piece);
        let begun: usize = self.begun.iter().map(|piece| piece.chunks.len()).sum();
        if is_last {
            self.batch.append(&mut self.begun);
            self.batch_bytes += begun;
            let is_full = self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_PIECES;
            return if is_full { self.start_batch().await } else { Ok(()) };
        }
        if begun < BATCH_BYTES {
            return Ok(());
        }
        self.start_batch().await?;
        self.large = Some(LargeTable { sessions: Vec::new(), bound: None });
        for piece in std::mem::take(&mut self.begun) {
            self.add_to_large(piece).await?;
        }
        Ok(())
    }

    /// Gives the tables that were gathered to a session.
    async fn start_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let permit = self.wait_for_session().await?;
        self.batch_bytes = 0;
        let (mut entries, mut blocks) = (HashSet::new(), Vec::new());
        for piece in std::mem::take(&mut self.batch) {
            if entries.insert(piece.dump_id) {
                blocks.push(self.block_start(&piece));
            }
            blocks.push(piece.chunks);
            if piece.last {
                blocks.push(self.block_end());
            }
        }
        self.start_session(permit, &entries, blocks, None)
    }

    /// Gives a piece to the session that must have it, or to one that has room.
    async fn add_to_large(&mut self, piece: Piece) -> Result<()> {
        let Some(mut large) = self.large.take() else { return Ok(()) };
        let to = match large.bound {
            Some(bound) => bound,
            None => self.choose_session(&mut large, &piece).await?,
        };
        large.bound = (!piece.whole).then_some(to);
        let chunks = Some(piece.chunks);
        let sent = match large.sessions.get(to) {
            Some(session) => session.send(chunks).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.first_failure().await);
        }
        if !piece.last {
            self.large = Some(large);
            return Ok(());
        }
        for session in large.sessions {
            let ended = session.send(Some(self.block_end())).await.is_ok();
            if !ended || session.send(None).await.is_err() {
                return Err(self.first_failure().await);
            }
        }
        Ok(())
    }

    /// Starts one more, as long as that is allowed; else the first that has room.
    async fn choose_session(&mut self, large: &mut LargeTable, piece: &Piece) -> Result<usize> {
        let permit = match large.sessions.len() {
            0 => Some(self.wait_for_session().await?),
            _ => Arc::clone(&self.free).try_acquire_owned().ok(),
        };
        if let Some(permit) = permit {
            let (sender, more) = mpsc::channel(QUEUED_PIECES);
            let entries = HashSet::from([piece.dump_id]);
            self.start_session(permit, &entries, vec![self.block_start(piece)], Some(more))?;
            large.sessions.push(sender);
            return Ok(large.sessions.len() - 1);
        }
        let room = large.sessions.iter().map(|session| Box::pin(session.reserve()));
        let (reserved, index, _) = select_all(room).await;
        match reserved {
            Ok(_) => Ok(index),
            Err(_) => Err(self.first_failure().await),
        }
    }

    /// Waits until one session fewer is at work than may be.
    async fn wait_for_session(&mut self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        while let Some(ended) = self.at_work.try_join_next() {
            self.note(&outcome(ended)?);
        }
        permit.map_err(|e| Error::failed(STAGE, "no session is left").caused_by(e))
    }

    fn start_session(
        &mut self,
        permit: OwnedSemaphorePermit,
        entries: &HashSet<i64>,
        blocks: Vec<Bytes>,
        more: More,
    ) -> Result<()> {
        let holds = |entry: &TocEntry| entries.contains(&entry.dump_id);
        let head = rewrite_head(&self.head, &self.toc, &select(&self.restored, holds))?.bytes;
        let session = self.sessions.clone();
        self.at_work.spawn(async move {
            let restored = session.restore(head, blocks, more).await;
            drop(permit);
            restored
        });
        Ok(())
    }

    fn block_start(&self, piece: &Piece) -> Bytes {
        block_start(piece.kind, piece.dump_id, self.toc.header.int_bytes).into()
    }

    fn block_end(&self) -> Bytes {
        vec![0; 1 + self.toc.header.int_bytes].into()
    }

    /// Keeps what was said, as far as anybody reads.
    fn note(&mut self, said: &str) {
        if self.said.len() < SAID_BYTES {
            self.said.push_str(said);
        }
    }

    /// Why a session is gone.
    async fn first_failure(&mut self) -> Error {
        while let Some(ended) = self.at_work.join_next().await {
            if let Err(error) = outcome(ended) {
                return error;
            }
        }
        cut_off()
    }
}

fn cut_off() -> Error {
    Error::new(ErrorKind::Disconnected, STAGE, "was cut off")
}

fn outcome(ended: Result<Result<String>, tokio::task::JoinError>) -> Result<String> {
    ended.unwrap_or_else(|gone| Err(Error::failed(STAGE, "a session died").caused_by(gone)))
}
