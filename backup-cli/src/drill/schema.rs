//! Compares the definitions of a restored database with those in the archive: everything that
//! pg_dump writes about an object.
//!
//! PostgreSQL does not always write a definition again as it was: `status in ('a', 'b')` on a
//! column of type varchar comes back with other casts and parentheses, and means the same. So
//! two definitions count as equal when they differ in these only.

use std::collections::BTreeMap;

use backup_core::Result;
use backup_pg::sql::{Token, quote_ident, words};
use backup_pg::{TablespaceMap, Toc, TocEntry, plan_database};

use super::report::{SchemaDifference, SchemaResult};

/// Data, and what describes it: compared elsewhere, or made anew by the restore.
const NOT_DEFINITIONS: [&str; 4] = ["TABLE DATA", "BLOBS", "STATISTICS DATA", "SEARCHPATH"];

/// Left out of a drill: a restored subscription would be one to the real publisher's slot.
const NOT_RESTORED: [&str; 1] = ["SUBSCRIPTION"];

/// What pg_dump writes about roles' rights, beside an entry's owner.
const RIGHTS: [&str; 2] = ["ACL", "DEFAULT ACL"];

/// Most differences that are kept in full; the others are only counted.
const KEPT_DIFFERENCES: usize = 200;

/// Compares all definitions; owners and grants only when `with_owners`. Tablespaces are not
/// compared: a drill puts everything into the database's own.
pub(super) fn compare(archive: &Toc, restored: &Toc, with_owners: bool) -> SchemaResult {
    let (before, after) = (objects(archive, with_owners), objects(restored, with_owners));
    let mut result = SchemaResult { compared: before.len(), ..SchemaResult::default() };
    for (object, was) in &before {
        match after.get(object) {
            Some(is) if is == was => {}
            Some(is) if loosely(was) == loosely(is) => result.rewritten += 1,
            is => result.differences.push(difference(object, Some(was), is)),
        }
    }
    for (object, is) in after.iter().filter(|(object, _)| !before.contains_key(*object)) {
        if !is_there_anyway(object) {
            result.differences.push(difference(object, None, Some(is)));
        }
    }
    compare_database(archive, restored, with_owners, &mut result);
    result.differences.truncate(KEPT_DIFFERENCES);
    result
}

/// Kind, schema, name.
type Object<'a> = (&'a str, &'a str, &'a str);

/// The definitions of all objects; those that share a name (grants, say) in one, sorted.
fn objects(toc: &Toc, with_owners: bool) -> BTreeMap<Object<'_>, Vec<String>> {
    let mut objects: BTreeMap<Object<'_>, Vec<String>> = BTreeMap::new();
    for entry in toc.entries.iter().filter(|entry| is_compared(entry, with_owners)) {
        let mut definition = entry.defn.trim_end().to_owned();
        if with_owners && !entry.owner.is_empty() {
            definition.push_str(&format!("\nOWNER TO {}", quote_ident(&entry.owner)));
        }
        let object = (entry.desc.as_str(), entry.namespace.as_str(), entry.tag.as_str());
        objects.entry(object).or_default().push(definition);
    }
    objects.values_mut().for_each(|definitions| definitions.sort());
    objects
}

fn is_compared(entry: &TocEntry, with_owners: bool) -> bool {
    let desc = entry.desc.as_str();
    let about = |what: &str| {
        matches!(desc, "COMMENT" | "SECURITY LABEL" | "ACL") && entry.tag.starts_with(what)
    };
    !(NOT_DEFINITIONS.contains(&desc)
        || NOT_RESTORED.contains(&desc)
        || (RIGHTS.contains(&desc) && !with_owners)
        || matches!(desc, "DATABASE" | "DATABASE PROPERTIES")
        || about("DATABASE ")
        || about("SUBSCRIPTION ")
        // The text belongs to the version of the extension that the server has.
        || (desc == "COMMENT" && entry.tag.starts_with("EXTENSION ")))
}

/// A dump of some schemas or tables leaves out the schema that every new database has.
fn is_there_anyway((desc, _, tag): &Object<'_>) -> bool {
    (*desc == "SCHEMA" && *tag == "public") || (*desc != "TABLE" && *tag == "SCHEMA public")
}

/// The database itself, under one name for both: encoding, locale, settings, grants.
fn compare_database(archive: &Toc, restored: &Toc, with_owners: bool, result: &mut SchemaResult) {
    let plan = |toc: &Toc| -> Result<String> {
        let tablespaces = TablespaceMap { ignore: true, ..TablespaceMap::default() };
        let plan = plan_database(toc, "database", u32::MAX, &tablespaces)?;
        let ours = |sql: &&String| !sql.starts_with("COMMENT ");
        let rights = ["GRANT ", "REVOKE ", "SET SESSION ", "ALTER ROLE "];
        let about_roles =
            |sql: &String| sql.contains(" OWNER TO ") || rights.iter().any(|r| sql.starts_with(r));
        let mut lines = vec![plan.create];
        let properties = plan.properties.iter().filter(ours);
        lines.extend(properties.filter(|sql| with_owners || !about_roles(sql)).cloned());
        lines.sort();
        Ok(lines.join(";\n"))
    };
    // A dump of some schemas or tables tells nothing of its database.
    let Ok(before) = plan(archive) else { return };
    result.compared += 1;
    let after = plan(restored).ok();
    if after.as_deref() != Some(&before) {
        let object = "DATABASE".to_owned();
        result.differences.push(SchemaDifference { object, backup: Some(before), restored: after });
    }
}

fn difference(
    (desc, schema, tag): &Object<'_>,
    before: Option<&Vec<String>>,
    after: Option<&Vec<String>>,
) -> SchemaDifference {
    let object = match *schema {
        "" => format!("{desc} {tag}"),
        schema => format!("{desc} {schema}.{tag}"),
    };
    let text = |definitions: &Vec<String>| definitions.join("\n");
    SchemaDifference { object, backup: before.map(text), restored: after.map(text) }
}

/// The words of definitions without parentheses and casts.
fn loosely(definitions: &[String]) -> Vec<Vec<&str>> {
    definitions.iter().map(|definition| without_casts(&words(definition))).collect()
}

fn without_casts<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if is_pair_of_colons(tokens, at) {
            at += 2 + type_length(&tokens[at + 2..]);
        } else {
            if !matches!(token.text, "(" | ")") {
                kept.push(token.text);
            }
            at += 1;
        }
    }
    kept
}

fn is_pair_of_colons(tokens: &[Token<'_>], at: usize) -> bool {
    let colon = |at: usize| tokens.get(at).is_some_and(|token| token.is_symbol(":"));
    colon(at) && colon(at + 1)
}

/// How many words the name of a type has: `public.t`, `character varying(20)[]`,
/// `timestamp(3) with time zone`.
fn type_length(tokens: &[Token<'_>]) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut at = 1;
    while text(at) == "." {
        at += 2;
    }
    if matches!((text(0), text(1)), ("character" | "bit", "varying") | ("double", "precision")) {
        at += 1;
    }
    at = behind_brackets(tokens, at, "(", ")");
    let zoned = matches!(text(0), "timestamp" | "time") && matches!(text(at), "with" | "without");
    if zoned && text(at + 1) == "time" && text(at + 2) == "zone" {
        at += 3;
    }
    while text(at) == "[" {
        at = behind_brackets(tokens, at, "[", "]");
    }
    at.min(tokens.len())
}

/// Behind `(10,2)` or `[]` at this place, where there is such a thing: numbers and commas only.
fn behind_brackets(tokens: &[Token<'_>], at: usize, open: &str, close: &str) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(at) != open {
        return at;
    }
    let is_inner = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-'))
    };
    let mut end = at + 1;
    while is_inner(text(end)) {
        end += 1;
    }
    if text(end) == close { end + 1 } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        without_casts(&words(a)) == without_casts(&words(b))
    }

    #[test]
    fn a_check_that_postgresql_writes_anew_is_the_same() {
        // Both as PostgreSQL itself writes them, before and after a restore.
        let before = "CHECK (((status)::text = ANY ((ARRAY['a'::character varying, \
                      'b'::character varying])::text[])))";
        let after = "CHECK (((status)::text = ANY (ARRAY[('a'::character varying)::text, \
                     ('b'::character varying)::text])))";
        assert!(same(before, after));
        assert!(!same(before, &after.replace("'b'", "'c'")));
        assert!(!same(before, &after.replace("ANY", "ALL")));
        assert!(!same(before, &after.replace("status", "state")));
    }

    #[test]
    fn only_types_behind_casts_are_left_out() {
        assert!(same("x::public.\"T y\" + 1", "x + 1"));
        assert!(same("x::numeric(10,2)[] + 1", "(x) + 1"));
        assert!(same("x::timestamp(3) with time zone < now()", "x < now"));
        assert!(same("'1 day'::interval * 2", "'1 day' * 2"));
        assert!(same("x::double precision, y", "x, y"));
        assert!(!same("x::int, y", "x"));
        assert!(!same("f(a::text, b)", "f(a)"));
        assert!(!same("x::text[1]", "x::text[2] || y"));
        assert!(!same("CREATE TABLE t (a integer)", "CREATE TABLE t (a bigint)"));
        assert!(!same("'it''s (a::b)'", "'it''s a'"));
    }
}
