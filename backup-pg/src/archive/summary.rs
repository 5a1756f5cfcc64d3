//! What a whole archive contains, in the words of a backup's contents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{Inventory, RowDigests, TableContents, TableData};

use super::blocks::Walked;
use super::digest::ALGORITHM;
use super::toc::{ArchiveCompression, Toc, TocEntry};
use crate::database::database_facts;
use crate::sql::words;

/// An archive that was read to its end and is whole.
#[derive(Debug, Clone)]
pub struct ArchiveSummary {
    toc: Toc,
    walked: Walked,
    bytes: u64,
}

impl ArchiveSummary {
    pub(super) fn new(toc: Toc, walked: Walked, bytes: u64) -> Self {
        Self { toc, walked, bytes }
    }

    /// Header and table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// Header and table of contents, without a copy.
    pub fn into_toc(self) -> Toc {
        self.toc
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Large objects whose data was in it.
    pub fn large_objects(&self) -> u64 {
        self.walked.large_objects
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
            // An archive does not tell what is missing in it.
            filters: None,
            tables: self.tables(),
            row_digests: self.walked.key.as_ref().map(|key| RowDigests {
                algorithm: ALGORITHM.to_owned(),
                key: key.to_hex(),
                settings: BTreeMap::new(),
            }),
            large_objects: Some(self.walked.large_objects),
            large_objects_digest: self.walked.objects_sum.map(|sum| sum.to_hex()),
            data_blocks: self.walked.blocks.clone(),
            extensions: sorted(self.toc.of_kind("EXTENSION").map(|entry| &entry.tag)),
            roles: sorted(self.toc.entries.iter().map(|entry| &entry.owner)),
            files: None,
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
                    None if is_partitioned(entry) => TableData::Partitioned.into(),
                    None => TableData::Excluded.into(),
                },
                // Rows of a foreign table live on another server, dumped or not.
                "FOREIGN TABLE" => {
                    data.remove(&place(entry));
                    TableData::NotDumped { kind: "foreign table".to_owned() }.into()
                }
                "MATERIALIZED VIEW" => {
                    TableData::NotDumped { kind: "materialized view".to_owned() }.into()
                }
                _ => continue,
            };
            tables.push(table(entry, found));
        }
        let data_only = tables.is_empty() && self.toc.of_kind("EXTENSION").next().is_none();
        for entry in data.into_values() {
            // The table comes with its extension; its filter decides on the rows.
            let mut found = self.counted(entry);
            if let (TableData::Complete { rows }, false) = (&found.data, data_only) {
                found = TableData::ExtensionConfiguration { rows: *rows }.into();
            }
            tables.push(table(entry, found));
        }
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        tables
    }

    fn counted(&self, data: &TocEntry) -> Found {
        match self.walked.rows.get(&data.dump_id) {
            Some(Some(rows)) => Found {
                data: TableData::Complete { rows: rows.count },
                digest: rows.digest.map(|sum| sum.to_hex()),
            },
            _ => TableData::Uncounted.into(),
        }
    }
}

/// What was found of a table's rows.
struct Found {
    data: TableData,
    digest: Option<String>,
}

impl From<TableData> for Found {
    fn from(data: TableData) -> Self {
        Self { data, digest: None }
    }
}

impl Toc {
    /// Tables whose definition is in the archive and whose rows are not, because the backup left
    /// them out: restored over what is there, they would be empty.
    pub fn tables_without_rows(&self) -> Vec<String> {
        let filled: BTreeSet<(&str, &str)> = self.of_kind("TABLE DATA").map(place).collect();
        let bare = self.of_kind("TABLE").filter(|entry| !filled.contains(&place(entry)));
        let bare = bare.filter(|entry| !is_partitioned(entry));
        bare.map(|entry| format!("{}.{}", entry.namespace, entry.tag)).collect()
    }
}

fn place(entry: &TocEntry) -> (&str, &str) {
    (&entry.namespace, &entry.tag)
}

fn table(entry: &TocEntry, found: Found) -> TableContents {
    let Found { data, digest } = found;
    TableContents { schema: entry.namespace.clone(), name: entry.tag.clone(), data, digest }
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
