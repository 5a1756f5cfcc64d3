//! Which entries of an archive belong to the tables that somebody chose.
//!
//! pg_restore's own `--table` takes a table and its rows and nothing else. Here come with it its
//! sequences, defaults, constraints, indexes, triggers, rules, policies, statistics, comments,
//! grants and partitions; and what it needs and the database lacks: its schema, types, functions,
//! extensions.

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::{Error, Result};

use super::kinds::{FOLLOWERS, PARTS, RELATIONS, SETTINGS, belongs_to_others, is_relation};
use super::pattern::{Pattern, nearest};
use super::toc::{Toc, TocEntry};
use crate::sql::{Token, words};

const STAGE: &str = "tables";

/// Tables that an error names before it only counts them.
const NAMED_TABLES: usize = 5;

/// What of the chosen tables is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SelectedPart {
    /// Definitions and rows.
    #[default]
    All,
    /// Rows, into tables that are there. They are added to those that the tables have.
    DataOnly,
    /// Definitions.
    SchemaOnly,
}

/// Some of an archive's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patterns as pg_dump's `--table` takes them: `claims`, `audit.*`, `"Odd Name"`. Without a
    /// schema they mean tables of this name in any schema.
    pub tables: Vec<String>,
    /// What of them.
    pub what: SelectedPart,
    /// Put them into this schema, which is made when it does not exist.
    pub into_schema: Option<String>,
}

/// What the target has already. By default nothing.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// Tables, views, sequences: schema and name.
    pub relations: HashSet<(String, String)>,
    pub types: HashSet<(String, String)>,
    /// Name with the types of its arguments, as an archive's tag has it.
    pub functions: HashSet<(String, String)>,
    pub schemas: HashSet<String>,
    pub extensions: HashSet<String>,
    /// Whether the database was there before: then kinds that are not listed here are taken to
    /// be in it. If they aren't, the server will say so.
    pub is_existing: bool,
}

impl Present {
    /// Whether it has this one.
    fn has(&self, entry: &TocEntry) -> bool {
        let place = (entry.namespace.clone(), entry.tag.clone());
        match entry.desc.as_str() {
            kind if RELATIONS.contains(&kind) => self.relations.contains(&place),
            "TYPE" | "DOMAIN" | "SHELL TYPE" => self.types.contains(&place),
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => self.functions.contains(&place),
            "SCHEMA" => self.schemas.contains(&entry.tag),
            "EXTENSION" => self.extensions.contains(&entry.tag),
            _ => self.is_existing,
        }
    }
}

/// What was chosen.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The entries to restore.
    pub entries: BTreeSet<i64>,
    /// The relations among them that were chosen, with their partitions and sequences.
    pub relations: BTreeSet<i64>,
    /// What is left out and why, a line each.
    pub notes: Vec<String>,
}

/// Chooses entries.
///
/// # Errors
/// `Usage` when a pattern matches nothing, `Refused` when something is needed that is neither chosen
/// nor in the database.
pub(crate) fn select(toc: &Toc, selection: &Selection, present: &Present) -> Result<Selected> {
    let mut chooser = Chooser::new(toc, selection.what, present);
    chooser.match_patterns(&selection.tables)?;
    chooser.add_partitions_and_sequences();
    chooser.take_entries()?;
    chooser.leave_indexes_to_parents();
    chooser.add_what_is_needed()?;
    chooser.add_followers();
    let Chooser { entries, relations, notes, .. } = chooser;
    Ok(Selected { entries, relations, notes })
}

/// The entries whose data belongs to the chosen tables, whatever the target has.
///
/// # Errors
/// `Usage` when a pattern matches nothing.
pub(super) fn data_of(toc: &Toc, selection: &Selection) -> Result<BTreeSet<i64>> {
    let present = Present::default();
    let mut chooser = Chooser::new(toc, selection.what, &present);
    chooser.match_patterns(&selection.tables)?;
    chooser.add_partitions_and_sequences();
    let of_chosen = |entry: &&TocEntry| {
        entry.has_data
            && entry.desc == "TABLE DATA"
            && chooser.is_wanted(entry)
            && chooser.own_relation(entry).is_some_and(|id| chooser.relations.contains(&id))
    };
    Ok(toc.entries.iter().filter(of_chosen).map(|entry| entry.dump_id).collect())
}

struct Chooser<'a> {
    toc: &'a Toc,
    by_id: HashMap<i64, &'a TocEntry>,
    what: SelectedPart,
    present: &'a Present,
    relations: BTreeSet<i64>,
    entries: BTreeSet<i64>,
    notes: Vec<String>,
}

impl<'a> Chooser<'a> {
    fn new(toc: &'a Toc, what: SelectedPart, present: &'a Present) -> Self {
        Self {
            by_id: toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect(),
            toc,
            what,
            present,
            relations: BTreeSet::new(),
            entries: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    fn match_patterns(&mut self, patterns: &[String]) -> Result<()> {
        for text in patterns {
            let pattern = Pattern::parse(text)?;
            let matches = |entry: &&TocEntry| pattern.matches(&entry.namespace, &entry.tag);
            let found: Vec<i64> =
                self.candidates().filter(matches).map(|entry| entry.dump_id).collect();
            if found.is_empty() {
                return Err(self.unknown(text));
            }
            self.relations.extend(found);
        }
        Ok(())
    }

    /// What can be chosen. A dump of rows alone has no tables, only their data.
    fn candidates(&self) -> impl Iterator<Item = &'a TocEntry> {
        let defined: HashSet<(&str, &str)> =
            self.toc.entries.iter().filter(|e| is_relation(e)).map(place).collect();
        self.toc.entries.iter().filter(move |entry| {
            is_relation(entry) || entry.desc == "TABLE DATA" && !defined.contains(&place(entry))
        })
    }

    fn unknown(&self, pattern: &str) -> Error {
        let error = Error::usage(STAGE, format!("the backup has no table {pattern}"));
        let names = self.candidates().map(|entry| format!("{}.{}", entry.namespace, entry.tag));
        match nearest(pattern, names) {
            Some(name) => error.next_step(format!(
                "the nearest is {name}; `marb-backup show --contents` lists them all"
            )),
            None => error.next_step("the backup has no tables at all"),
        }
    }

    fn add_partitions_and_sequences(&mut self) {
        loop {
            let before = self.relations.len();
            for entry in &self.toc.entries {
                let owner = match entry.desc.as_str() {
                    "TABLE ATTACH" => self.first_named(entry),
                    "SEQUENCE OWNED BY" => self.owner_of_sequence(entry),
                    // An identity column makes its sequence itself.
                    "SEQUENCE" if entry.defn.starts_with("ALTER TABLE") => self.first_named(entry),
                    _ => continue,
                };
                if owner.is_some_and(|owner| self.relations.contains(&owner)) {
                    match entry.desc.as_str() {
                        "SEQUENCE" => self.relations.insert(entry.dump_id),
                        _ => self.own_relation(entry).is_some_and(|id| self.relations.insert(id)),
                    };
                }
            }
            if self.relations.len() == before {
                return;
            }
        }
    }

    /// The chosen relations and their parts.
    fn take_entries(&mut self) -> Result<()> {
        for entry in &self.toc.entries {
            let id = entry.dump_id;
            if SETTINGS.contains(&entry.desc.as_str()) {
                self.entries.insert(id);
            } else if self.relations.contains(&id) {
                if self.is_wanted(entry) {
                    self.refuse_missing_relations(entry)?;
                    self.entries.insert(id);
                }
            } else if PARTS.contains(&entry.desc.as_str())
                && self.subject(entry).is_some_and(|table| self.relations.contains(&table))
                && self.is_wanted(entry)
            {
                match self.missing_relation(entry) {
                    None => drop(self.entries.insert(id)),
                    Some(other) => self.notes.push(format!(
                        "{} {} is left out: {} is neither restored nor in the database",
                        entry.desc.to_lowercase(),
                        label(entry),
                        label(other)
                    )),
                }
            }
        }
        Ok(())
    }

    /// A partition that a parent in the database takes gets its indexes from there at once.
    fn leave_indexes_to_parents(&mut self) {
        let attached = self.toc.of_kind("TABLE ATTACH").filter(|attach| {
            let parent = self.first_named(attach);
            let is_there = parent.is_some_and(|parent| !self.relations.contains(&parent));
            is_there && self.entries.contains(&attach.dump_id)
        });
        let partitions: Vec<i64> = attached.filter_map(|entry| self.own_relation(entry)).collect();
        for attach in self.toc.of_kind("INDEX ATTACH") {
            for index in attach.dependencies.iter().filter_map(|id| self.by_id.get(id)) {
                let is_index = matches!(index.desc.as_str(), "INDEX" | "CONSTRAINT");
                if is_index && index.dependencies.iter().any(|id| partitions.contains(id)) {
                    self.entries.remove(&index.dump_id);
                }
            }
        }
    }

    fn is_wanted(&self, entry: &TocEntry) -> bool {
        let is_data = matches!(
            entry.desc.as_str(),
            "TABLE DATA" | "SEQUENCE SET" | "MATERIALIZED VIEW DATA" | "STATISTICS DATA"
        );
        match self.what {
            SelectedPart::All => true,
            SelectedPart::DataOnly => is_data,
            SelectedPart::SchemaOnly => !is_data,
        }
    }

    /// A view without its tables, or a table without the one that it inherits from, can't be made.
    fn refuse_missing_relations(&self, entry: &TocEntry) -> Result<()> {
        let Some(other) = self.missing_relation(entry) else { return Ok(()) };
        Err(Error::refused(
            STAGE,
            format!(
                "{} needs {}, which is neither chosen nor in the database",
                label(entry),
                label(other)
            ),
        )
        .next_step(format!("choose it, too: --table '{}'", label(other))))
    }

    /// A table or view that an entry's SQL names, and that will not be there. (A sequence is made;
    /// a partition depends on its parent without naming it: something else attaches it.)
    fn missing_relation(&self, entry: &TocEntry) -> Option<&'a TocEntry> {
        let needed = entry.dependencies.iter().filter_map(|id| self.by_id.get(id).copied());
        let missing = needed.filter(|other| {
            let is_table = is_relation(other) && other.desc != "SEQUENCE";
            is_table && !self.relations.contains(&other.dump_id) && !self.present.has(other)
        });
        let missing: Vec<&TocEntry> = missing.collect();
        if missing.is_empty() {
            return None;
        }
        let found = words(&entry.defn);
        qualified_names(&found).find_map(|(schema, name)| {
            let named = |other: &&&TocEntry| place(other) == (schema.as_str(), name.as_str());
            missing.iter().find(named).copied()
        })
    }

    /// Schemas, types, functions, sequences: what the database lacks of what is needed.
    fn add_what_is_needed(&mut self) -> Result<()> {
        if self.what == SelectedPart::DataOnly {
            return Ok(());
        }
        let mut to_look_at: Vec<i64> = self.entries.iter().copied().collect();
        while let Some(id) = to_look_at.pop() {
            let Some(entry) = self.by_id.get(&id) else { continue };
            for needed in &entry.dependencies {
                let Some(other) = self.by_id.get(needed).copied() else { continue };
                let kind = other.desc.as_str();
                let is_known = self.entries.contains(needed) || self.relations.contains(needed);
                if is_known || belongs_to_others(other) || self.present.has(other) {
                    continue;
                }
                if is_relation(other) && kind != "SEQUENCE" {
                    self.refuse_missing_relations(entry)?;
                    continue;
                }
                self.entries.insert(*needed);
                to_look_at.push(*needed);
            }
        }
        let needed_sequences: Vec<i64> = self
            .toc
            .of_kind("SEQUENCE SET")
            .filter(|set| set.dependencies.iter().any(|id| self.entries.contains(id)))
            .map(|set| set.dump_id)
            .collect();
        if self.what == SelectedPart::All {
            self.entries.extend(needed_sequences);
        }
        Ok(())
    }

    fn add_followers(&mut self) {
        for entry in &self.toc.entries {
            let follows = FOLLOWERS.contains(&entry.desc.as_str())
                && self.is_wanted(entry)
                && !entry.dependencies.is_empty();
            let reaches = |id: &i64| self.entries.contains(id) || !self.by_id.contains_key(id);
            let of_restored = |id: &i64| self.entries.contains(id);
            if follows
                && entry.dependencies.iter().all(reaches)
                && entry.dependencies.iter().any(of_restored)
            {
                self.entries.insert(entry.dump_id);
            }
        }
    }

    /// The relation that a part belongs to.
    fn subject(&self, entry: &TocEntry) -> Option<i64> {
        match entry.desc.as_str() {
            "TABLE DATA"
            | "MATERIALIZED VIEW DATA"
            | "TABLE ATTACH"
            | "SEQUENCE SET"
            | "SEQUENCE OWNED BY" => self.own_relation(entry),
            _ => self.first_named(entry),
        }
    }

    /// The relation of the same name among those that the entry depends on, or the entry itself
    /// in a dump that has no definitions.
    fn own_relation(&self, entry: &TocEntry) -> Option<i64> {
        let is_own = |other: &&&TocEntry| is_relation(other) && place(other) == place(entry);
        let needed = entry.dependencies.iter().filter_map(|id| self.by_id.get(id));
        let found = needed.into_iter().find(is_own).map(|other| other.dump_id);
        found.or_else(|| self.relations.contains(&entry.dump_id).then_some(entry.dump_id))
    }

    /// Of the relations that an entry depends on, the one that its SQL names first: the others
    /// are referenced by it.
    fn first_named(&self, entry: &TocEntry) -> Option<i64> {
        let needed = entry.dependencies.iter().filter_map(|id| self.by_id.get(id).copied());
        let relations: Vec<&TocEntry> = needed.filter(|other| is_relation(other)).collect();
        if let [only] = relations.as_slice() {
            return Some(only.dump_id);
        }
        let found = words(&entry.defn);
        qualified_names(&found).find_map(|(schema, name)| {
            let named = |other: &&&TocEntry| place(other) == (schema.as_str(), name.as_str());
            relations.iter().find(named).map(|other| other.dump_id)
        })
    }

    /// `ALTER SEQUENCE s.q OWNED BY s.t.c`: the archive tells the table nowhere else.
    fn owner_of_sequence(&self, entry: &TocEntry) -> Option<i64> {
        let found = words(&entry.defn);
        let owned =
            found.windows(2).position(|w| w[0].is_keyword("OWNED") && w[1].is_keyword("BY"))?;
        let (schema, name) = qualified_names(found.get(owned + 2..)?).next()?;
        let mut relations = self.toc.entries.iter().filter(|e| is_relation(e));
        relations.find(|e| place(e) == (schema.as_str(), name.as_str())).map(|e| e.dump_id)
    }
}

/// Every `schema.name` in a piece of SQL.
fn qualified_names<'a>(found: &'a [Token<'a>]) -> impl Iterator<Item = (String, String)> + 'a {
    found.windows(3).filter_map(|three| {
        let [schema, dot, name] = three else { return None };
        let is_qualified = dot.is_symbol(".");
        is_qualified.then_some((schema.name()?.into_owned(), name.name()?.into_owned()))
    })
}

fn place(entry: &TocEntry) -> (&str, &str) {
    (&entry.namespace, &entry.tag)
}

fn label(entry: &TocEntry) -> String {
    match entry.namespace.as_str() {
        "" => entry.tag.clone(),
        schema => format!("{schema}.{}", entry.tag),
    }
}

/// Names some, counts the others.
pub(crate) fn list_of(names: &[String]) -> String {
    let mut named = names.iter().take(NAMED_TABLES).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(NAMED_TABLES) {
        named.push_str(&format!(" and {more} more"));
    }
    named
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
