//! What a storage was doing when it failed.

/// A refusal means something else to a reader than to a writer: whoever can't read does not know,
/// whoever can't write has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Read,
    Write,
}
