//! `cargo xtask tidy`: what a reader may rely on in every source file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::arrows::LIBRARIES;
use crate::program::root;

/// A file longer than this is two files.
const MAX_LINES: usize = 450;
/// Names that say nothing about the domain.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "manager", "misc"];
/// What only a program may do, and no library: print, read its surroundings, exit.
const FOR_PROGRAMS: [&str; 5] = ["println!", "eprintln!", "env::var", "process::exit", "home_dir"];
/// The core starts no process and opens no connection either.
const NOT_IN_CORE: [&str; 4] = ["process::Command", "std::net", "tokio::net", "tokio::process"];
/// Folders that hold nothing of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// Checks every Rust file of the repository and names all that is wrong.
pub fn check() -> Outcome {
    let mut complaints = Vec::new();
    let files = rust_files(&root());
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.strip_prefix(root()).unwrap_or(file);
        complaints.extend(complaints_about(name, &text));
    }
    if complaints.is_empty() && !files.is_empty() {
        println!("tidy: {} files", files.len());
        return Ok(());
    }
    Err(format!("tidy:\n  {}", complaints.join("\n  ")))
}

fn complaints_about(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut complaints = Vec::new();
    // An inner attribute may stand before the description.
    let first = text.lines().find(|line| !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        complaints.push(format!("{shown}: does not begin with //! and what it is"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        complaints.push(format!("{shown}: {lines} lines, more than {MAX_LINES}"));
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem.split('_').any(|word| EMPTY_NAMES.contains(&word)) {
        complaints.push(format!("{shown}: is not named after the domain"));
    }
    let for_tests = path.iter().any(|part| part.to_string_lossy().contains("test"));
    if LIBRARIES.iter().any(|library| path.starts_with(library)) && !for_tests {
        let more = if path.starts_with("backup-core") { &NOT_IN_CORE[..] } else { &[] };
        // Tests stand at the end of a file.
        for line in text.lines().take_while(|line| !line.contains("#[cfg(test)]")) {
            let code = !line.trim_start().starts_with("//");
            let found = FOR_PROGRAMS.iter().chain(more).find(|word| line.contains(**word));
            if let (true, Some(word)) = (code, found) {
                complaints.push(format!("{shown}: a library does not use {word}"));
            }
        }
    }
    complaints
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let skipped = SKIPPED.iter().any(|name| path.ends_with(name));
        if path.is_dir() && !skipped {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_enforced() {
        let good = "#![forbid(x)]\n//! What it is.\n";
        assert!(complaints_about(Path::new("a/restore.rs"), good).is_empty());
        assert_eq!(complaints_about(Path::new("a/restore.rs"), "use x;\n").len(), 1);
        assert_eq!(complaints_about(Path::new("a/string_utils.rs"), good).len(), 1);
        let reads = format!("{good}fn f() {{ std::env::var(\"HOME\"); }}\n");
        assert_eq!(complaints_about(Path::new("backup-pg/src/a.rs"), &reads).len(), 1);
        assert!(complaints_about(Path::new("backup-cli/src/a.rs"), &reads).is_empty());
        assert!(complaints_about(Path::new("backup-pg/tests/a.rs"), &reads).is_empty());
        let connects = format!("{good}use std::net::TcpStream;\n");
        assert_eq!(complaints_about(Path::new("backup-core/src/a.rs"), &connects).len(), 1);
        assert!(complaints_about(Path::new("backup-pg/src/a.rs"), &connects).is_empty());
        let tested = format!("{good}#[cfg(test)]\nmod tests {{ use std::net::TcpStream; }}\n");
        assert!(complaints_about(Path::new("backup-core/src/a.rs"), &tested).is_empty());
        let long = format!("{good}{}", "\n".repeat(MAX_LINES));
        assert_eq!(complaints_about(Path::new("a/restore.rs"), &long).len(), 1);
    }
}
