//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), as far as a storage needs them.
//!
//! Names and handles are bytes here: servers give handles that are no UTF-8, and files may
//! have such names.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version spoken: what OpenSSH and everybody else has.
pub(super) const VERSION: u32 = 3;

pub(super) const INIT: u8 = 1;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const FSTAT: u8 = 8;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const EXTENDED: u8 = 200;

const IS_VERSION: u8 = 2;
const IS_STATUS: u8 = 101;
const IS_HANDLE: u8 = 102;
const IS_DATA: u8 = 103;
const IS_NAMES: u8 = 104;
const IS_ATTRIBUTES: u8 = 105;
const IS_EXTENDED: u8 = 201;

/// Flags of [`OPEN`].
pub(super) const FOR_READING: u32 = 0x01;
pub(super) const FOR_WRITING: u32 = 0x02;
pub(super) const NEW_ONLY: u32 = 0x08 | 0x20;

/// Codes of a status.
pub(super) const OK: u32 = 0;
pub(super) const END: u32 = 1;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 3;
/// Everything that has no code of its own: full disks, taken names, read-only file systems.
pub(super) const FAILURE: u32 = 4;
pub(super) const BAD_MESSAGE: u32 = 5;
pub(super) const UNSUPPORTED: u32 = 8;

const HAS_SIZE: u32 = 0x01;
const HAS_OWNER: u32 = 0x02;
const HAS_MODE: u32 = 0x04;
const HAS_TIMES: u32 = 0x08;
const HAS_MORE: u32 = 0x8000_0000;

/// The kind of file in a mode.
const KIND: u32 = 0o170_000;

/// A request without its length and id, which the session adds.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: u8,
    pub(super) body: BytesMut,
    /// What follows the body: a write's data, in pieces that are not copied.
    pub(super) data: Vec<Bytes>,
}

impl Request {
    pub(super) fn new(kind: u8) -> Self {
        Self { kind, body: BytesMut::with_capacity(64), data: Vec::new() }
    }

    pub(super) fn extended(name: &str) -> Self {
        Self::new(EXTENDED).string(name.as_bytes())
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.body.put_u32(value);
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.body.put_u64(value);
        self
    }

    /// A string: paths and handles are far below 4 GiB.
    pub(super) fn string(mut self, value: &[u8]) -> Self {
        self.body.put_u32(length(value.len()));
        self.body.put_slice(value);
        self
    }

    /// Attributes that set a mode and nothing else.
    pub(super) fn mode(self, mode: u32) -> Self {
        self.u32(HAS_MODE).u32(mode)
    }

    /// No attributes.
    pub(super) fn no_attributes(self) -> Self {
        self.u32(0)
    }

    /// The data of a write, as its last string.
    pub(super) fn data(mut self, pieces: Vec<Bytes>) -> Self {
        self.body.put_u32(length(pieces.iter().map(Bytes::len).sum()));
        self.data = pieces;
        self
    }

    /// The bytes in front of the data: length, kind, `id`, body.
    pub(super) fn head(&self, id: u32) -> Bytes {
        let data: usize = self.data.iter().map(Bytes::len).sum();
        let mut head = BytesMut::with_capacity(9 + self.body.len());
        head.put_u32(length(1 + 4 + self.body.len() + data));
        head.put_u8(self.kind);
        head.put_u32(id);
        head.put_slice(&self.body);
        head.freeze()
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The first packet of a client.
pub(super) fn init() -> Bytes {
    let mut packet = BytesMut::with_capacity(9);
    packet.put_u32(5);
    packet.put_u8(INIT);
    packet.put_u32(VERSION);
    packet.freeze()
}

/// What a server answers.
#[derive(Debug)]
pub(super) enum Reply {
    Status { code: u32, message: String },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Entry>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// One entry of a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Bytes,
    pub(super) attributes: Attributes,
}

/// What a server tells of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attributes {
    pub(super) bytes: Option<u64>,
    pub(super) mode: Option<u32>,
    /// When it was last written: seconds since 1970, UTC.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    pub(super) fn is_folder(&self) -> bool {
        self.kind() == Some(0o040_000)
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind() == Some(0o100_000)
    }

    pub(super) fn is_link(&self) -> bool {
        self.kind() == Some(0o120_000)
    }

    /// The kind of file, where the server tells it.
    pub(super) fn kind(&self) -> Option<u32> {
        self.mode.map(|mode| mode & KIND)
    }
}

/// A packet that is not what the protocol says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Parsed<T> = Result<T, Malformed>;

/// The extensions that a server offers in its first packet.
pub(super) fn parse_version(mut packet: Bytes) -> Parsed<BTreeMap<String, String>> {
    if take_u8(&mut packet)? != IS_VERSION || take_u32(&mut packet)? < VERSION {
        return Err(Malformed);
    }
    let mut offered = BTreeMap::new();
    while packet.has_remaining() {
        let name = text(&take_string(&mut packet)?);
        offered.insert(name, text(&take_string(&mut packet)?));
    }
    Ok(offered)
}

/// A reply and the id of the request that it answers.
pub(super) fn parse_reply(mut packet: Bytes) -> Parsed<(u32, Reply)> {
    let kind = take_u8(&mut packet)?;
    let id = take_u32(&mut packet)?;
    let reply = match kind {
        IS_STATUS => {
            let code = take_u32(&mut packet)?;
            // Old servers leave the message out.
            let message = take_string(&mut packet).map(|m| text(&m)).unwrap_or_default();
            Reply::Status { code, message }
        }
        IS_HANDLE => Reply::Handle(take_string(&mut packet)?),
        IS_DATA => Reply::Data(take_string(&mut packet)?),
        IS_NAMES => Reply::Names(take_entries(&mut packet)?),
        IS_ATTRIBUTES => Reply::Attributes(take_attributes(&mut packet)?),
        IS_EXTENDED => Reply::Extended(packet),
        _ => return Err(Malformed),
    };
    Ok((id, reply))
}

fn take_entries(packet: &mut Bytes) -> Parsed<Vec<Entry>> {
    let count = take_u32(packet)?;
    // Not reserved by what the server claims: the packet's own length is the bound.
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = take_string(packet)?;
        let _as_ls_prints_it = take_string(packet)?;
        entries.push(Entry { name, attributes: take_attributes(packet)? });
    }
    Ok(entries)
}

fn take_attributes(packet: &mut Bytes) -> Parsed<Attributes> {
    let flags = take_u32(packet)?;
    let mut found = Attributes::default();
    if flags & HAS_SIZE != 0 {
        found.bytes = Some(take_u64(packet)?);
    }
    if flags & HAS_OWNER != 0 {
        take_u64(packet)?;
    }
    if flags & HAS_MODE != 0 {
        found.mode = Some(take_u32(packet)?);
    }
    if flags & HAS_TIMES != 0 {
        let _accessed = take_u32(packet)?;
        found.modified = Some(take_u32(packet)?);
    }
    if flags & HAS_MORE != 0 {
        for _ in 0..take_u32(packet)? {
            take_string(packet)?;
            take_string(packet)?;
        }
    }
    Ok(found)
}

fn take_u8(packet: &mut Bytes) -> Parsed<u8> {
    packet.try_get_u8().map_err(|_| Malformed)
}

fn take_u32(packet: &mut Bytes) -> Parsed<u32> {
    packet.try_get_u32().map_err(|_| Malformed)
}

pub(super) fn take_u64(packet: &mut Bytes) -> Parsed<u64> {
    packet.try_get_u64().map_err(|_| Malformed)
}

fn take_string(packet: &mut Bytes) -> Parsed<Bytes> {
    let bytes = usize::try_from(take_u32(packet)?).map_err(|_| Malformed)?;
    if packet.remaining() < bytes {
        return Err(Malformed);
    }
    Ok(packet.split_to(bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(kind: u8, body: &[u8]) -> Bytes {
        let mut packet = BytesMut::new();
        packet.put_u8(kind);
        packet.put_u32(7);
        packet.put_slice(body);
        packet.freeze()
    }

    #[test]
    fn a_request_is_framed_with_its_data() {
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let request = Request::new(WRITE).string(&[0xff]).u64(9).data(pieces);
        let head = request.head(1);
        assert_eq!(
            head[..],
            *b"\0\0\0\x19\x06\0\0\0\x01\0\0\0\x01\xff\0\0\0\0\0\0\0\x09\0\0\0\x03"
        );
        assert_eq!(head.len() - 4 + 3, 0x19, "the length counts what follows it, data too");
    }

    #[test]
    fn replies_are_taken_apart() {
        let parsed = parse_reply(reply(IS_HANDLE, b"\0\0\0\x02\xff\xfe"));
        assert!(matches!(parsed, Ok((7, Reply::Handle(h))) if h[..] == [0xff, 0xfe]));
        let names = b"\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0\x05\0\0\x81\x80\0\0\0\0\0\0\0\x09";
        let Ok((_, Reply::Names(entries))) = parse_reply(reply(IS_NAMES, names)) else { panic!() };
        let found = entries[0].attributes;
        assert!(found.is_file() && found.bytes == Some(5) && found.modified == Some(9));
    }

    #[test]
    fn no_cut_packet_is_taken_for_a_whole_one_nor_panics() {
        let names = reply(IS_NAMES, b"\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x05");
        for cut in 0..names.len() {
            assert_eq!(parse_reply(names.slice(..cut)).err(), Some(Malformed), "{cut}");
        }
        let huge = reply(IS_NAMES, &[0xff; 12]);
        assert_eq!(parse_reply(huge).err(), Some(Malformed));
        assert_eq!(parse_version(Bytes::from_static(b"\x02\0\0\0\x02")).err(), Some(Malformed));
    }
}
