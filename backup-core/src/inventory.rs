//! What is inside a backup: stored encrypted, because it tells about the data.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, FilesContents, Frames, Result, SMALL_OBJECT_BYTES};

/// The number of the newest contents format this version reads and the one it writes.
pub const CONTENTS_FORMAT: u32 = 1;

/// The `contents.json` of a backup: plain digests and inventories of all its other parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Format number, [`CONTENTS_FORMAT`].
    pub format: u32,
    /// The backup this belongs to.
    pub backup: String,
    /// One entry per part.
    pub parts: Vec<PartContents>,
}

impl Contents {
    /// Reads a `contents.json`.
    ///
    /// # Errors
    /// When it is no such document, or of a newer format.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        crate::manifest::read_document(json, "contents", CONTENTS_FORMAT)
    }

    /// The document as it is stored.
    ///
    /// # Errors
    /// Never in practice; serialisation can't fail for these types.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Error::failed("contents", "could not be written as JSON").caused_by(e))
    }

    /// The document as a backup stores it: without what readers can do without, where it would be
    /// too large for them otherwise.
    ///
    /// # Errors
    /// When it is too large even so: nobody could read the backup back.
    pub(crate) fn to_stored_json(&self) -> Result<Vec<u8>> {
        let mut json = self.to_json()?;
        if json.len() as u64 > SMALL_OBJECT_BYTES {
            let mut fewer = self.clone();
            for part in &mut fewer.parts {
                part.frames = None;
                part.inventory.data_blocks = Vec::new();
            }
            json = fewer.to_json()?;
        }
        if json.len() as u64 > SMALL_OBJECT_BYTES {
            let message = format!("the list of tables and files would take {} bytes", json.len());
            return Err(Error::failed("contents", message).next_step(format!(
                "no more than {SMALL_OBJECT_BYTES} can be read back: divide the job, by `schemas` or by paths"
            )));
        }
        Ok(json)
    }

    /// The entry of a part.
    pub fn part(&self, name: &str) -> Option<&PartContents> {
        self.parts.iter().find(|part| part.name == name)
    }
}

/// One part, before compression and encryption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartContents {
    /// The part's name, as in the manifest.
    pub name: String,
    /// Plain size in bytes.
    pub bytes: u64,
    /// SHA-256 of the plain bytes, in hex.
    pub sha256: String,
    /// What the source learned about the data.
    #[serde(default)]
    pub inventory: Inventory,
    /// The frames of what the first transform made of it; `None` where it makes none, and in older
    /// backups. With them it can be read at any place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<Frames>,
}

/// What a source found in its data. Empty where a source knows nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Database-level facts, of a database dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseFacts>,
    /// What the dump was told to take; `None` where nobody noted it, as in older backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<DumpFilters>,
    /// Every table, sorted by schema and name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableContents>,
    /// How the digests of the tables were made; `None` when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_digests: Option<RowDigests>,
    /// Large objects in the dump; `None` where the archive does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<u64>,
    /// Digest of the large objects, made like that of a table: each with its id is a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_objects_digest: Option<String>,
    /// Where in the dump the data of its entries stands, in its order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_blocks: Vec<DataBlock>,
    /// Extensions in the dump.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// Roles: those defined in a globals part, those that own something in a dump.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// What is in a part of files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesContents>,
}

impl Inventory {
    /// Whether both hold the same tables and large objects, as far as both can tell: schemas,
    /// names and rows; the digests too, where both have them under the same key.
    pub fn same_tables(&self, other: &Self) -> bool {
        let digests = self.comparable_digests(other);
        let same = |a: &Option<String>, b: &Option<String>| {
            !digests || a.is_none() || b.is_none() || a == b
        };
        let same_table = |(a, b): (&TableContents, &TableContents)| {
            a.schema == b.schema
                && a.name == b.name
                && a.data == b.data
                && same(&a.digest, &b.digest)
        };
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(same_table)
            && same(&self.large_objects_digest, &other.large_objects_digest)
    }

    /// Whether the digests of both were made with the same key, so that the same rows have the
    /// same digest (as long as the server wrote them in the same way: [`RowDigests::settings`]).
    pub fn comparable_digests(&self, other: &Self) -> bool {
        match (&self.row_digests, &other.row_digests) {
            (Some(a), Some(b)) => a.algorithm == b.algorithm && a.key == b.key,
            _ => false,
        }
    }
}

/// What of a database a dump is told to take: all of it when everything is empty. Names are
/// pg_dump's patterns: `public.claims`, `audit_*`, `"Mixed Case"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DumpFilters {
    /// Only these schemas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// Not these schemas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_schemas: Vec<String>,
    /// Only these tables (also views, sequences); what they depend on is not added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// Not these tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Of these tables the definition, but no rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_table_data: Vec<String>,
    /// Whether large objects are taken. `None`: when no schema or table is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<bool>,
}

impl DumpFilters {
    /// The names of the filters by which something of the database is not in the dump: whoever
    /// replaces the database with it, or drops what is left of it, loses that.
    pub fn leave_out(&self) -> Vec<&'static str> {
        [
            ("schemas", !self.schemas.is_empty()),
            ("exclude_schemas", !self.exclude_schemas.is_empty()),
            ("tables", !self.tables.is_empty()),
            ("exclude_tables", !self.exclude_tables.is_empty()),
            ("exclude_table_data", !self.exclude_table_data.is_empty()),
            ("large_objects", self.large_objects == Some(false)),
        ]
        .into_iter()
        .filter_map(|(name, filters)| filters.then_some(name))
        .collect()
    }
}

/// How the digests of rows were made. Docs: docs/decisions/row-digests.md.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDigests {
    /// Name of the hash and of how it is summed up.
    pub algorithm: String,
    /// Key of the hash, in hex: random, of this dump alone. As secret as the data: whoever knows
    /// it can look for changes that a digest does not show.
    pub key: String,
    /// The server's settings that the text of a row depends on, as they were during the dump.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl fmt::Debug for RowDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowDigests")
            .field("algorithm", &self.algorithm)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A database's own properties, as its archive records them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseFacts {
    /// Name at the time of the dump.
    pub name: String,
    /// Encoding, `UTF8`.
    pub encoding: String,
    /// Locale provider: `libc`, `icu` or `builtin`.
    pub locale_provider: Option<String>,
    /// Locale (or `LC_COLLATE`), `en_US.UTF-8`.
    pub locale: Option<String>,
    /// Version of the collation library when the database was made.
    pub collation_version: Option<String>,
}

/// Where the data of one entry of a dump stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataBlock {
    /// The entry's number in the dump's table of contents.
    pub entry: i64,
    /// Offset in the plain dump of the first byte behind the block's type and number.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
}

/// A table, and what of it is in the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContents {
    /// Schema, unquoted.
    pub schema: String,
    /// Name, unquoted.
    pub name: String,
    /// What of its data is in the dump.
    pub data: TableData,
    /// Sum modulo 2^256 of a keyed hash of each row, in hex: the same for the same rows in any
    /// order. Only with [`Inventory::row_digests`], and only where the rows could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What of a table's data is in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableData {
    /// All its own rows (children of an inheritance tree count for themselves), exactly so many.
    Complete {
        /// Rows of the dumped snapshot.
        rows: u64,
    },
    /// Rows that an extension's configuration filter let through: never compared.
    ExtensionConfiguration {
        /// Rows in the dump.
        rows: u64,
    },
    /// There are rows, but the archive's compression hides how many.
    Uncounted,
    /// Left out by the job's filters: never compared.
    Excluded,
    /// Holds no rows of its own: a partitioned parent.
    Partitioned,
    /// Not dumped by nature: `materialized view`, `foreign table`.
    NotDumped {
        /// Which kind of relation.
        kind: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_nobody_could_read_back_are_not_written() {
        let block = |entry| DataBlock { entry, start: u64::MAX / 2, end: u64::MAX / 2 };
        let table = |n: u32| TableContents {
            schema: "public".to_owned(),
            name: format!("{n:0>60}"),
            data: TableData::Uncounted,
            digest: None,
        };
        let contents = |blocks: i64, tables: u32| {
            let inventory = Inventory {
                data_blocks: (0..blocks).map(block).collect(),
                tables: (0..tables).map(table).collect(),
                ..Inventory::default()
            };
            let part = PartContents {
                name: "claims.dump".to_owned(),
                bytes: 1,
                sha256: String::new(),
                frames: None,
                inventory,
            };
            Contents { format: 1, backup: String::new(), parts: vec![part] }
        };
        let stored = contents(1000, 1).to_stored_json().unwrap();
        assert_eq!(Contents::from_json(&stored).unwrap(), contents(1000, 1));
        let stored = contents(600_000, 1).to_stored_json().unwrap();
        assert_eq!(Contents::from_json(&stored).unwrap(), contents(0, 1));
        let error = contents(0, 500_000).to_stored_json().unwrap_err();
        assert!(error.to_string().contains("would take"), "{error}");
    }

    #[test]
    fn filters_are_told_and_older_contents_know_of_none() {
        let older = r#"{"format":1,"backup":"20261122T020000Z","parts":[{"name":"claims.dump",
            "bytes":1,"sha256":"00","inventory":{"roles":["marb"]}}]}"#;
        let mut contents = Contents::from_json(older.as_bytes()).unwrap();
        assert_eq!(contents.parts[0].inventory.filters, None);
        let filters = DumpFilters {
            exclude_tables: vec!["audit_*".to_owned()],
            large_objects: Some(false),
            ..DumpFilters::default()
        };
        assert_eq!(filters.leave_out(), ["exclude_tables", "large_objects"]);
        contents.parts[0].inventory.filters = Some(filters);
        assert_eq!(Contents::from_json(&contents.to_json().unwrap()).unwrap(), contents);
        // Nothing left out is something else than nothing known.
        contents.parts[0].inventory.filters = Some(DumpFilters::default());
        let read = Contents::from_json(&contents.to_json().unwrap()).unwrap();
        assert_eq!(read.parts[0].inventory.filters, Some(DumpFilters::default()));
        let asked_for = DumpFilters { large_objects: Some(true), ..DumpFilters::default() };
        assert!(asked_for.leave_out().is_empty());
    }
}
