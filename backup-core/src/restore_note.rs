//! `RESTORE.md`: how to get the data back by hand, with stock programs only.
//!
//! The commands are meant to be run as they stand; an integration test does.

use std::fmt::Write as _;

use crate::{Manifest, Part, PartRole};

/// From this version on pg_dump and pg_restore emit `SET transaction_timeout`.
const FIRST_WITH_TRANSACTION_TIMEOUT: u32 = 17;

/// Writes the note that lies beside a backup. Holds no secret and nothing about the data.
pub fn restore_note(manifest: &Manifest) -> String {
    let mut note = String::new();
    // Writing to a String can't fail.
    let _ = write_note(&mut note, manifest);
    note
}

fn write_note(out: &mut String, manifest: &Manifest) -> std::fmt::Result {
    let database = &manifest.source.database;
    writeln!(out, "# How to restore {database} from backup {}\n", manifest.id)?;
    writeln!(out, "Made by {} on {}, finished {}.", manifest.tool, manifest.host, manifest.finished)?;
    if let Some(postgres) = &manifest.postgres {
        writeln!(out, "PostgreSQL server {}, pg_dump {}.", postgres.server, postgres.pg_dump)?;
    }
    writeln!(out, "\nThe short way, with the tool: `marb-backup restore {} --to postgresql:///{database}`.", manifest.id)?;
    writeln!(out, "What follows needs nothing but {}.", programs(manifest).join(", "))?;
    writeln!(out, "Run it with bash, in this folder, in this order.\n")?;

    section(out, "1. Check that every file is whole", "sha256sum -c SHA256SUMS")?;
    prepare(out, manifest)?;
    if let Some(globals) = manifest.part(PartRole::Globals) {
        writeln!(out, "Roles that the server already has give an error that can be ignored; look at the others.\n")?;
        let command = format!("decode {} | psql -X -d postgres", quoted(globals));
        section(out, "3. Create the roles", &command)?;
    }
    if let Some(dump) = manifest.part(PartRole::Database) {
        writeln!(out, "The database is created under its old name, which must be free. If this fails, drop the")?;
        writeln!(out, "database and start again: what is there is not complete.\n")?;
        section(out, "4. Create the database and load it", &load_command(manifest, dump))?;
        writeln!(out, "To load into another database, create it from template0 and leave out `--create`.\n")?;
        section(out, "5. Collect statistics for the planner", &format!("vacuumdb --analyze-only --dbname={}", shell_quoted(database)))?;
    }
    for line in &manifest.notes {
        writeln!(out, "Note: {line}\n")?;
    }
    Ok(())
}

fn section(out: &mut String, title: &str, commands: &str) -> std::fmt::Result {
    writeln!(out, "## {title}\n\n```sh\n{commands}\n```\n")
}

/// Defines `decode FILE`, the inverse of all transforms.
fn prepare(out: &mut String, manifest: &Manifest) -> std::fmt::Result {
    let Some(part) = manifest.parts.first() else { return Ok(()) };
    let mut steps: Vec<String> = part.transforms.iter().rev().map(|name| inverse(name, part)).collect();
    match steps.first_mut() {
        Some(first) => first.push_str(" \"$1\""),
        None => steps.push("cat \"$1\"".to_owned()),
    }
    if is_encrypted(manifest) {
        writeln!(out, "The files can be opened with: {}.", part.keys.join(", "))?;
    }
    if by_passphrase(part) {
        writeln!(out, "Put the passphrase into a file and its path into `PASSPHRASE_FILE`; its first line counts.")?;
    } else if is_encrypted(manifest) {
        writeln!(out, "The private key must be in gpg's keyring: `gpg --import KEYFILE`.")?;
    }
    writeln!(out, "Set `PGHOST`, `PGPORT`, `PGUSER` and the like to reach the server as a superuser.\n")?;
    let commands = format!("set -euo pipefail\ndecode() {{ {}; }}", steps.join(" | "));
    section(out, "2. Prepare", &commands)
}

fn inverse(transform: &str, part: &Part) -> String {
    match transform {
        "zstd" => "zstd -q -d -c".to_owned(),
        "gzip" => "gzip -d -c".to_owned(),
        "openpgp" if by_passphrase(part) => "gpg --batch --quiet --pinentry-mode loopback --passphrase-file \
             \"${PASSPHRASE_FILE:?set it to the file that holds the passphrase}\" --decrypt"
            .to_owned(),
        "openpgp" => "gpg --quiet --decrypt".to_owned(),
        other => format!("undo-{other}"),
    }
}

fn load_command(manifest: &Manifest, dump: &Part) -> String {
    let file = quoted(dump);
    if !needs_filter(manifest) {
        return format!("decode {file} | pg_restore --create --exit-on-error -d postgres");
    }
    // The server does not know a parameter that this pg_restore sets each time it connects.
    // Only that line right behind its neighbour, and only in front of the first row of data, is
    // taken out: a name or a row that looks like it stays.
    format!(
        "decode {file} | pg_restore --create -f - \\\n  \
         | sed '1,/^COPY .* FROM stdin;$/{{/^SET idle_in_transaction_session_timeout = 0;$/{{n;/^SET transaction_timeout = 0;$/d;}};}}' \\\n  \
         | psql -X -q -v ON_ERROR_STOP=1 -d postgres"
    )
}

fn needs_filter(manifest: &Manifest) -> bool {
    let Some(postgres) = &manifest.postgres else { return false };
    let major = |version: &str| -> Option<u32> {
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    match (major(&postgres.pg_dump), major(&postgres.server)) {
        (Some(client), Some(server)) => {
            client >= FIRST_WITH_TRANSACTION_TIMEOUT && server < FIRST_WITH_TRANSACTION_TIMEOUT
        }
        _ => false,
    }
}

fn programs(manifest: &Manifest) -> Vec<String> {
    let mut programs = Vec::new();
    if is_encrypted(manifest) {
        programs.push("gpg (2.2 or later)".to_owned());
    }
    let uses = |name: &str| manifest.parts.iter().any(|p| p.transforms.iter().any(|t| t == name));
    if uses("zstd") {
        programs.push("zstd".to_owned());
    }
    if uses("gzip") {
        programs.push("gzip".to_owned());
    }
    programs.push(match &manifest.postgres {
        Some(postgres) => format!("psql and pg_restore ({} or later)", postgres.pg_dump),
        None => "psql and pg_restore".to_owned(),
    });
    programs
}

fn is_encrypted(manifest: &Manifest) -> bool {
    manifest.parts.iter().any(|part| part.transforms.iter().any(|name| name == "openpgp"))
}

/// Whether a passphrase opens it. Labels of passphrases and ids of keys share one list.
fn by_passphrase(part: &Part) -> bool {
    part.keys.iter().any(|key| key.starts_with(crate::PASSPHRASE_KEY))
}

fn quoted(part: &Part) -> String {
    shell_quoted(&part.file)
}

/// Quotes a word for a POSIX shell.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
