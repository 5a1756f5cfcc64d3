//! `drill`: restores a backup for a try, and says whether what came back is what went in.

mod escape;
mod lists;
mod page;
mod sections;

use std::path::Path;

use backup_cli::Deployment;
use backup_cli::drill::{DrillOptions, DrillReport, Problem, Verdict};
use backup_core::{Catalog, CatalogEntry, Error, ErrorKind, Query, Result};
use serde_json::json;

use super::args::DrillArgs;
use super::output::{self, Style};
use super::{Session, catalog, exit_code, setup};

/// Problems that are printed; the page and the JSON have all of them.
const PRINTED_PROBLEMS: usize = 20;

/// Drills. Exit code 0 only when everything that can be compared was, and is equal.
///
/// # Errors
/// When flags or config are wrong, there is no such backup, or the drill could not begin.
pub async fn run(args: DrillArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.from, &session.common)?;
    if let Some(path) = &args.report {
        refuse_unwritable(path)?;
    }
    let options = DrillOptions {
        server: args.server.as_deref().map(setup::url_value).transpose()?,
        with_globals: args.with_globals,
        same_server: args.same_server,
        accept_unsigned: args.accept_unsigned,
    };
    let catalog = find(&deployment, &args, session).await?;
    let entry = wanted(&deployment, &args, &catalog)?;
    let report = deployment.drill(entry, &options, &session.context).await?;
    if session.common.json {
        output::print_json(&json!(report))?;
    } else if !(session.common.quiet && report.verdict == Verdict::Passed) {
        output::print(&as_text(&report))?;
    }
    if let Some(left) = &report.left_behind {
        session.context.warn(left);
    }
    if let Some(path) = &args.report {
        write_page(path, &page::render(&report))?;
    }
    Ok(code(&report))
}

async fn find(deployment: &Deployment, args: &DrillArgs, session: &Session) -> Result<Catalog> {
    let query = if names_a_job(deployment, args) {
        Query::for_backup(Some(&args.what), "latest")?
    } else {
        Query::for_backup(args.from.job.as_deref(), &args.what)?
    };
    catalog(deployment, &query, session).await
}

fn wanted<'a>(
    deployment: &Deployment,
    args: &DrillArgs,
    catalog: &'a Catalog,
) -> Result<&'a CatalogEntry> {
    catalog.find(if names_a_job(deployment, args) { "latest" } else { &args.what })
}

fn names_a_job(deployment: &Deployment, args: &DrillArgs) -> bool {
    args.from.job.is_none() && deployment.config().job.contains_key(&args.what)
}

fn code(report: &DrillReport) -> u8 {
    let proof_missing = report.proofs.iter().any(|proof| proof.error.is_some());
    match report.verdict {
        Verdict::Failed => exit_code(ErrorKind::Damaged),
        Verdict::NotProven => exit_code(ErrorKind::Unchecked),
        Verdict::Passed if report.left_behind.is_some() => exit_code(ErrorKind::Failed),
        Verdict::Passed if proof_missing => exit_code(ErrorKind::Incomplete),
        Verdict::Passed => 0,
    }
}

fn as_text(report: &DrillReport) -> String {
    let style = Style::for_stdout();
    let (backup, times) = (&report.backup, &report.times);
    let verdict = match report.verdict {
        Verdict::Passed => style.green("proven"),
        Verdict::Failed => style.red("FAILED"),
        Verdict::NotProven => style.red("could not be told"),
    };
    let server = match report.place.throwaway {
        true => "a throwaway server".to_owned(),
        false => report.place.server.clone(),
    };
    let mut text = format!(
        "{verdict} {} from {}, {} {server} (PostgreSQL {}) {} {}\n",
        backup.id,
        backup.read_from,
        if report.restored { "restored to" } else { "not restored to" },
        report.place.server_version,
        if report.restored { "in" } else { "after" },
        output::duration(times.restore),
    );
    for problem in report.problems.iter().take(PRINTED_PROBLEMS) {
        text.push_str(&problem_text(problem));
    }
    if let Some(more @ 1..) = report.problems.len().checked_sub(PRINTED_PROBLEMS) {
        text.push_str(&format!("  and {more} more: see --report or --json\n"));
    }
    let mut lines = vec![("Tables", tables_text(report)), ("Schema", schema_text(report))];
    if !report.checks.is_empty() {
        lines.push((
            "Checks",
            match report.checks_run() {
                0 => "not run: it did not come to that".to_owned(),
                _ => format!("{} of {} true", report.checks_passed(), report.checks.len()),
            },
        ));
    }
    lines.push((
        "Time",
        format!(
            "restore {} (waiting for data {}), comparison {}",
            output::duration(times.restore),
            output::duration(times.waiting),
            output::duration(times.compare + times.checks)
        ),
    ));
    lines.extend(report.notes.iter().map(|note| ("Note", note.clone())));
    let stored = report.proofs.iter().filter(|proof| proof.error.is_none());
    let stored: Vec<&str> = stored.map(|proof| proof.storage.as_str()).collect();
    if !stored.is_empty() {
        lines.push(("Proof", format!("in {}", stored.join(", "))));
    }
    text.extend(lines.iter().map(|(name, value)| format!("  {name:<8}{value}\n")));
    text
}

fn problem_text(problem: &Problem) -> String {
    let advice = problem.next_step.as_ref().map(|step| format!("    next: {step}\n"));
    format!("  {}\n{}", problem.text.replace('\n', "\n    "), advice.unwrap_or_default())
}

fn tables_text(report: &DrillReport) -> String {
    if !report.restored {
        return "not compared: it did not come to that".to_owned();
    }
    let (exact, counted) = (report.tables_exact(), report.tables_counted());
    format!(
        "{exact} of {} compared row by row, {counted} by their number of rows ({} rows)",
        report.tables.len(),
        output::count(report.rows())
    )
}

fn schema_text(report: &DrillReport) -> String {
    let schema = &report.schema;
    match &schema.not_compared {
        Some(why) => format!("not compared: {why}"),
        None if schema.differences.is_empty() => {
            format!("{} definitions are equal", schema.compared)
        }
        None => format!("{} of {} definitions differ", schema.differences.len(), schema.compared),
    }
}

/// Before an hour of restoring.
fn refuse_unwritable(path: &Path) -> Result<()> {
    page_file(path).map(drop)
}

/// A file beside the page's place, which becomes it at once or not at all.
fn page_file(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".marb-drill-").tempfile_in(folder).map_err(|e| {
        Error::usage("report", format!("no page can be written into {}", folder.display()))
            .next_step("name a file in a folder that exists and that this user may write to")
            .caused_by(e)
    })
}

fn write_page(path: &Path, html: &str) -> Result<()> {
    use std::io::Write;
    let failed = |e: std::io::Error| {
        Error::failed("report", format!("{} can't be written", path.display())).caused_by(e)
    };
    let mut file = page_file(path)?;
    file.write_all(html.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
