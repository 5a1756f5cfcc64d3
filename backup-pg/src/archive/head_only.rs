//! A sink that wants the head of an archive only: who has questions need not read it all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backup_core::{Committed, Error, ErrorKind, Result, Sink, SinkWriter};
use bytes::Bytes;

use super::fields::damaged;
use super::toc::Toc;
use super::toc_parser::TocParser;

const NAME: &str = "archive head";

/// Keeps the table of contents of the archive that is written to it, and stops the run as soon
/// as it has it. Clones share it.
///
/// Little more than the head is read. So nothing has checked its bytes: digests and
/// authentication codes stand at the end. What it says is good for questions; whoever changes
/// something reads and checks the whole archive.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use backup_core::{BackupReader, Part, Result};
/// use backup_core::pipeline::{self, Context};
/// use backup_pg::{ArchiveHead, Toc};
/// # async fn example(reader: &BackupReader, dump: &Part, context: &Context) -> Result<Toc> {
/// let head = ArchiveHead::new();
/// // No contents: what is not read to its end has no digest to compare.
/// let flow = reader.flow(dump, None, Arc::new(head.clone()))?;
/// head.judge(pipeline::run(flow, &context.without_progress()).await)
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ArchiveHead {
    toc: Arc<Mutex<Option<Toc>>>,
}

impl ArchiveHead {
    /// One that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table of contents; `None` before all of it was there.
    pub fn toc(&self) -> Option<Toc> {
        self.lock().clone()
    }

    /// What the end of a run into it means.
    ///
    /// # Errors
    /// The run's own, unless the table of contents was reached: then it was stopped on purpose.
    pub fn judge<T>(&self, outcome: Result<T>) -> Result<Toc> {
        match (self.lock().take(), outcome) {
            (Some(toc), _) => Ok(toc),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(damaged(0, "nothing was written")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Toc>> {
        self.toc.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for ArchiveHead {
    fn name(&self) -> &str {
        NAME
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        *self.lock() = None;
        Ok(Box::new(HeadWriter { parser: TocParser::new(), head: self.clone() }))
    }
}

struct HeadWriter {
    parser: TocParser,
    head: ArchiveHead,
}

#[async_trait]
impl SinkWriter for HeadWriter {
    /// Refuses further bytes once it has what it wants, which ends the run.
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let Some((toc, _)) = self.parser.feed(&chunk)? else { return Ok(()) };
        *self.head.lock() = Some(toc);
        Err(Error::new(ErrorKind::Disconnected, NAME, "has read enough"))
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        let place = self.parser.describe();
        Err(damaged(self.parser.offset(), format!("the archive ends {place}")))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{TestServer, search};
    use crate::{DumpOptions, PgDump};
    use backup_core::pipeline::{self, Context, Flow};
    use backup_core::{Collect, Source};

    async fn judge(head: &ArchiveHead, source: Arc<dyn Source>) -> Result<Toc> {
        let flow = Flow::new("head", source, Arc::new(head.clone()));
        head.judge(pipeline::run(flow, &Context::default()).await)
    }

    /// A source that counts what was taken from it.
    struct Pieces(Vec<Bytes>, Arc<Mutex<usize>>);

    #[async_trait]
    impl Source for Pieces {
        fn name(&self) -> &str {
            "pieces"
        }

        async fn open(&self) -> Result<Box<dyn backup_core::SourceStream>> {
            Ok(Box::new(Stream(self.0.clone().into_iter(), self.1.clone())))
        }
    }

    struct Stream(std::vec::IntoIter<Bytes>, Arc<Mutex<usize>>);

    #[async_trait]
    impl backup_core::SourceStream for Stream {
        async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
            let chunk = self.0.next();
            *self.1.lock().unwrap() += chunk.as_ref().map_or(0, Bytes::len);
            Ok(chunk)
        }
    }

    fn pieces(bytes: &Bytes, length: usize) -> (Arc<Pieces>, Arc<Mutex<usize>>) {
        let taken = Arc::<Mutex<usize>>::default();
        let all = bytes.chunks(length).map(Bytes::copy_from_slice).collect();
        (Arc::new(Pieces(all, taken.clone())), taken)
    }

    #[tokio::test]
    async fn the_head_is_read_and_little_more() {
        let server = TestServer::start();
        let sql = "create database full_one";
        server.execute("postgres", sql).await;
        let sql = "create table public.t as select generate_series(1, 300000) i";
        server.execute("full_one", sql).await;
        let facts = server.facts(&server.connection("full_one")).await;
        let source = PgDump::new(&facts, DumpOptions::default());
        let whole = Collect::default();
        let flow = Flow::new("dump", Arc::new(source), Arc::new(whole.clone()));
        pipeline::run(flow, &Context::default()).await.unwrap();
        let archive = Bytes::from(whole.take().unwrap());
        let _ = search();

        let head = ArchiveHead::new();
        let (source, taken) = pieces(&archive, 4096);
        let toc = judge(&head, source).await.unwrap();
        assert_eq!(toc.header.database, "full_one");
        assert!(toc.of_kind("TABLE").any(|entry| entry.tag == "t"));
        let taken = *taken.lock().unwrap();
        assert!(taken >= toc.end as usize && taken < archive.len() / 4, "{taken}");

        // The same through a single large chunk, and cut in the middle of the head.
        let (source, _) = pieces(&archive, archive.len());
        assert_eq!(judge(&head, source).await.unwrap(), toc);
        for cut in [0, 5, toc.end as usize - 1] {
            let (source, _) = pieces(&archive.slice(..cut), 100);
            let error = judge(&head, source).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{cut}: {error}");
            assert_eq!(head.toc(), None);
        }
        let (source, _) = pieces(&Bytes::from_static(b"no archive at all"), 4);
        assert_eq!(judge(&head, source).await.unwrap_err().kind(), ErrorKind::Damaged);
    }
}
