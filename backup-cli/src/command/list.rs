//! `list`: what backups there are, in every storage.

use backup_core::{Catalog, CatalogEntry, ErrorKind, Result};
use jiff::Timestamp;
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
    let job = args.from.job.as_deref();
    let catalog = session.context.cancel.guard(deployment.catalog(job)).await?;
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
            entry.manifest.source.database.clone(),
            output::ago(entry.manifest.started, now),
            output::size(entry.manifest.stored_bytes()),
            entry.copies.iter().map(|c| c.storage.as_str()).collect::<Vec<_>>().join(", "),
            state(entry),
        ]);
    }
    table.render()
}

/// What an operator must know about a backup at a glance.
fn state(entry: &CatalogEntry) -> String {
    let mut words: Vec<String> = Vec::new();
    for copy in entry.copies.iter().filter(|copy| !copy.damaged_parts.is_empty()) {
        words.push(format!("damaged in {}", copy.storage));
    }
    for storage in &entry.missing_in {
        words.push(format!("missing in {storage}"));
    }
    if words.is_empty() {
        words.push("complete".to_owned());
    }
    words.push(last_proof(entry).unwrap_or_else(|| "never verified".to_owned()));
    words.join(", ")
}

/// The newest proof, from its file name.
fn last_proof(entry: &CatalogEntry) -> Option<String> {
    let newest = entry.copies.iter().flat_map(|copy| &copy.proofs).max()?;
    let day = format!("{}-{}-{}", newest.get(..4)?, newest.get(4..6)?, newest.get(6..8)?);
    let failed = newest.ends_with("-failed.json");
    Some(format!("{} {day}", if failed { "FAILED its check" } else { "checked" }))
}

fn as_json(catalog: &Catalog) -> Value {
    let backups: Vec<Value> = catalog.backups.iter().map(entry_json).collect();
    let problems = catalog.problems.iter();
    let problems: Vec<Value> = problems
        .map(|problem| json!({ "storage": problem.storage, "error": error_json(&problem.error) }))
        .collect();
    json!({ "backups": backups, "problems": problems })
}

/// One backup as JSON: its manifest, and where it lies.
pub fn entry_json(entry: &CatalogEntry) -> Value {
    let copies = entry.copies.iter();
    let copies: Vec<Value> = copies
        .map(|copy| {
            json!({ "storage": copy.storage, "damaged_parts": copy.damaged_parts, "proofs": copy.proofs })
        })
        .collect();
    json!({
        "id": entry.id.to_string(),
        "manifest": entry.manifest,
        "copies": copies,
        "missing_in": entry.missing_in,
    })
}
