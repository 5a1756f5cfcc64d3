//! What `verify` says, to people and as JSON.

use backup_cli::{FileCheck, Verified};
use backup_core::{CatalogEntry, Damage, ErrorKind, Level, Origin, Problem, Result, VerifyReport};
use serde_json::{Value, json};

use super::super::output::{self, Style};
use super::super::{Session, error_json, exit_code};
use super::sample::Sample;

/// Tells of one backup: what was repaired, what could not be, and how each copy is now.
pub fn tell_backup(entry: &CatalogEntry, verified: &Verified, session: &Session) -> Result<()> {
    let style = Style::for_stderr();
    for storage in &entry.missing_in {
        let label = style.yellow("missing:");
        eprintln!("{label} {} has no copy in storage {storage}", entry.id);
    }
    for unrepaired in &verified.unrepaired {
        let label = style.red("not repaired:");
        eprintln!("{label} {}: {}", entry.id, unrepaired.error);
        if let Some(advice) = unrepaired.error.advice() {
            eprintln!("  next:  {advice}");
        }
    }
    if session.common.json {
        return Ok(());
    }
    let mut text = String::new();
    for report in &verified.before {
        text.push_str(&copy_text(entry, report, "was "));
    }
    let style = Style::for_stdout();
    for file in &verified.repaired {
        text.push_str(&format!(
            "{} {} in {}: {}, {} from {}\n",
            style.green("repaired"),
            entry.id,
            file.storage,
            file.file,
            output::size(file.bytes),
            file.from
        ));
    }
    for report in &verified.reports {
        if !session.common.quiet || report.worst().is_some() {
            text.push_str(&copy_text(entry, report, ""));
        }
    }
    output::print(&text)
}

fn copy_text(entry: &CatalogEntry, report: &VerifyReport, was: &str) -> String {
    let style = Style::for_stdout();
    let id = entry.id;
    let Some(worst) = report.worst() else {
        let bytes: u64 = report.checks.iter().filter_map(|check| check.result.as_ref().ok()).sum();
        let bytes = output::size(bytes);
        let what = match report.level {
            Level::Content => format!("{bytes} read back"),
            Level::Checksums => {
                format!("{bytes} as stored are those of its manifest, {}", proven(report))
            }
        };
        return format!("{} {id} in {}: {what}\n", style.green("whole"), report.storage);
    };
    let word = match worst.kind() {
        ErrorKind::Damaged => "DAMAGED",
        ErrorKind::Refused => "NOT OURS",
        _ => "could not check",
    };
    let mut text = format!("{} {id} in {}\n", style.red(&format!("{was}{word}")), report.storage);
    for check in &report.checks {
        let Err(error) = &check.result else { continue };
        text.push_str(&format!("  {}: {error}\n", check.what));
        if let Some(damage) = report.damage.iter().find(|damage| damage.file == check.what) {
            text.push_str(&damage_text(damage));
        } else if let Some(advice) = error.advice() {
            text.push_str(&format!("    next: {advice}\n"));
        }
    }
    // Which file it is that does not fit the others was found by comparing.
    let unnamed = |damage: &&Damage| !report.checks.iter().any(|c| c.what == damage.file);
    for damage in report.damage.iter().filter(unnamed) {
        text.push_str(&format!("  {}: is not as it was written\n", damage.file));
        text.push_str(&damage_text(damage));
    }
    text
}

fn damage_text(damage: &Damage) -> String {
    let whole = match &damage.good_in[..] {
        [] => {
            "no storage has it whole: use an older backup, or what can be saved by hand".to_owned()
        }
        storages => format!(
            "storage {} has it whole: verify with --repair copies it over",
            storages.join(" and storage ")
        ),
    };
    format!("    where: {}\n    next: {whole}\n", damage.place)
}

/// What the checksums themselves are worth.
fn proven(report: &VerifyReport) -> &'static str {
    match report.origin {
        Some(Origin::Proven) => "which a key proves",
        Some(Origin::Unsigned) => "which nobody signed",
        _ => "which no key at hand can prove",
    }
}

/// Tells which backups were chosen.
///
/// # Errors
/// When stdout can't be written to.
pub fn tell_sample(
    sample: &Sample,
    entries: &[&CatalogEntry],
    of: usize,
    session: &Session,
) -> Result<()> {
    if session.common.json || session.common.quiet {
        return Ok(());
    }
    let (seed, taken) = (sample.seed, entries.len());
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
    output::print(&format!("{taken} of {of} backups, by --seed {seed}: {}\n", ids.join(", ")))
}

/// The same as JSON.
pub fn sample_json(sample: &Sample, entries: &[&CatalogEntry], of: usize) -> Value {
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
    json!({ "seed": sample.seed, "of": of, "taken": ids })
}

/// Tells what could not even be listed.
pub fn tell_problems(problems: &[Problem]) {
    for problem in problems {
        let label = match problem.error.kind() {
            ErrorKind::Damaged => "damaged:",
            _ => "not checked:",
        };
        let label = Style::for_stderr().red(label);
        eprintln!("{label} storage {}: {}", problem.storage, problem.error);
    }
}

/// The same as JSON.
pub fn problems_json(problems: &[Problem]) -> Vec<Value> {
    let problems = problems.iter();
    problems.map(|p| json!({ "storage": p.storage, "error": error_json(&p.error) })).collect()
}

/// One backup as JSON.
pub fn backup_json(entry: &CatalogEntry, verified: &Verified) -> Value {
    let repaired = verified.repaired.iter().map(|file| {
        json!({ "storage": file.storage, "file": file.file, "from": file.from, "bytes": file.bytes })
    });
    let unrepaired = verified.unrepaired.iter().map(|file| {
        json!({ "storage": file.storage, "file": file.file, "error": error_json(&file.error) })
    });
    json!({
        "backup": entry.id.to_string(),
        "missing_in": entry.missing_in,
        "copies": verified.reports.iter().map(report_json).collect::<Vec<_>>(),
        "before": verified.before.iter().map(report_json).collect::<Vec<_>>(),
        "repaired": repaired.collect::<Vec<_>>(),
        "unrepaired": unrepaired.collect::<Vec<_>>(),
    })
}

fn report_json(report: &VerifyReport) -> Value {
    let checks = report.checks.iter().map(|check| match &check.result {
        Ok(bytes) => json!({ "what": check.what, "ok": true, "bytes": bytes }),
        Err(error) => json!({ "what": check.what, "ok": false, "error": error_json(error) }),
    });
    let origin = report.origin.map(|origin| match origin {
        Origin::Proven => "proven",
        Origin::Unsigned => "unsigned",
        Origin::NoKey => "no_key",
    });
    json!({
        "storage": report.storage, "level": report.level, "origin": origin,
        "passed": report.worst().is_none(), "checks": checks.collect::<Vec<_>>(),
        "damage": report.damage,
    })
}

/// Tells of a plain file, and gives the exit code.
///
/// # Errors
/// When stdout can't be written to.
pub fn tell_file(check: &FileCheck, session: &Session) -> Result<u8> {
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
