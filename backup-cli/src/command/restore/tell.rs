//! What a restore did, for a person and for machines.

use std::time::Duration;

use backup_cli::{InPlaceSummary, RestoreSummary, SwapReport};
use backup_core::Result;
use serde_json::json;

use super::super::Session;
use super::super::output::{self, Style};

/// Tells of a restore into a new or an empty database.
///
/// # Errors
/// When stdout can't be written to.
pub fn restored(summary: &RestoreSummary, took: Duration, session: &Session) -> Result<()> {
    notes(&summary.notes);
    if session.common.json {
        return output::print_json(&json!({
            "from": summary.from, "database": summary.database, "created": summary.created,
            "tables_compared": summary.tables_compared, "rows_compared": summary.rows_compared,
            "spooled_bytes": summary.spooled_bytes, "roles_created": summary.roles_created, "notes": summary.notes,
            "seconds": took.as_secs_f64(),
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    output::print(&format!(
        "{} from {}: {}, {}\n",
        summary.database,
        summary.from,
        compared(summary),
        output::duration(took)
    ))
}

/// Tells of a swap.
///
/// # Errors
/// When stdout can't be written to.
pub fn swapped(
    report: &SwapReport,
    to: Option<&str>,
    took: Duration,
    session: &Session,
) -> Result<()> {
    let to = to.map(|to| format!(" --to '{to}'")).unwrap_or_default();
    notes(&report.notes);
    let restored = &report.restored;
    if session.common.json {
        return output::print_json(&json!({
            "mode": "swap", "from": restored.from, "database": report.database,
            "run": report.run, "before": report.before,
            "tables_compared": restored.tables_compared, "rows_compared": restored.rows_compared,
            "spooled_bytes": restored.spooled_bytes, "roles_created": restored.roles_created, "checks": report.checks,
            "migrations": report.migrations, "healthy": report.healthy.then_some(true),
            "downtime_seconds": report.downtime.as_secs_f64(),
            "closed_seconds": report.closed_for.as_secs_f64(),
            "sessions_ended": report.sessions_ended, "notes": report.notes,
            "seconds": took.as_secs_f64(),
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    let checks = match report.checks.len() {
        0 => String::new(),
        1 => ", 1 check held".to_owned(),
        many => format!(", {many} checks held"),
    };
    let healthy = if report.healthy { ", and it is healthy" } else { "" };
    output::print(&format!(
        "{database} is {from} now: {compared}{checks}, {took}\n\
         The application was down for {downtime}{healthy}.\n\
         The old database stays, closed, as {before}:\n  \
         back to it:        marb-backup restore --rollback{to}\n  \
         drop it one day:   marb-backup restore --cleanup{to}\n",
        database = report.database,
        from = restored.from,
        compared = compared(restored),
        took = output::duration(took),
        downtime = output::duration(report.downtime),
        before = report.before,
    ))
}

/// Tells of a restore onto the database itself.
///
/// # Errors
/// When stdout can't be written to.
pub fn in_place(done: &InPlaceSummary, took: Duration, session: &Session) -> Result<()> {
    let summary = &done.restored;
    notes(&summary.notes);
    if session.common.json {
        return output::print_json(&json!({
            "mode": "in-place", "from": summary.from, "database": summary.database,
            "safety_backup": done.safety_backup, "plan": serde_json::to_value(&done.plan).ok(),
            "tables_compared": summary.tables_compared, "rows_compared": summary.rows_compared,
            "spooled_bytes": summary.spooled_bytes, "roles_created": summary.roles_created, "notes": summary.notes,
            "seconds": took.as_secs_f64(),
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    let safety = match &done.safety_backup {
        Some(id) => format!("What was there before is backup {id}, pinned.\n"),
        None => String::new(),
    };
    output::print(&format!(
        "{} from {}, in place: {}, {}\n{safety}",
        summary.database,
        summary.from,
        compared(summary),
        output::duration(took)
    ))
}

fn compared(summary: &RestoreSummary) -> String {
    let missing = match summary.not_compared {
        0 => String::new(),
        tables => format!("; {} tables not compared", output::count(tables)),
    };
    let spooled = match summary.spooled_bytes {
        0 => String::new(),
        bytes => format!("; {} were set aside in TMPDIR meanwhile", output::size(bytes)),
    };
    format!(
        "{} tables compared, {} rows, all there{missing}{spooled}",
        output::count(summary.tables_compared),
        output::count(summary.rows_compared)
    )
}

fn notes(notes: &[String]) {
    let style = Style::for_stderr();
    for note in notes {
        output::say(&format!("{} {note}", style.yellow("note:")));
    }
}
