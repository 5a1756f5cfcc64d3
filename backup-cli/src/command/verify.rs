//! `verify`: reads backups or files back, all of them, and says whether they are whole.

use std::path::Path;

use backup_cli::{Deployment, FileCheck};
use backup_core::{Catalog, CatalogEntry, Error, ErrorKind, Query, Result, VerifyReport};
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::output::{self, Style};
use super::{Session, error_json, exit_code, setup};

/// Verifies. Exit code 0 only when everything was read and found good.
///
/// # Errors
/// When flags or config are wrong, there is no such backup, or a file is damaged.
pub async fn run(args: VerifyArgs, session: &Session) -> Result<u8> {
    let path = Path::new(&args.what);
    if !args.all && names_a_file(&args.what) {
        let deployment = setup::for_file(&args.from, &session.common)?;
        let check = deployment.verify_file(path, &session.context).await?;
        return tell_file(&check, session);
    }
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let job = args.from.job.as_deref();
    let query = if args.all {
        Query { job, ..Query::default() }
    } else {
        Query::for_backup(job, &args.what)?
    };
    let catalog = session.context.cancel.guard(deployment.catalog(&query)).await?;
    let entries = if args.all {
        // What can't even be listed can't be checked either.
        if catalog.backups.is_empty() {
            catalog.find("latest")?;
        }
        catalog.backups.iter().collect()
    } else {
        vec![catalog.find(&args.what)?]
    };
    verify_entries(&deployment, &entries, &catalog, session).await
}

/// Whether an argument means a file: it names one, or at least looks like a path.
pub fn names_a_file(what: &str) -> bool {
    let is_id = what == "latest" || what.parse::<backup_core::BackupId>().is_ok();
    !is_id && (what.contains(['/', '.']) || Path::new(what).exists())
}

async fn verify_entries(
    deployment: &Deployment,
    entries: &[&CatalogEntry],
    catalog: &Catalog,
    session: &Session,
) -> Result<u8> {
    let mut documents = Vec::new();
    let mut worst: Option<ErrorKind> = None;
    for entry in entries {
        let reports = deployment.verify(entry, &session.context).await?;
        // One that had read everything when the signal came stands.
        let interrupted = |report: &VerifyReport| {
            report.worst().is_some_and(|error| error.kind() == ErrorKind::Interrupted)
        };
        if reports.iter().any(interrupted) {
            return Err(session.context.cancel.error());
        }
        for report in &reports {
            worst = worse(worst, report.worst().map(Error::kind));
            tell_copy(entry, report, session)?;
        }
        for storage in &entry.missing_in {
            worst = worse(worst, Some(ErrorKind::Incomplete));
            let label = Style::for_stderr().yellow("missing:");
            eprintln!("{label} {} has no copy in storage {storage}", entry.id);
        }
        documents.push(json!({
            "backup": entry.id.to_string(),
            "missing_in": entry.missing_in,
            "copies": reports.iter().map(report_json).collect::<Vec<_>>(),
        }));
    }
    for problem in &catalog.problems {
        worst = worse(worst, Some(problem_kind(&problem.error)));
        let label = Style::for_stderr().red("not checked:");
        eprintln!("{label} storage {}: {}", problem.storage, problem.error);
    }
    if session.common.json {
        let problems: Vec<Value> = catalog
            .problems
            .iter()
            .map(|p| json!({ "storage": p.storage, "error": error_json(&p.error) }))
            .collect();
        output::print_json(&json!({ "verified": documents, "problems": problems }))?;
    }
    Ok(worst.map_or(0, exit_code))
}

/// A damaged manifest is damage; a storage that does not answer is not.
fn problem_kind(error: &Error) -> ErrorKind {
    match error.kind() {
        ErrorKind::Damaged => ErrorKind::Damaged,
        _ => ErrorKind::Unchecked,
    }
}

/// Damage before "could not check" before anything else.
fn worse(a: Option<ErrorKind>, b: Option<ErrorKind>) -> Option<ErrorKind> {
    let rank = |kind: &ErrorKind| match kind {
        ErrorKind::Damaged => 0,
        ErrorKind::Refused => 1,
        ErrorKind::Unchecked => 2,
        ErrorKind::Incomplete => 3,
        _ => 4,
    };
    [a, b].into_iter().flatten().min_by_key(rank)
}

fn tell_copy(entry: &CatalogEntry, report: &VerifyReport, session: &Session) -> Result<()> {
    let style = Style::for_stdout();
    let bytes: u64 = report.checks.iter().filter_map(|check| check.result.as_ref().ok()).sum();
    let mut text = match report.worst() {
        None => format!(
            "{} {} in {}: {} read back\n",
            style.green("whole"),
            entry.id,
            report.storage,
            output::size(bytes)
        ),
        Some(error) => {
            let word = match error.kind() {
                ErrorKind::Damaged => "DAMAGED",
                ErrorKind::Refused => "NOT OURS",
                _ => "could not check",
            };
            format!("{} {} in {}\n", style.red(word), entry.id, report.storage)
        }
    };
    let failed =
        report.checks.iter().filter_map(|check| Some((&check.what, check.result.as_ref().err()?)));
    for (what, error) in failed {
        text.push_str(&format!("  {what}: {error}\n"));
        if let Some(advice) = error.advice() {
            text.push_str(&format!("    next: {advice}\n"));
        }
    }
    let is_good_news = report.worst().is_none();
    if session.common.json || (session.common.quiet && is_good_news) {
        return Ok(());
    }
    output::print(&text)
}

fn report_json(report: &VerifyReport) -> Value {
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| match &check.result {
            Ok(bytes) => json!({ "what": check.what, "ok": true, "bytes": bytes }),
            Err(error) => json!({ "what": check.what, "ok": false, "error": error_json(error) }),
        })
        .collect();
    json!({ "storage": report.storage, "passed": report.worst().is_none(), "checks": checks })
}

fn tell_file(check: &FileCheck, session: &Session) -> Result<u8> {
    let layers = match &check.file.layers[..] {
        [] => "no layers".to_owned(),
        layers => layers.join(", "),
    };
    let path = check.file.path.display();
    let passed = check.unchecked.is_none();
    if session.common.json {
        output::print_json(&json!({
            "file": check.file.path, "layers": check.file.layers, "checksummed": check.checksummed,
            "plain_bytes": check.plain_bytes, "inventory": check.inventory, "passed": passed,
            "unchecked": check.unchecked,
        }))?;
    } else if !(session.common.quiet && passed) {
        let style = Style::for_stdout();
        let size = output::size(check.plain_bytes);
        output::print(&match check.unchecked {
            None => format!("{} {path}: {layers}; {}, {size}\n", style.green("whole"), check.what),
            Some(why) => {
                let word = style.red("could not check");
                format!("{word} {path}: {layers} can be undone, {size}; {}: {why}\n", check.what)
            }
        })?;
    }
    if passed && !check.checksummed {
        session.context.warn(&format!(
            "{path} carries no checksum: its structure was walked to the end, but a changed byte \
             inside a value would not be noticed"
        ));
    }
    Ok(if passed { 0 } else { exit_code(ErrorKind::Unchecked) })
}
