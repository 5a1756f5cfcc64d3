//! What a storage tells of a failure: what it was doing, and what it could not remove again.

use backup_core::Error;

/// A refusal means something else to a reader than to a writer: whoever can't read does not know,
/// whoever can't write has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Read,
    Write,
}

/// `error`, which also says that `what` stays until it is swept.
pub(crate) fn with_leftover(error: Error, what: &str, why: &Error) -> Error {
    let message = format!("{}; {what} stays until it is swept ({why})", error.message());
    let told = Error::new(error.kind(), error.stage().to_owned(), message);
    let told = match error.advice() {
        Some(advice) => told.next_step(advice.to_owned()),
        None => told,
    };
    told.caused_by(error)
}
