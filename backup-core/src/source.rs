//! Where bytes come from.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Inventory, Result};

/// Something that can be read from start to end: a dump, a file, a stored object.
///
/// Opening twice reads twice; nothing is shared between the two streams.
#[async_trait]
pub trait Source: Send + Sync {
    /// A short name for progress and errors, such as `pg_dump`.
    fn name(&self) -> &str;

    /// Starts reading.
    ///
    /// # Errors
    /// When the data can't be reached: nothing was read.
    async fn open(&self) -> Result<Box<dyn SourceStream>>;
}

/// One reading of a [`Source`].
///
/// Absent on purpose: there is no `close`. Dropping a stream before its end aborts it, and
/// whatever produces it (a child process, a download) must not outlive it.
#[async_trait]
pub trait SourceStream: Send {
    /// The next bytes, never an empty chunk.
    ///
    /// `Ok(None)` is a promise, not silence: the data is complete and its producer ended well.
    /// A stream over a child process therefore waits for the child *in here* and turns a bad
    /// exit into `Err`. After `Ok(None)` or `Err` the stream is not called again.
    ///
    /// The future may be dropped when a run is cancelled; the stream is dropped right after.
    ///
    /// # Errors
    /// When the data is not complete, whatever the reason.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>>;

    /// What was learned about the data while it streamed past. Called once, after `Ok(None)`.
    fn findings(&mut self) -> Findings {
        Findings::default()
    }
}

/// What a stream learned about its data on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// What is inside. Tells about the data, so it is stored encrypted like the data.
    pub inventory: Inventory,
    /// The version of the archive format, for a PostgreSQL dump ("1.14"). Public.
    pub archive_version: Option<String>,
    /// What a reader of the manifest must know ("role passwords could not be dumped"). Public:
    /// holds no names of tables or roles.
    pub notes: Vec<String>,
}
