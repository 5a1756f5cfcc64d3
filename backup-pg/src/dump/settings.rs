//! The settings that the text of a row depends on: the same for a dump and for the one that it
//! is compared with.
//!
//! pg_dump itself sets `DateStyle`, `IntervalStyle`, `extra_float_digits` and `search_path`.
//! The time zone is set here, to one that every server has, and the encoding to the database's
//! own. The others stay as they are and are written down: a dump must be readable by a plain
//! pg_restore, and one whose amounts of money were written for another `lc_monetary` than the
//! database's own is not (`1.234,56 €` is read as something else, or not at all).

use std::collections::BTreeMap;

use backup_core::Result;

use crate::{Connection, Psql};

/// Built into the server: it needs no time zone files.
pub(super) const TIME_ZONE: &str = "GMT";

/// libpq's variable for it. Unlike `options`, connection poolers let it pass.
pub(super) const TIME_ZONE_VARIABLE: &str = "PGTZ";

/// What is written down, and set again for a comparison.
const RECORDED: [&str; 3] = ["bytea_output", "lc_monetary", "quote_all_identifiers"];

/// What the server says of them to this login.
pub(super) async fn ask(psql: &Psql) -> Result<BTreeMap<String, String>> {
    let pairs = RECORDED.map(|name| format!("'{name}', pg_catalog.current_setting('{name}')"));
    psql.query_json(&format!("select pg_catalog.json_build_object({})", pairs.join(", "))).await
}

/// The connection, with the settings that a backup's text depends on as they were when it was
/// made ([`RowDigests::settings`](backup_core::RowDigests::settings)): for reading that text,
/// and for writing the same. Any other name in `settings` is left alone: it comes from a backup,
/// and would be a way to set what it likes.
pub fn with_recorded_settings(
    connection: &Connection,
    settings: &BTreeMap<String, String>,
) -> Connection {
    let mut options = connection.parameter("options").unwrap_or_default().to_owned();
    for (name, value) in settings.iter().filter(|(name, _)| RECORDED.contains(&name.as_str())) {
        // In `options` a space ends a word and a backslash takes the next character as it is.
        let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
        options.push_str(&format!(" -c {name}={escaped}"));
    }
    if options.is_empty() {
        connection.clone()
    } else {
        connection.with_public("options", options.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_join_the_options_that_are_there() {
        let connection: Connection =
            "host=db options='-c work_mem=1MB' dbname=claims".parse().unwrap();
        let settings = [("bytea_output", "escape"), ("lc_monetary", "a b\\c"), ("role", "x")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let set = with_recorded_settings(&connection, &settings);
        let expected = r"-c work_mem=1MB -c bytea_output=escape -c lc_monetary=a\ b\\c";
        assert_eq!(set.parameter("options"), Some(expected));
        assert_eq!(set.database(), Some("claims"));
        let plain: Connection = "host=db".parse().unwrap();
        assert_eq!(with_recorded_settings(&plain, &BTreeMap::new()).parameter("options"), None);
    }
}
