//! Writing: the blocks in front of an entry's data.

use backup_core::{Error, Result};
use tar::{EntryType, Header, UstarHeader};

use super::pax::Records;
use super::{BLOCK, Entry, Kind, MAX_PAX_BYTES, slashed};

/// The end of an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest number that the eleven octal digits of size and mtime hold.
const MAX_OCTAL_11: u64 = 0o77_777_777_777;
/// The largest number that the seven octal digits of uid and gid hold.
const MAX_OCTAL_7: u32 = 0o7_777_777;
/// Room for the name of an owner, with the zero behind it.
const NAME_FIELD: usize = 32;

/// Zeros that fill the last block of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// Everything in front of the data of `entry`.
///
/// # Errors
/// When its extended attributes are too many.
pub(crate) fn head(entry: &Entry) -> Result<Vec<u8>> {
    let attributes = &entry.attributes;
    let mut records = Records::of_attributes(attributes);
    let mut header = Header::new_ustar();
    let mut path = entry.path.clone();
    let mut size = 0;
    match &entry.kind {
        Kind::File { size: bytes } => {
            header.set_entry_type(EntryType::Regular);
            size = *bytes;
        }
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            path.push(b'/');
        }
        Kind::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            if !fill(&mut ustar(&mut header)?.linkname, target) {
                records.set("linkpath", target);
            }
        }
    }
    if !fill(&mut ustar(&mut header)?.name, &path) {
        records.set("path", &path);
    }
    if size > MAX_OCTAL_11 {
        records.set("size", size.to_string());
        size = 0;
    }
    header.set_size(size);
    header.set_mode(attributes.mode);
    header.set_mtime(u64::try_from(attributes.mtime.seconds).unwrap_or(0).min(MAX_OCTAL_11));
    for (key, id) in [("uid", attributes.owner.id), ("gid", attributes.group.id)] {
        if id > MAX_OCTAL_7 {
            records.set(key, id.to_string());
        }
    }
    header.set_uid(u64::from(attributes.owner.id.min(MAX_OCTAL_7)));
    header.set_gid(u64::from(attributes.group.id.min(MAX_OCTAL_7)));
    let block = ustar(&mut header)?;
    let named = [
        ("uname", &attributes.owner.name, &mut block.uname),
        ("gname", &attributes.group.name, &mut block.gname),
    ];
    for (key, name, field) in named {
        let Some(name) = name else { continue };
        if name.len() >= NAME_FIELD || !fill(field, name.as_bytes()) {
            records.set(key, name);
        }
    }
    header.set_cksum();

    let mut bytes = Vec::new();
    if !records.is_empty() {
        bytes = pax_block(entry, &records.encode())?;
    }
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}

/// The entry that carries the records of the next one.
fn pax_block(entry: &Entry, records: &[u8]) -> Result<Vec<u8>> {
    if records.len() as u64 > MAX_PAX_BYTES {
        let message = format!("{} has too many extended attributes", slashed(&entry.path));
        return Err(Error::failed("files", message).next_step("exclude it, or remove some of them"));
    }
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    fill(&mut ustar(&mut header)?.name, b"PaxHeaders/next");
    header.set_size(records.len() as u64);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len() + padding(records.len() as u64), 0);
    Ok(bytes)
}

fn ustar(header: &mut Header) -> Result<&mut UstarHeader> {
    header
        .as_ustar_mut()
        .ok_or_else(|| Error::failed("tar", "a header is none; please report this"))
}

/// Whether it fits; it is written then. A field that is full needs no zero at its end.
fn fill(field: &mut [u8], bytes: &[u8]) -> bool {
    let fits = bytes.len() <= field.len();
    let kept = bytes.len().min(field.len());
    field[..kept].copy_from_slice(&bytes[..kept]);
    fits
}
