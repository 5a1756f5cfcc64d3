//! `rekey`: older backups under the keys of today.

use std::time::Instant;

use backup_cli::config::{FromFile, Value};
use backup_cli::{RekeyFate, RekeyOptions, RekeySummary, RekeyedBackup};
use backup_core::{Error, ErrorKind, OldCopy, RekeyReport, Result};
use serde_json::json;

use super::args::RekeyArgs;
use super::output::{self, Style};
use super::{Session, error_json, exit_code, setup};

/// Encrypts one backup or all of them anew.
///
/// # Errors
/// When nothing could be done, or the only backup failed.
pub async fn run(args: RekeyArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let file = |path| Value::File(FromFile { file: path });
    let options = RekeyOptions {
        old_passphrases: args.old_passphrase_files.into_iter().map(file).collect(),
        accept_unsigned: args.accept_unsigned,
        dry_run: args.dry_run,
    };
    let started = Instant::now();
    let (wanted, job) = (args.id.as_deref(), args.from.job.as_deref());
    let mut summary = deployment.rekey(wanted, job, &options, &session.context).await?;
    if wanted.is_some()
        && let Some(RekeyedBackup { fate: RekeyFate::Failed(_), .. }) = summary.backups.first()
        && let RekeyFate::Failed(error) = summary.backups.remove(0).fate
    {
        return Err(error);
    }
    for problem in &summary.problems {
        session.context.warn(&format!("storage {}: {}", problem.storage, problem.error));
    }
    if session.common.json {
        let backups: Vec<_> = summary.backups.iter().map(backup_json).collect();
        output::print_json(&json!({ "backups": backups }))?;
    } else {
        tell(&summary, started, session)?;
    }
    Ok(code(&summary))
}

/// The first failure decides; then what is incomplete.
fn code(summary: &RekeySummary) -> u8 {
    let failed = summary.backups.iter().find_map(|one| match &one.fate {
        RekeyFate::Failed(error) => Some(exit_code(error.kind())),
        _ => None,
    });
    let is_done = |one: &RekeyedBackup| match &one.fate {
        RekeyFate::Done(report) => report.is_complete(),
        _ => true,
    };
    match failed {
        Some(code) => code,
        None if !summary.backups.iter().all(is_done) => exit_code(ErrorKind::Incomplete),
        None if !summary.problems.is_empty() => exit_code(ErrorKind::Unchecked),
        None => 0,
    }
}

fn tell(summary: &RekeySummary, started: Instant, session: &Session) -> Result<()> {
    let style = Style::for_stderr();
    let (mut current, mut open) = (0, 0);
    for one in &summary.backups {
        let id = one.id;
        let line = match &one.fate {
            RekeyFate::Current => {
                current += 1;
                continue;
            }
            RekeyFate::Unencrypted => {
                open += 1;
                continue;
            }
            RekeyFate::Failed(error) => {
                tell_failure(&format!("{id} of job {}", one.job), error, style);
                continue;
            }
            RekeyFate::Wanted => format!("{id} of job {} would be encrypted anew\n", one.job),
            RekeyFate::Done(report) => {
                tell_copies(report, style);
                format!("{id} of job {} is {} now\n", one.job, report.id)
            }
        };
        if !session.common.quiet {
            output::print(&line)?;
        }
    }
    if session.common.quiet {
        return Ok(());
    }
    let open = if open > 0 { format!(", {open} not encrypted") } else { String::new() };
    output::print(&format!(
        "{current} under the keys of today before{open}; {}\n",
        output::duration(started.elapsed())
    ))
}

fn tell_failure(what: &str, error: &Error, style: Style) {
    output::say(&format!("{} {what}: {error}", style.red("failed:")));
    if let Some(advice) = error.advice() {
        output::say(&format!("  next:  {advice}"));
    }
}

fn tell_copies(report: &RekeyReport, style: Style) {
    for (storage, old) in &report.copies {
        match old {
            Ok(OldCopy::Removed) => {}
            Ok(OldCopy::Locked(until)) => {
                let until = until.map_or("it is released".to_owned(), output::time);
                output::say(&format!(
                    "{} the old copy in storage {storage} is locked until {until}; run it again then",
                    style.yellow("stays:")
                ));
            }
            Err(error) => {
                tell_failure(&format!("the old copy in storage {storage} stays"), error, style)
            }
        }
    }
}

fn backup_json(one: &RekeyedBackup) -> serde_json::Value {
    let mut document = json!({ "id": one.id.to_string(), "job": one.job });
    match &one.fate {
        RekeyFate::Current => document["state"] = "current".into(),
        RekeyFate::Unencrypted => document["state"] = "unencrypted".into(),
        RekeyFate::Wanted => document["state"] = "wanted".into(),
        RekeyFate::Failed(error) => {
            document["state"] = "failed".into();
            document["error"] = error_json(error);
        }
        RekeyFate::Done(report) => {
            document["state"] = if report.is_complete() { "done" } else { "incomplete" }.into();
            document["new_id"] = report.id.to_string().into();
            let copies = report.copies.iter().map(|(storage, old)| match old {
                Ok(OldCopy::Removed) => json!({ "storage": storage, "old": "removed" }),
                Ok(OldCopy::Locked(until)) => {
                    json!({ "storage": storage, "old": "locked", "locked_until": until })
                }
                Err(error) => {
                    json!({ "storage": storage, "old": "kept", "error": error_json(error) })
                }
            });
            document["copies"] = copies.collect();
        }
    }
    document
}
