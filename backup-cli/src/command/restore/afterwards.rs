//! `restore --rollback`, `--continue` and `--cleanup`.

use std::sync::Arc;

use backup_cli::{Leftover, Recovery, SwapTarget};
use backup_core::pipeline::Context;
use backup_core::{Error, Result};
use backup_pg::swap::CleanupOutcome;
use serde_json::{Value, json};

use super::super::args::RestoreArgs;
use super::super::output::{self, Table};
use super::super::{Session, setup};
use super::{steps::Steps, target};

/// Does what one of the three flags says.
///
/// # Errors
/// The first cause.
pub async fn run(args: &RestoreArgs, session: &Session) -> Result<u8> {
    let deployment = match &args.to {
        Some(_) => setup::for_file(&args.from, &session.common)?,
        None => setup::for_reading(&args.from, &session.common)?,
    };
    let target: SwapTarget = target(args, &deployment, None)?;
    let steps = Steps::over(&session.context, &session.common);
    let context = Context { progress: Arc::new(steps), ..session.context.clone() };
    let dry_run = args.dry_run;
    if args.afterwards.cleanup {
        let items = deployment.clean_up(&target, dry_run, &context).await?;
        return tell_cleanup(&items, session);
    }
    let recovery = if args.afterwards.rollback {
        let run = args.afterwards.run.as_deref().map(str::parse).transpose()?;
        deployment.roll_back(&target, run.as_ref(), dry_run, &context).await?
    } else {
        deployment.go_on(&target, dry_run, &context).await?
    };
    tell(&recovery, dry_run, session)?;
    Ok(0)
}

fn tell(recovery: &Recovery, dry_run: bool, session: &Session) -> Result<()> {
    if session.common.json {
        let mut document = serde_json::to_value(recovery)
            .map_err(|e| Error::failed("output", "can't be written as JSON").caused_by(e))?;
        document["dry_run"] = json!(dry_run);
        return output::print_json(&document);
    }
    if session.common.quiet && !dry_run {
        return Ok(());
    }
    let would = if dry_run { "would be: " } else { "" };
    output::print(&match recovery {
        Recovery::PutBack { run, failed: Some(failed), window } => {
            let window = window.map_or_else(String::new, |(from, to)| {
                format!(": it alone holds what was written from {from:.0} to {to:.0}")
            });
            format!(
                "{would}restore {run} is undone, the old database is back.\n\
                 The new one stays, closed, as {failed}{window}.\n"
            )
        }
        Recovery::PutBack { run, failed: None, .. } => {
            format!("{would}restore {run} is undone; it had not swapped yet.\n")
        }
        Recovery::Confirmed { run, before } => format!(
            "{would}restore {run} is finished, the new database is live.\n\
             The old one stays, closed, as {before}.\n"
        ),
        Recovery::Started { run } => {
            format!("{would}restore {run} left nothing to undo; the services are started.\n")
        }
    })
}

fn tell_cleanup(items: &[Leftover], session: &Session) -> Result<u8> {
    let failed = items.iter().any(|item| matches!(item.outcome, CleanupOutcome::Failed(_)));
    let code = u8::from(failed);
    if session.common.json {
        let databases: Vec<Value> = items.iter().map(as_json).collect();
        return output::print_json(&json!({ "databases": databases })).map(|()| code);
    }
    if items.is_empty() {
        return output::print("No restore has left anything.\n").map(|()| code);
    }
    let mut table = Table::new(&["DATABASE", "SIZE", "OUTCOME"], &[1]);
    for item in items {
        table.row(vec![
            item.database.clone(),
            item.bytes.map_or_else(|| "?".to_owned(), output::size),
            outcome(item),
        ]);
    }
    output::print(&table.render()).map(|()| code)
}

fn outcome(item: &Leftover) -> String {
    let window = match item.window {
        Some((from, to)) => {
            format!(
                "; it alone holds what was written from {from:.0} to {to:.0}, and no backup does"
            )
        }
        None => String::new(),
    };
    format!("{}{window}", what_happens(&item.outcome))
}

fn what_happens(outcome: &CleanupOutcome) -> String {
    match outcome {
        CleanupOutcome::Drop => "would be dropped".to_owned(),
        CleanupOutcome::Dropped { subscriptions, slots } => {
            let mut said = "dropped".to_owned();
            for (what, names) in [("subscriptions", subscriptions), ("slots", slots)] {
                if !names.is_empty() {
                    said.push_str(&format!(", with its {what} {}", names.join(", ")));
                }
            }
            said
        }
        CleanupOutcome::Kept(why) => format!("kept: {why}"),
        CleanupOutcome::Failed(why) => format!("FAILED: {why}"),
    }
}

fn as_json(item: &Leftover) -> Value {
    let (outcome, detail) = match &item.outcome {
        CleanupOutcome::Drop => ("drop", Value::Null),
        CleanupOutcome::Dropped { subscriptions, slots } => {
            ("dropped", json!({ "subscriptions": subscriptions, "slots": slots }))
        }
        CleanupOutcome::Kept(why) => ("kept", json!(why)),
        CleanupOutcome::Failed(why) => ("failed", json!(why)),
    };
    json!({
        "database": item.database, "run": item.run, "bytes": item.bytes,
        "outcome": outcome, "detail": detail,
        "window": item.window.map(|(from, to)| json!({ "from": from, "to": to })),
    })
}
