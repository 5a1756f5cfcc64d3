//! The head of an archive: header and table of contents, which stand before all data.

use std::fmt;
use std::ops::Range;

use backup_core::Result;
use jiff::civil::DateTime;

use super::fields::{Fields, MAX_TOC_BYTES, Stop, damaged};
use super::head::HeadParser;

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
    /// Whether `second` says the same, as far as it was written (see [`TocParser::second`]).
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

/// The fields of an entry in their order, with the format version that brought each.
const ENTRY_FIELDS: &[(Field, u8)] = &[
    (Field::DumpId, 0),
    (Field::HasData, 0),
    (Field::Ignored, 0), // oid of the catalogue
    (Field::Ignored, 0), // oid of the object
    (Field::Tag, 0),
    (Field::Desc, 0),
    (Field::Section, 0),
    (Field::Defn, 0),
    (Field::Drop, 0),
    (Field::Copy, 0),
    (Field::Namespace, 0),
    (Field::Tablespace, 0),
    (Field::Ignored, 14), // table access method
    (Field::Relkind, 16),
    (Field::Owner, 0),
    (Field::Ignored, 0), // WITH OIDS, "false" since PostgreSQL 12
    (Field::Dependencies, 0),
    (Field::DataState, 0),
];

#[derive(Clone, Copy)]
enum Field {
    DumpId,
    HasData,
    Ignored,
    Tag,
    Desc,
    Section,
    Defn,
    Drop,
    Copy,
    Namespace,
    Tablespace,
    Relkind,
    Owner,
    Dependencies,
    DataState,
}

/// Parses the head of an archive from bytes that arrive in pieces. What was parsed stays
/// parsed: no byte is looked at twice, however small the pieces.
pub(super) struct TocParser {
    fields: Fields,
    head: HeadParser,
    /// Entries that the archive announces; `None` until the header was read.
    announced: Option<u64>,
    entries: Vec<TocEntry>,
    open: TocEntry,
    next_field: usize,
    /// Offset at which the open entry starts.
    entry_start: u64,
    start: u64,
    /// Whether it reads the second table of contents, see [`TocParser::second`].
    is_second: bool,
}

impl TocParser {
    pub fn new() -> Self {
        Self {
            fields: Fields::starting_at(0),
            head: HeadParser::default(),
            announced: None,
            entries: Vec::new(),
            open: empty_entry(),
            next_field: 0,
            entry_start: 0,
            start: 0,
            is_second: false,
        }
    }

    /// For the table of contents that pg_dump 17 and 18 append behind the data when their
    /// output is a file opened by the shell (`pg_dump -Fc db > file`): they mean to write it
    /// over the first, to add data offsets, but opened the file for appending.
    pub fn second(first: &ArchiveHeader, start: u64) -> Self {
        let mut fields = Fields::starting_at(start);
        fields.int_bytes = first.int_bytes;
        fields.offset_bytes = first.offset_bytes;
        let head = HeadParser::at_entry_count(first.clone());
        Self { fields, head, start, is_second: true, ..Self::new() }
    }

    /// Takes the next bytes. `Some` once the table of contents is complete, with the number
    /// of bytes at the end of `chunk` that belong to the data behind it.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Option<(Toc, usize)>> {
        self.fields.push(chunk);
        match self.advance() {
            Ok(toc) => Ok(Some((toc, self.fields.left()))),
            Err(Stop::Damaged(error)) => Err(error),
            Err(Stop::More) if self.fields.offset() - self.start > MAX_TOC_BYTES => Err(damaged(
                self.fields.offset(),
                format!("the table of contents is longer than {MAX_TOC_BYTES} bytes"),
            )),
            Err(Stop::More) => Ok(None),
        }
    }

    /// Offset up to which everything was parsed.
    pub fn offset(&self) -> u64 {
        self.fields.offset()
    }

    /// What was being read when the bytes ended.
    pub fn describe(&self) -> String {
        match self.announced {
            None => "inside its header".to_owned(),
            Some(count) => format!(
                "inside its table of contents, {} of {count} entries are there",
                self.entries.len()
            ),
        }
    }

    fn advance(&mut self) -> Result<Toc, Stop> {
        let announced = match self.announced {
            Some(count) => count,
            None => {
                let count = self.head.advance(&mut self.fields)?;
                self.entry_start = self.fields.offset();
                *self.announced.insert(count)
            }
        };
        while (self.entries.len() as u64) < announced {
            self.advance_entry()?;
            self.open.places.entry = self.entry_start..self.fields.offset();
            self.entry_start = self.fields.offset();
            self.entries.push(std::mem::replace(&mut self.open, empty_entry()));
            self.next_field = 0;
        }
        Ok(Toc {
            header: self.head.header.clone(),
            entries: std::mem::take(&mut self.entries),
            end: self.fields.offset(),
        })
    }

    fn advance_entry(&mut self) -> Result<(), Stop> {
        while let Some((field, since)) = ENTRY_FIELDS.get(self.next_field) {
            // pg_dump 18 skips the SQL of statistics when it writes its table of contents again.
            let skipped = self.is_second
                && matches!(field, Field::Defn)
                && self.open.desc == "STATISTICS DATA";
            if self.head.header.version.minor >= *since && !skipped {
                self.take_field(*field)?;
            }
            self.next_field += 1;
        }
        Ok(())
    }

    fn take_field(&mut self, field: Field) -> Result<(), Stop> {
        let at = self.fields.offset();
        let (fields, entry) = (&mut self.fields, &mut self.open);
        let exact = &mut entry.exact;
        match field {
            Field::DumpId => match fields.int()? {
                id if id > 0 => entry.dump_id = id,
                id => return Err(Stop::Damaged(damaged(at, format!("{id} is no entry's id")))),
            },
            Field::HasData => entry.has_data = fields.int()? != 0,
            Field::Ignored => drop(fields.text()?),
            Field::Tag => drop(take_text(fields, &mut entry.tag, exact)?),
            Field::Desc => drop(take_text(fields, &mut entry.desc, exact)?),
            Field::Section => entry.section = section(at, fields.int()?)?,
            Field::Defn => entry.places.defn = take_text(fields, &mut entry.defn, exact)?,
            Field::Drop => entry.places.drop_stmt = take_text(fields, &mut entry.drop_stmt, exact)?,
            Field::Copy => entry.places.copy_stmt = take_text(fields, &mut entry.copy_stmt, exact)?,
            Field::Namespace => {
                entry.places.namespace = take_text(fields, &mut entry.namespace, exact)?;
            }
            Field::Tablespace => {
                entry.places.tablespace = take_text(fields, &mut entry.tablespace, exact)?;
            }
            Field::Relkind => {
                let kind = u32::try_from(fields.int()?).ok().and_then(char::from_u32);
                entry.relkind = kind.filter(|kind| *kind != '\0');
            }
            Field::Owner => entry.places.owner = take_text(fields, &mut entry.owner, exact)?,
            Field::Dependencies => return self.take_dependencies(),
            Field::DataState => return self.take_data_state(),
        }
        Ok(())
    }

    /// Ids as texts, up to a text that isn't there. Those taken stay when the next is missing.
    fn take_dependencies(&mut self) -> Result<(), Stop> {
        loop {
            let at = self.fields.offset();
            let Some(id) = self.fields.text()? else { return Ok(()) };
            match id.text.parse() {
                Ok(id) => self.open.dependencies.push(id),
                Err(_) => {
                    return Err(Stop::Damaged(damaged(at, format!("{:?} is no id", id.text))));
                }
            }
        }
    }

    /// The state of the data offset (1 unknown, 2 known, 3 no data), then the offset. A pipe
    /// has no use for the offset itself.
    fn take_data_state(&mut self) -> Result<(), Stop> {
        const NO_DATA: u8 = 3;
        let at = self.fields.offset();
        self.fields.peek(1 + self.fields.offset_bytes)?;
        let state = self.fields.byte()?;
        self.fields.skip(self.fields.offset_bytes)?;
        if !(1..=NO_DATA).contains(&state) {
            return Err(Stop::Damaged(damaged(at, format!("{state} is no state of data"))));
        }
        self.open.has_data &= state != NO_DATA;
        self.open.places.data_state = at..self.fields.offset();
        Ok(())
    }
}

/// Takes a text, where there is one, into its place; says where in the archive it stands.
fn take_text(
    fields: &mut Fields,
    place: &mut String,
    exact: &mut bool,
) -> Result<Range<u64>, Stop> {
    let at = fields.offset();
    if let Some(text) = fields.text()? {
        *exact &= text.exact;
        *place = text.text;
    }
    Ok(at..fields.offset())
}

fn section(at: u64, number: i64) -> Result<Section, Stop> {
    match number {
        1 => Ok(Section::None),
        2 => Ok(Section::PreData),
        3 => Ok(Section::Data),
        4 => Ok(Section::PostData),
        _ => Err(Stop::Damaged(damaged(at, format!("{number} is no section")))),
    }
}

fn empty_entry() -> TocEntry {
    TocEntry {
        dump_id: 0,
        has_data: false,
        tag: String::new(),
        desc: String::new(),
        section: Section::None,
        defn: String::new(),
        drop_stmt: String::new(),
        copy_stmt: String::new(),
        namespace: String::new(),
        tablespace: String::new(),
        relkind: None,
        owner: String::new(),
        dependencies: Vec::new(),
        exact: true,
        places: Places::default(),
    }
}
