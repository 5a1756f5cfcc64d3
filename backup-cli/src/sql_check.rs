//! SQL text of a dump: whether it goes to the end. Nothing but its last line tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use backup_core::{Committed, Error, Result, Sink, SinkWriter};
use bytes::Bytes;

/// How much of the text's start and end is kept, in bytes.
const KEPT_BYTES: usize = 4096;

/// What pg_dump and pg_dumpall write first and last.
const DUMPS: [(&str, &str); 2] = [
    ("PostgreSQL database cluster dump", "PostgreSQL database cluster dump complete"),
    ("PostgreSQL database dump", "PostgreSQL database dump complete"),
];

/// A sink that keeps the start and the end of what flows into it.
#[derive(Clone, Default)]
pub(crate) struct SqlCheck(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    start: Vec<u8>,
    end: Vec<u8>,
}

impl SqlCheck {
    /// What the text is, and why it can't be told whether it is complete, if it can't.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it begins as a dump and
    /// does not end as one.
    pub(crate) fn judge(&self) -> Result<(&'static str, Option<&'static str>)> {
        let ends = self.lock();
        let (start, end) =
            (String::from_utf8_lossy(&ends.start), String::from_utf8_lossy(&ends.end));
        for (begins, ends) in DUMPS {
            if start.contains(begins) {
                return if end.contains(ends) { Ok((begins, None)) } else { Err(cut_off(begins)) };
            }
        }
        Ok(("SQL text", Some("it is no dump of pg_dump or pg_dumpall, so nothing tells its end")))
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut_off(what: &str) -> Error {
    Error::damaged("file", format!("the {what} is cut off: its last line is missing"))
        .next_step("whatever wrote it failed; use another backup")
}

#[async_trait]
impl Sink for SqlCheck {
    fn name(&self) -> &str {
        "file"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for SqlCheck {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let mut ends = self.lock();
        let wanted = KEPT_BYTES.saturating_sub(ends.start.len()).min(chunk.len());
        ends.start.extend_from_slice(&chunk[..wanted]);
        ends.end.extend_from_slice(&chunk[chunk.len().saturating_sub(KEPT_BYTES)..]);
        let surplus = ends.end.len().saturating_sub(KEPT_BYTES);
        ends.end.drain(..surplus);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        Ok(Committed::default())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
