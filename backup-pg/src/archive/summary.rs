//! What a whole archive contains, in the words of a backup's contents.

use std::collections::{BTreeSet, HashMap};

use backup_core::{Inventory, TableContents, TableData};

use super::toc::{ArchiveCompression, Toc, TocEntry};
use crate::database::database_facts;
use crate::sql::words;

/// An archive that was read to its end and is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveSummary {
    toc: Toc,
    rows: HashMap<i64, Option<u64>>,
    large_objects: u64,
    bytes: u64,
}

impl ArchiveSummary {
    pub(super) fn new(
        toc: Toc,
        rows: HashMap<i64, Option<u64>>,
        large_objects: u64,
        bytes: u64,
    ) -> Self {
        Self { toc, rows, large_objects, bytes }
    }

    /// Header and table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Large objects whose data was in it.
    pub fn large_objects(&self) -> u64 {
        self.large_objects
    }

    /// The version of its format: `1.14`.
    pub fn archive_version(&self) -> String {
        self.toc.header.version.to_string()
    }

    /// Whether the data inside is guarded by a checksum of its own. Only gzip's is: a flipped
    /// bit in any other archive's data goes unnoticed unless something around it has a digest.
    pub fn has_checksum(&self) -> bool {
        self.toc.header.compression == ArchiveCompression::Gzip
    }

    /// What the archive contains: its tables with exact rows, extensions, roles that own
    /// something, the database's own properties.
    pub fn inventory(&self) -> Inventory {
        Inventory {
            database: database_facts(&self.toc),
            tables: self.tables(),
            large_objects: Some(self.large_objects),
            extensions: sorted(self.toc.of_kind("EXTENSION").map(|entry| &entry.tag)),
            roles: sorted(self.toc.entries.iter().map(|entry| &entry.owner)),
        }
    }

    fn tables(&self) -> Vec<TableContents> {
        let mut data: HashMap<(&str, &str), &TocEntry> =
            self.toc.of_kind("TABLE DATA").map(|entry| (place(entry), entry)).collect();
        let mut tables = Vec::new();
        for entry in &self.toc.entries {
            let found = match entry.desc.as_str() {
                "TABLE" => match data.remove(&place(entry)) {
                    Some(data) => self.counted(data),
                    None if is_partitioned(entry) => TableData::Partitioned,
                    None => TableData::Excluded,
                },
                // Rows of a foreign table live on another server, dumped or not.
                "FOREIGN TABLE" => {
                    data.remove(&place(entry));
                    TableData::NotDumped { kind: "foreign table".to_owned() }
                }
                "MATERIALIZED VIEW" => {
                    TableData::NotDumped { kind: "materialized view".to_owned() }
                }
                _ => continue,
            };
            tables.push(table(entry, found));
        }
        let data_only = tables.is_empty() && self.toc.of_kind("EXTENSION").next().is_none();
        for entry in data.into_values() {
            // The table comes with its extension; its filter decides on the rows.
            let found = match self.rows.get(&entry.dump_id) {
                Some(Some(rows)) if !data_only => TableData::ExtensionConfiguration { rows: *rows },
                _ => self.counted(entry),
            };
            tables.push(table(entry, found));
        }
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        tables
    }

    fn counted(&self, data: &TocEntry) -> TableData {
        match self.rows.get(&data.dump_id) {
            Some(Some(rows)) => TableData::Complete { rows: *rows },
            _ => TableData::Uncounted,
        }
    }
}

fn place(entry: &TocEntry) -> (&str, &str) {
    (&entry.namespace, &entry.tag)
}

fn table(entry: &TocEntry, data: TableData) -> TableContents {
    TableContents { schema: entry.namespace.clone(), name: entry.tag.clone(), data }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let names: BTreeSet<&String> = names.filter(|name| !name.is_empty()).collect();
    names.into_iter().cloned().collect()
}

/// Whether a table holds no rows of its own. Before format 1.16 only its SQL tells.
fn is_partitioned(entry: &TocEntry) -> bool {
    if let Some(kind) = entry.relkind {
        return kind == 'p';
    }
    let mut depth = 0_i64;
    let mut last_word_was_partition = false;
    for token in words(&entry.defn) {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth == 0 && last_word_was_partition && token.is_keyword("BY") => return true,
            _ => {}
        }
        last_word_was_partition = token.is_keyword("PARTITION");
    }
    false
}
