//! `copy` and `sync`: from one storage to another, byte for byte.

use std::time::Instant;

use backup_core::{BackupId, CopyReport, ErrorKind, Result};
use serde_json::{Value, json};

use super::args::{CopyArgs, SyncArgs};
use super::output::{self, Style};
use super::{Session, error_json, exit_code, setup};

/// Copies one backup.
///
/// # Errors
/// The first cause; the target does not list the backup then, unless it did before.
pub async fn copy(args: CopyArgs, session: &Session) -> Result<u8> {
    let (deployment, [from, to]) = setup::for_copying(&args.between, &session.common)?;
    let (started, job) = (Instant::now(), args.between.job.as_deref());
    let (id, report) =
        deployment.copy(&args.id, job, [&from, &to], args.check, &session.context).await?;
    if session.common.json {
        output::print_json(&copy_json(id, &report))?;
    } else if !session.common.quiet {
        output::print(&format!(
            "{}, {}\n",
            copy_text(id, &report),
            output::duration(started.elapsed())
        ))?;
    }
    Ok(0)
}

/// Copies what is lacking. Backups that fail give exit code 3; the others are copied.
///
/// # Errors
/// When one of the storages can't be listed.
pub async fn sync(args: SyncArgs, session: &Session) -> Result<u8> {
    let (deployment, [from, to]) = setup::for_copying(&args.between, &session.common)?;
    let job = args.between.job.as_deref();
    let report = deployment.sync(job, [&from, &to], &session.context).await?;
    for (id, error) in &report.failed {
        eprintln!("{} {id} was not copied: {error}", Style::for_stderr().red("failed:"));
        if let Some(advice) = error.advice() {
            eprintln!("  next:  {advice}");
        }
    }
    for problem in &report.problems {
        let label = Style::for_stderr().red("not known:");
        eprintln!("{label} storage {}: {}", problem.storage, problem.error);
    }
    if session.common.json {
        let problems = report.problems.iter();
        let problems: Vec<Value> = problems
            .map(|one| json!({ "storage": one.storage, "error": error_json(&one.error) }))
            .collect();
        let failed = report.failed.iter();
        let failed: Vec<Value> = failed
            .map(|(id, error)| json!({ "backup": id.to_string(), "error": error_json(error) }))
            .collect();
        let copied: Vec<Value> =
            report.copied.iter().map(|(id, one)| copy_json(*id, one)).collect();
        let unwanted: Vec<String> = report.unwanted.iter().map(ToString::to_string).collect();
        output::print_json(&json!({
            "copied": copied, "failed": failed, "problems": problems, "unwanted": unwanted,
        }))?;
    } else if !session.common.quiet {
        for (id, one) in &report.copied {
            output::print(&format!("{}\n", copy_text(*id, one)))?;
        }
        if report.copied.is_empty() && report.failed.is_empty() && report.problems.is_empty() {
            output::print("Nothing is missing.\n")?;
        }
        if !report.unwanted.is_empty() {
            let count = report.unwanted.len();
            output::print(&format!("{count} not copied: retention would remove them there.\n"))?;
        }
    }
    Ok(match (report.failed.is_empty(), report.problems.is_empty()) {
        (false, _) => exit_code(ErrorKind::Incomplete),
        (true, false) => exit_code(ErrorKind::Unchecked),
        (true, true) => 0,
    })
}

fn copy_text(id: BackupId, report: &CopyReport) -> String {
    let files = |n: usize| if n == 1 { "1 file".to_owned() } else { format!("{n} files") };
    format!(
        "{id}: {} copied ({}), {} kept",
        files(report.copied.len()),
        output::size(report.bytes),
        files(report.kept.len())
    )
}

fn copy_json(id: BackupId, report: &CopyReport) -> Value {
    json!({
        "backup": id.to_string(), "copied": report.copied, "kept": report.kept, "bytes": report.bytes,
    })
}
