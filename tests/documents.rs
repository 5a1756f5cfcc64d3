//! What the documents say is so: commands and flags are understood, configurations are read,
//! files are there, the example of README.md compiles.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_cli::config::Config;

use crate::support::program;

/// What begins as a call does and is none: the text that a file source's identity is made of.
const NO_CALL: &str = "marb-backup files source";

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A document by its name, with its text.
struct Document {
    name: String,
    text: String,
}

/// Everything a user or a developer reads, but for the decisions of earlier days.
fn documents() -> Vec<Document> {
    let named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let more = std::fs::read_dir(root().join("docs")).unwrap();
    let more = more.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    let names = named.map(str::to_owned).into_iter().chain(more);
    let names = names.filter(|name| name.ends_with(".md"));
    names
        .map(|name| {
            let text = std::fs::read_to_string(root().join(&name)).unwrap();
            Document { name, text }
        })
        .collect()
}

impl Document {
    /// The blocks of a language, and between them everything else.
    fn blocks(&self, language: &str) -> impl Iterator<Item = &str> {
        let fence = format!("```{language}\n");
        let parts: Vec<&str> = self.text.split(&fence).skip(1).collect();
        parts.into_iter().map(|part| part.split("```").next().unwrap())
    }

    /// What stands between backticks within a line.
    fn quoted(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines().filter(|line| !line.starts_with("```"));
        lines.flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// The calls of the program, as somebody would type them.
    fn calls(&self) -> Vec<String> {
        let typed = ["sh", "console"].into_iter().flat_map(|language| self.blocks(language));
        let typed: Vec<String> = typed.map(|block| block.replace("\\\n", " ")).collect();
        let lines = typed.iter().flat_map(|block| block.lines());
        let lines = lines.map(|line| line.trim_start_matches("$ "));
        // Behind a pipe or a redirection it is another program's; behind these a comment.
        let ends = [" | ", " > ", " # ", "    "];
        lines
            .chain(self.quoted())
            .filter(|line| line.starts_with("marb-backup ") && !line.contains(" VERB"))
            .filter(|line| *line != NO_CALL)
            .map(|line| ends.iter().fold(line, |line, end| line.split(end).next().unwrap()))
            .map(|line| line.replace('|', " ").trim_end_matches("...").to_owned())
            .collect()
    }
}

#[test]
fn every_call_is_understood() {
    let mut seen = 0;
    for document in documents() {
        for call in document.calls() {
            // Help comes after what stands before it was understood, and nothing is done.
            let shell =
                format!("marb-backup() {{ '{}' \"$@\" --help; }}; {call}", program().display());
            let done = Command::new("bash").args(["-euc", &shell]).output().unwrap();
            let told = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{}: {call}: {told}", document.name);
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} calls were found");
}

#[test]
fn every_flag_is_there() {
    let help = |verb: &str| {
        let done = Command::new(program()).args([verb, "--help"]).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let main = help("--help");
    let verbs = main.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs =
        verbs.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let all: String = verbs.map(help).collect();
    // Of the benchmark, and of a hook.
    let foreign = ["--rounds", "--token"];
    for document in documents() {
        for quoted in document.quoted().filter(|quoted| quoted.starts_with("--")) {
            let flag: &str = quoted.split([' ', '=']).next().unwrap();
            let known = foreign.contains(&flag)
                || all.contains(&format!("{flag} "))
                || all.contains(&format!("{flag}\n"));
            assert!(known, "{}: {quoted}", document.name);
        }
    }
}

/// A block with what it leaves to the rest of a configuration.
fn completed(block: &str) -> String {
    let job = "[job.database]\npostgres = { url = 'x' }\nstorages = ['local']\n";
    let mut text = block.to_owned();
    if !block.contains("storages =") {
        text = text.replace("[job.database]\n", job);
        if block.contains("[job.database.") {
            text.push_str(job);
        }
    }
    for (section, keys) in [
        ("[encryption]\n", "passphrase = 'x'\n"),
        ("[storage.local]\n", "url = 'file:///backups'\n"),
        ("[storage.offsite]\n", "url = 's3://bucket'\n"),
    ] {
        if !block.contains(section) {
            text.push_str(section);
            text.push_str(keys);
        }
    }
    text
}

#[test]
fn every_configuration_is_read() {
    let mut read = 0;
    for document in documents() {
        // How cargo is told of the library is none of ours.
        for block in document.blocks("toml").filter(|block| !block.contains("default-features")) {
            let config = Config::parse(&completed(block));
            assert!(config.is_ok(), "{}: {block}\n{:?}", document.name, config.err());
            read += 1;
        }
    }
    assert!(read > 7, "only {read} configurations were found");
}

#[test]
fn every_file_is_there() {
    let folders = ["backup-", "docs/", "tests/", "examples/", "xtask/"];
    for document in documents() {
        let folder = root().join(&document.name).parent().unwrap().to_owned();
        let links =
            document.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(folder.join(link).exists(), "{}: {link}", document.name);
        }
        let paths =
            document.quoted().filter(|quoted| quoted.contains('/') && !quoted.contains(' '));
        for path in paths.filter(|path| folders.iter().any(|start| path.starts_with(start))) {
            assert!(root().join(path).exists(), "{}: {path}", document.name);
        }
    }
}

/// What README.md shows of the library: the same lines.
async fn example() -> Result<(), Box<dyn std::error::Error>> {
    use backup_cli::config::{Config, Environment, Value};
    use backup_cli::{Deployment, RestoreOptions};
    use backup_core::{Query, pipeline::Context};

    let environment = Environment::new(std::env::vars_os());
    let deployment = Deployment::new(Config::read("marb-backup.toml".as_ref())?, environment)?;
    let context = Context::default(); // cancellation and progress

    let made = deployment.backup("database", false, &context).await?;
    println!("{} is in {}", made.manifest.id, made.stored_in.join(", "));

    let job = Query { job: Some("database"), ..Query::default() };
    let catalog = deployment.catalog(&job).await?;
    let target = Value::Literal("postgresql:///claims_restored".into());
    let options = RestoreOptions::into_database(target);
    let back = deployment.restore(catalog.find("latest")?, &options, &context).await?;
    println!("{} rows of {} tables are back", back.rows_compared, back.tables_compared);
    Ok(())
}

#[test]
fn the_example_is_the_one_that_compiles() {
    drop(example());
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let ours = include_str!("documents.rs");
    let (_, ours) = ours.split_once("async fn example()").unwrap();
    let (_, ours) = ours.split_once("{\n").unwrap();
    let (ours, _) = ours.split_once("    Ok(())\n}").unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, shown) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    assert_eq!(words(shown), words(ours));
}
