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
    let has_database = manifest.part(PartRole::Database).is_some();
    let files_of = match manifest.source.server.as_str() {
        "" => "the files".to_owned(),
        host => format!("the files of {host}"),
    };
    let what = if has_database { database } else { &files_of };
    writeln!(out, "# How to restore {what} from backup {}\n", manifest.id)?;
    writeln!(
        out,
        "Made by {} on {}, finished {}.",
        manifest.tool, manifest.host, manifest.finished
    )?;
    if let Some(postgres) = &manifest.postgres {
        writeln!(out, "PostgreSQL server {}, pg_dump {}.", postgres.server, postgres.pg_dump)?;
    }
    let mut short = Vec::new();
    if has_database {
        short.push(format!("`marb-backup restore {} --to postgresql:///{database}`", manifest.id));
    }
    if manifest.part(PartRole::Files).is_some() {
        short.push(format!("`marb-backup restore {} --into FOLDER`", manifest.id));
    }
    writeln!(out, "\nThe short way, with the tool: {}.", short.join(", and "))?;
    writeln!(out, "What follows needs nothing but {}.", programs(manifest).join(", "))?;
    writeln!(out, "Run it with bash, in this folder, in this order.\n")?;

    let mut steps = Steps { out, written: 0 };
    steps.step("Check that every file is whole", &[], "sha256sum -c SHA256SUMS")?;
    prepare(&mut steps, manifest)?;
    if let Some(globals) = manifest.part(PartRole::Globals) {
        let prose = "Roles that the server already has give an error that can be ignored; look at the others.";
        let command = format!("decode {} | psql -X -d postgres", quoted(globals));
        steps.step("Create the roles", &[prose], &command)?;
    }
    if let Some(dump) = manifest.part(PartRole::Database) {
        let prose = [
            "The database is created under its old name, which must be free. If this fails, drop the\n\
             database and start again: what is there is not complete.",
            "To load into another database, create it from template0 and leave out `--create`.",
        ];
        steps.step("Create the database and load it", &prose, &load_command(manifest, dump))?;
        let command = format!("vacuumdb --analyze-only --dbname={}", shell_quoted(database));
        steps.step("Collect statistics for the planner", &[], &command)?;
    }
    if let Some(files) = manifest.part(PartRole::Files) {
        unpack(&mut steps, files)?;
    }
    if !manifest.notes.is_empty() {
        writeln!(out, "## Notes\n")?;
    }
    for line in &manifest.notes {
        writeln!(out, "Note: {line}\n")?;
    }
    Ok(())
}

/// Unpacks the files with GNU tar, into a folder of their own.
fn unpack(steps: &mut Steps<'_>, files: &Part) -> std::fmt::Result {
    let prose = [
        "They go into the folder `restored-files`, below which they lie as they did below `/`. As root\n\
         they get their owners (by name, else by number), modes, times, extended attributes and ACLs.",
        "To put them in place, copy them from there, or write `-C /`: that replaces what is there.",
    ];
    let command = format!(
        "mkdir -m 700 restored-files\n\
         decode {} | tar --xattrs --xattrs-include='*' --acls -xpf - -C restored-files",
        quoted(files)
    );
    steps.step("Unpack the files", &prose, &command)
}

/// The numbered steps: each a heading, what to know, and the commands.
struct Steps<'a> {
    out: &'a mut String,
    written: u32,
}

impl Steps<'_> {
    fn step(&mut self, title: &str, prose: &[&str], commands: &str) -> std::fmt::Result {
        self.written += 1;
        writeln!(self.out, "## {}. {title}\n", self.written)?;
        for paragraph in prose {
            writeln!(self.out, "{paragraph}\n")?;
        }
        writeln!(self.out, "```sh\n{commands}\n```\n")
    }
}

/// Defines `decode FILE`, the inverse of all transforms.
fn prepare(steps: &mut Steps<'_>, manifest: &Manifest) -> std::fmt::Result {
    let Some(part) = manifest.parts.first() else { return Ok(()) };
    let mut pipe: Vec<String> =
        part.transforms.iter().rev().map(|name| inverse(name, part)).collect();
    match pipe.first_mut() {
        Some(first) => first.push_str(" \"$1\""),
        None => pipe.push("cat \"$1\"".to_owned()),
    }
    let opened_with = format!("The files can be opened with: {}.", part.keys.join(", "));
    let mut prose = Vec::new();
    if manifest.is_encrypted() {
        prose.push(&*opened_with);
        prose.push(if by_passphrase(part) {
            "Put the passphrase into a file and its path into `PASSPHRASE_FILE`; its first line counts."
        } else {
            "The private key must be in gpg's keyring: `gpg --import KEYFILE`."
        });
    }
    if manifest.part(PartRole::Database).is_some() {
        prose.push(
            "Set `PGHOST`, `PGPORT`, `PGUSER` and the like to reach the server as a superuser.",
        );
    }
    let commands = format!("set -euo pipefail\ndecode() {{ {}; }}", pipe.join(" | "));
    steps.step("Prepare", &[&prose.join("\n")], &commands)
}

fn inverse(transform: &str, part: &Part) -> String {
    match transform {
        "zstd" => "zstd -q -d -c".to_owned(),
        "gzip" => "gzip -d -c".to_owned(),
        "openpgp" if by_passphrase(part) => {
            "gpg --batch --quiet --pinentry-mode loopback --passphrase-file \
             \"${PASSPHRASE_FILE:?set it to the file that holds the passphrase}\" --decrypt"
                .to_owned()
        }
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
    if manifest.is_encrypted() {
        programs.push("gpg (2.2 or later)".to_owned());
    }
    let uses = |name: &str| manifest.parts.iter().any(|p| p.transforms.iter().any(|t| t == name));
    if uses("zstd") {
        programs.push("zstd".to_owned());
    }
    if uses("gzip") {
        programs.push("gzip".to_owned());
    }
    if manifest.part(PartRole::Database).is_some() {
        programs.push(match &manifest.postgres {
            Some(postgres) => format!("psql and pg_restore ({} or later)", postgres.pg_dump),
            None => "psql and pg_restore".to_owned(),
        });
    }
    if manifest.part(PartRole::Files).is_some() {
        programs.push("GNU tar".to_owned());
    }
    programs
}

/// Whether a passphrase opens it. Labels of passphrases and ids of keys share one list.
fn by_passphrase(part: &Part) -> bool {
    part.keys.iter().any(|key| key == crate::PASSPHRASE_KEY)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn part(role: &str, file: &str, keys: &[&str]) -> serde_json::Value {
        serde_json::json!({
            "file": file, "name": file, "role": role, "transforms": ["zstd", "openpgp"],
            "bytes": 1, "sha256": "0".repeat(64), "keys": keys,
        })
    }

    fn note(parts: &[serde_json::Value], notes: &[&str]) -> String {
        let json = serde_json::json!({
            "format": 1, "id": "20261122T020000Z", "job": "db", "kind": "logical",
            "started": "2026-11-22T02:00:00Z", "finished": "2026-11-22T02:00:09Z",
            "tool": "test 1", "host": "here",
            "source": {"database": "app", "server": "db:5432", "system_identifier": null},
            "parts": parts, "companions": [], "notes": notes,
        });
        restore_note(&serde_json::from_value(json).unwrap())
    }

    /// Heading and text of each section.
    fn sections(note: &str) -> Vec<(&str, &str)> {
        note.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect()
    }

    #[test]
    fn what_to_know_stands_in_the_section_of_its_commands() {
        let parts =
            [part("database", "app.dump", &["passphrase"]), part("globals", "globals.sql", &[])];
        let note = note(&parts, &["the server was a standby"]);
        let wanted = [
            ("1. Check that every file is whole", "sha256sum"),
            ("2. Prepare", "PASSPHRASE_FILE`;"),
            ("3. Create the roles", "Roles that the server already has"),
            ("4. Create the database and load it", "which must be free"),
            ("5. Collect statistics for the planner", "vacuumdb"),
            ("Notes", "the server was a standby"),
        ];
        let found = sections(&note);
        let headings =
            |list: &[(&str, &str)]| list.iter().map(|s| s.0.to_owned()).collect::<Vec<_>>();
        assert_eq!(headings(&found), headings(&wanted));
        for (title, words) in wanted {
            let there: Vec<&str> =
                found.iter().filter(|s| s.1.contains(words)).map(|s| s.0).collect();
            assert_eq!(there, [title], "{words}");
        }
        // After its commands a section says no more.
        assert!(
            found.iter().all(|(title, text)| *title == "Notes" || text.trim_end().ends_with("```"))
        );
    }

    #[test]
    fn steps_are_numbered_without_a_gap() {
        let note = note(&[part("database", "app.dump", &["0123ABCD"])], &[]);
        let numbers: Vec<&str> = sections(&note).iter().map(|s| &s.0[..2]).collect();
        assert_eq!(numbers, ["1.", "2.", "3.", "4."]);
    }

    #[test]
    fn files_alone_need_no_server() {
        let note = note(&[part("files", "config.tar.zst.gpg", &["passphrase"])], &[]);
        let numbers: Vec<&str> = sections(&note).iter().map(|s| s.0).collect();
        let wanted = ["1. Check that every file is whole", "2. Prepare", "3. Unpack the files"];
        assert_eq!(numbers, wanted);
        assert!(!note.contains("PGHOST") && !note.contains("psql"), "{note}");
        assert!(note.contains("needs nothing but gpg (2.2 or later), zstd, GNU tar."), "{note}");
    }

    #[test]
    fn only_the_label_itself_means_a_passphrase() {
        let by_key = note(&[part("database", "app.dump", &["passphrase-of-eve@example.org"])], &[]);
        assert!(by_key.contains("gpg --import") && !by_key.contains("PASSPHRASE_FILE"), "{by_key}");
    }
}
