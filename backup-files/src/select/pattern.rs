//! One pattern, and what it finds.
//!
//! Part by part, so that names that are no UTF-8 and hidden ones are found as well: a backup must
//! not lack `.env` because of a rule for typing.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};

/// Characters that make a pattern of a name.
const SPECIAL: [char; 5] = ['*', '?', '[', '{', '\\'];
/// Stands for any number of folders.
const ANY_DEPTH: &str = "**";

/// Looks whether it is a pattern.
pub(super) fn check(text: &str) -> Result<()> {
    let wrong = |message: &str, advice: &str| {
        Err(Error::usage("files", format!("{text:?} {message}")).next_step(advice.to_owned()))
    };
    if !text.starts_with('/') {
        return wrong("is no absolute path", "begin it with a slash");
    }
    let mut parts = parts(text).peekable();
    if parts.peek().is_none() {
        return wrong("is the whole system", "name the folders with the configuration");
    }
    for part in parts {
        if part == ".." || part == "." {
            return wrong("goes back on its way", "write the path without \"..\" and \".\"");
        }
        if part.contains(SPECIAL) {
            matcher(part)?;
        }
    }
    Ok(())
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split('/').filter(|part| !part.is_empty())
}

pub(crate) fn matcher(text: &str) -> Result<GlobMatcher> {
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|e| {
        Error::usage("files", format!("{text:?} is no pattern"))
            .caused_by(e)
            .next_step("write \\* for a star in a name; a { } must not reach over a slash")
    })
}

/// What a pattern finds; a link for itself. What there is must also be readable: `unreadable`
/// gets each folder that is not.
pub(super) fn expand(text: &str, unreadable: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    check(text)?;
    // A name may hold a star: what is there by this very name is meant.
    let literal = Path::new(text);
    match literal.symlink_metadata() {
        Ok(_) => return Ok(vec![literal.components().collect()]),
        Err(e) if is_absent(&e) => {}
        Err(e) => {
            unreadable.push(format!("{text} ({e})"));
            return Ok(Vec::new());
        }
    }
    let mut found = vec![PathBuf::from("/")];
    for part in parts(text) {
        let mut next = Vec::new();
        for folder in &found {
            if part == ANY_DEPTH {
                folders_below(folder, &mut next, unreadable);
            } else if part.contains(SPECIAL) {
                let matcher = matcher(part)?;
                let names = names(folder, unreadable);
                next.extend(
                    names
                        .filter(|path| path.file_name().is_some_and(|name| matcher.is_match(name))),
                );
            } else {
                next.push(folder.join(part));
            }
        }
        found = next;
    }
    found.retain(|path| match path.symlink_metadata() {
        Ok(_) => true,
        Err(e) if is_absent(&e) => false,
        Err(e) => {
            unreadable.push(format!("{} ({e})", path.display()));
            false
        }
    });
    Ok(found)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), Io::NotFound | Io::NotADirectory)
}

fn names(folder: &Path, unreadable: &mut Vec<String>) -> impl Iterator<Item = PathBuf> + use<> {
    let mut names = Vec::new();
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => names.push(entry.path()),
                    Err(e) => unreadable.push(format!("{} ({e})", folder.display())),
                }
            }
        }
        Err(e) if is_absent(&e) => {}
        Err(e) => unreadable.push(format!("{} ({e})", folder.display())),
    }
    names.into_iter()
}

/// The folder itself and all below, without following links.
fn folders_below(folder: &Path, found: &mut Vec<PathBuf>, unreadable: &mut Vec<String>) {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let inner = names(&folder, unreadable);
        open.extend(inner.filter(|p| p.symlink_metadata().is_ok_and(|look| look.is_dir())));
        found.push(folder);
    }
}
