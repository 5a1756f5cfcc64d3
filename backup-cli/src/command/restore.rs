//! `restore`: brings a database back, into a new or an empty one.

use std::path::Path;
use std::time::Instant;

use backup_cli::{RestoreOptions, RestoreSummary};
use backup_core::{Error, Query, Result};
use serde_json::json;

use super::args::RestoreArgs;
use super::output::{self, Style};
use super::verify::names_a_file;
use super::{Session, catalog, setup};

/// Restores.
///
/// # Errors
/// The first cause. A database that was made for it is gone again then; an empty one is empty.
pub async fn run(args: RestoreArgs, session: &Session) -> Result<u8> {
    let options = options(&args)?;
    let started = Instant::now();
    let summary = if names_a_file(&args.what) {
        let deployment = setup::for_file(&args.from, &session.common)?;
        deployment.restore_file(Path::new(&args.what), &options, &session.context).await?
    } else {
        let deployment = setup::for_reading(&args.from, &session.common)?;
        let query = Query::for_backup(args.from.job.as_deref(), &args.what)?;
        let catalog = catalog(&deployment, &query, session).await?;
        deployment.restore(catalog.find(&args.what)?, &options, &session.context).await?
    };
    tell(&summary, started.elapsed(), session)?;
    Ok(0)
}

fn options(args: &RestoreArgs) -> Result<RestoreOptions> {
    let pair = |text: &String| match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => Err(Error::usage("flags", format!("--tablespace {text:?} is no OLD=NEW"))),
    };
    Ok(RestoreOptions {
        target: setup::url_value(&args.to)?,
        globals: !args.no_globals,
        tablespaces: args.tablespaces.iter().map(pair).collect::<Result<_>>()?,
        no_tablespaces: args.no_tablespaces,
        accept_unsigned: args.accept_unsigned,
    })
}

fn tell(summary: &RestoreSummary, took: std::time::Duration, session: &Session) -> Result<()> {
    let style = Style::for_stderr();
    for note in &summary.notes {
        eprintln!("{} {note}", style.yellow("note:"));
    }
    if session.common.json {
        return output::print_json(&json!({
            "from": summary.from, "database": summary.database, "created": summary.created,
            "tables_compared": summary.tables_compared, "rows_compared": summary.rows_compared,
            "roles_created": summary.roles_created, "notes": summary.notes,
            "seconds": took.as_secs_f64(),
        }));
    }
    if session.common.quiet {
        return Ok(());
    }
    output::print(&format!(
        "{} from {}: {} tables compared, {} rows{}, {}\n",
        summary.database,
        summary.from,
        output::count(summary.tables_compared),
        output::count(summary.rows_compared),
        if summary.not_compared == 0 {
            ", all there".to_owned()
        } else {
            format!(", all there; {} tables not compared", output::count(summary.not_compared))
        },
        output::duration(took)
    ))
}
