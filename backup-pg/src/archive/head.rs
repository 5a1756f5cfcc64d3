//! The header of an archive: magic, version, sizes, compression, date and names.

use backup_core::{Error, ErrorKind};
use jiff::civil::DateTime;

use super::fields::{Fields, STAGE, Stop, damaged};
use super::toc::{ArchiveCompression, ArchiveHeader, ArchiveVersion};

/// First bytes of every archive in the custom format.
pub const ARCHIVE_MAGIC: &[u8; 5] = b"PGDMP";

/// Formats read here: PostgreSQL 10 to 18.
const MINOR_VERSIONS: std::ops::RangeInclusive<u8> = 12..=16;

/// Takes the header apart as its bytes arrive.
pub(super) struct HeadParser {
    pub header: ArchiveHeader,
    step: Step,
    date: Vec<i64>,
}

#[derive(Clone, Copy)]
enum Step {
    Magic,
    Compression,
    Date,
    Database,
    ServerVersion,
    DumpVersion,
    EntryCount,
}

impl Default for HeadParser {
    fn default() -> Self {
        let header = ArchiveHeader {
            version: ArchiveVersion { major: 0, minor: 0 },
            compression: ArchiveCompression::None,
            created: None,
            database: String::new(),
            server_version: String::new(),
            dump_version: String::new(),
            int_bytes: 4,
            offset_bytes: 8,
        };
        Self { header, step: Step::Magic, date: Vec::new() }
    }
}

impl HeadParser {
    /// Behind a header that is known, in front of the number of entries.
    pub fn at_entry_count(header: ArchiveHeader) -> Self {
        Self { header, step: Step::EntryCount, date: Vec::new() }
    }

    /// Goes on as far as the bytes reach; at the end of the header, the number of entries.
    pub fn advance(&mut self, fields: &mut Fields) -> Result<u64, Stop> {
        loop {
            self.step = match self.step {
                Step::Magic => self.take_fixed(fields)?,
                Step::Compression => self.take_compression(fields)?,
                Step::Date => self.take_date(fields)?,
                Step::Database => {
                    self.header.database = text_or_empty(fields)?;
                    Step::ServerVersion
                }
                Step::ServerVersion => {
                    self.header.server_version = text_or_empty(fields)?;
                    Step::DumpVersion
                }
                Step::DumpVersion => {
                    self.header.dump_version = text_or_empty(fields)?;
                    Step::EntryCount
                }
                Step::EntryCount => {
                    let at = fields.offset();
                    return u64::try_from(fields.int()?).map_err(|_| {
                        Stop::Damaged(damaged(at, "the number of entries is negative"))
                    });
                }
            };
        }
    }

    /// Magic, version, sizes and format: eleven bytes in every version read here.
    fn take_fixed(&mut self, fields: &mut Fields) -> Result<Step, Stop> {
        let head: [u8; 11] = *fields.peek(11)?.first_chunk().ok_or(Stop::More)?;
        let [magic @ .., major, minor, _, int_bytes, offset_bytes, format] = head;
        if &magic != ARCHIVE_MAGIC {
            return Err(Stop::Damaged(damaged(
                0,
                "does not start with PGDMP, so it is no archive",
            )));
        }
        if major != 1 || !MINOR_VERSIONS.contains(&minor) {
            let error = Error::new(
                ErrorKind::Unchecked,
                STAGE,
                format!("has format {major}.{minor}; this program reads 1.12 to 1.16"),
            );
            return Err(Stop::Damaged(error.next_step("read it with the pg_restore that fits it")));
        }
        if !matches!(int_bytes, 4 | 8) || !matches!(offset_bytes, 4 | 8) {
            return Err(Stop::Damaged(damaged(8, "integers are neither 4 nor 8 bytes wide")));
        }
        if format != 1 {
            return Err(Stop::Damaged(damaged(10, format!("{format} is not the custom format"))));
        }
        fields.skip(head.len())?;
        fields.int_bytes = usize::from(int_bytes);
        fields.offset_bytes = usize::from(offset_bytes);
        self.header.int_bytes = fields.int_bytes;
        self.header.offset_bytes = fields.offset_bytes;
        self.header.version = ArchiveVersion { major, minor };
        Ok(Step::Compression)
    }

    /// Up to 1.14 the level of zlib (0: none), from 1.15 on a byte that names the algorithm.
    fn take_compression(&mut self, fields: &mut Fields) -> Result<Step, Stop> {
        let at = fields.offset();
        let number = match self.header.version.minor {
            ..=14 => i64::from(fields.int()? != 0),
            _ => i64::from(fields.byte()?),
        };
        self.header.compression = match number {
            0 => ArchiveCompression::None,
            1 => ArchiveCompression::Gzip,
            2 => ArchiveCompression::Lz4,
            3 => ArchiveCompression::Zstd,
            _ => return Err(Stop::Damaged(damaged(at, format!("{number} is no compression")))),
        };
        Ok(Step::Date)
    }

    /// Second, minute, hour, day, month from 0, year from 1900, daylight saving.
    fn take_date(&mut self, fields: &mut Fields) -> Result<Step, Stop> {
        while self.date.len() < 7 {
            self.date.push(fields.int()?);
        }
        self.header.created = self.created();
        Ok(Step::Database)
    }

    fn created(&self) -> Option<DateTime> {
        let part = |i: usize, plus: i64| i8::try_from(self.date.get(i)? + plus).ok();
        let year = i16::try_from(self.date.get(5)? + 1900).ok()?;
        let (month, day) = (part(4, 1)?, part(3, 0)?);
        DateTime::new(year, month, day, part(2, 0)?, part(1, 0)?, part(0, 0)?.min(59), 0).ok()
    }
}

fn text_or_empty(fields: &mut Fields) -> Result<String, Stop> {
    Ok(fields.text()?.map(|text| text.text).unwrap_or_default())
}
