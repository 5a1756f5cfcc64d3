//! A `.env` file, read as data: no shell, no command substitution, no `$VAR`.
//!
//! Why not a crate: those at hand replace `$name` in unquoted values, which silently changes a
//! password that contains a dollar sign, and refuse values with spaces.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::{Error, Result};

/// Reads `NAME=value` lines.
///
/// - Blank lines and lines that start with `#` are skipped; `export ` in front is allowed.
/// - An unquoted value ends at the line's end or at ` #`; spaces around it don't count.
/// - `'...'` is taken as it is. In `"..."`, `\n \r \t \" \\ \$` stand for what they name.
///   Both may span lines.
pub(super) fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let before = rest;
        match assignment(rest) {
            Some((Some((name, value)), after)) => {
                variables.insert(name, value);
                rest = after;
            }
            Some((None, after)) => rest = after,
            None => return Err(wrong(path, line)),
        }
        line += before[..before.len() - rest.len()].matches('\n').count();
    }
    Ok(variables)
}

fn wrong(path: &Path, line: usize) -> Error {
    // The line itself may hold a secret, so it is not shown.
    Error::usage("env file", format!("{}, line {line}: is no NAME=value", path.display()))
        .next_step("write NAME=value, NAME='value' or NAME=\"value\", with quotes that are closed")
}

/// An assignment (or none, for a blank line or a comment) and the text behind its line.
type Line<'a> = (Option<(String, String)>, &'a str);

fn assignment(text: &str) -> Option<Line<'_>> {
    let (first, after) = text.split_once('\n').unwrap_or((text, ""));
    let trimmed = first.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Some((None, after));
    }
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim);
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-');
    if !is_name {
        return None;
    }
    let value = value.trim_start_matches([' ', '\t']);
    let (value, after) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote)?,
        _ => unquoted(value),
    };
    Some((Some((name.to_owned(), value)), after))
}

fn unquoted(text: &str) -> (String, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let comment =
        line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '\t']));
    let value = comment.map_or(line, |(at, _)| &line[..at]);
    (value.trim().to_owned(), after)
}

/// A value up to its closing quote; behind it only a comment may follow.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let (tail, after) = text[at + 1..].split_once('\n').unwrap_or((&text[at + 1..], ""));
            let tail = tail.trim();
            return (tail.is_empty() || tail.starts_with('#')).then_some((value, after));
        }
        if c != '\\' || quote == '\'' {
            value.push(c);
            continue;
        }
        match chars.next()?.1 {
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            known @ ('"' | '\\' | '$') => value.push(known),
            other => value.extend(['\\', other]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Vec<(String, String)> {
        parse(text, Path::new("/app/.env")).unwrap().into_iter().collect()
    }

    #[test]
    fn values_are_data() {
        for (line, value) in [
            ("A=b", "b"),
            ("A = b c ", "b c"),
            ("export A=b", "b"),
            ("A=pa$$word$HOME`id`", "pa$$word$HOME`id`"),
            ("A=postgres://u:p@h/d?options=-c%20x=1", "postgres://u:p@h/d?options=-c%20x=1"),
            ("A=x#y", "x#y"),
            ("A=x # comment", "x"),
            ("A='x # y'", "x # y"),
            ("A='it\\n'", "it\\n"),
            ("A=\"a \\\"b\\\" \\$c \\\\ \\n\"  # comment", "a \"b\" $c \\ \n"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=", ""),
            ("A=''", ""),
            ("A=b\r", "b"),
        ] {
            assert_eq!(get(line), [("A".to_owned(), value.to_owned())], "{line}");
        }
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        assert_eq!(get("\n# A=1\n\n  # B=2\nC=3\n").len(), 1);
    }

    #[test]
    fn a_wrong_line_is_named_without_its_content() {
        for text in ["A=1\nsecret", "A=1\nB='open", "A=1\nB=\"x\" y", "A=1\n9=1"] {
            let error = parse(text, Path::new("/app/.env")).unwrap_err();
            assert_eq!(error.to_string(), "env file: /app/.env, line 2: is no NAME=value");
        }
    }
}
