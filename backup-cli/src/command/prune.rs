//! `prune`: what retention keeps, what goes, and why.

mod tell;

use backup_cli::{Deployment, PruneOptions};
use backup_core::{ErrorKind, Foreign, PruneReport, Result};
use serde_json::{Value, json};

use super::args::PruneArgs;
use super::output;
use super::{Session, error_json, exit_code, setup};

/// Prunes the jobs one after the other. The first that falls short decides the exit code.
///
/// # Errors
/// When flags or config are wrong, or the only job can't be looked at.
pub async fn run(args: PruneArgs, session: &Session) -> Result<u8> {
    let (deployment, jobs) = setup::for_pruning(&args.jobs, &session.common)?;
    let options = PruneOptions {
        apply: args.apply,
        max_delete: args.max_delete,
        foreign: if args.adopt { Foreign::Adopt } else { Foreign::Refuse },
    };
    let (mut documents, mut code) = (Vec::new(), 0);
    for job in &jobs {
        let ended = match deployment.prune(job, options, &session.context).await {
            Ok(pruned) => {
                if !session.common.json {
                    output::print(&tell::as_text(&pruned, options.apply))?;
                }
                tell::say_what_is_wrong(&pruned);
                documents.push(tell::as_json(&pruned));
                pruned.shortcoming()
            }
            Err(error) if jobs.len() == 1 => return Err(error),
            Err(error) => {
                super::tell(&error, false);
                documents.push(json!({ "job": job, "error": error_json(&error) }));
                Some(error.kind())
            }
        };
        if let Some(kind) = ended {
            code = if code == 0 { exit_code(kind) } else { code };
            if kind == ErrorKind::Interrupted {
                code = exit_code(kind);
                break;
            }
        }
    }
    if session.common.json {
        output::print_json(&json!({ "jobs": documents }))?;
    }
    Ok(code)
}

/// What the prune behind a backup did.
pub struct AfterBackup {
    /// For the run's JSON document.
    pub document: Value,
    /// Whether somebody has to look after it.
    pub incomplete: bool,
}

/// Prunes behind a complete backup, where the job's config says so. That it can't is told, and
/// is no failure of the backup.
///
/// # Errors
/// Only when interrupted, or when stdout can't be written to.
pub async fn after_backup(
    deployment: &Deployment,
    job: &str,
    session: &Session,
) -> Result<Option<AfterBackup>> {
    let pruned = match deployment.prune_after_backup(job, &session.context).await {
        None => return Ok(None),
        Some(Ok(pruned)) => pruned,
        Some(Err(error)) if error.kind() == ErrorKind::Interrupted => return Err(error),
        Some(Err(error)) => {
            tell::warn("the backup is stored, but nothing was pruned", &error);
            let document = json!({ "error": error_json(&error) });
            return Ok(Some(AfterBackup { document, incomplete: true }));
        }
    };
    tell::say_what_is_wrong(&pruned);
    if let Some(report) = pruned.report.as_ref()
        && !(session.common.json || session.common.quiet)
    {
        output::print(&tell::report_text(report))?;
    }
    // A storage that can't even be looked at is told and no more: a key that may only write is
    // as it should be, and somebody else prunes.
    let failed = pruned.report.as_ref().and_then(PruneReport::failure).is_some();
    let incomplete = failed || pruned.plan.refused.is_some();
    Ok(Some(AfterBackup { document: tell::as_json(&pruned), incomplete }))
}
