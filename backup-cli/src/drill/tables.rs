//! Compares the tables of a restored database with what the backup's contents promise.

use std::collections::BTreeMap;

use backup_core::{Inventory, TableContents, TableData};
use backup_pg::Toc;

use super::report::{Outcome, TableResult};

/// What is known for the comparison.
pub(super) struct Comparison<'a> {
    /// As the backup's contents have it.
    pub recorded: &'a Inventory,
    /// As it was found in the restored database.
    pub found: &'a Inventory,
    /// The archive's table of contents.
    pub archive: &'a Toc,
    /// That of the restored database.
    pub restored: &'a Toc,
    /// Why digests can't be compared at all.
    pub no_digests: Option<String>,
}

impl Comparison<'_> {
    /// Every table of the backup, and those that came from nowhere.
    pub fn tables(&self) -> Vec<TableResult> {
        let place = |table: &TableContents| (table.schema.clone(), table.name.clone());
        let mut found: BTreeMap<_, _> = self.found.tables.iter().map(|t| (place(t), t)).collect();
        let (before, after) = (columns(self.archive), columns(self.restored));
        let mut results = Vec::new();
        for table in &self.recorded.tables {
            let at = (table.schema.as_str(), table.name.as_str());
            let moved = before.get(&at) != after.get(&at);
            results.push(self.compare(table, found.remove(&place(table)), moved));
        }
        for (_, table) in found {
            // What an extension brings along is not in the backup's list without rows of its own.
            if !matches!(table.data, TableData::ExtensionConfiguration { .. }) {
                results.push(result(
                    table,
                    None,
                    rows_of(table),
                    Outcome::Differs,
                    Outcome::Differs,
                ));
            }
        }
        results
    }

    /// The large objects, where the backup has any.
    pub fn large_objects(&self) -> Option<TableResult> {
        let (before, after) = (self.recorded.large_objects?, self.found.large_objects);
        if before == 0 && after.unwrap_or(0) == 0 {
            return None;
        }
        let digests = (&self.recorded.large_objects_digest, &self.found.large_objects_digest);
        let content = self.content(digests.0.as_deref(), digests.1.as_deref());
        Some(TableResult {
            schema: String::new(),
            name: "large objects".to_owned(),
            rows: Some(before),
            restored_rows: after,
            count: equal(after == Some(before)),
            content,
        })
    }

    fn compare(
        &self,
        table: &TableContents,
        found: Option<&TableContents>,
        columns_moved: bool,
    ) -> TableResult {
        let Some(found) = found else {
            return result(table, rows_of(table), None, Outcome::Differs, Outcome::Differs);
        };
        let (before, after) = (rows_of(table), rows_of(found));
        if let Some(why) = not_comparable(&table.data) {
            let why = Outcome::NotCompared(why);
            return result(table, before, after, why.clone(), why);
        }
        if table.data == TableData::Partitioned {
            let same = equal(found.data == TableData::Partitioned);
            return result(table, None, None, same.clone(), same);
        }
        let count = equal(before.is_some() && before == after);
        let content = if columns_moved {
            Outcome::NotCompared("its columns stand in another order now".to_owned())
        } else {
            self.content(table.digest.as_deref(), found.digest.as_deref())
        };
        result(table, before, after, count, content)
    }

    fn content(&self, before: Option<&str>, after: Option<&str>) -> Outcome {
        if let Some(why) = &self.no_digests {
            return Outcome::NotCompared(why.clone());
        }
        match (before, after) {
            (Some(before), Some(after)) => equal(before == after),
            (None, _) => Outcome::NotCompared("the backup has no digest of it".to_owned()),
            (_, None) => Outcome::NotCompared("no digest of it could be made".to_owned()),
        }
    }
}

fn equal(same: bool) -> Outcome {
    if same { Outcome::Equal } else { Outcome::Differs }
}

fn result(
    table: &TableContents,
    rows: Option<u64>,
    restored_rows: Option<u64>,
    count: Outcome,
    content: Outcome,
) -> TableResult {
    let (schema, name) = (table.schema.clone(), table.name.clone());
    TableResult { schema, name, rows, restored_rows, count, content }
}

fn rows_of(table: &TableContents) -> Option<u64> {
    match table.data {
        TableData::Complete { rows } | TableData::ExtensionConfiguration { rows } => Some(rows),
        _ => None,
    }
}

/// Why nothing can be said about the rows of such a table.
fn not_comparable(data: &TableData) -> Option<String> {
    Some(match data {
        TableData::Complete { .. } | TableData::Partitioned => return None,
        TableData::ExtensionConfiguration { .. } => "its extension decides on its rows".to_owned(),
        TableData::Uncounted => "the backup does not tell its rows".to_owned(),
        TableData::Excluded => "its rows are not in the backup".to_owned(),
        TableData::NotDumped { kind } => format!("a {kind} has no rows in a backup"),
    })
}

/// The columns of every table's rows, in their order.
fn columns(toc: &Toc) -> BTreeMap<(&str, &str), &str> {
    let data = toc.of_kind("TABLE DATA");
    data.map(|e| ((e.namespace.as_str(), e.tag.as_str()), e.copy_stmt.as_str())).collect()
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
