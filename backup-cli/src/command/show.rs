//! `show`: one backup, and with `--contents` what is inside.

use backup_core::{
    CatalogEntry, Contents, FileKind, FilesContents, Inventory, LastProof, Pin, Proven, Query,
    Result, SourceIdentity, TableData,
};
use serde_json::json;

use super::args::ShowArgs;
use super::list::entry_json;
use super::output::{self, Table};
use super::{Session, catalog, setup};

/// Shows.
///
/// # Errors
/// When there is no such backup, or its contents can't be opened.
pub async fn run(args: ShowArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let context = &session.context;
    let query = Query::for_backup(args.from.job.as_deref(), &args.id)?;
    let catalog = catalog(&deployment, &query, session).await?;
    let entry = catalog.find(&args.id)?;
    let contents = if args.contents {
        let reader = deployment.reader(entry, context).await?;
        let mut contents = reader.contents(&context.without_progress()).await?;
        // Whoever has it can look for changes that no digest shows: it does not belong on a screen.
        contents.parts.iter_mut().for_each(|part| part.inventory.row_digests = None);
        Some(contents)
    } else {
        None
    };
    // That it can't be read is no reason not to show the rest.
    let pin = deployment.pin_of(entry).await.unwrap_or_else(|error| {
        context.warn(&format!("the reason of the pin can't be read: {error}"));
        None
    });
    if session.common.json {
        let mut document = entry_json(entry);
        if let Some(pin) = &pin {
            document["pin"] = json!(pin);
        }
        if let Some(contents) = &contents {
            document["contents"] = json!(contents);
        }
        output::print_json(&document)?;
    } else {
        let inside = contents.as_ref().map(contents_text).unwrap_or_default();
        output::print(&format!("{}{inside}", entry_text(entry, pin.as_ref())))?;
    }
    Ok(0)
}

/// Of what was taken over nobody knows the server.
fn source(source: &SourceIdentity) -> (&'static str, String) {
    match (source.database.as_str(), source.server.as_str()) {
        ("", "") => ("Files", "of an unknown host".to_owned()),
        ("", host) => ("Files", format!("of {host}")),
        (name, "") => ("Database", format!("{name} at an unknown server")),
        (name, server) => ("Database", format!("{name} at {server}")),
    }
}

fn entry_text(entry: &CatalogEntry, pin: Option<&Pin>) -> String {
    let manifest = &entry.manifest;
    let mut lines = vec![
        ("Backup", manifest.id.clone()),
        ("Job", manifest.job.clone()),
        source(&manifest.source),
        ("Started", output::time(manifest.started)),
        ("Finished", output::time(manifest.finished)),
        ("Made by", format!("{} on {}", manifest.tool, manifest.host)),
    ];
    if let Some(system) = &manifest.source.system_identifier {
        lines.push(("System", system.clone()));
    }
    if let Some(postgres) = &manifest.postgres {
        lines.push((
            "PostgreSQL",
            format!("server {}, pg_dump {}", postgres.server, postgres.pg_dump),
        ));
    }
    if let Some(version) = &manifest.app_version {
        lines.push(("Application", version.clone()));
    }
    let keys = manifest.parts.first().map(|part| part.keys.join(", ")).filter(|k| !k.is_empty());
    lines.push(("Opened by", keys.unwrap_or_else(|| "anyone: it is not encrypted".to_owned())));
    for copy in &entry.copies {
        let state = if copy.damaged_parts.is_empty() {
            "complete".to_owned()
        } else {
            format!("DAMAGED: {}", copy.damaged_parts.join(", "))
        };
        lines.push(("In storage", format!("{}: {state}, folder {}", copy.storage, entry.folder())));
    }
    for storage in &entry.missing_in {
        lines.push(("Missing in", storage.clone()));
    }
    for copy in &entry.copies {
        let verified = last_proof(Proven::by(&copy.proofs).verified);
        lines.push(("Verified", format!("in {}: {verified}", copy.storage)));
    }
    if let Some(pin) = pin {
        let when = output::time(pin.pinned);
        let told = format!("{}, by {} on {}, {when}", pin.reason, pin.by, pin.host);
        // Whoever may write into the storage may have written it: no terminal is to obey it.
        let told = told.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        lines.push(("Pinned", told));
    } else if entry.is_pinned() {
        lines.push(("Pinned", "yes".to_owned()));
    }
    lines.push(("Drilled", last_proof(Proven::of(entry).drilled)));
    for note in &manifest.notes {
        lines.push(("Note", note.clone()));
    }
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect();
    let mut table = Table::new(&["PART", "SIZE", "SHA-256"], &[1]);
    for part in &manifest.parts {
        table.row(vec![part.file.clone(), output::size(part.bytes), part.sha256.clone()]);
    }
    text.push('\n');
    text.push_str(&table.render());
    text
}

fn last_proof(last: Option<LastProof>) -> String {
    match last {
        None => "never".to_owned(),
        Some(last) if last.passed => format!("{}, passed", output::time(last.at)),
        Some(last) => format!("{}, FAILED", output::time(last.at)),
    }
}

fn contents_text(contents: &Contents) -> String {
    let mut text = String::new();
    for part in &contents.parts {
        text.push_str(&format!(
            "\n{}, {} before compression\n",
            part.name,
            output::size(part.bytes)
        ));
        text.push_str(&inventory_text(&part.inventory));
    }
    text
}

fn inventory_text(inventory: &Inventory) -> String {
    let mut text = String::new();
    if let Some(database) = &inventory.database {
        let locale = database.locale.as_deref().unwrap_or("default");
        text.push_str(&format!("  Encoding {}, locale {locale}\n", database.encoding));
    }
    let filters = inventory.filters.iter().flat_map(|filters| filters.leave_out());
    let filters: Vec<String> = filters.map(str::to_owned).collect();
    for (what, names) in
        [("Filters", &filters), ("Roles", &inventory.roles), ("Extensions", &inventory.extensions)]
    {
        if !names.is_empty() {
            text.push_str(&format!("  {what}: {}\n", names.join(", ")));
        }
    }
    if let Some(n) = inventory.large_objects.filter(|n| *n > 0) {
        text.push_str(&format!("  Large objects: {}\n", output::count(n)));
    }
    if !inventory.tables.is_empty() {
        let mut table = Table::new(&["  TABLE", "ROWS", ""], &[1]);
        for entry in &inventory.tables {
            let (rows, remark) = rows(&entry.data);
            table.row(vec![
                format!("  {}.{}", entry.schema, entry.name).replace('\n', "\\n"),
                rows,
                remark,
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text.push_str(&inventory.files.as_ref().map(files_text).unwrap_or_default());
    text
}

fn files_text(files: &FilesContents) -> String {
    let mut text = format!(
        "  {} files of {}, {} folders, {} links\n",
        output::count(files.files),
        output::size(files.bytes),
        output::count(files.directories),
        output::count(files.links),
    );
    let lists = [
        ("Skipped, no file", &files.skipped, files.skipped_count),
        ("Optional, not there", &files.missing, files.missing.len() as u64),
        ("Leads out of the backup", &files.links_outside, files.links_outside.len() as u64),
    ];
    for (what, names, count) in lists {
        text.extend(names.iter().map(|name| format!("  {what}: {name}\n")));
        let more = count.saturating_sub(names.len() as u64);
        if more > 0 {
            text.push_str(&format!("  {what}: {} more\n", output::count(more)));
        }
    }
    let mut table = Table::new(&["  FILE", "MODE", "OWNER", "SIZE"], &[3]);
    for file in &files.listed {
        let target = file.target.as_ref().map(|target| format!(" -> {target}"));
        table.row(vec![
            format!("  /{}{}", file.path, target.unwrap_or_default()),
            format!("{:04o}", file.mode),
            format!("{}:{}", file.owner, file.group),
            match file.kind {
                FileKind::File => output::size(file.bytes),
                FileKind::Directory => "folder".to_owned(),
                _ => "link".to_owned(),
            },
        ]);
    }
    text.push('\n');
    text.push_str(&table.render());
    if files.unlisted > 0 {
        text.push_str(&format!("  and {} more\n", output::count(files.unlisted)));
    }
    text
}

fn rows(data: &TableData) -> (String, String) {
    let none = || "-".to_owned();
    match data {
        TableData::Complete { rows } => (output::count(*rows), String::new()),
        TableData::ExtensionConfiguration { rows } => {
            (output::count(*rows), "filtered by its extension".to_owned())
        }
        TableData::Uncounted => (none(), "not counted".to_owned()),
        TableData::Excluded => (none(), "rows excluded by the job".to_owned()),
        TableData::Partitioned => (none(), "partitioned".to_owned()),
        TableData::NotDumped { kind } => (none(), kind.clone()),
    }
}
