//! One error type for every crate: it names the stage, the cause and the next step.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// What a failure means for the caller; the command line turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The work failed and was undone.
    Failed,
    /// Wrong usage or configuration: nothing was tried.
    Usage,
    /// The policy is met, but a wanted storage or part is missing.
    Incomplete,
    /// Data is damaged or missing.
    Damaged,
    /// No such backup, part or object.
    NotFound,
    /// A safety check refused; nothing was changed.
    Refused,
    /// Another run holds the lock.
    Locked,
    /// It could not be checked (no key, no access): neither good nor bad.
    Unchecked,
    /// The caller cancelled.
    Interrupted,
    /// The neighbour in the pipeline went away. An echo of somebody else's failure:
    /// the judge reports it only when nothing better is known.
    Disconnected,
}

/// The result of every fallible function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: stage, cause, next step and the error underneath.
///
/// It never carries a secret: whoever builds one leaves connection strings, passphrases and
/// keys out.
///
/// ```
/// use backup_core::{Error, ErrorKind};
/// let error = Error::failed("pg_dump", "the server closed the connection")
///     .next_step("look into the server's log, then run the backup again");
/// assert_eq!(error.to_string(), "pg_dump: the server closed the connection");
/// assert_eq!(error.kind(), ErrorKind::Failed);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    stage: Cow<'static, str>,
    message: String,
    next_step: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind` in `stage` ("pg_dump", "zstd", "storage local").
    pub fn new(
        kind: ErrorKind,
        stage: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            stage: stage.into(),
            message: message.into(),
            next_step: None,
            source: None,
        }))
    }

    /// A failure of kind [`ErrorKind::Failed`].
    pub fn failed(stage: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, stage, message)
    }

    /// A failure of kind [`ErrorKind::Damaged`].
    pub fn damaged(stage: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, stage, message)
    }

    /// A failure of kind [`ErrorKind::Usage`].
    pub fn usage(stage: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, stage, message)
    }

    /// A failure of kind [`ErrorKind::Refused`].
    pub fn refused(stage: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, stage, message)
    }

    /// Adds what the reader should do next.
    #[must_use]
    pub fn next_step(mut self, text: impl Into<String>) -> Self {
        self.0.next_step = Some(text.into());
        self
    }

    /// Wraps the error underneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same failure under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What the failure means.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it happened.
    pub fn stage(&self) -> &str {
        &self.0.stage
    }

    /// What happened, without the stage.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next, where somebody knows.
    pub fn advice(&self) -> Option<&str> {
        self.0.next_step.as_deref()
    }

    /// The causes underneath, outermost first, one line each.
    pub fn causes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            lines.push(cause.to_string());
            next = cause.source();
        }
        lines
    }

    /// Carries an [`Error`] through an interface that only knows [`std::io::Error`].
    pub fn into_io(self) -> std::io::Error {
        std::io::Error::other(self)
    }

    /// The reverse of [`Error::into_io`]: takes a carried [`Error`] back out, or reports the
    /// I/O error as a failure of `stage`.
    pub fn from_io(stage: impl Into<Cow<'static, str>>, error: std::io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(carried) => carried,
            Err(plain) => Self::failed(stage, plain.to_string()).caused_by(plain),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.stage, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("stage", &self.0.stage)
            .field("message", &self.0.message)
            .field("next_step", &self.0.next_step)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_io() {
        let there = Error::damaged("zstd", "checksum differs").next_step("use another copy");
        let back = Error::from_io("elsewhere", there.into_io());
        assert_eq!(back.kind(), ErrorKind::Damaged);
        assert_eq!(back.stage(), "zstd");
        assert_eq!(back.advice(), Some("use another copy"));
    }

    #[test]
    fn causes_are_listed_outermost_first() {
        let root = std::io::Error::other("disk on fire");
        let error =
            Error::failed("outer", "a").caused_by(Error::failed("inner", "b").caused_by(root));
        assert_eq!(error.causes(), ["inner: b", "disk on fire"]);
    }
}
