//! Decryption: from the packets outside to the plaintext within.
//!
//! The library's own message reader is used for what is inside the encryption only. The packets
//! outside are walked here, because there it takes a cut header behind the message for the end of
//! file, picks session keys without trying them, and reads packets of any length into memory.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind as IoKind, Read};

use backup_core::{Error, Result};
use pgp::armor::{BlockType, Dearmor, DearmorOptions};
use pgp::composed::{Message, PacketBodyReader, PlainSessionKey};
use pgp::packet::{
    GnupgAeadDataConfig, PacketHeader, PublicKeyEncryptedSessionKey, StreamDecryptor,
    SymEncryptedProtectedDataConfig as Seipd, SymKeyEncryptedSessionKey,
};
use pgp::types::{PacketLength, Seipdv1ReadMode, Tag};

use crate::STAGE;
use crate::bridge::{Inlet, Outlet};
use crate::ends::BLOCK_BYTES;
use crate::keyring::{Keyring, Sealed};

/// The longest packet before the encrypted data. A session key for RSA-4096 takes 530 bytes.
const MAX_SMALL_PACKET_BYTES: u32 = 64 * 1024;

/// The most packets before the encrypted data; each may cost a key derivation.
pub(crate) const MAX_SMALL_PACKETS: usize = 64;

/// Text before and around the armor, at most.
const MAX_ARMOR_HEADER_BYTES: usize = 64 * 1024;

/// Layers of compression inside a message, at most. gpg makes one.
const MAX_LAYERS: usize = 4;

/// Block size of the widest cipher, and the two bytes after it that repeat its end.
pub(crate) const PREFIX_BYTES: usize = 18;

/// Opens the message that `inlet` holds from its first to its last byte.
pub(crate) fn open(mut inlet: Inlet, outlet: &mut Outlet, keyring: &Keyring) -> Result<()> {
    match inlet.fill_buf().map_err(cut_or_damaged)?.first() {
        None => Err(cut()),
        Some(first) if first & 0x80 != 0 => {
            open_packets(&mut inlet, outlet, keyring)?;
            expect_end(&mut inlet)
        }
        Some(_) => open_armored(inlet, outlet, keyring),
    }
}

fn open_armored(inlet: Inlet, outlet: &mut Outlet, keyring: &Keyring) -> Result<()> {
    // The armor's own checksum is passed over: the one inside the encryption is far stronger.
    let options = DearmorOptions::new().set_limit(MAX_ARMOR_HEADER_BYTES);
    let mut dearmor = Dearmor::with_options(inlet, options);
    dearmor.read_header().map_err(|e| no_message().caused_by(e))?;
    if !matches!(dearmor.typ, Some(BlockType::Message | BlockType::File)) {
        return Err(Error::damaged(STAGE, "the armor holds no encrypted message"));
    }
    let mut packets = BufReader::with_capacity(BLOCK_BYTES, dearmor);
    open_packets(&mut packets, outlet, keyring)?;
    expect_end(&mut packets)?;
    // At its end the armor was read up to its last line; only blanks may follow.
    let (_, _, _, rest) = packets.into_inner().into_parts();
    for byte in rest.bytes() {
        if !byte.map_err(cut_or_damaged)?.is_ascii_whitespace() {
            return Err(trailing());
        }
    }
    Ok(())
}

fn expect_end(packets: &mut impl BufRead) -> Result<()> {
    if packets.fill_buf().map_err(cut_or_damaged)?.is_empty() { Ok(()) } else { Err(trailing()) }
}

/// Collects the sealed session keys and opens the encrypted data that follows them.
fn open_packets(
    packets: &mut (impl BufRead + Debug + Send),
    outlet: &mut Outlet,
    keyring: &Keyring,
) -> Result<()> {
    let mut sealed = Vec::new();
    for _ in 0..MAX_SMALL_PACKETS {
        if let Some(header) = next_packet(packets, &mut sealed)? {
            let body = PacketBodyReader::new(header, packets).map_err(cut_or_damaged)?;
            return open_data(header.tag(), body, &sealed, outlet, keyring);
        }
    }
    Err(Error::damaged(STAGE, format!("more than {MAX_SMALL_PACKETS} packets precede the data")))
}

/// Reads a packet before the encrypted data, and keeps the session key in it; or the header of
/// the data itself, which it gives.
pub(crate) fn next_packet(
    packets: &mut (impl BufRead + Debug),
    sealed: &mut Vec<Sealed>,
) -> Result<Option<PacketHeader>> {
    let header = PacketHeader::try_from_reader(&mut *packets).map_err(cut_or_damaged)?;
    match header.tag() {
        Tag::PublicKeyEncryptedSessionKey => {
            let body = small_body(header, packets)?;
            // One of a kind we do not know may be skipped: another may open the message.
            let packet = PublicKeyEncryptedSessionKey::try_from_reader(header, &body[..]);
            sealed.extend(packet.ok().map(Sealed::ToKey));
        }
        Tag::SymKeyEncryptedSessionKey => {
            let body = small_body(header, packets)?;
            let packet = SymKeyEncryptedSessionKey::try_from_reader(header, &body[..]);
            sealed.extend(packet.ok().map(Sealed::ToPassphrase));
        }
        Tag::Marker | Tag::Padding => {
            small_body(header, packets)?;
        }
        Tag::SymEncryptedProtectedData | Tag::GnupgAeadData => return Ok(Some(header)),
        Tag::SymEncryptedData => return Err(unprotected()),
        Tag::LiteralData | Tag::CompressedData | Tag::OnePassSignature | Tag::Signature => {
            return Err(Error::damaged(STAGE, "the OpenPGP message is not encrypted"));
        }
        _ => return Err(no_message()),
    }
    Ok(None)
}

fn small_body(header: PacketHeader, packets: &mut (impl BufRead + Debug)) -> Result<Vec<u8>> {
    let short =
        matches!(header.packet_length(), PacketLength::Fixed(n) if n <= MAX_SMALL_PACKET_BYTES);
    if !short {
        return Err(Error::damaged(
            STAGE,
            "a packet before the data is longer than any such packet",
        ));
    }
    let mut bytes = Vec::new();
    let mut body = PacketBodyReader::new(header, packets).map_err(cut_or_damaged)?;
    body.read_to_end(&mut bytes).map_err(cut_or_damaged)?;
    Ok(bytes)
}

/// Finds the session key and decrypts, by the three kinds of protected data there are.
fn open_data(
    tag: Tag,
    mut body: PacketBodyReader<impl BufRead + Debug + Send>,
    sealed: &[Sealed],
    outlet: &mut Outlet,
    keyring: &Keyring,
) -> Result<()> {
    if tag == Tag::GnupgAeadData {
        let config = GnupgAeadDataConfig::try_from_reader(&mut body).map_err(malformed)?;
        let size = config.sym_alg.key_size();
        let key = keyring.find(sealed, |key| match key {
            PlainSessionKey::V3_4 { sym_alg, key } => {
                *sym_alg == config.sym_alg && key.len() == size
            }
            PlainSessionKey::V5 { key } => key.len() == size,
            PlainSessionKey::V6 { .. } => false,
        })?;
        let (alg, aead, chunk) = (config.sym_alg, config.aead, config.chunk_size);
        let decryptor =
            StreamDecryptor::gnupg_aead(alg, aead, chunk, raw_session_key(&key), &config.iv, body);
        return copy_plaintext(decryptor.map_err(malformed)?, outlet);
    }
    match Seipd::try_from_reader(&mut body).map_err(malformed)? {
        Seipd::V1 => {
            let mut prefix = [0; PREFIX_BYTES];
            body.read_exact(&mut prefix).map_err(cut_or_damaged)?;
            let key = keyring.find(sealed, |key| passes_quick_check(key, &prefix))?;
            let PlainSessionKey::V3_4 { sym_alg, .. } = key else { return Err(no_message()) };
            let source = Cursor::new(prefix).chain(body);
            let mode = Seipdv1ReadMode::Streaming;
            let decryptor = StreamDecryptor::v1(sym_alg, mode, raw_session_key(&key), source);
            copy_plaintext(decryptor.map_err(malformed)?, outlet)
        }
        Seipd::V2 { sym_alg, aead, chunk_size, salt } => {
            let size = sym_alg.key_size();
            let key = keyring.find(
                sealed,
                |key| matches!(key, PlainSessionKey::V6 { key } if key.len() == size),
            )?;
            let decryptor =
                StreamDecryptor::v2(sym_alg, aead, chunk_size, &salt, raw_session_key(&key), body);
            copy_plaintext(decryptor.map_err(malformed)?, outlet)
        }
    }
}

pub(crate) fn raw_session_key(key: &PlainSessionKey) -> &[u8] {
    match key {
        PlainSessionKey::V3_4 { key, .. }
        | PlainSessionKey::V5 { key }
        | PlainSessionKey::V6 { key } => key.as_ref(),
    }
}

/// Whether the key decrypts the start of the data to a block whose last two bytes come twice. A
/// wrong key does so once in 65,536 times, and fails at the end of the message instead.
pub(crate) fn passes_quick_check(key: &PlainSessionKey, prefix: &[u8; PREFIX_BYTES]) -> bool {
    let PlainSessionKey::V3_4 { sym_alg, key } = key else { return false };
    let block = sym_alg.block_size();
    if key.len() != sym_alg.key_size() || !matches!(block, 8 | 16) {
        return false;
    }
    let mut start = prefix[..block + 2].to_vec();
    let decrypted = sym_alg.decrypt_with_iv_regular(key.as_ref(), &vec![0; block], &mut start);
    decrypted.is_ok() && start[block - 2..block] == start[block..]
}

/// Unwraps what is inside and hands it to the outlet. `Ok` means that the decryptor was read to
/// its end and found nothing wrong with it.
fn copy_plaintext(decryptor: impl BufRead + Debug + Send, outlet: &mut Outlet) -> Result<()> {
    let mut decrypted = Witness { inner: decryptor, failure: None };
    let copied = copy_message(&mut decrypted, outlet);
    if let Some(failure) = decrypted.failure {
        return Err(cut_or_damaged(failure));
    }
    copied?;
    // The library has looked behind the message, but not necessarily as far as the end.
    expect_end(&mut decrypted.inner)
}

fn copy_message(decrypted: &mut (impl BufRead + Debug + Send), outlet: &mut Outlet) -> Result<()> {
    let mut message = Message::from_bytes(decrypted).map_err(malformed)?;
    for _ in 0..MAX_LAYERS {
        if message.is_literal() {
            break;
        }
        message = message.decompress().map_err(malformed)?;
    }
    if !message.is_literal() && !message.is_signed() {
        return Err(Error::damaged(STAGE, "the message holds no data, or under too many layers"));
    }
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match message.read(&mut block).map_err(cut_or_damaged)? {
            0 => return Ok(()),
            n => outlet.write(&block[..n])?,
        }
    }
}

/// Remembers the first error of the decryptor: the readers above it reword or swallow some.
#[derive(Debug)]
struct Witness<R> {
    inner: R,
    failure: Option<io::Error>,
}

impl<R: BufRead> BufRead for Witness<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.failure.is_some() {
            return Err(io::Error::other("decryption failed"));
        }
        match self.inner.fill_buf() {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("decryption failed"))
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
    }
}

impl<R: BufRead> Read for Witness<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

/// The library's words for a fixed-length packet that is shorter than its header says.
const SHORT_PACKET: &str = "Fixed chunk was shorter than expected";

fn cut_or_damaged(error: io::Error) -> Error {
    if is_cut(&error) { cut().caused_by(error) } else { damaged().caused_by(error) }
}

fn malformed(error: pgp::errors::Error) -> Error {
    if is_cut(&error) { cut().caused_by(error) } else { damaged().caused_by(error) }
}

fn is_cut(error: &(dyn StdError + 'static)) -> bool {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        if io.kind() == IoKind::UnexpectedEof || io.to_string() == SHORT_PACKET {
            return true;
        }
        if let Some(inner) = io.get_ref() {
            return is_cut(inner);
        }
    }
    error.source().is_some_and(is_cut)
}

fn cut() -> Error {
    Error::damaged(STAGE, "the message is cut off").next_step("use another copy of the backup")
}

fn damaged() -> Error {
    Error::damaged(STAGE, "the message is damaged: it fails its integrity check")
        .next_step("use another copy of the backup")
}

fn trailing() -> Error {
    Error::damaged(STAGE, "something follows the end of the message")
}

fn no_message() -> Error {
    Error::damaged(STAGE, "the data is no encrypted OpenPGP message")
}

fn unprotected() -> Error {
    Error::refused(STAGE, "the message has no integrity protection: anyone could have changed it")
        .next_step(
            "if you trust where it comes from, decrypt it by hand: gpg --ignore-mdc-error -d FILE",
        )
}
