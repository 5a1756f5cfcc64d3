//! The roles that an archive names: found, and replaced by others.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::Toc;
use crate::sql::{Token, TokenKind, quote_ident, statements, words};

/// Old name to new name; names that are not in it stay.
pub(super) type RoleMap = BTreeMap<String, String>;

/// The roles that a restore of these entries needs: owners, and those that grants, policies and
/// user mappings name. Without owners only the last two.
pub(super) fn needed_roles(toc: &Toc, no_owners: bool) -> BTreeSet<String> {
    let mut roles = BTreeSet::new();
    for entry in &toc.entries {
        if !no_owners && !entry.owner.is_empty() {
            roles.insert(entry.owner.clone());
        }
        if no_owners && matches!(entry.desc.as_str(), "ACL" | "DEFAULT ACL") {
            continue;
        }
        // A setting that can't be made is told; it is no reason not to restore.
        if entry.desc == "DATABASE PROPERTIES" {
            continue;
        }
        for statement in statements(&entry.defn) {
            roles.extend(named(&entry.desc, statement).iter().filter_map(name));
        }
    }
    roles
}

/// Puts other roles wherever the archive names one: owners, grantees, those whose default
/// rights or settings they are, policies, user mappings.
pub(super) fn map_roles(toc: &mut Toc, map: &RoleMap) {
    if map.is_empty() {
        return;
    }
    for entry in &mut toc.entries {
        if let Some(new) = map.get(&entry.owner) {
            entry.owner.clone_from(new);
        }
        entry.defn = mapped(&entry.desc, &entry.defn, map);
        entry.drop_stmt = mapped(&entry.desc, &entry.drop_stmt, map);
    }
}

/// Those of the old names that no entry has.
pub(super) fn unknown_roles<'a>(toc: &Toc, map: &'a RoleMap) -> Vec<&'a str> {
    let mut known = needed_roles(toc, false);
    for entry in toc.of_kind("DATABASE PROPERTIES") {
        known.extend(
            statements(&entry.defn).flat_map(|s| named(&entry.desc, s)).filter_map(|t| name(&t)),
        );
    }
    map.keys().map(String::as_str).filter(|old| !known.contains(*old)).collect()
}

fn mapped(desc: &str, sql: &str, map: &RoleMap) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut kept = 0;
    for statement in statements(sql) {
        // Statements are pieces of the text they are cut from.
        let base = statement.as_ptr() as usize - sql.as_ptr() as usize;
        for token in named(desc, statement) {
            let Some(new) = name(&token).and_then(|old| map.get(&old)) else { continue };
            let start = base + token.start;
            out.push_str(&sql[kept..start]);
            out.push_str(&quote_ident(new));
            kept = start + token.text.len();
        }
    }
    out.push_str(&sql[kept..]);
    out
}

fn name(token: &Token<'_>) -> Option<String> {
    token.name().map(String::from)
}

/// The tokens of a statement that name a role, in their order. pg_dump writes keywords in
/// capitals and quotes names that look like one.
fn named<'a>(desc: &str, statement: &'a str) -> Vec<Token<'a>> {
    let found = match desc {
        "ACL" | "DEFAULT ACL" | "POLICY" | "USER MAPPING" | "DATABASE PROPERTIES" => {
            words(statement)
        }
        _ => return Vec::new(),
    };
    let roles = match desc {
        "POLICY" => of_policy(&found),
        "USER MAPPING" => behind(&found, &["MAPPING", "FOR"]),
        // CREATE and DROP .. IF EXISTS alike.
        "DATABASE PROPERTIES" => behind(&found, &["ALTER", "ROLE"]),
        _ => of_grant(&found),
    };
    roles.into_iter().filter(|token| !is(token, "PUBLIC")).collect()
}

fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == TokenKind::Word && token.text == word
}

/// The word behind each place where these two follow each other.
fn behind<'a>(found: &[Token<'a>], pair: &[&str; 2]) -> Vec<Token<'a>> {
    let at = |three: &&[Token<'a>]| is(&three[0], pair[0]) && is(&three[1], pair[1]);
    found.windows(3).filter(at).map(|three| three[2]).collect()
}

/// `GRANT .. TO a, b WITH GRANT OPTION`, `REVOKE .. FROM a`, `ALTER DEFAULT PRIVILEGES FOR ROLE a`,
/// `SET SESSION AUTHORIZATION a`.
fn of_grant<'a>(found: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut roles = behind(found, &["FOR", "ROLE"]);
    roles.extend(behind(found, &["SESSION", "AUTHORIZATION"]));
    let list = found.iter().rposition(|token| is(token, "TO") || is(token, "FROM"));
    let list = found.get(list.map_or(found.len(), |at| at + 1)..).unwrap_or_default();
    for token in list {
        if ["WITH", "GRANTED", "CASCADE"].iter().any(|word| is(token, word)) {
            break;
        }
        if !is(token, "GROUP") && token.name().is_some() {
            roles.push(*token);
        }
    }
    roles.extend(behind(list, &["GRANTED", "BY"]));
    roles
}

/// `CREATE POLICY p ON t AS RESTRICTIVE FOR SELECT TO a, b USING (..) WITH CHECK (..)`.
fn of_policy<'a>(found: &[Token<'a>]) -> Vec<Token<'a>> {
    let starts = |token: &Token<'_>| is(token, "USING") || is(token, "WITH");
    let head = found.split(starts).next().unwrap_or_default();
    let Some(to) = head.iter().rposition(|token| is(token, "TO")) else { return Vec::new() };
    head[to + 1..].iter().filter(|token| token.name().is_some()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> RoleMap {
        pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect()
    }

    #[test]
    fn roles_are_replaced_and_nothing_else() {
        let names = map(&[("bob", "new \"bob"), ("TO", "to2"), ("public", "never"), ("x y", "z")]);
        for (desc, sql, wanted) in [
            (
                "ACL",
                "REVOKE ALL ON TABLE public.bob FROM bob;\nSET SESSION AUTHORIZATION bob;\n\
                 GRANT SELECT(bob) ON TABLE bob.bob TO eve, \"TO\", bob WITH GRANT OPTION;\n\
                 GRANT ALL ON SCHEMA bob TO PUBLIC;\n",
                "REVOKE ALL ON TABLE public.bob FROM \"new \"\"bob\";\nSET SESSION AUTHORIZATION \"new \"\"bob\";\n\
                 GRANT SELECT(bob) ON TABLE bob.bob TO eve, \"to2\", \"new \"\"bob\" WITH GRANT OPTION;\n\
                 GRANT ALL ON SCHEMA bob TO PUBLIC;\n",
            ),
            (
                "DEFAULT ACL",
                "ALTER DEFAULT PRIVILEGES FOR ROLE bob IN SCHEMA bob GRANT SELECT ON TABLES TO \"x y\";",
                "ALTER DEFAULT PRIVILEGES FOR ROLE \"new \"\"bob\" IN SCHEMA bob GRANT SELECT ON TABLES TO \"z\";",
            ),
            (
                "POLICY",
                "CREATE POLICY bob ON a.bob FOR SELECT TO bob, eve USING ((owner = 'bob') AND (TO = bob)) WITH CHECK (true);",
                "CREATE POLICY bob ON a.bob FOR SELECT TO \"new \"\"bob\", eve USING ((owner = 'bob') AND (TO = bob)) WITH CHECK (true);",
            ),
            (
                "POLICY",
                "CREATE POLICY bob ON bob USING (a TO bob);",
                "CREATE POLICY bob ON bob USING (a TO bob);",
            ),
            (
                "USER MAPPING",
                "CREATE USER MAPPING FOR bob SERVER bob OPTIONS (\"user\" 'bob');",
                "CREATE USER MAPPING FOR \"new \"\"bob\" SERVER bob OPTIONS (\"user\" 'bob');",
            ),
            (
                "DATABASE PROPERTIES",
                "ALTER DATABASE bob SET a TO 'bob';\nALTER ROLE bob IN DATABASE bob SET role TO bob;\n",
                "ALTER DATABASE bob SET a TO 'bob';\nALTER ROLE \"new \"\"bob\" IN DATABASE bob SET role TO bob;\n",
            ),
            ("TABLE", "CREATE TABLE bob (bob text);", "CREATE TABLE bob (bob text);"),
            (
                "COMMENT",
                "COMMENT ON TABLE a IS 'GRANT a TO bob';",
                "COMMENT ON TABLE a IS 'GRANT a TO bob';",
            ),
        ] {
            assert_eq!(mapped(desc, sql, &names), wanted);
        }
    }
}
