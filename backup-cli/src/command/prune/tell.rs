//! What a prune shows: as a table, as JSON, and what is wrong on stderr.

use backup_cli::Pruned;
use backup_core::{Error, Judged, PruneReport, StoragePlan, StorageReport, Verdict};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::output::{self, Style, Table};
use super::super::{error_json, output::say};

/// Every backup with the rule that keeps or ends it, and what was or would be done.
pub fn as_text(pruned: &Pruned, apply: bool) -> String {
    let plan = &pruned.plan;
    let mut text = format!("job {}\n", plan.job);
    let now = Timestamp::now();
    let mut table =
        Table::new(&["ID", "STORAGE", "AGE", "SIZE", "STATE", "VERDICT", "WHY"], &[2, 3]);
    let mut empty = true;
    for storage in &plan.storages {
        for one in &storage.backups {
            empty = false;
            let (verdict, why) = verdict(one);
            table.row(vec![
                one.id.to_string(),
                storage.storage.clone(),
                output::ago(one.id.started(), now),
                output::size(one.bytes()),
                if one.good { "good" } else { "NOT GOOD" }.to_owned(),
                verdict.to_owned(),
                why,
            ]);
        }
    }
    match empty {
        true => text.push_str("There is no backup yet.\n"),
        false => text.push_str(&table.render()),
    }
    match &pruned.report {
        Some(report) => text.push_str(&report_text(report)),
        None => text.push_str(&outlook(pruned, apply)),
    }
    text
}

fn verdict(one: &Judged) -> (&'static str, String) {
    let lock = one.extend_lock.map(|until| format!("; lock it until {}", output::time(until)));
    let lock = lock.unwrap_or_default();
    match &one.verdict {
        Verdict::Keep(reasons) => ("keep", format!("{}{lock}", reasons.join(", "))),
        Verdict::Delete(reason) => ("REMOVE", reason.clone()),
        Verdict::Skip { expired, because } => ("skip", format!("{because} ({expired})")),
    }
}

/// What --apply would do.
fn outlook(pruned: &Pruned, apply: bool) -> String {
    let plan = &pruned.plan;
    let unfinished: usize = plan.storages.iter().map(|storage| storage.unfinished.len()).sum();
    let mut text = String::new();
    for storage in plan.storages.iter().filter(|storage| storage.problem.is_none()) {
        let doomed = storage.backups.iter().filter(|o| matches!(o.verdict, Verdict::Delete(_)));
        let (count, bytes) = doomed.fold((0, 0), |sum, one| (sum.0 + 1, sum.1 + one.bytes()));
        if count > 0 {
            let (backups, size) = (backups(count), output::size(bytes));
            text.push_str(&format!("{}: {backups} would go, {size}\n", storage.storage));
        }
    }
    if unfinished > 0 {
        text.push_str(&format!("{unfinished} folders that a crashed prune left would go\n"));
    }
    if text.is_empty() {
        return "Nothing is to be removed.\n".to_owned();
    }
    if plan.refused.is_none() && !apply {
        text.push_str("Nothing was changed; --apply removes them.\n");
    }
    text
}

fn backups(count: usize) -> String {
    if count == 1 { "1 backup".to_owned() } else { format!("{count} backups") }
}

/// What was done, a line for each storage in which something was.
pub fn report_text(report: &PruneReport) -> String {
    report.storages.iter().map(storage_text).collect()
}

fn storage_text(report: &StorageReport) -> String {
    let name = &report.storage;
    let mut text = String::new();
    if !report.deleted.is_empty() {
        let bytes = report.deleted.iter().map(|one| one.bytes).sum();
        let (count, size) = (backups(report.deleted.len()), output::size(bytes));
        text.push_str(&format!("{name}: {count} removed, {size}\n"));
    }
    let held: u64 = report.deleted.iter().map(|one| one.held_bytes).sum();
    if held > 0 {
        let held = output::size(held);
        text.push_str(&format!("{name}: {held} of it are still kept as locked versions\n"));
    }
    if !report.finished.is_empty() {
        let count = report.finished.len();
        text.push_str(&format!("{name}: {count} folders removed that a crashed prune left\n"));
    }
    for (id, why) in &report.left {
        text.push_str(&format!("{name}: {id} stays: {why}\n"));
    }
    if !report.extended.is_empty() {
        text.push_str(&format!("{name}: {} locked for longer\n", backups(report.extended.len())));
    }
    text
}

/// Tells on stderr what could not be read, was refused, or failed.
pub fn say_what_is_wrong(pruned: &Pruned) {
    for storage in &pruned.plan.storages {
        if let Some(problem) = &storage.problem {
            warn(&format!("storage {}", storage.storage), problem);
        }
    }
    if let Some(refused) = &pruned.plan.refused {
        warn("nothing was removed", refused);
    }
    for report in pruned.report.iter().flat_map(|report| &report.storages) {
        if let Some(failed) = &report.failed {
            warn(&format!("storage {}", report.storage), failed);
        }
    }
}

/// One warning with its next step.
pub fn warn(what: &str, error: &Error) {
    say(&format!("{} {what}: {error}", Style::for_stderr().yellow("warning:")));
    if let Some(advice) = error.advice() {
        say(&format!("  next:  {advice}"));
    }
}

/// The plan, and in each storage what was done.
pub fn as_json(pruned: &Pruned) -> Value {
    let plan = &pruned.plan;
    let storages = plan.storages.iter().map(|storage| {
        let report = pruned.report.as_ref().and_then(|report| {
            report.storages.iter().find(|report| report.storage == storage.storage)
        });
        storage_json(storage, report)
    });
    json!({
        "job": plan.job,
        "applied": pruned.report.is_some(),
        "refused": plan.refused.as_ref().map(error_json),
        "storages": storages.collect::<Vec<_>>(),
    })
}

fn storage_json(plan: &StoragePlan, report: Option<&StorageReport>) -> Value {
    let unfinished: Vec<String> = plan.unfinished.iter().map(ToString::to_string).collect();
    json!({
        "storage": plan.storage,
        "problem": plan.problem.as_ref().map(error_json),
        "backups": plan.backups.iter().map(judged_json).collect::<Vec<_>>(),
        "unfinished": unfinished,
        "done": report.map(report_json),
    })
}

fn judged_json(one: &Judged) -> Value {
    let (verdict, reasons, because) = match &one.verdict {
        Verdict::Keep(reasons) => ("keep", reasons.clone(), None),
        Verdict::Delete(reason) => ("remove", vec![reason.clone()], None),
        Verdict::Skip { expired, because } => ("skip", vec![expired.clone()], Some(because)),
    };
    json!({
        "id": one.id.to_string(), "bytes": one.bytes(), "good": one.good, "verdict": verdict,
        "reasons": reasons, "skipped_because": because, "lock_until": one.extend_lock,
        "other_source": one.foreign,
    })
}

fn report_json(report: &StorageReport) -> Value {
    let deleted = report.deleted.iter().map(
        |one| json!({ "id": one.id.to_string(), "bytes": one.bytes, "held_bytes": one.held_bytes }),
    );
    let left = report.left.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why }));
    let extended = report.extended.iter();
    let extended = extended.map(|(id, until)| json!({ "id": id.to_string(), "until": until }));
    let finished: Vec<String> = report.finished.iter().map(ToString::to_string).collect();
    json!({
        "removed": deleted.collect::<Vec<_>>(), "left": left.collect::<Vec<_>>(),
        "finished": finished, "locks_extended": extended.collect::<Vec<_>>(),
        "failed": report.failed.as_ref().map(error_json),
    })
}
