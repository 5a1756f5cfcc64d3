//! Reading input so that its own failures stay apart from the codec's.

use std::io::{self, ErrorKind, Read};

use backup_core::Error;

/// Bytes read at once: large enough that a call costs nothing, small enough to stay in the
/// second-level cache.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// The input of a codec. It remembers the error the input gave, so that a broken pipe is never
/// reported as damaged data, nor the other way round.
pub(crate) struct Feed<'a> {
    input: &'a mut dyn Read,
    failure: Option<io::Error>,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, failure: None }
    }

    /// The input's own error, carried out as it was, if it gave one.
    pub(crate) fn failure(&mut self, stage: &'static str) -> Option<Error> {
        self.failure.take().map(|error| Error::from_io(stage, error))
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the input failed"));
                }
                read => return read,
            }
        }
    }
}
