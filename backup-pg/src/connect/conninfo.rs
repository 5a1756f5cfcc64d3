//! libpq's `key=value` strings: reading them, and writing them with every value quoted.

use std::collections::BTreeMap;

use backup_core::{Error, Result};

use super::STAGE;

/// The parameters of a `key = 'value'` string, in order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(malformed("a name without \"=\" after it"));
        };
        let (value, after) = read_value(after.trim_start())?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// One value, quoted or bare; a backslash takes the next character literally in both.
fn read_value(text: &str) -> Result<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &body[at..])),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    if quoted { Err(malformed("a value without its closing quote")) } else { Ok((value, "")) }
}

fn malformed(what: &str) -> Error {
    Error::usage(STAGE, format!("the connection string holds {what}"))
        .next_step("write host=... dbname=... user=..., with spaces in a value quoted: 'a value'")
}

/// The string that [`parse`] and libpq read back as these parameters.
pub(super) fn render(parameters: &BTreeMap<String, String>) -> String {
    let quoted = parameters.iter().map(|(name, value)| {
        format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    });
    quoted.collect::<Vec<_>>().join(" ")
}
