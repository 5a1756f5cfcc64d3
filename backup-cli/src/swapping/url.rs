//! A connection string for another database, as the application would spell it.

use backup_core::{Error, Result};
use backup_pg::Connection;
use secrecy::{ExposeSecret, SecretString};

/// The same connection string with another database, in the same spelling: a migration tool
/// wants `postgresql+asyncpg://` where the application has it.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when the text can't be understood; it is
/// never repeated.
pub(crate) fn with_database(text: &SecretString, name: &str) -> Result<SecretString> {
    let text = text.expose_secret().trim();
    let wanted = text.parse::<Connection>()?.with_database(name);
    // Secrets are the same whenever everything else is: the places are cut at the same marks.
    let same = |other: &String| {
        other.parse::<Connection>().is_ok_and(|other| format!("{other:?}") == format!("{wanted:?}"))
    };
    let found = candidates(text, name).into_iter().find(same).ok_or_else(|| {
        Error::usage("connection", "the database in the connection string can't be replaced")
            .next_step("write it as postgresql://user@host:5432/database")
    })?;
    Ok(SecretString::from(found))
}

/// The password of a URL as it stands there: it must not be seen in anybody's output.
pub(crate) fn password(text: &SecretString) -> Option<SecretString> {
    let (_, rest) = text.expose_secret().split_once("://")?;
    let (login, _) = rest.split_once('@')?;
    let (_, password) = login.split_once(':')?;
    Some(SecretString::from(password.to_owned()))
}

/// What the text could look like with the database `name`, the likeliest first.
fn candidates(text: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some((scheme, rest)) = text.split_once("://") {
        let encoded = percent_encoded(name);
        let after_login = rest.find('@').map(|at| at + 1);
        for start in after_login.into_iter().chain([0]) {
            let (login, place) = rest.split_at(start);
            let (hosts, query) = match place.find('?') {
                Some(at) => place.split_at(at),
                None => (place, ""),
            };
            let hosts = hosts.split('/').next().unwrap_or_default();
            found.push(format!("{scheme}://{login}{hosts}/{encoded}{query}"));
        }
        let joint = if rest.contains('?') { '&' } else { '?' };
        found.push(format!("{text}{joint}dbname={encoded}"));
    }
    let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
    found.push(format!("{text} dbname='{quoted}'"));
    found.push(format!("dbname='{quoted}'"));
    found
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, name: &str) -> String {
        let text = SecretString::from(text.to_owned());
        with_database(&text, name).unwrap().expose_secret().to_owned()
    }

    #[test]
    fn every_spelling_keeps_its_own() {
        for (text, expected) in [
            ("postgresql://u:p@h:5433/old", "postgresql://u:p@h:5433/new"),
            (
                "postgresql+asyncpg://u:p%2F@h/old?ssl=require",
                "postgresql+asyncpg://u:p%2F@h/new?ssl=require",
            ),
            ("postgresql+psycopg2://u:p/w@h/old", "postgresql+psycopg2://u:p/w@h/new"),
            ("postgresql:///old?options=-c%20a@b", "postgresql:///new?options=-c%20a@b"),
            ("postgresql://u:p@h", "postgresql://u:p@h/new"),
            ("postgresql://u@/old?host=/run/pg", "postgresql://u@/new?host=/run/pg"),
            ("postgresql://h/a?dbname=old", "postgresql://h/new?dbname=old&dbname=new"),
            ("host=h dbname=old user=u", "host=h dbname=old user=u dbname='new'"),
            ("old", "dbname='new'"),
        ] {
            // The query's own `dbname` wins over the path, so it must be overruled.
            let new = replaced(text, "new");
            if text.contains("?dbname") {
                assert!(new.ends_with("dbname=new"), "{new}");
                assert_eq!(new.parse::<Connection>().unwrap().database(), Some("new"));
            } else {
                assert_eq!(new, expected);
            }
        }
        let hostile = "hostile \"db\" 'x' ü/?@";
        for text in ["postgresql://u:p@h/old", "host=h password=x dbname=old"] {
            let connection: Connection = replaced(text, hostile).parse().unwrap();
            assert_eq!(connection.database(), Some(hostile));
            assert_eq!(connection.parameter("host"), Some("h"));
        }
    }

    #[test]
    fn what_is_no_connection_is_refused_without_being_shown() {
        let text = SecretString::from("mysql://u:hunter2@h/db".to_owned());
        let error = with_database(&text, "new").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_is_found() {
        let of = |text: &str| {
            let found = password(&SecretString::from(text.to_owned()));
            found.map(|found| found.expose_secret().to_owned())
        };
        assert_eq!(of("postgresql://u:a%40b@h/x").as_deref(), Some("a%40b"));
        assert_eq!(of("postgresql://u@h/x"), None);
        assert_eq!(of("host=h"), None);
    }
}
