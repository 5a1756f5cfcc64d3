//! What happens to bytes on the way: a Unix filter and its inverse.

use std::io::{Read, Write};

use crate::{FramedOutput, ReadAt, Result};

/// A reversible filter over a stream, such as compression or encryption.
///
/// Synchronous on purpose: the libraries are, the author of one writes a function like
/// [`std::io::copy`] and tests it on two `Vec`s, and each stage runs on a thread of its own.
///
/// Both directions hold these promises:
///
/// - They read `input` to its end. Bytes behind the end of the encoded data are an error.
/// - An `Err` out of `input` or `output` is handed on, never taken for an end of file.
/// - Damaged, foreign or cut input gives an `Err`, and never a panic.
/// - Memory is bounded whatever the length of the stream.
///
/// `decode` may write bytes *before* it can tell that they are authentic: nobody acts on them
/// until it returned `Ok` (see [`SinkWriter::commit`](crate::SinkWriter::commit)).
///
/// ```
/// use backup_core::{Error, Result, Transform};
/// use std::io::{Read, Write};
///
/// /// Flips every bit. Its own inverse. (It frames nothing, so it can't notice a cut: a real one must.)
/// struct Invert;
///
/// impl Transform for Invert {
///     fn name(&self) -> &str { "invert" }
///     fn extension(&self) -> &str { "inv" }
///     fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
///         let mut block = [0; 4096];
///         loop {
///             let n = input.read(&mut block).map_err(|e| Error::from_io("invert", e))?;
///             if n == 0 { return Ok(()); }
///             block[..n].iter_mut().for_each(|b| *b = !*b);
///             output.write_all(&block[..n]).map_err(|e| Error::from_io("invert", e))?;
///         }
///     }
///     fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
///         self.encode(input, output)
///     }
/// }
///
/// let mut out = Vec::new();
/// Invert.encode(&mut &b"abc"[..], &mut out)?;
/// assert_eq!(out, [!b'a', !b'b', !b'c']);
/// # Ok::<(), Error>(())
/// ```
pub trait Transform: Send + Sync {
    /// The name recorded in the manifest; it selects the inverse on the way back.
    fn name(&self) -> &str;

    /// The file name extension of what `encode` wrote, without the dot: "zst", "gz", "gpg".
    fn extension(&self) -> &str;

    /// Reads plain bytes, writes encoded ones.
    ///
    /// # Errors
    /// When reading, encoding or writing failed; what was written is then worth nothing.
    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()>;

    /// Reads encoded bytes, writes plain ones.
    ///
    /// # Errors
    /// As for `encode`, and when the input is damaged, cut, or can't be opened with the keys
    /// at hand; the error names which.
    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()>;

    /// As `encode`, and tells where the frames end in what it writes, where it writes any.
    ///
    /// A frame decodes by itself, with `decode`, to its plain bytes: as many as were announced by
    /// [`FramedOutput::in_frames_of`], in the last one what is left. All frames in a row are what
    /// was written. As it stands, there are none.
    ///
    /// # Errors
    /// As for `encode`.
    fn encode_in_frames(&self, input: &mut dyn Read, output: &mut FramedOutput<'_>) -> Result<()> {
        self.encode(input, output)
    }

    /// The plain bytes of encoded ones, to be read at any place; `None` where that can't be done
    /// with these, and they have to be decoded from their beginning. As it stands, always.
    ///
    /// What is read is what `decode` would give, but **not authentic**, also where `decode` would
    /// have noticed damage at the end: whoever calls this checks every byte against a digest
    /// before it is used. In doubt about the layout it is `None`.
    ///
    /// # Errors
    /// When the input can't be read, or not be opened with the keys at hand.
    fn decode_at(&self, input: Box<dyn ReadAt>) -> Result<Option<Box<dyn ReadAt>>> {
        drop(input);
        Ok(None)
    }
}
