//! Reading: an archive from its first block to its last, and nothing half.

use std::io::{self, Read};

use backup_core::{Error, ErrorKind, Result};
use tar::Header;

use super::pax::Records;
use super::stock::{self, Names, Seen, Source};
use super::{
    Attributes, BLOCK, Dialect, Entry, Kind, MAX_ENTRIES, MAX_PATH_BYTES, MAX_PAX_BYTES, Mtime,
    Owner, padding, shown,
};

/// Bytes that are read at once where nobody wants them.
const DRAIN_BYTES: usize = 64 * 1024;

/// Looks at the entries of an archive. Each has a number, by its place.
pub(crate) trait Visit {
    /// The next one; what of its data is not read is passed over.
    ///
    /// # Errors
    /// Ends the walk.
    fn entry(&mut self, entry: Entry, number: u64, data: &mut dyn Read) -> Result<()>;

    /// A second name for a file whose data came with the entry `source`; `entry` tells what a
    /// file of its own would be. Only in what stock tar wrote.
    ///
    /// # Errors
    /// Ends the walk.
    fn hard_link(&mut self, entry: Entry, number: u64, source: u64) -> Result<()>;
}

/// What stands in front of an entry and belongs to it.
#[derive(Default)]
struct Before {
    records: Option<Records>,
    names: Names,
}

/// Walks an archive to its end: headers with their checksums, names that stay below their
/// folder, all data, two blocks of zeros, and nothing but zeros behind them.
///
/// # Errors
/// [`ErrorKind::Damaged`] when it is cut or broken, [`ErrorKind::Refused`] for a name that leads
/// elsewhere, [`ErrorKind::Unchecked`] for an entry that this version does not know.
pub(crate) fn walk(input: &mut dyn Read, dialect: Dialect, visit: &mut dyn Visit) -> Result<()> {
    let mut number: u64 = 0;
    let mut seen = Seen::default();
    while let Some((header, before)) = next_header(input, dialect)? {
        number += 1;
        if number > MAX_ENTRIES {
            return Err(Error::damaged("tar", format!("has more than {MAX_ENTRIES} entries")));
        }
        match entry(&header, before, dialect)? {
            Found::Folder => {}
            Found::HardLink(entry, target) => {
                second_name(entry, &target, number, &mut seen, visit)?
            }
            Found::Entry(entry) => {
                if dialect == Dialect::Stock {
                    seen.note(&entry, number);
                }
                with_data(entry, number, input, visit)?;
            }
        }
    }
    end(input)
}

/// The header of the next entry, with what stands in front of it; `None` at the end.
fn next_header(input: &mut dyn Read, dialect: Dialect) -> Result<Option<(Header, Before)>> {
    let mut before = Before::default();
    loop {
        let header = block(input)?;
        if is_zero(header.as_bytes()) {
            return match before.records.is_none() && before.names.is_empty() {
                true => Ok(None),
                false => Err(Error::damaged("tar", "the archive ends in front of an entry")),
            };
        }
        check(&header, dialect)?;
        match (typeflag(&header), dialect) {
            (b'x', _) => before.records = Some(pax(input, &header)?),
            (which @ (b'L' | b'K'), Dialect::Stock) => {
                let size = header.entry_size().map_err(broken)?;
                before.names.set(which, extension(input, size, stock::MAX_NAME_BYTES)?);
            }
            _ => return Ok(Some((header, before))),
        }
    }
}

fn second_name(
    entry: Entry,
    target: &[u8],
    number: u64,
    seen: &mut Seen,
    visit: &mut dyn Visit,
) -> Result<()> {
    match seen.find(&entry.path, target)? {
        Source::Itself => Ok(()),
        Source::Link(target) => {
            let entry = Entry { kind: Kind::Link { target }, ..entry };
            seen.note(&entry, number);
            visit.entry(entry, number, &mut io::empty())
        }
        Source::File(source, size) => {
            let entry = Entry { kind: Kind::File { size }, ..entry };
            seen.note(&entry, source);
            visit.hard_link(entry, number, source)
        }
    }
}

fn with_data(entry: Entry, number: u64, input: &mut dyn Read, visit: &mut dyn Visit) -> Result<()> {
    let size = entry.size();
    let name = shown(&entry.path);
    let mut data = input.take(size);
    visit.entry(entry, number, &mut data)?;
    let left = data.limit() + padding(size) as u64;
    if drain(&mut input.take(left))? < left {
        return Err(cut(&format!("in the middle of {name:?}")));
    }
    Ok(())
}

fn typeflag(header: &Header) -> u8 {
    header.as_old().linkflag[0]
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

fn check(header: &Header, dialect: Dialect) -> Result<()> {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes().iter().enumerate();
    let sum: u32 =
        bytes.map(|(i, byte)| u32::from(if CHECKSUM.contains(&i) { b' ' } else { *byte })).sum();
    if header.cksum().ok() != Some(sum) {
        return Err(Error::damaged("tar", "a header's checksum is wrong"));
    }
    match dialect {
        Dialect::Own if header.as_ustar().is_some() => Ok(()),
        Dialect::Own => {
            Err(unknown("the archive is in another tar format than this program writes"))
        }
        Dialect::Stock if header.as_ustar().is_some() || header.as_gnu().is_some() => Ok(()),
        Dialect::Stock => Err(unknown("the archive is neither in POSIX nor in GNU tar's format")),
    }
}

/// What is there may be whole, and this version does not understand it.
fn unknown(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unchecked, "tar", message)
        .next_step("look into it with stock tar: tar -tvf FILE")
}

fn pax(input: &mut dyn Read, header: &Header) -> Result<Records> {
    let size = header.entry_size().map_err(broken)?;
    Records::decode(&extension(input, size, MAX_PAX_BYTES)?)
}

/// The data of an entry that tells about the next one.
fn extension(input: &mut dyn Read, size: u64, most: u64) -> Result<Vec<u8>> {
    if size > most {
        return Err(Error::damaged("tar", "what stands in front of an entry is too large"));
    }
    let mut bytes = Vec::new();
    let padded = size + padding(size) as u64;
    input.take(padded).read_to_end(&mut bytes).map_err(|e| Error::from_io("tar", e))?;
    if (bytes.len() as u64) < padded {
        return Err(cut("in front of an entry"));
    }
    bytes.truncate(size as usize);
    Ok(bytes)
}

fn broken(error: io::Error) -> Error {
    Error::damaged("tar", "a header is broken").caused_by(error)
}

/// What a header stands for.
enum Found {
    Entry(Entry),
    /// A second name of the file with this one.
    HardLink(Entry, Vec<u8>),
    /// The folder itself that everything is below.
    Folder,
}

fn entry(header: &Header, before: Before, dialect: Dialect) -> Result<Found> {
    let records = before.records.unwrap_or_default();
    if dialect == Dialect::Stock && records.are_of_a_sparse_file() {
        return Err(unknown("holds a sparse file in GNU tar's own form"));
    }
    let size = match records.size()? {
        Some(size) => size,
        None => header.entry_size().map_err(broken)?,
    };
    let link_name = || before.names.link.clone().unwrap_or_else(|| link_name(header));
    let (kind, is_hard_link) = match (typeflag(header), dialect) {
        (b'0' | 0, _) | (b'7', Dialect::Stock) => (Kind::File { size }, false),
        (b'5', _) => (Kind::Directory, false),
        (b'2', _) => (Kind::Link { target: link_name() }, false),
        (b'1', Dialect::Stock) => (Kind::Link { target: link_name() }, true),
        (other, _) => {
            let message = format!("holds an entry of type {:?}", char::from(other));
            return Err(Error::new(ErrorKind::Unchecked, "tar", message)
                .next_step("this program writes no such entries; a newer one may"));
        }
    };
    if size > 0 && !matches!(kind, Kind::File { .. }) {
        return Err(Error::damaged("tar", "an entry that is no file has data"));
    }
    let path = before.names.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let mut entry = Entry { path, kind, attributes: attributes(header)? };
    records.apply(&mut entry)?;
    check_target(&entry)?;
    match dialect {
        Dialect::Stock => entry.path = stock::plain(&entry.path),
        Dialect::Own if entry.kind == Kind::Directory && entry.path.last() == Some(&b'/') => {
            entry.path.pop();
        }
        Dialect::Own => {}
    }
    if dialect == Dialect::Stock && entry.path.is_empty() && entry.kind == Kind::Directory {
        return Ok(Found::Folder);
    }
    entry.check_path()?;
    Ok(match entry.kind {
        Kind::Link { ref target } if is_hard_link => {
            let target = stock::plain(target);
            Found::HardLink(entry, target)
        }
        _ => Found::Entry(entry),
    })
}

/// No link leads further than a path is long; a pax record could, a million times.
fn check_target(entry: &Entry) -> Result<()> {
    match &entry.kind {
        Kind::Link { target } if target.len() > MAX_PATH_BYTES => {
            let path = shown(&entry.path);
            let message = format!("what {path:?} leads to is longer than {MAX_PATH_BYTES} bytes");
            Err(Error::refused("tar", message)
                .next_step("no program writes such links: do not trust this archive"))
        }
        _ => Ok(()),
    }
}

fn link_name(header: &Header) -> Vec<u8> {
    until_zero(&header.as_old().linkname).to_vec()
}

fn attributes(header: &Header) -> Result<Attributes> {
    let id = |number: io::Result<u64>| -> Result<u32> {
        u32::try_from(number.map_err(broken)?).map_err(|e| broken(io::Error::other(e)))
    };
    let name = |field: Option<&[u8]>| {
        let name = until_zero(field.unwrap_or_default());
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    };
    let seconds = header.mtime().map_err(broken)?;
    Ok(Attributes {
        mode: header.mode().map_err(broken)? & 0o7777,
        owner: Owner { id: id(header.uid())?, name: name(header.username_bytes()) },
        group: Owner { id: id(header.gid())?, name: name(header.groupname_bytes()) },
        mtime: Mtime { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 },
        ..Attributes::default()
    })
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn drain(input: &mut dyn Read) -> Result<u64> {
    io::copy(input, &mut io::sink()).map_err(|e| Error::from_io("tar", e))
}
