//! Kinds of entries in a table of contents, by what a choice of tables does with them.

use super::toc::TocEntry;

/// Kinds that can be chosen by name, as with pg_dump's `--table`.
pub(super) const RELATIONS: [&str; 5] =
    ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];

/// Kinds that belong to the one relation that their SQL names first.
pub(super) const PARTS: [&str; 15] = [
    "DEFAULT",
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "SEQUENCE SET",
    "SEQUENCE OWNED BY",
    "TABLE ATTACH",
];

/// Kinds that follow what they depend on, wherever all of that goes.
pub(super) const FOLLOWERS: [&str; 5] =
    ["COMMENT", "ACL", "SECURITY LABEL", "INDEX ATTACH", "STATISTICS DATA"];

/// Kinds that every archive has, and every restore needs.
pub(crate) const SETTINGS: [&str; 3] = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];

/// Whether an entry is something that can be chosen by its name.
pub(crate) fn is_relation(entry: &TocEntry) -> bool {
    RELATIONS.contains(&entry.desc.as_str())
}

/// Whether an entry is part of others: an index, a comment, a table's rows.
pub(crate) fn belongs_to_others(entry: &TocEntry) -> bool {
    let kind = entry.desc.as_str();
    PARTS.contains(&kind) || FOLLOWERS.contains(&kind)
}
