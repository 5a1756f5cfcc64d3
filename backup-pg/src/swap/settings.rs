//! The settings of a database (`pg_db_role_setting`) as statements for another one.

use serde::Deserialize;

use super::properties::Change;
use crate::sql::{quote_ident, quote_literal};

/// Settings whose value is a list of names, each quoted by itself. PostgreSQL's own list, as in
/// pg_dump's `variable_is_guc_list_quote`.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// The settings of a database, or of a role in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Settings {
    /// `None` for the database as a whole.
    pub role: Option<String>,
    /// `name=value` each.
    pub values: Vec<String>,
}

/// What makes a database with the settings `now` one with the settings `live`.
pub(super) fn setting_changes(live: &[Settings], now: &[Settings], database: &str) -> Vec<Change> {
    let mut all = Vec::new();
    for settings in now.iter().filter(|one| !live.contains(one)) {
        let sql = format!("{} RESET ALL", whose(settings.role.as_deref(), database));
        all.push(Change::new(format!("resetting the {}", settings.described()), sql));
    }
    for settings in live.iter().filter(|one| !now.contains(one)) {
        for (name, value) in settings.values.iter().filter_map(|one| one.split_once('=')) {
            let to = format!(
                "{} SET {} TO {}",
                whose(settings.role.as_deref(), database),
                quote_ident(name),
                setting_value(name, value)
            );
            let what = match &settings.role {
                Some(role) => format!("the setting {name} of {role}"),
                None => format!("the setting {name}"),
            };
            all.push(Change::new(what, to).hiding(value));
        }
    }
    all
}

fn whose(role: Option<&str>, database: &str) -> String {
    match role {
        Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", quote_ident(role)),
        None => format!("ALTER DATABASE {database}"),
    }
}

/// The value as SQL. That of a list is stored with its quotes: quoted once more as a whole it
/// would be one strange name.
fn setting_value(name: &str, value: &str) -> String {
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return quote_literal(value);
    }
    match list_of_names(value) {
        Some(names) if !names.is_empty() => {
            names.iter().map(|name| quote_literal(name)).collect::<Vec<_>>().join(", ")
        }
        _ => quote_literal(value),
    }
}

/// The names of a stored list: `"$user", public, "a ""b"`. `None` when it is none.
fn list_of_names(value: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        names.push(name);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(names)
}

/// What stands before the closing quote, and what follows it.
fn quoted_name(mut rest: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    loop {
        let (piece, after) = rest.split_once('"')?;
        name.push_str(piece);
        let Some(more) = after.strip_prefix('"') else { return Some((name, after)) };
        name.push('"');
        rest = more;
    }
}

impl Settings {
    /// What to call them in a sentence.
    pub fn described(&self) -> String {
        match &self.role {
            Some(role) => format!("settings of {role} in this database"),
            None => "settings of the database".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_quoted_name_by_name() {
        let value = |value| setting_value("Search_Path", value);
        assert_eq!(value(r#""$user", public"#), "'$user', 'public'");
        assert_eq!(value(r#" "a ""b", it's ,"x,y" "#), r#"'a "b', 'it''s', 'x,y'"#);
        assert_eq!(value(r#""""#), "''");
        assert_eq!(value(""), "''");
        // No list at all: as it is, for the server to judge.
        assert_eq!(value(r#""a" b"#), r#"'"a" b'"#);
        assert_eq!(value(r#""a"#), r#"'"a'"#);
        assert_eq!(setting_value("app.list", r#""a", b"#), r#"'"a", b'"#);
    }
}
