//! Counts the rows of a restored database again and compares them with its archive.

use std::collections::BTreeSet;
use std::time::Duration;

use backup_core::{Error, Result, TableData};

use super::{RestoreReport, STAGE};
use crate::Psql;
use crate::archive::ArchiveSummary;
use crate::sql::quote_ident;

/// Tables counted in one session.
const BATCH_TABLES: usize = 200;

/// Tables that an error names before it only counts them.
const NAMED_TABLES: usize = 5;

struct Expected {
    schema: String,
    name: String,
    rows: u64,
}

impl Expected {
    fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Counts every table whose rows the archive tells, and the large objects, into `report`.
///
/// # Errors
/// `Damaged` when one has more or fewer.
pub(super) async fn compare(
    psql: &Psql,
    summary: &ArchiveSummary,
    limit: Duration,
    report: &mut RestoreReport,
) -> Result<()> {
    let psql = psql.with_timeout(limit);
    let expected = expectations(summary, report);
    let mut differences = Vec::new();
    for batch in expected.chunks(BATCH_TABLES) {
        let counted = match count(&psql, batch).await {
            Ok(counted) => counted.into_iter().map(Ok).collect(),
            Err(_) => count_one_by_one(&psql, batch).await,
        };
        for (table, rows) in batch.iter().zip(counted) {
            match rows {
                Ok(rows) if rows == table.rows => {
                    report.tables_compared += 1;
                    report.rows_compared += rows;
                }
                Ok(rows) => differences.push(format!(
                    "{} has {rows} rows, the backup {}",
                    table.label(),
                    table.rows
                )),
                Err(error) => {
                    let why = error.message();
                    report.not_compared.push(format!("{}: can't be counted: {why}", table.label()));
                }
            }
        }
    }
    if summary.large_objects() > 0 {
        let sql = "select count(*) from pg_catalog.pg_largeobject_metadata";
        let restored: u64 = psql.query_json(sql).await?;
        report.large_objects = restored;
        if restored != summary.large_objects() {
            let wanted = summary.large_objects();
            differences.push(format!("there are {restored} large objects, in the backup {wanted}"));
        }
    }
    judge(&differences)
}

fn judge(differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let mut named = differences.iter().take(NAMED_TABLES).cloned().collect::<Vec<_>>().join("; ");
    if let Some(more @ 1..) = differences.len().checked_sub(NAMED_TABLES) {
        named.push_str(&format!("; and {more} more"));
    }
    Err(Error::damaged(STAGE, format!("what was restored is not what was backed up: {named}"))
        .next_step(
            "keep the backup, and look into the server's log for what happened to these rows",
        ))
}

/// The tables to count; those that can't be go into the report with the reason.
fn expectations(summary: &ArchiveSummary, report: &mut RestoreReport) -> Vec<Expected> {
    let unreadable: BTreeSet<(&str, &str)> = summary
        .toc()
        .of_kind("TABLE DATA")
        .filter(|entry| !entry.exact)
        .map(|entry| (entry.namespace.as_str(), entry.tag.as_str()))
        .collect();
    let mut expected = Vec::new();
    for table in summary.inventory().tables {
        let label = format!("{}.{}", table.schema, table.name);
        let reason = match table.data {
            TableData::Complete { .. }
                if unreadable.contains(&(table.schema.as_str(), table.name.as_str())) =>
            {
                "its name is not written in UTF-8"
            }
            TableData::Complete { rows } => {
                expected.push(Expected { schema: table.schema, name: table.name, rows });
                continue;
            }
            TableData::Partitioned => continue,
            TableData::Uncounted => "the archive does not tell its rows",
            TableData::Excluded => "its rows are not in the backup",
            TableData::ExtensionConfiguration { .. } => "its extension decides on its rows",
            TableData::NotDumped { ref kind } => {
                report.not_compared.push(format!("{label}: a {kind} has no rows in a backup"));
                continue;
            }
        };
        report.not_compared.push(format!("{label}: {reason}"));
    }
    expected
}

async fn count(psql: &Psql, tables: &[Expected]) -> Result<Vec<u64>> {
    let mut sql = String::from("set row_security = off;\n");
    for table in tables {
        let (schema, name) = (quote_ident(&table.schema), quote_ident(&table.name));
        sql.push_str(&format!("select count(*) from only {schema}.{name};\n"));
    }
    let answer = psql.query_text(&sql).await?;
    let counts: Vec<u64> = answer.lines().filter_map(|line| line.parse().ok()).collect();
    if counts.len() == tables.len() {
        return Ok(counts);
    }
    Err(Error::failed(STAGE, "the server did not count every table"))
}

async fn count_one_by_one(psql: &Psql, tables: &[Expected]) -> Vec<Result<u64>> {
    let mut counts = Vec::with_capacity(tables.len());
    for table in tables {
        let counted = count(psql, std::slice::from_ref(table)).await;
        counts.push(counted.map(|rows| rows.first().copied().unwrap_or_default()));
    }
    counts
}
