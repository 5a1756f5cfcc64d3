//! The plan of a restore, before anything is touched.

use backup_cli::{RestoreOptions, SwapPlan};
use backup_core::{Error, Result};
use backup_pg::{Finding, InPlacePlan, Severity};
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

/// Shows what the preflight found on stderr, before the work begins.
pub fn show_findings(plan: &SwapPlan, session: &Session) {
    use std::io::Write;
    let worth = |finding: &&Finding| finding.severity != Severity::Note || !session.common.quiet;
    let shown: Vec<Finding> = plan
        .findings
        .iter()
        .filter(worth)
        // Those end the run, and its error names them.
        .filter(|finding| finding.severity != Severity::Blocking)
        .cloned()
        .collect();
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
pub fn print_in_place(plan: &InPlacePlan, from: &str, session: &Session) -> Result<()> {
    if session.common.json {
        let mut document = json_of(plan)?;
        document["mode"] = json!("in-place");
        document["from"] = json!(from);
        return output::print_json(&document);
    }
    let lists = [
        ("is replaced", &plan.replaces),
        ("is made", &plan.creates),
        ("goes with it, and does not come back", &plan.takes_along),
        ("is not in the backup, and stays", &plan.stays),
        ("is in the way", &plan.blocks),
    ];
    let mut text = format!("{from} onto {} itself, in one transaction\n", plan.database);
    for (what, names) in lists {
        if !names.is_empty() {
            text.push_str(&format!("\n{} {what}:\n", output::count(names.len() as u64)));
            for name in names {
                text.push_str(&format!("  {name}\n"));
            }
        }
    }
    output::print(&text)
}

/// Prints what a restore into a new or an empty database would do.
///
/// # Errors
/// When stdout can't be written to.
pub fn print_plain(from: &str, options: &RestoreOptions, session: &Session) -> Result<()> {
    let tables = options.selection.as_ref().map(|selection| selection.tables.clone());
    if session.common.json {
        let mode = if tables.is_some() { "tables" } else { "plain" };
        return output::print_json(&json!({
            "mode": mode, "from": from, "into": options.target.origin(), "tables": tables,
            "create_roles": options.globals,
        }));
    }
    let what = match &tables {
        Some(tables) => format!("the tables {} of {from}", tables.join(", ")),
        None => from.to_owned(),
    };
    let how = match tables {
        Some(_) => "in one transaction",
        None => {
            "into a database that is made for it, or is empty; one that holds anything is refused"
        }
    };
    output::print(&format!("{what} into the database of {}: {how}\n", options.target.origin()))
}

fn json_of(plan: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(plan)
        .map_err(|e| Error::failed("plan", "can't be written as JSON").caused_by(e))
}
