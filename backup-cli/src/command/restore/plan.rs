//! The plan of a restore, before anything is touched.

use backup_cli::{InPlaceOutlook, RestoreOptions, SwapPlan};
use backup_core::{Error, Result};
use backup_pg::{Finding, InPlacePlan, RestorePlan, Severity};
use serde_json::{Value, json};

use super::super::Session;
use super::super::output::{self, Style, Table};

/// Prints the plan of a swap.
///
/// # Errors
/// When stdout can't be written to.
pub fn print(plan: &SwapPlan, session: &Session) -> Result<()> {
    if session.common.json {
        let mut document = json_of(plan)?;
        document["mode"] = json!("swap");
        return output::print_json(&document);
    }
    let mut table = Table::new(&["", "STEP", "APPLICATION"], &[0]);
    for (at, step) in plan.steps.iter().enumerate() {
        let state = if step.application_down { "down" } else { "" };
        table.row(vec![(at + 1).to_string(), step.what.clone(), state.to_owned()]);
    }
    output::print(&format!(
        "{} into {} on {}, restored beside it and swapped\n\n{}\n{}",
        plan.from,
        plan.database,
        plan.server,
        table.render(),
        findings(&plan.findings, Style::for_stdout()),
    ))
}

/// Shows what the preflight of a swap found on stderr, before the work begins.
pub fn show_findings(plan: &SwapPlan, session: &Session) {
    let shows_notes = !session.common.quiet;
    show(&plan.findings, |severity| severity == Severity::Note && shows_notes);
}

/// Shows what may surprise on stderr, before the work begins.
pub fn show_warnings(findings: &[Finding]) {
    show(findings, |_| false);
}

/// Warnings always. What blocks ends the run, and its error names it.
fn show(all: &[Finding], also: impl Fn(Severity) -> bool) {
    use std::io::Write;
    let is_shown =
        |finding: &&Finding| finding.severity == Severity::Warning || also(finding.severity);
    let shown: Vec<Finding> = all.iter().filter(is_shown).cloned().collect();
    let _ = write!(std::io::stderr(), "{}", findings(&shown, Style::for_stderr()));
}

fn findings(all: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in all {
        let label = match finding.severity {
            Severity::Blocking => style.red("blocking:"),
            Severity::Warning => style.yellow("warning:"),
            Severity::Note => "note:".to_owned(),
        };
        text.push_str(&format!("{label} {}: {}\n", finding.subject, finding.detail));
        for line in finding.remedy.lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

/// Prints the plan of a restore onto a database itself.
///
/// # Errors
/// When stdout can't be written to.
pub fn print_in_place(plan: &InPlaceOutlook, from: &str, session: &Session) -> Result<()> {
    if session.common.json {
        let mut document = json_of(plan)?;
        document["mode"] = json!("in-place");
        document["from"] = json!(from);
        return output::print_json(&document);
    }
    let found = findings(&plan.findings, Style::for_stdout());
    output::print(&format!("{}\n{found}", in_place(&plan.plan, from)))
}

/// Shows it on stderr, before the work begins.
pub fn show_in_place(plan: &InPlaceOutlook, from: &str, session: &Session) {
    use std::io::Write;
    if !session.common.quiet {
        let _ = write!(std::io::stderr(), "{}", in_place(&plan.plan, from));
    }
    show_warnings(&plan.findings);
}

fn in_place(plan: &InPlacePlan, from: &str) -> String {
    let lists = [
        ("is replaced", &plan.replaces),
        ("is made", &plan.creates),
        ("goes with it, and does not come back", &plan.takes_along),
        ("is not in the backup, and stays", &plan.stays),
        ("is in the way", &plan.blocks),
    ];
    let mut text = format!("{from} onto {} itself, in one transaction\n", plan.database);
    for (what, names) in lists {
        text.push_str(&list(what, names));
    }
    text
}

fn list(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{} {what}:\n", output::count(names.len() as u64));
    for name in names {
        text.push_str(&format!("  {name}\n"));
    }
    text
}

/// Prints what a restore into a new or an empty database, or of some tables, would do.
///
/// # Errors
/// When stdout can't be written to.
pub fn print_plain(
    plan: &RestorePlan,
    from: &str,
    options: &RestoreOptions,
    session: &Session,
) -> Result<()> {
    let selected = options.selection.is_some();
    if session.common.json {
        let mut document = json_of(plan)?;
        document["mode"] = json!(if selected { "tables" } else { "plain" });
        document["from"] = json!(from);
        return output::print_json(&document);
    }
    let RestorePlan { database, server, creates_database, .. } = plan;
    let how = match (creates_database, selected) {
        (true, _) => "a database that is made for it",
        (false, true) => "in one transaction, beside what it holds",
        (false, false) => "which is empty, in one transaction",
    };
    let mut text = format!("{from} into {database} on {server}: {how}\n");
    text.push_str(&list("tables come back", &plan.tables));
    text.push_str(&list("roles are made", &plan.creates_roles));
    if !plan.notes.is_empty() {
        text.push('\n');
    }
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    output::print(&format!("{text}\n{}", findings(&plan.findings, Style::for_stdout())))
}

fn json_of(plan: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(plan)
        .map_err(|e| Error::failed("plan", "can't be written as JSON").caused_by(e))
}
