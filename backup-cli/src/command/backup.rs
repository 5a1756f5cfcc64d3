//! `backup`: runs jobs.

use std::time::Instant;

use backup_core::{BackupReport, ErrorKind, FilesContents, Inventory, PartRole, Result, TableData};
use serde_json::{Value, json};

use super::args::BackupArgs;
use super::output::{self, Style};
use super::{Session, error_json, exit_code, prune, setup};

/// Most names of files of a kind that are told.
const NAMED_FILES: usize = 20;

/// Runs the jobs one after the other. A failed one does not keep the next from running; the
/// first failure decides the exit code.
///
/// # Errors
/// When flags or config are wrong, or the only job fails.
pub async fn run(args: BackupArgs, session: &Session) -> Result<u8> {
    let (deployment, jobs) = setup::for_backup(&args, &session.common)?;
    let mut documents = Vec::new();
    let mut first_failure = None;
    let mut incomplete = false;
    for job in &jobs {
        let started = Instant::now();
        if !session.common.quiet {
            eprintln!("{}", Style::for_stderr().bold(&format!("job {job}")));
        }
        match deployment.backup(job, args.adopt, &session.context).await {
            Ok(report) => {
                incomplete |= !report.failed.is_empty();
                tell(&report, started.elapsed(), session)?;
                let mut document = report_json(&report);
                if report.failed.is_empty() {
                    match prune::after_backup(&deployment, job, session).await {
                        Ok(None) => {}
                        Ok(Some(after)) => {
                            incomplete |= after.incomplete;
                            document["prune"] = after.document;
                        }
                        Err(error) => {
                            documents.push(document);
                            first_failure.get_or_insert(error);
                            break;
                        }
                    }
                }
                documents.push(document);
            }
            Err(error) => {
                documents.push(json!({ "job": job, "error": error_json(&error) }));
                if first_failure.is_some() || jobs.len() > 1 {
                    super::tell(&error, false);
                }
                let stop = error.kind() == ErrorKind::Interrupted;
                first_failure.get_or_insert(error);
                if stop {
                    break;
                }
            }
        }
    }
    match first_failure {
        Some(error) if jobs.len() == 1 => return Err(error),
        _ if session.common.json => output::print_json(&json!({ "backups": documents }))?,
        _ => {}
    }
    if let Some(error) = first_failure {
        return Ok(exit_code(error.kind()));
    }
    Ok(if incomplete { exit_code(ErrorKind::Incomplete) } else { 0 })
}

fn tell(report: &BackupReport, took: std::time::Duration, session: &Session) -> Result<()> {
    let style = Style::for_stderr();
    for (storage, error) in &report.failed {
        eprintln!("{} storage {storage} has no copy: {error}", style.yellow("incomplete:"));
        if let Some(advice) = error.advice() {
            eprintln!("  next:  {advice}");
        }
    }
    for note in &report.manifest.notes {
        eprintln!("{} {note}", style.yellow("note:"));
    }
    let files = report.contents.parts.iter().find_map(|part| part.inventory.files.as_ref());
    if let Some(files) = files {
        name_left_out(files, style);
    }
    if session.common.json || session.common.quiet {
        return Ok(());
    }
    let mut holds = Vec::new();
    if report.manifest.part(PartRole::Database).is_some() {
        let tables = report.contents.parts.iter().map(|part| counted(&part.inventory));
        let (tables, rows) = tables.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        holds.push(format!("{} tables, {} rows", output::count(tables), output::count(rows)));
    }
    holds.extend(files.map(|files| format!("{} files", output::count(files.files))));
    output::print(&format!(
        "{} is in {}: {}, {} stored, {}\n",
        report.manifest.id,
        report.stored_in.join(", "),
        holds.join(", "),
        output::size(report.manifest.stored_bytes()),
        output::duration(took),
    ))
}

/// The names behind the counts of the notes: they are encrypted in the backup, and told here.
fn name_left_out(files: &FilesContents, style: Style) {
    let lists = [
        ("skipped, no file", &files.skipped),
        ("optional and not there", &files.missing),
        ("leads out of the backup", &files.links_outside),
    ];
    for (what, names) in lists {
        for name in names.iter().take(NAMED_FILES) {
            output::say(&format!("{} {what}: {name}", style.yellow("warning:")));
        }
    }
}

fn counted(inventory: &Inventory) -> (u64, u64) {
    let rows = inventory.tables.iter().map(|table| match table.data {
        TableData::Complete { rows } | TableData::ExtensionConfiguration { rows } => rows,
        _ => 0,
    });
    (inventory.tables.len() as u64, rows.sum())
}

fn report_json(report: &BackupReport) -> Value {
    let failed: Vec<Value> = report
        .failed
        .iter()
        .map(|(storage, error)| json!({ "storage": storage, "error": error_json(error) }))
        .collect();
    json!({ "manifest": report.manifest, "stored_in": report.stored_in, "failed": failed })
}
