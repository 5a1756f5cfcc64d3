//! Changes to an archive's table of contents before it is restored.

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::{Error, Result};

use super::STAGE;
use crate::archive::{Toc, TocEntry, belongs_to_others, is_relation};
use crate::database::TablespaceMap;
use crate::sql::{Token, TokenKind, quote_ident, quote_literal, tokens, words};

/// Puts other tablespaces in.
pub(super) fn rename_tablespaces(toc: &mut Toc, map: &TablespaceMap) {
    if map.ignore {
        return;
    }
    for entry in &mut toc.entries {
        if let Some(new) = map.renamed.get(&entry.tablespace) {
            entry.tablespace.clone_from(new);
        }
    }
}

/// Leaves subscriptions out, with what belongs to them. A restored one would name the slot that
/// the first one uses, at the same publisher.
pub(super) fn leave_out_subscriptions(toc: &mut Toc) {
    let mut left_out = BTreeSet::new();
    toc.entries.retain(|entry| {
        let about_one = entry.dependencies.iter().any(|id| left_out.contains(id));
        let leave = entry.desc.starts_with("SUBSCRIPTION")
            || about_one && matches!(entry.desc.as_str(), "COMMENT" | "SECURITY LABEL" | "ACL");
        if leave {
            left_out.insert(entry.dump_id);
        }
        !leave
    });
}

/// Keeps some entries only, and those that make the database itself when `with_database`.
pub(super) fn keep(toc: &mut Toc, wanted: &BTreeSet<i64>, with_database: bool) {
    toc.entries.retain(|entry| {
        let of_database = entry.desc.starts_with("DATABASE") || entry.tag.starts_with("DATABASE ");
        wanted.contains(&entry.dump_id) || with_database && of_database
    });
}

/// Moves relations, with what is named after them, into another schema. What they refer to
/// elsewhere stays where it is, and the text of functions too.
///
/// # Errors
/// `Usage` when two of them have the same name.
pub(super) fn into_schema(toc: &mut Toc, relations: &BTreeSet<i64>, schema: &str) -> Result<()> {
    // Their numbers are of tables of that name elsewhere.
    toc.entries.retain(|entry| entry.desc != "STATISTICS DATA");
    let moves = Moves::plan(toc, relations, schema)?;
    let mut moved: HashMap<i64, String> = HashMap::new();
    for entry in &mut toc.entries {
        let beside = |id: &i64| moved.get(id).is_some_and(|old| *old == entry.namespace);
        let goes_along = belongs_to_others(entry) && entry.dependencies.iter().any(beside);
        if !relations.contains(&entry.dump_id) && !goes_along {
            continue;
        }
        entry.defn = moves.apply(&entry.defn);
        entry.drop_stmt = moves.apply(&entry.drop_stmt);
        entry.copy_stmt = moves.apply(&entry.copy_stmt);
        let old = std::mem::replace(&mut entry.namespace, schema.to_owned());
        moved.insert(entry.dump_id, old);
    }
    Ok(())
}

/// Qualified names that change their schema.
struct Moves<'a> {
    names: HashSet<(String, String)>,
    schema: &'a str,
}

impl<'a> Moves<'a> {
    fn plan(toc: &Toc, relations: &BTreeSet<i64>, schema: &'a str) -> Result<Self> {
        let mut names = HashSet::new();
        let mut taken = HashMap::new();
        for entry in toc.entries.iter().filter(|entry| relations.contains(&entry.dump_id)) {
            let place = (entry.namespace.clone(), entry.tag.clone());
            if let Some(other) = taken.insert(entry.tag.clone(), entry.namespace.clone())
                && other != entry.namespace
            {
                let (own, name) = &place;
                let message =
                    format!("{other}.{name} and {own}.{name} can't both be in the schema {schema}");
                return Err(Error::usage(STAGE, message).next_step("restore one after the other"));
            }
            names.insert(place);
        }
        // What the relations bring along and is named on its own: `COMMENT ON INDEX s.i`.
        for entry in &toc.entries {
            let own = entry.dependencies.iter().any(|id| relations.contains(id));
            let name = match entry.desc.as_str() {
                "INDEX" | "STATISTICS" if own => Some(entry.tag.as_str()),
                "CONSTRAINT" if own => constraint(entry),
                _ => None,
            };
            names.extend(name.map(|name| (entry.namespace.clone(), name.to_owned())));
        }
        Ok(Self { names, schema })
    }

    /// SQL with the new schema in front of every name that moves.
    fn apply(&self, sql: &str) -> String {
        let all: Vec<Token<'_>> = tokens(sql).collect();
        let mut out = String::with_capacity(sql.len());
        let mut at = 0;
        while let Some(token) = all.get(at) {
            let behind_dot = at.checked_sub(1).and_then(|i| all.get(i)).is_some_and(is_dot);
            let moves = !behind_dot
                && match all.get(at..at + 3) {
                    Some([schema, dot, name]) => is_dot(dot) && self.holds(schema, name),
                    _ => false,
                };
            if moves {
                out.push_str(&quote_ident(self.schema));
            } else if let Some(text) = self.name_in_text(&all, at) {
                out.push_str(&text);
            } else {
                out.push_str(token.text);
            }
            at += 1;
        }
        out
    }

    fn holds(&self, schema: &Token<'_>, name: &Token<'_>) -> bool {
        let (Some(schema), Some(name)) = (schema.name(), name.name()) else { return false };
        self.names.contains(&(schema.into_owned(), name.into_owned()))
    }

    /// `nextval('s.q'::regclass)`, `setval('s.q', 1)`: a name inside a string.
    fn name_in_text(&self, all: &[Token<'_>], at: usize) -> Option<String> {
        let token = all.get(at).filter(|token| token.kind == TokenKind::Text)?;
        let cast = matches!(all.get(at + 1..at + 4), Some([a, b, kind])
            if a.is_symbol(":") && b.is_symbol(":") && kind.is_keyword("regclass"));
        let argument = matches!(all.get(at.saturating_sub(2)..at), Some([function, open])
            if function.is_keyword("setval") && open.is_symbol("("));
        let inside = token.string().filter(|_| cast || argument)?;
        let found = words(&inside);
        let [schema, dot, name] = found.as_slice() else { return None };
        (is_dot(dot) && self.holds(schema, name))
            .then(|| quote_literal(&format!("{}.{}", quote_ident(self.schema), name.text)))
    }
}

fn is_dot(token: &Token<'_>) -> bool {
    token.is_symbol(".")
}

/// The constraint of an entry whose tag is `table constraint`; its index has the same name.
fn constraint(entry: &TocEntry) -> Option<&str> {
    let found = words(&entry.defn);
    let named = found.windows(2).find(|w| w[0].is_keyword("CONSTRAINT"))?;
    let name = named[1].name()?;
    entry.tag.ends_with(&*name).then(|| &entry.tag[entry.tag.len() - name.len()..])
}

/// Schemas and extensions that the database has stay: emptied of what is replaced they may hold
/// more, and nothing that depends on an extension has to go for it. With an extension stay its own
/// rows: the tables whose rows are left out, as `schema.name`.
pub(super) fn keep_containers(toc: &mut Toc) -> Vec<String> {
    for entry in &mut toc.entries {
        match entry.desc.as_str() {
            "SCHEMA" => {
                entry.drop_stmt.clear();
                entry.defn =
                    entry.defn.replacen("CREATE SCHEMA ", "CREATE SCHEMA IF NOT EXISTS ", 1);
            }
            "EXTENSION" | "PROCEDURAL LANGUAGE" => entry.drop_stmt.clear(),
            _ => {}
        }
    }
    let place = |entry: &TocEntry| (entry.namespace.clone(), entry.tag.clone());
    let defined: HashSet<(String, String)> =
        toc.entries.iter().filter(|entry| is_relation(entry)).map(place).collect();
    let mut left_out = Vec::new();
    toc.entries.retain(|entry| {
        let stays = entry.desc == "TABLE DATA" && !defined.contains(&place(entry));
        if stays {
            left_out.push(format!("{}.{}", entry.namespace, entry.tag));
        }
        !stays
    });
    left_out
}

#[cfg(test)]
#[path = "edits_tests.rs"]
mod tests;
