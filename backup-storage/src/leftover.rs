//! What a failed write could not remove again: part of what the caller is told.

use backup_core::Error;

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
