//! Decryption at any place, of messages as we write them.
//!
//! ```text
//! stored    sealed session keys │ SEIPD version 1, in chunks
//! its body                        version │ ciphertext
//! decrypted                                 prefix, 18 bytes │ literal packet, in chunks │ MDC
//! its body                                                     header, 6 bytes │ plain bytes
//! ```
//!
//! SEIPD version 1 is the cipher in CFB mode, each block of which needs nothing but the block of
//! ciphertext before it. The integrity check at the end covers the whole message and is of no use
//! here: whoever reads compares what comes out with a digest.

use std::ops::Range;

use backup_core::{Error, ReadAt, Result};
use pgp::composed::PlainSessionKey;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::types::Tag;

use crate::STAGE;
use crate::chunked::Chunked;
use crate::keyring::Keyring;
use crate::open::{
    MAX_SMALL_PACKETS, PREFIX_BYTES, next_packet, passes_quick_check, raw_session_key,
};

/// Bytes read at once at the beginning; the sealed session keys must lie within.
const HEAD_BYTES: u64 = 64 * 1024;

/// The first octet of the packets that we write.
const SEIPD: u8 = 0xc0 | 18;
const LITERAL: u8 = 0xc0 | 11;

/// How the modification detection code begins, and how long it is.
const MDC_START: [u8; 2] = [0xc0 | 19, 20];
const MDC_BYTES: u64 = 22;

/// The literal packet's own header: binary data without a name, then a date.
const LITERAL_START: [u8; 2] = [b'b', 0];
const LITERAL_HEADER_BYTES: u64 = 6;

/// Bytes in a block of AES.
const BLOCK_BYTES: u64 = 16;

/// The plain bytes of the message that `input` holds; `None` when it is not laid out as ours are.
pub(crate) fn open_at(
    input: Box<dyn ReadAt>,
    keyring: &Keyring,
) -> Result<Option<Box<dyn ReadAt>>> {
    let head = input.read_at(0..input.length().min(HEAD_BYTES))?;
    let Some((start, sealed)) = find_data(&head) else { return Ok(None) };
    let end = input.length();
    let Some(body) = Chunked::find(Headed { head, input }, start + 1, end)? else {
        return Ok(None);
    };
    let shortest = 1 + PREFIX_BYTES as u64 + MDC_BYTES;
    if body.length() < shortest || body.read_at(0..1)? != [1] {
        return Ok(None);
    }
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&body.read_at(1..1 + PREFIX_BYTES as u64)?);
    let key = keyring.find(&sealed, |key| passes_quick_check(key, &prefix))?;
    if !matches!(key, PlainSessionKey::V3_4 { sym_alg: SymmetricKeyAlgorithm::AES256, .. }) {
        return Ok(None);
    }
    let decrypted = Decrypted { ciphertext: body.skip(1), key };
    let end = decrypted.length() - MDC_BYTES;
    if decrypted.read_at(end..end + 2)? != MDC_START || decrypted.read_at(0..1)? != [LITERAL] {
        return Ok(None);
    }
    let Some(literal) = Chunked::find(decrypted, 1, end)? else { return Ok(None) };
    if literal.length() < LITERAL_HEADER_BYTES || literal.read_at(0..2)? != LITERAL_START {
        return Ok(None);
    }
    Ok(Some(Box::new(literal.skip(LITERAL_HEADER_BYTES))))
}

/// Where the encrypted data begins, and the session keys before it.
fn find_data(head: &[u8]) -> Option<(u64, Vec<crate::keyring::Sealed>)> {
    let mut sealed = Vec::new();
    let mut rest = head;
    for _ in 0..MAX_SMALL_PACKETS {
        let start = head.len() - rest.len();
        if let Some(header) = next_packet(&mut rest, &mut sealed).ok()? {
            let ours = header.tag() == Tag::SymEncryptedProtectedData && head[start] == SEIPD;
            return ours.then_some((start as u64, sealed));
        }
    }
    None
}

/// The input, whose beginning was read before.
struct Headed {
    head: Vec<u8>,
    input: Box<dyn ReadAt>,
}

impl ReadAt for Headed {
    fn length(&self) -> u64 {
        self.input.length()
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        match self.head.get(range.start as usize..range.end as usize) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => self.input.read_at(range),
        }
    }
}

/// What the ciphertext holds behind its prefix.
struct Decrypted<R> {
    ciphertext: R,
    key: PlainSessionKey,
}

impl<R: ReadAt> ReadAt for Decrypted<R> {
    fn length(&self) -> u64 {
        self.ciphertext.length().saturating_sub(PREFIX_BYTES as u64)
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let (start, end) = (range.start + PREFIX_BYTES as u64, range.end + PREFIX_BYTES as u64);
        // From the start of a block, and the one before it. The prefix is longer than a block, so
        // there always is one.
        let block = start / BLOCK_BYTES * BLOCK_BYTES;
        let mut before = self.ciphertext.read_at(block - BLOCK_BYTES..end)?;
        let mut bytes = before.split_off(BLOCK_BYTES as usize);
        SymmetricKeyAlgorithm::AES256
            .decrypt_with_iv_regular(raw_session_key(&self.key), &before, &mut bytes)
            .map_err(|e| Error::failed(STAGE, "could not be decrypted").caused_by(e))?;
        bytes.drain(..(start - block) as usize);
        Ok(bytes)
    }
}
