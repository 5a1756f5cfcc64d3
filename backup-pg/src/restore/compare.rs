//! Counts the rows of a restored database again and compares them with its archive.

use std::collections::BTreeSet;
use std::time::Duration;

use backup_core::{Error, Result, TableData};

use super::{RestoreReport, STAGE};
use crate::Psql;
use crate::archive::ArchiveSummary;
use crate::sql::{quote_ident, quote_literal};

/// Tables looked at in one session.
const BATCH_TABLES: usize = 200;

/// Tables that an error names before it only counts them.
const NAMED_TABLES: usize = 5;

/// A table that the archive holds.
struct Expected {
    schema: String,
    name: String,
    /// Its rows in the archive, or why they are not compared.
    rows: Rows,
}

enum Rows {
    Exactly(u64),
    NotCompared(String),
    /// It has none of its own.
    InItsPartitions,
}

impl Expected {
    fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// What the server lets this role see of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sight {
    Missing,
    /// No right to read it.
    Forbidden,
    /// Row-level security hides rows of it.
    Filtered,
    Readable,
}

/// Looks for every table of the archive, counts those whose rows it tells, and the large
/// objects, into `report`.
///
/// A table stays uncompared only where the archive does not tell its rows, or this role may
/// not see them: then it is in [`RestoreReport::not_compared`].
///
/// # Errors
/// `Damaged` when a table is missing, or has more or fewer rows; that of the server when it
/// does not answer.
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
        compare_batch(&psql, batch, report, &mut differences).await?;
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

async fn compare_batch(
    psql: &Psql,
    batch: &[Expected],
    report: &mut RestoreReport,
    differences: &mut Vec<String>,
) -> Result<()> {
    let mut to_count = Vec::new();
    for (table, sight) in batch.iter().zip(look(psql, batch).await?) {
        let hidden = match (sight, &table.rows) {
            (Sight::Missing, _) => {
                differences.push(format!("the table {} is missing", table.label()));
                continue;
            }
            (_, Rows::InItsPartitions) => continue,
            (_, Rows::NotCompared(why)) => why,
            (Sight::Readable, Rows::Exactly(rows)) => {
                to_count.push((table, *rows));
                continue;
            }
            (Sight::Forbidden, Rows::Exactly(_)) => "this role may not read it",
            (Sight::Filtered, Rows::Exactly(_)) => "row-level security hides rows from this role",
        };
        report.not_compared.push(format!("{}: {hidden}", table.label()));
    }
    let counted = count(psql, &to_count).await?;
    for ((table, wanted), rows) in to_count.into_iter().zip(counted) {
        if rows == wanted {
            report.tables_compared += 1;
            report.rows_compared += rows;
        } else {
            differences.push(format!("{} has {rows} rows, the backup {wanted}", table.label()));
        }
    }
    Ok(())
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

/// What the archive promises; tables that can't even be named go into the report.
fn expectations(summary: &ArchiveSummary, report: &mut RestoreReport) -> Vec<Expected> {
    let unreadable: BTreeSet<(&str, &str)> = summary
        .toc()
        .entries
        .iter()
        .filter(|entry| !entry.exact)
        .map(|entry| (entry.namespace.as_str(), entry.tag.as_str()))
        .collect();
    let mut expected = Vec::new();
    for table in summary.inventory().tables {
        if unreadable.contains(&(table.schema.as_str(), table.name.as_str())) {
            let label = format!("{}.{}", table.schema, table.name);
            report.not_compared.push(format!("{label}: its name is not written in UTF-8"));
            continue;
        }
        let not_compared = |why: &str| Rows::NotCompared(why.to_owned());
        let rows = match table.data {
            TableData::Complete { rows } => Rows::Exactly(rows),
            TableData::Partitioned => Rows::InItsPartitions,
            TableData::Uncounted => not_compared("the archive does not tell its rows"),
            TableData::Excluded => not_compared("its rows are not in the backup"),
            TableData::ExtensionConfiguration { .. } => {
                not_compared("its extension decides on its rows")
            }
            TableData::NotDumped { kind } => {
                Rows::NotCompared(format!("a {kind} has no rows in a backup"))
            }
        };
        expected.push(Expected { schema: table.schema, name: table.name, rows });
    }
    expected
}

/// Asks the catalog instead of reading error messages, which come in the server's language.
async fn look(psql: &Psql, tables: &[Expected]) -> Result<Vec<Sight>> {
    let mut wanted = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        let (schema, name) = (quote_literal(&table.schema), quote_literal(&table.name));
        wanted.push(format!("({at}, {schema}, {name})"));
    }
    let sql = format!(
        "select json_agg(case
            when c.oid is null then 'missing'
            when not has_schema_privilege(n.oid, 'USAGE')
                or not has_any_column_privilege(c.oid, 'SELECT') then 'forbidden'
            when row_security_active(c.oid) then 'filtered'
            else 'readable' end order by wanted.at)
        from (values {}) as wanted (at, schema, name)
        left join pg_catalog.pg_namespace n on n.nspname::text = wanted.schema
        left join pg_catalog.pg_class c
            on c.relnamespace = n.oid and c.relname::text = wanted.name",
        wanted.join(", ")
    );
    let sights: Vec<Sight> = psql.query_json(&sql).await?;
    if sights.len() == tables.len() {
        return Ok(sights);
    }
    Err(Error::failed(STAGE, "the server did not answer for every table"))
}

async fn count(psql: &Psql, tables: &[(&Expected, u64)]) -> Result<Vec<u64>> {
    let mut sql = String::from("set row_security = off;\n");
    for (table, _) in tables {
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
