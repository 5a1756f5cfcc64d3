//! A transform that breaks on the way.

use std::io::{self, Read, Write};
use std::sync::Arc;

use backup_core::{Result, Transform};

use super::{die, injected};

/// How a transform breaks. Positions are bytes of input read before it happens; behind the
/// end of the input they mean its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransformFault {
    /// It fails after this many bytes.
    FailAt(u64),
    /// Its thread panics after this many bytes.
    DieAt(u64),
    /// It takes this position for the end and says `Ok`, which no transform may do.
    StopAt(u64),
}

/// A transform with a fault in one direction.
///
/// ```
/// use std::sync::Arc;
/// use backup_core::Transform;
/// use backup_testkit::{FaultyTransform, TransformFault};
///
/// fn spoil(zstd: Arc<dyn Transform>) -> impl Transform {
///     FaultyTransform::encoding(zstd, TransformFault::FailAt(1_000_000))
/// }
/// ```
#[derive(Clone)]
pub struct FaultyTransform {
    inner: Arc<dyn Transform>,
    fault: TransformFault,
    in_decode: bool,
}

impl FaultyTransform {
    /// `inner`, which breaks in `encode`.
    pub fn encoding(inner: Arc<dyn Transform>, fault: TransformFault) -> Self {
        Self { inner, fault, in_decode: false }
    }

    /// `inner`, which breaks in `decode`.
    pub fn decoding(inner: Arc<dyn Transform>, fault: TransformFault) -> Self {
        Self { inner, fault, in_decode: true }
    }

    fn breaking<'a>(&self, input: &'a mut dyn Read) -> BreakingInput<'a> {
        let (TransformFault::FailAt(at) | TransformFault::DieAt(at) | TransformFault::StopAt(at)) =
            self.fault;
        BreakingInput { input, fault: self.fault, left: at }
    }
}

impl Transform for FaultyTransform {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn extension(&self) -> &str {
        self.inner.extension()
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        if self.in_decode {
            return self.inner.encode(input, output);
        }
        self.inner.encode(&mut self.breaking(input), output)
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        if !self.in_decode {
            return self.inner.decode(input, output);
        }
        self.inner.decode(&mut self.breaking(input), output)
    }
}

struct BreakingInput<'a> {
    input: &'a mut dyn Read,
    fault: TransformFault,
    left: u64,
}

impl Read for BreakingInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = if room == 0 { 0 } else { self.input.read(&mut buffer[..room])? };
        self.left -= read as u64;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match self.fault {
            TransformFault::StopAt(_) => Ok(0),
            TransformFault::DieAt(_) => die(),
            TransformFault::FailAt(_) => {
                injected("the transform failed").map_err(backup_core::Error::into_io)
            }
        }
    }
}
