//! Compression for marb-backup: gzip and zstd as [`Transform`]s.
//!
//! - [`Compression`] is what a configuration says (`"zstd:9"`); [`Compression::transform`] makes
//!   the transform.
//! - [`decoder`] finds the inverse by the name a manifest recorded, [`recognise`] by the first
//!   bytes of a file nobody kept a manifest of.
//! - `Gzip` and `Zstd` write what stock `gunzip` and `zstd -d` read, and read what `gzip`,
//!   `pigz` and `zstd` write, several members or frames one after the other included.
//!
//! Each codec sits behind the cargo feature of its name; both are on by default.
//!
//! - `Zstd` makes frames that can be read each on its own ([`Transform::encode_in_frames`]).
//!
//! Absent on purpose: dictionaries, and compression on several machines' worth of
//! memory (the highest zstd levels are not offered, see `Zstd::LEVELS`).
//!
//! ```
//! use backup_compress::{Compression, recognise};
//!
//! # #[cfg(feature = "zstd")] {
//! let compression: Compression = "zstd:3".parse()?;
//! let zstd = compression.transform(2).ok_or("zstd compresses")?;
//! let mut packed = Vec::new();
//! zstd.encode(&mut &b"a row, a row, a row"[..], &mut packed)?;
//! assert_eq!(recognise(&packed), Some("zstd"));
//!
//! let mut plain = Vec::new();
//! zstd.decode(&mut &packed[..], &mut plain)?;
//! assert_eq!(plain, b"a row, a row, a row");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use backup_core::Transform;

mod compression;
#[cfg(any(feature = "gzip", feature = "zstd"))]
mod feed;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(any(feature = "gzip", feature = "zstd"))]
mod row;
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "zstd"))]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;

pub use compression::Compression;
#[cfg(feature = "gzip")]
pub use gzip::Gzip;
#[cfg(feature = "zstd")]
pub use zstd::Zstd;

/// Bytes that [`recognise`] wants to see; fewer are enough where the data is shorter.
pub const RECOGNISE_BYTES: usize = 4;

/// Names the compression that data starting with `prefix` is in, by its magic number: `"gzip"`,
/// `"zstd"` or nothing. The names are those of [`Transform::name`].
///
/// It recognises formats this build was made without too, so that a caller can say what is
/// missing. A tar archive, SQL text and a pg_dump archive (`PGDMP`) are neither.
///
/// ```
/// assert_eq!(backup_compress::recognise(b"\x1f\x8b\x08\x00"), Some("gzip"));
/// assert_eq!(backup_compress::recognise(b"PGDMP\x01\x0e"), None);
/// ```
pub fn recognise(prefix: &[u8]) -> Option<&'static str> {
    // The third byte of gzip is the method; only 8 (deflate) was ever given out, and asking for
    // it makes a chance match 256 times rarer.
    const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    if prefix.starts_with(GZIP) {
        Some("gzip")
    } else if prefix.starts_with(ZSTD) || is_skippable_frame(prefix) {
        Some("zstd")
    } else {
        None
    }
}

/// A zstd file may start with frames for somebody else: magic 0x184D2A50 to 0x184D2A5F, little
/// endian. pzstd writes them.
fn is_skippable_frame(prefix: &[u8]) -> bool {
    matches!(prefix, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// The transform that undoes what a manifest calls `name`, or `None` when this build has none of
/// that name. Level and threads matter to writing only.
pub fn decoder(name: &str) -> Option<Box<dyn Transform>> {
    match name {
        #[cfg(feature = "gzip")]
        "gzip" => Some(Box::new(Gzip::default())),
        #[cfg(feature = "zstd")]
        "zstd" => Some(Box::new(Zstd::default())),
        _ => None,
    }
}
