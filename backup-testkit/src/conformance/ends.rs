//! Ends for a transform under test: slow, failing, observed.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::Error;

/// What a failing end says; it must come out again.
pub(super) const MARK: &str = "the end of the world, said the neighbour";
/// What a transform may write before it has seen any input, in bytes.
const HEADER_BYTES: usize = 4096;

fn marked<T>() -> io::Result<T> {
    Err(Error::failed("neighbour", MARK).into_io())
}

/// Gives its bytes one by one.
pub(super) struct SingleBytes<'a>(pub(super) &'a [u8]);

impl Read for SingleBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// Takes at most three bytes at once.
pub(super) struct SmallWrites(pub(super) Vec<u8>);

impl Write for SmallWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(3)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives its bytes, then fails, again and again.
pub(super) struct FailsAfter<'a>(pub(super) &'a [u8]);

impl Read for FailsAfter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !buffer.is_empty() { marked() } else { self.0.read(buffer) }
    }
}

/// Takes this many bytes, then fails, again and again.
pub(super) struct FullAfter(pub(super) usize);

impl Write for FullAfter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 && !bytes.is_empty() { marked() } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An input that tells how much of it is left.
pub(super) struct NotesProgress<'a> {
    pub(super) input: &'a [u8],
    pub(super) left: &'a AtomicUsize,
}

impl Read for NotesProgress<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        // An end that was not seen yet counts as input that is left.
        self.left.store(self.input.len() + usize::from(read > 0), Ordering::Relaxed);
        Ok(read)
    }
}

/// An output that notes how much input was left when its first bytes came.
pub(super) struct NotesFirstWrite<'a> {
    pub(super) input_left: &'a AtomicUsize,
    pub(super) at_first: Option<usize>,
    pub(super) bytes: Vec<u8>,
}

impl Write for NotesFirstWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.input_left.load(Ordering::Relaxed);
        // A header may be written at once; what counts is that data follows.
        if self.bytes.len() > HEADER_BYTES {
            self.at_first.get_or_insert(left);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
