//! A sink that keeps nothing: it proves that what is written to it is a whole tar archive.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, FilesContents, Result, Sink, SinkWriter};

use crate::archive::{Dialect, Entry, Tally, Visit, shown, walk};
use crate::worker::Worker;

/// Walks an archive and refuses to commit unless it is whole: what `verify` reads into.
///
/// Clones share their [`contents`](Self::contents).
#[derive(Debug, Clone, Default)]
pub struct FilesCheck {
    dialect: Dialect,
    contents: Arc<Mutex<Option<FilesContents>>>,
}

impl FilesCheck {
    /// A check that has seen nothing yet, of archives that somebody wrote.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, contents: Arc::default() }
    }

    /// What the archive committed last contains; `None` before a commit succeeded.
    pub fn contents(&self) -> Option<FilesContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for FilesCheck {
    fn name(&self) -> &str {
        "tar"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        *self.contents.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let contents = Arc::clone(&self.contents);
        let dialect = self.dialect;
        let work = move |input: &mut dyn Read| {
            let mut counting = Counting(Tally::default());
            walk(input, dialect, &mut counting)?;
            if dialect == Dialect::Stock {
                refuse_ways_through_files(&counting.0)?;
            }
            Ok(counting.0)
        };
        let keep = move |tally: Tally| {
            *contents.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally.finish());
            Ok(())
        };
        Ok(Box::new(Worker::start(work, keep)))
    }
}

/// Stock tar writes such where an argument leads through a link that is in the archive, too, and
/// a restore of all of it would refuse them.
fn refuse_ways_through_files(tally: &Tally) -> Result<()> {
    let Some((path, file)) = tally.below_no_folder() else { return Ok(()) };
    let (path, file) = (shown(path), shown(file));
    let message = format!("{path:?} lies below {file:?}, which is no folder in the archive");
    Err(Error::new(ErrorKind::Unchecked, "tar", message)
        .next_step("a restore would refuse it: bring it back with stock tar, and keep the archive"))
}

struct Counting(Tally);

impl Visit for Counting {
    fn entry(&mut self, entry: Entry, _number: u64, _data: &mut dyn Read) -> Result<()> {
        self.0.note(&entry);
        Ok(())
    }

    fn hard_link(&mut self, entry: Entry, _number: u64, _source: u64) -> Result<()> {
        self.0.note(&entry);
        Ok(())
    }
}
