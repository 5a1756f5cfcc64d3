//! `pin` and `unpin`: a backup that no retention removes.

use backup_core::{ErrorKind, Pinned, Query, Result};
use serde_json::{Value, json};

use super::args::{PinArgs, UnpinArgs};
use super::output::{self, Style, say};
use super::{Session, catalog, error_json, exit_code, setup};

/// Pins every copy of a backup.
///
/// # Errors
/// When there is no such backup, or not one copy could be pinned.
pub async fn pin(args: PinArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.place.as_from(), &session.common)?;
    let query = Query::for_backup(args.place.job.as_deref(), &args.id)?;
    let catalog = catalog(&deployment, &query, session).await?;
    let entry = catalog.find(&args.id)?;
    let by = operator();
    let work = deployment.pin(entry, &args.reason, &by);
    let done = session.context.cancel.guard(work).await?;
    let told = done.into_iter().map(|(storage, result)| {
        let told = result.map(|pinned| match pinned {
            Pinned::Now => "pinned",
            Pinned::Before => "was pinned, with the reason of then",
        });
        (storage, told)
    });
    finish(&entry.id.to_string(), told.collect(), &entry.unknown_in, session)
}

/// Takes the pins of a backup away.
///
/// # Errors
/// When there is no such backup, or not one copy could be unpinned.
pub async fn unpin(args: UnpinArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.place.as_from(), &session.common)?;
    let query = Query::for_backup(args.place.job.as_deref(), &args.id)?;
    let catalog = catalog(&deployment, &query, session).await?;
    let entry = catalog.find(&args.id)?;
    let done = session.context.cancel.guard(deployment.unpin(entry)).await?;
    let told = done.into_iter().map(|(storage, result)| (storage, result.map(|()| "not pinned")));
    finish(&entry.id.to_string(), told.collect(), &entry.unknown_in, session)
}

/// Who does this, as the login tells; a name for people, and no proof.
fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Tells of each storage. Where some could not be asked or did not do it, it is incomplete.
fn finish(
    id: &str,
    mut done: Vec<(String, Result<&'static str>)>,
    unknown_in: &[String],
    session: &Session,
) -> Result<u8> {
    let worked = done.iter().any(|(_, result)| result.is_ok());
    if let (false, Some(at)) = (worked, done.iter().position(|(_, result)| result.is_err()))
        && let (_, Err(error)) = done.swap_remove(at)
    {
        return Err(error);
    }
    let mut incomplete = !unknown_in.is_empty();
    for (storage, result) in &done {
        match result {
            Ok(_) if session.common.json || session.common.quiet => {}
            Ok(what) => output::print(&format!("{id} in {storage}: {what}\n"))?,
            Err(error) => {
                incomplete = true;
                say(&format!("{} {storage}: {error}", Style::for_stderr().red("failed:")));
                if let Some(advice) = error.advice() {
                    say(&format!("  next:  {advice}"));
                }
            }
        }
    }
    for storage in unknown_in {
        let label = Style::for_stderr().yellow("warning:");
        say(&format!("{label} storage {storage} could not be asked; run this again later"));
    }
    if session.common.json {
        let storages = done.iter().map(|(storage, result)| match result {
            Ok(what) => json!({ "storage": storage, "state": what }),
            Err(error) => json!({ "storage": storage, "error": error_json(error) }),
        });
        let storages: Vec<Value> = storages.collect();
        output::print_json(
            &json!({ "backup": id, "storages": storages, "unknown_in": unknown_in }),
        )?;
    }
    Ok(if incomplete { exit_code(ErrorKind::Incomplete) } else { 0 })
}
