//! The head of an archive: header and table of contents, which stand before all data.

use std::fmt;
use std::ops::Range;

use jiff::civil::DateTime;

/// The version of an archive's format: `1.12` (PostgreSQL 10) to `1.16` (17 and 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveVersion {
    /// Always 1.
    pub major: u8,
    /// 12 to 16.
    pub minor: u8,
}

impl ArchiveVersion {
    /// The first major version whose pg_restore reads it.
    pub(crate) fn first_reader(self) -> u32 {
        match self.minor {
            ..=12 => 10,
            13 => 11,
            14 => 12,
            15 => 16,
            _ => 17,
        }
    }
}

impl fmt::Display for ArchiveVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How the data *inside* an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveCompression {
    /// Not at all, which is how ours are written: compression is a stage behind pg_dump.
    None,
    /// zlib; guards each entry with a checksum.
    Gzip,
    /// LZ4: its blocks can be walked, its rows not be counted.
    Lz4,
    /// zstd, as pg_dump writes it without a checksum.
    Zstd,
}

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveHeader {
    /// Version of the format.
    pub version: ArchiveVersion,
    /// Compression of the data inside.
    pub compression: ArchiveCompression,
    /// Start of the dump, in the local time of the host that ran pg_dump.
    pub created: Option<DateTime>,
    /// Name of the dumped database.
    pub database: String,
    /// Version of the server, `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// Version of pg_dump, in the same form.
    pub dump_version: String,
    /// Bytes of an integer in this archive.
    pub int_bytes: usize,
    /// Bytes of a data offset in it.
    pub offset_bytes: usize,
}

/// The parts a restore goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Belongs to none: comments and grants follow their object.
    None,
    /// Definitions that data needs.
    PreData,
    /// Data.
    Data,
    /// Indexes, constraints, triggers.
    PostData,
}

/// One entry of the table of contents. Texts that the archive leaves out are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Number of the entry in this archive.
    pub dump_id: i64,
    /// Whether the archive promises a data block for it.
    pub has_data: bool,
    /// Name of the object.
    pub tag: String,
    /// Kind of the object: `TABLE`, `TABLE DATA`, `DATABASE`, `ACL`.
    pub desc: String,
    /// When a restore runs it.
    pub section: Section,
    /// SQL that makes it.
    pub defn: String,
    /// SQL that drops it.
    pub drop_stmt: String,
    /// The `COPY .. FROM stdin` before its data.
    pub copy_stmt: String,
    /// Schema it lies in.
    pub namespace: String,
    /// Tablespace it lies in; empty for the database's own.
    pub tablespace: String,
    /// `pg_class.relkind`, from format 1.16 on.
    pub relkind: Option<char>,
    /// Role that owns it.
    pub owner: String,
    /// Entries that must come before it.
    pub dependencies: Vec<i64>,
    /// Whether all its texts were UTF-8. They are in the dump's encoding; elsewhere stands
    /// U+FFFD, so they can be shown but not run.
    pub exact: bool,
    /// Where its texts stand, for whoever writes the archive with other ones.
    pub(crate) places: Places,
}

/// Where the texts of an entry stand in the archive, each with its length field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// The entry as a whole.
    pub entry: Range<u64>,
    pub defn: Range<u64>,
    pub drop_stmt: Range<u64>,
    pub copy_stmt: Range<u64>,
    pub namespace: Range<u64>,
    pub tablespace: Range<u64>,
    pub owner: Range<u64>,
    /// State and offset of the data.
    pub data_state: Range<u64>,
}

/// Header and table of contents of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// What the archive says of itself.
    pub header: ArchiveHeader,
    /// Every entry, in the archive's order, which is the order of the data blocks.
    pub entries: Vec<TocEntry>,
    /// Offset of the first byte behind the table of contents: where data starts.
    pub end: u64,
}

impl Toc {
    /// The entries of one kind (`TABLE DATA`).
    pub fn of_kind<'a>(&'a self, desc: &'a str) -> impl Iterator<Item = &'a TocEntry> {
        self.entries.iter().filter(move |entry| entry.desc == desc)
    }
}

impl Toc {
    /// Whether `second` says the same, as far as it was written (see [`TocParser::second`](super::toc_parser::TocParser::second)).
    pub(super) fn is_repeated_by(&self, mut second: Toc) -> bool {
        if self.entries.len() != second.entries.len() {
            return false;
        }
        for (first, again) in self.entries.iter().zip(&mut second.entries) {
            again.places = first.places.clone();
            if again.desc == "STATISTICS DATA" {
                again.defn.clone_from(&first.defn);
            }
        }
        self.entries == second.entries
    }
}
