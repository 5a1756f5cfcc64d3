//! `list`: what backups there are, in every storage.

use std::num::NonZero;

use backup_core::{Catalog, CatalogEntry, Error, ErrorKind, LastProof, Proven, Query, Result};
use jiff::civil::Date;
use jiff::{Span, Timestamp, Zoned};
use serde_json::{Value, json};

use super::args::ListArgs;
use super::output::{self, Style, Table};
use super::{Session, error_json, exit_code, setup};

/// Lists. What could not be read is a warning and gives exit code 8, never silence.
///
/// # Errors
/// When flags or config are wrong.
pub async fn run(args: ListArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let query = Query {
        job: args.from.job.as_deref(),
        since: args.since.as_deref().map(|text| since(text, &Zoned::now())).transpose()?,
        limit: args.limit.map(NonZero::get),
        id: None,
    };
    let catalog = session.context.cancel.guard(deployment.catalog(&query)).await?;
    if session.common.json {
        output::print_json(&as_json(&catalog))?;
    } else {
        output::print(&as_text(&catalog))?;
    }
    let style = Style::for_stderr();
    for problem in &catalog.problems {
        let label = style.yellow("warning:");
        eprintln!("{label} storage {}: {}", problem.storage, problem.error);
    }
    Ok(if catalog.problems.is_empty() { 0 } else { exit_code(ErrorKind::Unchecked) })
}

/// `30d` is thirty days before now; `2026-11-01` is that day's start here, or a full time.
pub(super) fn since(text: &str, now: &Zoned) -> Result<Timestamp> {
    let ago = || {
        let span: Span = text.parse().ok()?;
        now.checked_sub(span.abs()).ok().map(|then| then.timestamp())
    };
    let day = || {
        let day: Date = text.parse().ok()?;
        day.to_zoned(now.time_zone().clone()).ok().map(|start| start.timestamp())
    };
    text.parse().ok().or_else(day).or_else(ago).ok_or_else(|| {
        Error::usage("flags", format!("--since {text:?} is neither a time nor a duration"))
            .next_step("write 2026-11-01, 2026-11-01T02:00:00Z, or 30d for thirty days back")
    })
}

fn as_text(catalog: &Catalog) -> String {
    if catalog.backups.is_empty() {
        return "There is no backup yet.\n".to_owned();
    }
    let now = Timestamp::now();
    let mut table =
        Table::new(&["ID", "JOB", "DATABASE", "AGE", "SIZE", "STORAGES", "STATE"], &[4]);
    for entry in &catalog.backups {
        table.row(vec![
            entry.id.to_string(),
            entry.manifest.job.clone(),
            database(entry),
            output::ago(entry.manifest.started, now),
            output::size(entry.manifest.stored_bytes()),
            entry.copies.iter().map(|c| c.storage.as_str()).collect::<Vec<_>>().join(", "),
            state(entry),
        ]);
    }
    table.render()
}

fn database(entry: &CatalogEntry) -> String {
    match entry.manifest.source.database.as_str() {
        "" => "(files)".to_owned(),
        name => name.to_owned(),
    }
}

/// What an operator must know about a backup at a glance. Bad news of one copy is never hidden
/// by good news of another.
fn state(entry: &CatalogEntry) -> String {
    let mut words: Vec<String> = Vec::new();
    for copy in entry.copies.iter().filter(|copy| !copy.damaged_parts.is_empty()) {
        words.push(format!("damaged in {}", copy.storage));
    }
    for storage in &entry.missing_in {
        words.push(format!("missing in {storage}"));
    }
    for storage in &entry.unknown_in {
        words.push(format!("unknown in {storage}"));
    }
    let failed = |last: Option<LastProof>| last.filter(|last| !last.passed);
    for copy in &entry.copies {
        if let Some(last) = failed(Proven::by(&copy.proofs).verified) {
            words.push(format!("FAILED its check in {} on {}", copy.storage, day(last.at)));
        }
    }
    let proven = Proven::of(entry);
    if let Some(last) = failed(proven.drilled) {
        words.push(format!("FAILED its drill on {}", day(last.at)));
    }
    if words.is_empty() {
        words.push("complete".to_owned());
        let told = [("verified", proven.verified), ("drilled", proven.drilled)];
        words.extend(told.into_iter().map(|(what, last)| match last {
            Some(last) => format!("{what} {}", day(last.at)),
            None => format!("never {what}"),
        }));
    }
    if entry.is_pinned() {
        words.push("pinned".to_owned());
    }
    words.join(", ")
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn as_json(catalog: &Catalog) -> Value {
    let backups: Vec<Value> = catalog.backups.iter().map(entry_json).collect();
    let problems = catalog.problems.iter();
    let problems: Vec<Value> = problems
        .map(|problem| json!({ "storage": problem.storage, "error": error_json(&problem.error) }))
        .collect();
    json!({ "backups": backups, "problems": problems, "unreachable": catalog.unreachable })
}

/// One backup as JSON: its manifest, where it lies, and when it was last proven, as a whole and
/// of each copy.
pub fn entry_json(entry: &CatalogEntry) -> Value {
    let copies = entry.copies.iter();
    let copies: Vec<Value> = copies
        .map(|copy| {
            json!({ "storage": copy.storage, "damaged_parts": copy.damaged_parts, "proofs": copy.proofs,
                "proven": Proven::by(&copy.proofs), "pinned": copy.pinned })
        })
        .collect();
    json!({
        "id": entry.id.to_string(),
        "manifest": entry.manifest,
        "copies": copies,
        "proven": Proven::of(entry),
        "pinned": entry.is_pinned(),
        "missing_in": entry.missing_in,
        "unknown_in": entry.unknown_in,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_days_times_and_spans() {
        let now: Zoned = "2026-11-22T12:00:00+00:00[UTC]".parse().unwrap();
        let at = |text: &str| since(text, &now).map(|then| then.to_string());
        assert_eq!(at("2026-11-01").unwrap(), "2026-11-01T00:00:00Z");
        assert_eq!(at("2026-11-01T02:03:04Z").unwrap(), "2026-11-01T02:03:04Z");
        assert_eq!(at("30d").unwrap(), "2026-10-23T12:00:00Z");
        assert_eq!(at("1w 12h").unwrap(), "2026-11-15T00:00:00Z");
        assert!(at("yesterday").is_err());
    }
}
