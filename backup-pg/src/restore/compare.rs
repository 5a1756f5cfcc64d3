//! Counts the rows of a restored database again and compares them with its archive.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{Error, Result, TableData};
use serde::de::DeserializeOwned;

use super::live::Transaction;
use super::{RestoreReport, STAGE};
use crate::Psql;
use crate::archive::{ArchiveSummary, Toc, is_relation};
use crate::sql::{quote_ident, quote_literal};

/// Tables looked at in one session.
const BATCH_TABLES: usize = 200;

/// Tables that an error names before it only counts them.
const NAMED_TABLES: usize = 5;

/// Whom to ask about the database: in sessions of their own, or in the one whose transaction
/// alone sees what was restored.
pub(super) enum Witness<'a> {
    Outside(Psql),
    Inside(&'a mut Transaction),
}

impl Witness<'_> {
    async fn text(&mut self, sql: &str) -> Result<String> {
        match self {
            Self::Outside(psql) => psql.query_text(sql).await,
            Self::Inside(transaction) => transaction.query_text(sql).await,
        }
    }

    async fn json<T: DeserializeOwned>(&mut self, sql: &str) -> Result<T> {
        match self {
            Self::Outside(psql) => psql.query_json(sql).await,
            Self::Inside(transaction) => transaction.query_json(sql).await,
        }
    }
}

/// What has to be there after a restore.
#[derive(Default)]
pub(super) struct Expectations {
    tables: Vec<Expected>,
    /// Large objects, where they are restored.
    large_objects: Option<u64>,
    /// Whether the database may have others.
    more_large_objects: bool,
}

/// Schema and name.
pub(super) type Place = (String, String);

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

/// Looks for every table that is expected, counts those whose rows are known, and the large
/// objects, into `report`.
///
/// A table stays uncompared only where the archive does not tell its rows, or this role may
/// not see them: then it is in [`RestoreReport::not_compared`].
///
/// # Errors
/// `Damaged` when a table is missing, or has more or fewer rows; that of the server when it
/// does not answer.
pub(super) async fn compare(
    mut witness: Witness<'_>,
    expected: &Expectations,
    report: &mut RestoreReport,
) -> Result<()> {
    let mut differences = Vec::new();
    for batch in expected.tables.chunks(BATCH_TABLES) {
        compare_batch(&mut witness, batch, report, &mut differences).await?;
    }
    if let Some(wanted @ 1..) = expected.large_objects {
        let sql = "select count(*) from pg_catalog.pg_largeobject_metadata";
        let restored: u64 = witness.json(sql).await?;
        report.large_objects = wanted.min(restored);
        if restored < wanted || restored > wanted && !expected.more_large_objects {
            differences.push(format!("there are {restored} large objects, in the backup {wanted}"));
        }
    }
    judge(&differences)
}

/// Counts tables that are there already; those that can't be counted are left out.
pub(super) async fn count_existing(
    mut witness: Witness<'_>,
    places: Vec<Place>,
) -> Result<BTreeMap<Place, u64>> {
    let expect = |(schema, name)| Expected { schema, name, rows: Rows::Exactly(0) };
    let tables: Vec<Expected> = places.into_iter().map(expect).collect();
    let mut counts = BTreeMap::new();
    for batch in tables.chunks(BATCH_TABLES) {
        let sights = look(&mut witness, batch).await?;
        let readable = batch.iter().zip(sights).filter(|(_, sight)| *sight == Sight::Readable);
        let readable: Vec<(&Expected, u64)> = readable.map(|(table, _)| (table, 0)).collect();
        for ((table, _), rows) in readable.iter().zip(count(&mut witness, &readable).await?) {
            counts.insert((table.schema.clone(), table.name.clone()), rows);
        }
    }
    Ok(counts)
}

async fn compare_batch(
    witness: &mut Witness<'_>,
    batch: &[Expected],
    report: &mut RestoreReport,
    differences: &mut Vec<String>,
) -> Result<()> {
    let mut to_count = Vec::new();
    for (table, sight) in batch.iter().zip(look(witness, batch).await?) {
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
    let counted = count(witness, &to_count).await?;
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

impl Expectations {
    /// What the archive promises of the entries that `restored` has, which may have other
    /// schemas there. Tables that can't even be named go into the report.
    ///
    /// `before`: rows that the tables had, which stay.
    pub fn of(
        summary: &ArchiveSummary,
        restored: &Toc,
        before: &BTreeMap<Place, u64>,
        report: &mut RestoreReport,
    ) -> Self {
        let whole = restored.of_kind("BLOBS").next().is_some();
        let mut expected =
            Self { large_objects: whole.then(|| summary.large_objects()), ..Self::default() };
        let (places, with_rows, unreadable) = restored_tables(summary.toc(), restored);
        for table in summary.inventory().tables {
            let old = (table.schema, table.name);
            let Some((schema, name)) = places.get(&old).cloned() else { continue };
            if unreadable.contains(&old) {
                report
                    .not_compared
                    .push(format!("{schema}.{name}: its name is not written in UTF-8"));
                continue;
            }
            let there = before.get(&(schema.clone(), name.clone())).copied().unwrap_or_default();
            let rows = match table.data {
                TableData::Complete { .. } if !with_rows.contains(&old) => Rows::Exactly(there),
                data => promised(data, there),
            };
            expected.tables.push(Expected { schema, name, rows });
        }
        expected
    }

    /// The same for a database that may hold more large objects than the archive.
    #[must_use]
    pub fn among_others(self) -> Self {
        Self { more_large_objects: true, ..self }
    }
}

/// Where each of the archive's tables is restored to, those of them whose rows are, and those
/// whose names can't be read.
fn restored_tables(
    archive: &Toc,
    restored: &Toc,
) -> (HashMap<Place, Place>, BTreeSet<Place>, BTreeSet<Place>) {
    let by_id: HashMap<i64, &str> =
        restored.entries.iter().map(|e| (e.dump_id, e.namespace.as_str())).collect();
    let (mut places, mut with_rows, mut unreadable) =
        (HashMap::new(), BTreeSet::new(), BTreeSet::new());
    for entry in &archive.entries {
        let place = (entry.namespace.clone(), entry.tag.clone());
        if !entry.exact {
            unreadable.insert(place.clone());
        }
        let Some(schema) = by_id.get(&entry.dump_id) else { continue };
        if is_relation(entry) || entry.desc == "TABLE DATA" {
            places.insert(place.clone(), ((*schema).to_owned(), entry.tag.clone()));
        }
        if entry.desc == "TABLE DATA" {
            with_rows.insert(place);
        }
    }
    (places, with_rows, unreadable)
}

fn promised(data: TableData, there: u64) -> Rows {
    let not_compared = |why: &str| Rows::NotCompared(why.to_owned());
    match data {
        TableData::Complete { rows } => Rows::Exactly(rows + there),
        TableData::Partitioned => Rows::InItsPartitions,
        TableData::Uncounted => not_compared("the archive does not tell its rows"),
        TableData::Excluded => not_compared("its rows are not in the backup"),
        TableData::ExtensionConfiguration { .. } => {
            not_compared("its extension decides on its rows")
        }
        TableData::NotDumped { kind } => {
            Rows::NotCompared(format!("a {kind} has no rows in a backup"))
        }
    }
}

/// Asks the catalog instead of reading error messages, which come in the server's language.
async fn look(witness: &mut Witness<'_>, tables: &[Expected]) -> Result<Vec<Sight>> {
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
    let sights: Vec<Sight> = witness.json(&sql).await?;
    if sights.len() == tables.len() {
        return Ok(sights);
    }
    Err(Error::failed(STAGE, "the server did not answer for every table"))
}

async fn count(witness: &mut Witness<'_>, tables: &[(&Expected, u64)]) -> Result<Vec<u64>> {
    let mut sql = String::from("set row_security = off;\n");
    for (table, _) in tables {
        let (schema, name) = (quote_ident(&table.schema), quote_ident(&table.name));
        sql.push_str(&format!("select count(*) from only {schema}.{name};\n"));
    }
    let answer = witness.text(&sql).await?;
    let counts: Vec<u64> = answer.lines().filter_map(|line| line.parse().ok()).collect();
    if counts.len() == tables.len() {
        return Ok(counts);
    }
    Err(Error::failed(STAGE, "the server did not count every table"))
}
