//! `adopt`: what the old scripts wrote becomes backups.

use backup_cli::{AdoptOptions, Adoption, Deployment, Fate, OldFile};
use backup_core::{Error, ErrorKind, Result};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::AdoptArgs;
use super::output::{self, Style, Table};
use super::{Session, error_json, exit_code, setup};

/// Looks at the old files, and takes them over with `--apply`.
///
/// # Errors
/// When folder or storage can't be read.
pub async fn run(args: AdoptArgs, session: &Session) -> Result<u8> {
    let (_, config) = setup::config(&session.common)?;
    let deployment = Deployment::new(config, setup::environment())?;
    let options = AdoptOptions {
        time_zone: time_zone(args.time_zone.as_deref())?,
        folder: args.folder,
        job: args.job,
        files_job: args.files_job,
        storage: args.to,
        apply: args.apply,
    };
    let adoption = deployment.adopt(&options, &session.context).await?;
    for (file, error) in failures(&adoption) {
        output::say(&format!("{} {}: {error}", Style::for_stderr().red("failed:"), file.name));
        if let Some(advice) = error.advice() {
            output::say(&format!("  next:  {advice}"));
        }
    }
    if session.common.json {
        output::print_json(&document(&adoption))?;
    } else if !session.common.quiet {
        output::print(&text(&adoption, &options))?;
    }
    Ok(code(&adoption))
}

fn time_zone(name: Option<&str>) -> Result<TimeZone> {
    let Some(name) = name else { return Ok(TimeZone::system()) };
    TimeZone::get(name).map_err(|e| {
        Error::usage("flags", format!("this host knows no time zone {name:?}"))
            .next_step("write an IANA name, \"Europe/Berlin\" or \"UTC\"")
            .caused_by(e)
    })
}

fn failures(adoption: &Adoption) -> impl Iterator<Item = (&OldFile, &Error)> {
    adoption.files.iter().filter_map(|(file, fate)| match fate {
        Fate::Failed(error) => Some((file, error)),
        _ => None,
    })
}

/// Damage goes before anything else that kept a file from being taken over.
fn code(adoption: &Adoption) -> u8 {
    let damaged = failures(adoption).any(|(_, error)| error.kind() == ErrorKind::Damaged);
    match (damaged, failures(adoption).next()) {
        (true, _) => exit_code(ErrorKind::Damaged),
        (false, Some(_)) => exit_code(ErrorKind::Incomplete),
        (false, None) => 0,
    }
}

fn told(fate: &Fate) -> (&'static str, String) {
    match fate {
        Fate::Whole => ("whole", "can be taken over".to_owned()),
        Fate::Adopted(id) => ("adopted", format!("taken over as {id}")),
        Fate::There(id) => ("there", format!("is backup {id} already")),
        Fate::Other(why) => ("other", format!("stays: it {why}")),
        Fate::Failed(error) => ("failed", format!("stays: {}", error.message())),
    }
}

fn text(adoption: &Adoption, options: &AdoptOptions) -> String {
    if adoption.files.is_empty() {
        return format!("{} holds nothing that the old scripts wrote.\n", options.folder.display());
    }
    let mut table = Table::new(&["FILE", "TIME", "SIZE", ""], &[2]);
    let mut bytes = 0;
    for (file, fate) in &adoption.files {
        let time = output::time(file.time);
        table.row(vec![file.name.clone(), time, output::size(file.bytes), told(fate).1]);
        if matches!(fate, Fate::Whole | Fate::Adopted(_)) {
            bytes += file.bytes;
        }
    }
    let size = output::size(bytes);
    let end = match (options.apply, bytes) {
        (_, 0) => "Nothing is to be taken over.\n".to_owned(),
        (true, _) => {
            format!("{size} copied to {}; the originals are untouched.\n", options.storage)
        }
        (false, _) => format!("Takes {size} in {}. Add --apply to do it.\n", options.storage),
    };
    format!("{}\n{end}", table.render())
}

fn document(adoption: &Adoption) -> Value {
    let files = adoption.files.iter().map(|(file, fate)| {
        let backup = match fate {
            Fate::Adopted(id) | Fate::There(id) => Some(id.to_string()),
            _ => None,
        };
        let error = if let Fate::Failed(error) = fate { Some(error_json(error)) } else { None };
        json!({
            "file": file.name, "time": file.time, "bytes": file.bytes, "fate": told(fate).0,
            "told": told(fate).1, "backup": backup, "error": error,
        })
    });
    json!({ "files": files.collect::<Vec<Value>>() })
}
