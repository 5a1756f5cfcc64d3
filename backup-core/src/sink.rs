//! Where bytes go: nothing is visible before `commit`.

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// Something that takes a stream of bytes under a key and makes it visible all at once.
#[async_trait]
pub trait Sink: Send + Sync {
    /// A short name for progress and errors, such as `offsite`.
    fn name(&self) -> &str;

    /// Starts writing under `key` (see [`layout::check_key`](crate::layout::check_key)).
    ///
    /// # Errors
    /// When nothing can be written there: nothing was changed.
    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>>;
}

/// One object being written.
///
/// `commit` and `abort` take the box, so doing either twice does not compile. Dropping a
/// writer without either is a crash: what it leaves behind must never be visible, and is swept
/// later.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes the next bytes. Nothing of them is visible to a reader yet.
    ///
    /// # Errors
    /// When they could not be taken; the caller then calls `abort`.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Makes everything written visible under its key: durable, not merely accepted.
    ///
    /// Cleans up after its own failure, and settles an ambiguous one (a lost answer) by looking.
    ///
    /// # Errors
    /// When the object is not there: nothing is visible, nothing is left.
    async fn commit(self: Box<Self>) -> Result<Committed>;

    /// Throws everything written away.
    ///
    /// # Errors
    /// When something may be left behind; it is not visible, but somebody has to sweep it.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// What a sink says of a committed object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Bytes of the object.
    pub bytes: u64,
    /// The version that a versioned store gave it.
    pub version: Option<String>,
}
