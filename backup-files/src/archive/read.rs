//! Reading: an archive from its first block to its last, and nothing half.

use std::io::{self, Read};

use backup_core::{Error, ErrorKind, Result};
use tar::Header;

use super::pax::Records;
use super::{
    Attributes, BLOCK, Entry, Kind, MAX_ENTRIES, MAX_PAX_BYTES, Mtime, Owner, padding, shown,
};

/// Bytes that are read at once where nobody wants them.
const DRAIN_BYTES: usize = 64 * 1024;

/// Looks at the entries of an archive.
pub(crate) trait Visit {
    /// The next one; what of its data is not read is passed over.
    ///
    /// # Errors
    /// Ends the walk.
    fn entry(&mut self, entry: Entry, data: &mut dyn Read) -> Result<()>;
}

/// Walks an archive to its end: headers with their checksums, names that stay below their
/// folder, all data, two blocks of zeros, and nothing but zeros behind them.
///
/// # Errors
/// [`ErrorKind::Damaged`] when it is cut or broken, [`ErrorKind::Refused`] for a name that leads
/// elsewhere, [`ErrorKind::Unchecked`] for an entry that this version does not know.
pub(crate) fn walk(input: &mut dyn Read, visit: &mut dyn Visit) -> Result<()> {
    let mut entries: u64 = 0;
    let mut records = None;
    loop {
        let header = block(input)?;
        if is_zero(header.as_bytes()) {
            return match records {
                None => end(input),
                Some(_) => Err(Error::damaged("tar", "the archive ends after a pax header")),
            };
        }
        check(&header)?;
        if header.entry_type().is_pax_local_extensions() {
            records = Some(pax(input, &header)?);
            continue;
        }
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(Error::damaged("tar", format!("has more than {MAX_ENTRIES} entries")));
        }
        let entry = entry(&header, records.take().unwrap_or_default())?;
        let size = entry.size();
        let name = shown(&entry.path);
        let mut data = input.take(size);
        visit.entry(entry, &mut data)?;
        let left = data.limit() + padding(size) as u64;
        if drain(&mut input.take(left))? < left {
            return Err(cut(&format!("in the middle of {name:?}")));
        }
    }
}

fn cut(place: &str) -> Error {
    Error::damaged("tar", format!("the archive is cut {place}")).next_step("use another copy")
}

fn block(input: &mut dyn Read) -> Result<Header> {
    let mut header = Header::new_old();
    input.read_exact(header.as_mut_bytes()).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => cut("before its end"),
        _ => Error::from_io("tar", e),
    })?;
    Ok(header)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Behind the first block of zeros.
fn end(input: &mut dyn Read) -> Result<()> {
    let mut buffer = [0; DRAIN_BYTES];
    let mut zeros = 0;
    loop {
        let n = input.read(&mut buffer).map_err(|e| Error::from_io("tar", e))?;
        if n == 0 {
            break;
        }
        if !is_zero(&buffer[..n]) {
            return Err(Error::damaged("tar", "there is something behind the end of the archive"));
        }
        zeros += n;
    }
    if zeros < BLOCK { Err(cut("at its end")) } else { Ok(()) }
}

fn check(header: &Header) -> Result<()> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes().iter().enumerate();
    let sum: u32 =
        bytes.map(|(i, byte)| u32::from(if CHECKSUM.contains(&i) { b' ' } else { *byte })).sum();
    if header.as_ustar().is_none() || header.cksum().ok() != Some(sum) {
        return Err(Error::damaged("tar", "a header's checksum is wrong"));
    }
    Ok(())
}

fn pax(input: &mut dyn Read, header: &Header) -> Result<Records> {
    let size = header.entry_size().map_err(broken)?;
    if size > MAX_PAX_BYTES {
        return Err(Error::damaged("tar", "a pax header is too large"));
    }
    let mut bytes = Vec::new();
    let padded = size + padding(size) as u64;
    input.take(padded).read_to_end(&mut bytes).map_err(|e| Error::from_io("tar", e))?;
    if (bytes.len() as u64) < padded {
        return Err(cut("in a pax header"));
    }
    bytes.truncate(size as usize);
    Records::decode(&bytes)
}

fn broken(error: io::Error) -> Error {
    Error::damaged("tar", "a header is broken").caused_by(error)
}

fn entry(header: &Header, records: Records) -> Result<Entry> {
    let block = header.as_ustar().ok_or_else(|| Error::damaged("tar", "a header is broken"))?;
    let size = match records.size()? {
        Some(size) => size,
        None => header.entry_size().map_err(broken)?,
    };
    let kind = match block.typeflag[0] {
        b'0' | 0 => Kind::File { size },
        b'5' => Kind::Directory,
        b'2' => Kind::Link { target: until_zero(&block.linkname).to_vec() },
        other => {
            let message = format!("holds an entry of type {:?}", char::from(other));
            return Err(Error::new(ErrorKind::Unchecked, "tar", message)
                .next_step("this program writes no such entries; a newer one may"));
        }
    };
    if size > 0 && !matches!(kind, Kind::File { .. }) {
        return Err(Error::damaged("tar", "an entry that is no file has data"));
    }
    let id = |number: io::Result<u64>| -> Result<u32> {
        u32::try_from(number.map_err(broken)?).map_err(|e| broken(io::Error::other(e)))
    };
    let name = |field: &[u8]| {
        let name = until_zero(field);
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    };
    let seconds = header.mtime().map_err(broken)?;
    let mut entry = Entry {
        path: header.path_bytes().into_owned(),
        kind,
        attributes: Attributes {
            mode: header.mode().map_err(broken)? & 0o7777,
            owner: Owner { id: id(header.uid())?, name: name(&block.uname) },
            group: Owner { id: id(header.gid())?, name: name(&block.gname) },
            mtime: Mtime { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 },
            ..Attributes::default()
        },
    };
    records.apply(&mut entry)?;
    if entry.kind == Kind::Directory && entry.path.last() == Some(&b'/') {
        entry.path.pop();
    }
    entry.check_path()?;
    Ok(entry)
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn drain(input: &mut dyn Read) -> Result<u64> {
    io::copy(input, &mut io::sink()).map_err(|e| Error::from_io("tar", e))
}
