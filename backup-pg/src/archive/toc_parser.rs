//! Reads the head of an archive from bytes that arrive in pieces.

use std::ops::Range;

use backup_core::Result;

use super::fields::{Fields, MAX_TOC_BYTES, Stop, damaged};
use super::head::HeadParser;
use super::toc::{ArchiveHeader, Places, Section, Toc, TocEntry};

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
            Field::Tag => _ = take_text(fields, &mut entry.tag, exact)?,
            Field::Desc => _ = take_text(fields, &mut entry.desc, exact)?,
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
