//! The two ends of a transform, each remembering its own failure: an error of the disk or of the
//! pipe comes out as it was, and never as a complaint about keys or data.

use std::io::{self, ErrorKind, Read, Write};

use backup_core::{Error, Result};

/// Bytes handed over at once.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;

/// One end, with the first error it gave.
pub(crate) struct End<T> {
    inner: T,
    failure: Option<Error>,
}

impl<T> End<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, failure: None }
    }

    pub(crate) fn failure(self) -> Option<Error> {
        self.failure
    }

    fn keep(&mut self, error: io::Error) -> io::Error {
        self.failure.get_or_insert_with(|| Error::from_io(crate::STAGE, error));
        io::Error::other("an end of the stream failed")
    }
}

impl Read for End<&mut dyn Read> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.keep(error)),
                read => return read,
            }
        }
    }
}

impl Write for End<&mut dyn Write> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whole, so that an end that takes nothing is named by the end itself.
        self.inner.write_all(bytes).map_err(|error| self.keep(error)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until `block` is full or the input ends; fewer bytes mean its end.
pub(crate) fn fill(input: &mut dyn Read, block: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::from_io(crate::STAGE, error)),
        }
    }
    Ok(filled)
}
