//! `restore` of files: into a folder, or where they were.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use backup_cli::{Deployment, FilesRestoreOptions};
use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, Error, ErrorKind, PartRole, Result};
use backup_files::{Change, FileChange, FilesPlan, FilesTarget};
use serde_json::{Value, json};

use super::super::args::RestoreArgs;
use super::super::output::{self, Style};
use super::super::{Session, exit_code};
use super::steps::Steps;

/// Most changes that a dry run lists by name.
const LISTED: usize = 1_000;

/// Whether this restore is one of files: they are asked for, or the backup holds nothing else.
pub fn are_meant(args: &RestoreArgs, entry: &CatalogEntry) -> bool {
    let has = |role| entry.manifest.part(role).is_some();
    args.files.are_meant() || has(PartRole::Files) && !has(PartRole::Database)
}

/// A tar archive that lies somewhere needs no help to be opened.
pub fn refuse_plain_file() -> Error {
    Error::usage("restore", "files are restored from a backup, not from a plain file")
        .next_step("tar --xattrs --xattrs-include='*' --acls -xpf FILE.tar -C FOLDER")
}

/// Restores files, or says what would be done.
///
/// # Errors
/// The first cause.
pub async fn run(
    args: &RestoreArgs,
    deployment: &Deployment,
    entry: &CatalogEntry,
    session: &Session,
) -> Result<u8> {
    let options = FilesRestoreOptions {
        target: target(args)?,
        paths: args.files.paths.clone(),
        accept_unsigned: args.accept_unsigned,
    };
    let steps = Steps::over(&session.context, &session.common);
    let context = Context { progress: Arc::new(steps), ..session.context.clone() };
    if args.dry_run {
        let show_diff = args.files.show_diff;
        let plan = deployment.plan_files(entry, &options, show_diff, &context).await?;
        print_plan(&plan, entry, &options.target, session)?;
        return Ok(0);
    }
    let started = Instant::now();
    let done = deployment.restore_files(entry, &options, &context).await?;
    let report = &done.report;
    let style = Style::for_stderr();
    for line in &report.unset {
        output::say(&format!("{} could not be set on {line}", style.yellow("incomplete:")));
    }
    if session.common.json {
        output::print_json(&json!({
            "mode": "files", "from": done.from, "into": place(&options.target), "run": done.run,
            "created": report.created, "replaced": report.replaced,
            "unchanged": report.unchanged, "bytes": report.bytes,
            "kept_aside": report.kept_aside, "unset": report.unset,
            "seconds": started.elapsed().as_secs_f64(),
        }))?;
    } else if !session.common.quiet {
        let mut text = format!(
            "{} from {}: {} made, {} replaced, {} as they were, {}\n",
            place(&options.target),
            done.from,
            output::count(report.created),
            output::count(report.replaced),
            output::count(report.unchanged),
            output::duration(started.elapsed()),
        );
        if let Some(first) = report.kept_aside.first() {
            let count = output::count(report.kept_aside.len() as u64);
            text.push_str(&format!("What was replaced is kept, {count} files: {first}\n"));
        }
        output::print(&text)?;
    }
    Ok(if report.unset.is_empty() { 0 } else { exit_code(ErrorKind::Incomplete) })
}

fn target(args: &RestoreArgs) -> Result<FilesTarget> {
    match &args.files.into {
        Some(folder) => Ok(FilesTarget::Folder(folder.clone())),
        None if args.how.in_place => Ok(FilesTarget::InPlace(PathBuf::from("/"))),
        None if args.to.is_some() => Err(Error::usage("restore", "the backup holds no database")
            .next_step("for its files say --into FOLDER, or --in-place")),
        None => Err(Error::usage("restore", "it is not said where the files go")
            .next_step("--into FOLDER, or --in-place for where they were (try --dry-run first)")),
    }
}

fn place(target: &FilesTarget) -> String {
    match target {
        FilesTarget::Folder(folder) => folder.display().to_string(),
        FilesTarget::InPlace(root) => root.display().to_string(),
    }
}

fn print_plan(
    plan: &FilesPlan,
    entry: &CatalogEntry,
    target: &FilesTarget,
    session: &Session,
) -> Result<()> {
    let (created, changed, unchanged) = plan.counts();
    if session.common.json {
        let changes: Vec<Value> =
            plan.changes.iter().filter(|c| is_change(c)).map(as_json).collect();
        return output::print_json(&json!({
            "mode": "files", "from": entry.id.to_string(), "into": place(target),
            "created": created, "changed": changed, "unchanged": unchanged, "changes": changes,
        }));
    }
    let mut text = format!(
        "{} into {}: {} would be made, {} changed, {} stay as they are\n",
        entry.id,
        place(target),
        output::count(created),
        output::count(changed),
        output::count(unchanged)
    );
    for change in plan.changes.iter().filter(|c| is_change(c)).take(LISTED) {
        let (sign, what) = in_words(&change.what);
        text.push_str(&format!("  {sign} {}{what}\n", change.path));
        text.push_str(change.text.as_deref().unwrap_or_default());
    }
    let more = (created + changed).saturating_sub(LISTED as u64);
    if more > 0 {
        text.push_str(&format!("  and {} more; --json names all\n", output::count(more)));
    }
    output::print(&text)
}

fn is_change(change: &FileChange) -> bool {
    change.what != Change::Unchanged
}

fn in_words(what: &Change) -> (&'static str, String) {
    match what {
        Change::Created => ("+", String::new()),
        Change::Unchanged => ("=", String::new()),
        Change::Attributes(list) => ("~", format!(": {}", list.join("; "))),
        Change::Replaced { from, to, attributes } => {
            let content = format!("content, {from} bytes now, {to} in the backup");
            let all: Vec<&str> =
                std::iter::once(&*content).chain(attributes.iter().map(String::as_str)).collect();
            ("~", format!(": {}", all.join("; ")))
        }
    }
}

fn as_json(change: &FileChange) -> Value {
    let (what, attributes, bytes) = match &change.what {
        Change::Created => ("created", &[][..], None),
        Change::Unchanged => ("unchanged", &[][..], None),
        Change::Attributes(list) => ("attributes", &list[..], None),
        Change::Replaced { from, to, attributes } => {
            ("replaced", &attributes[..], Some(json!({ "now": from, "backup": to })))
        }
    };
    json!({
        "path": change.path, "kind": change.kind, "what": what, "attributes": attributes,
        "bytes": bytes, "diff": change.text,
    })
}
