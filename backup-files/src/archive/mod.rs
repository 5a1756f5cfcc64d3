//! The tar format as this program writes and reads it: POSIX.1-2001 (pax), so that stock `tar`
//! opens it; and what stock `tar` writes itself, for archives that were taken over.
//!
//! The `tar` crate knows the header block. What it lacks is here: pax records with any bytes in
//! their values, extended attributes and ACLs, and a reader that refuses an archive that is cut.

pub(crate) mod acl;
mod entry;
mod pax;
mod read;
mod stock;
mod tally;
mod write;

pub(crate) use entry::{Attributes, Entry, Kind, Mtime, Owner, below_no_folder, shown, slashed};
pub(crate) use read::{Visit, walk};
pub use stock::Dialect;
pub(crate) use tally::Tally;
pub(crate) use write::{END, head, padding};

/// Size of a tar block, in bytes.
pub(crate) const BLOCK: usize = 512;
/// Most bytes of the pax records of one entry: its extended attributes and long names.
pub(crate) const MAX_PAX_BYTES: u64 = 8 << 20;
/// Most entries of an archive. A job is for configuration; more is another kind of backup.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// Longest path in bytes, as Linux has it.
pub(crate) const MAX_PATH_BYTES: usize = 4096;
