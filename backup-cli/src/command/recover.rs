//! `recover`: a new server from nothing but the storage, its credentials and the key.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use backup_cli::config::{Config, Value};
use backup_cli::{Deployment, RecoverOptions, Recovered, RecoveredStep, RecoveryPlan};
use backup_core::{Error, ErrorKind, Result};
use backup_files::FilesTarget;
use serde_json::json;

use super::args::RecoverArgs;
use super::output::{self, Style};
use super::{Session, exit_code, setup};

/// Of a job that the configuration has.
const NO_BACKUP: &str = "there is no backup of it";

/// Shows what would come back, asks, and brings it back.
///
/// # Errors
/// The first cause. What came back before it stays.
pub async fn run(args: RecoverArgs, session: &Session) -> Result<u8> {
    let to = args.to.as_deref().map(setup::url_value).transpose()?;
    let deployment = setup::for_recovery(&args, &session.common)?;
    let options = options(&args, to);
    let plan = deployment.plan_recovery(&options, &session.context).await?;
    if args.dry_run || !session.common.json && !session.common.quiet {
        show(&plan, &args, session)?;
    }
    if args.dry_run {
        return Ok(code(plan.missing.is_empty()));
    }
    if !args.yes {
        confirm()?;
    }
    recover(&deployment, &plan, &options, session).await
}

fn code(complete: bool) -> u8 {
    if complete { 0 } else { exit_code(ErrorKind::Incomplete) }
}

fn options(args: &RecoverArgs, to: Option<Value>) -> RecoverOptions {
    let files = match (&args.config_out, args.in_place) {
        (Some(folder), _) => Some(FilesTarget::Folder(folder.clone())),
        (None, true) => Some(FilesTarget::InPlace(args.root.clone())),
        (None, false) => None,
    };
    RecoverOptions { job: args.job.clone(), to, files, accept_unsigned: args.accept_unsigned }
}

fn show(plan: &RecoveryPlan, args: &RecoverArgs, session: &Session) -> Result<()> {
    if session.common.json {
        let jobs = plan.jobs.iter().map(|job| {
            json!({
                "job": job.entry.manifest.job, "id": job.entry.id.to_string(),
                "database": job.database(), "globals": job.has_globals, "files": job.has_files,
                "stored_bytes": job.entry.manifest.stored_bytes(),
            })
        });
        let jobs = jobs.collect::<Vec<_>>();
        return output::print_json(&json!({ "plan": jobs, "missing": plan.missing }));
    }
    let mut text = String::from("What comes back:\n");
    for job in &plan.jobs {
        let mut parts = Vec::new();
        if let Some(database) = job.database() {
            parts.push(format!("database {database}"));
        }
        if job.has_globals {
            parts.push("the roles the server lacks".to_owned());
        }
        if job.has_files {
            let place = match &args.config_out {
                Some(folder) => format!("below {}", folder.display()),
                None => format!("where they were, below {}", args.root.display()),
            };
            parts.push(format!("files, {place}"));
        }
        text.push_str(&format!(
            "  job {}: {} of {}, {} stored: {}\n",
            job.entry.manifest.job,
            job.entry.id,
            output::time(job.entry.manifest.finished),
            output::size(job.entry.manifest.stored_bytes()),
            parts.join(", ")
        ));
    }
    if !plan.missing.is_empty() {
        text.push_str("What does not come back:\n");
    }
    for job in &plan.missing {
        text.push_str(&format!("  job {job}: {NO_BACKUP}\n"));
    }
    output::print(&text)
}

/// Asks on the terminal; without one it has to be said beforehand.
fn confirm() -> Result<()> {
    let unsaid = || {
        Error::usage("recover", "nothing was changed: it was not said that it should be")
            .next_step("say --yes")
    };
    if !std::io::stdin().is_terminal() {
        return Err(unsaid());
    }
    output::say("Bring it back? Type yes:");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|e| Error::failed("recover", "the answer can't be read").caused_by(e))?;
    if answer.trim() == "yes" { Ok(()) } else { Err(unsaid()) }
}

async fn recover(
    deployment: &Deployment,
    plan: &RecoveryPlan,
    options: &RecoverOptions,
    session: &Session,
) -> Result<u8> {
    let quiet = session.common.json || session.common.quiet;
    let told = |step: &RecoveredStep| {
        if !quiet {
            output::say(&format!("  {:>9}  {}", output::duration(step.took), step.what));
        }
    };
    let done = deployment.recover(plan, options, &told, &session.context).await?;
    tell(&done, session)?;
    Ok(code(done.is_complete()))
}

fn tell(done: &Recovered, session: &Session) -> Result<()> {
    let style = Style::for_stderr();
    for note in &done.notes {
        output::say(&format!("{} {note}", style.yellow("note:")));
    }
    let incomplete = style.yellow("incomplete:");
    for job in &done.missing {
        output::say(&format!("{incomplete} job {job}: {NO_BACKUP}"));
    }
    for line in &done.unset {
        output::say(&format!("{incomplete} could not be set on {line}"));
    }
    if done.migrations_skipped {
        output::say(&format!(
            "{incomplete} the migrations did not run: they do when exactly one database comes back"
        ));
    }
    if !done.cannot_log_in.is_empty() {
        output::say(&format!(
            "{incomplete} these roles cannot log in until they get a password, which the backup does not have: {}",
            done.cannot_log_in.join(", ")
        ));
        output::say("  next:  ALTER ROLE name PASSWORD '...', for each of them");
    }
    if session.common.json {
        let seconds = |took: Duration| took.as_secs_f64();
        let steps = done.steps.iter();
        let steps = steps.map(|step| json!({ "what": step.what, "seconds": seconds(step.took) }));
        return output::print_json(&json!({
            "steps": steps.collect::<Vec<_>>(), "cannot_log_in": done.cannot_log_in,
            "missing": done.missing, "unset": done.unset,
            "migrations_skipped": done.migrations_skipped,
            "notes": done.notes, "healthy": done.healthy, "seconds": seconds(done.took),
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    let health = match done.healthy {
        Some(_) => "the application is healthy",
        None => "there was no health check to ask",
    };
    let what = if done.is_complete() { "Recovered" } else { "Recovered in part," };
    output::print(&format!("{what} in {}: {health}.\n", output::duration(done.took)))
}

/// Nothing to recover from: neither a URL nor a configuration.
pub fn no_place(config: &Config) -> Result<()> {
    if config.storage.is_empty() {
        return Err(Error::usage("recover", "it is not said where the backups are")
            .next_step("name the storage with --from URL, or a configuration with --config FILE"));
    }
    Ok(())
}
