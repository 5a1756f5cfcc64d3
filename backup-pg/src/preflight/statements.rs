//! What single statements of an archive want.

use std::collections::BTreeSet;

use crate::Connection;
use crate::archive::TocEntry;
use crate::sql::{Token, TokenKind, words};

/// Kinds of objects that only a superuser may create.
const SUPERUSER_KINDS: &[&str] = &[
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PUBLICATION TABLES IN SCHEMA",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
];

/// Languages whose functions only a superuser may create.
const UNSAFE_LANGUAGES: &[&str] = &["c", "internal"];

/// Whether only a superuser may create the object of an entry.
pub(super) fn needs_superuser(entry: &TocEntry) -> bool {
    if SUPERUSER_KINDS.contains(&entry.desc.as_str()) {
        return true;
    }
    matches!(entry.desc.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE")
        && words(&entry.defn).windows(2).any(|two| match two {
            [language, name] => {
                language.is_keyword("LANGUAGE")
                    && name.name().is_some_and(|name| UNSAFE_LANGUAGES.contains(&&*name))
            }
            _ => false,
        })
}

/// The roles that a `CREATE POLICY .. TO a, b USING (..)` or a
/// `CREATE USER MAPPING FOR a SERVER s` names. `PUBLIC` is none.
pub(super) fn named_roles(statement: &str) -> BTreeSet<String> {
    let found = words(statement);
    let is = |token: &Token<'_>, word: &str| token.kind == TokenKind::Word && token.text == word;
    let mapping = found.get(1).is_some_and(|second| is(second, "USER"));
    let start = if mapping { "FOR" } else { "TO" };
    let mut depth = 0_i32;
    let mut in_list = false;
    let mut names = BTreeSet::new();
    for token in &found {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth > 0 => {}
            _ if is(token, start) => in_list = true,
            _ if ["USING", "WITH", "SERVER", "AS"].iter().any(|end| is(token, end)) => {
                in_list = false;
            }
            _ if in_list && !is(token, "PUBLIC") && !token.text.eq("public") => {
                names.extend(token.name().map(String::from));
            }
            _ => {}
        }
    }
    names
}

/// Whether a `CREATE PUBLICATION` is one for all tables.
pub(super) fn all_tables(statement: &str) -> bool {
    words(statement).windows(3).any(|three| match three {
        [for_, all, tables] => {
            for_.is_keyword("FOR") && all.is_keyword("ALL") && tables.is_keyword("TABLES")
        }
        _ => false,
    })
}

/// The server and database that a `CREATE SUBSCRIPTION .. CONNECTION '..'` subscribes to,
/// without its secrets.
pub(super) fn subscription(statement: &str) -> String {
    let found = words(statement);
    let at = found.iter().position(|token| token.is_keyword("CONNECTION"));
    let text = at.and_then(|at| found.get(at + 1)?.string());
    text.map_or_else(unnamed_server, |text| server_of(&text))
}

/// The server and database of a connection string, without its secrets.
pub(super) fn server_of(connection: &str) -> String {
    connection.parse::<Connection>().map_or_else(|_| unnamed_server(), |parsed| parsed.label())
}

fn unnamed_server() -> String {
    "a server that is not told".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(statement: &str) -> Vec<String> {
        named_roles(statement).into_iter().collect()
    }

    #[test]
    fn policies_and_mappings_name_roles() {
        let policy = "CREATE POLICY p ON public.t AS RESTRICTIVE FOR SELECT TO a, \"B c\" \
            USING ((x IN ( SELECT 'TO' FROM public.u))) WITH CHECK (true)";
        assert_eq!(roles(policy), ["B c", "a"]);
        assert!(roles("CREATE POLICY p ON public.t USING (true)").is_empty());
        assert!(roles("CREATE POLICY p ON public.t TO PUBLIC USING (true)").is_empty());
        let mapping =
            "CREATE USER MAPPING FOR app SERVER far OPTIONS ( \"user\" 'x', password 'FOR y')";
        assert_eq!(roles(mapping), ["app"]);
        assert!(roles("CREATE USER MAPPING FOR PUBLIC SERVER far").is_empty());
        assert!(roles("CREATE USER MAPPING FOR public SERVER far").is_empty());
        assert_eq!(roles("CREATE USER MAPPING FOR \"public x\" SERVER far"), ["public x"]);
    }

    #[test]
    fn a_subscription_tells_its_server_and_no_password() {
        let sql = "CREATE SUBSCRIPTION s CONNECTION 'host=a.b port=5433 dbname=d password=geheim' \
            PUBLICATION p WITH (connect = false, slot_name = 's')";
        assert_eq!(subscription(sql), "a.b:5433/d");
        let url =
            "CREATE SUBSCRIPTION s CONNECTION E'postgresql://u:ge\\'heim@a.b/d' PUBLICATION p";
        assert_eq!(subscription(url), "a.b/d");
        assert!(subscription("CREATE SUBSCRIPTION s").contains("not told"));
    }

    #[test]
    fn a_publication_for_all_tables_is_told() {
        assert!(all_tables("CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')"));
        assert!(!all_tables("CREATE PUBLICATION \"FOR ALL TABLES\" WITH (publish = 'insert')"));
    }
}
