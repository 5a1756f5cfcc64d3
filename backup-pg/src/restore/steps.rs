//! Which entries of an archive belong to which step of a restore by several sessions.

use std::collections::HashSet;

use crate::archive::{SETTINGS, Section, Toc, TocEntry};

/// From pg_dump 17 on it is data's own section that says which large objects there are.
/// And who may use them; pg_restore looks there for which ones that is of.
pub(super) fn comes_before_data(entry: &TocEntry) -> bool {
    let of_objects = entry.desc == "BLOB METADATA"
        || entry.desc == "ACL" && entry.tag.starts_with("LARGE OBJECTS");
    (entry.section == Section::PreData || of_objects) && !entry.has_data
}

/// What comes after the data. pg_restore keeps two sessions from locking the same tables in turn as
/// long as its table of contents has these: so they stay in it, with nothing to do.
pub(super) fn rest_of(restored: &Toc) -> Toc {
    let is_table = |entry: &TocEntry| entry.desc == "TABLE" && comes_before_data(entry);
    let comes_after = |entry: &TocEntry| !comes_before_data(entry) && !entry.has_data;
    let alone = with_no_order(restored);
    let wanted = |entry: &TocEntry| comes_after(entry) && !alone.contains(&entry.dump_id);
    let mut rest = select(restored, |entry| wanted(entry) || is_table(entry));
    for table in rest.entries.iter_mut().filter(|entry| is_table(entry)) {
        table.defn.clear();
    }
    rest
}

/// Entries that must come last, though nothing in the archive says so: a partition's trigger that is
/// switched off exists as soon as that of its parent is made, which it does not depend on. With
/// them goes what depends on them.
pub(super) fn with_no_order(restored: &Toc) -> HashSet<i64> {
    let mut found = HashSet::new();
    for entry in &restored.entries {
        let switches =
            entry.desc == "TRIGGER" && entry.defn.trim_start().starts_with("ALTER TABLE ");
        if switches || entry.dependencies.iter().any(|id| found.contains(id)) {
            found.insert(entry.dump_id);
        }
    }
    found
}

/// Some entries, and the settings that every restore needs.
pub(super) fn select(toc: &Toc, wanted: impl Fn(&TocEntry) -> bool) -> Toc {
    let keep = |entry: &&TocEntry| SETTINGS.contains(&entry.desc.as_str()) || wanted(entry);
    Toc {
        entries: toc.entries.iter().filter(keep).cloned().collect(),
        header: toc.header.clone(),
        end: toc.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArchiveReader;
    use crate::archive::rewrite_head;

    fn toc_of(archive: &[u8]) -> Toc {
        let mut reader = ArchiveReader::new();
        reader.feed(archive).unwrap();
        reader.toc().unwrap().clone()
    }

    /// Each entry belongs to one step; but the tables stand in the last one, too.
    #[test]
    fn the_steps_are_the_whole_and_the_last_knows_the_tables() {
        let archives: [&[u8]; 2] = [
            include_bytes!("../archive/fixtures/pg15-none.dump"),
            include_bytes!("../archive/fixtures/pg18-none.dump"),
        ];
        for archive in archives {
            let toc = toc_of(archive);
            let ids = |toc: &Toc| toc.entries.iter().map(|e| e.dump_id).collect::<HashSet<_>>();
            let (before, rest) = (ids(&select(&toc, comes_before_data)), rest_of(&toc));
            let data = toc.entries.iter().filter(|e| e.has_data).map(|e| e.dump_id).collect();
            assert!(before.is_disjoint(&data) && ids(&rest).is_disjoint(&data));
            let last = with_no_order(&toc);
            assert!(ids(&rest).is_disjoint(&last));
            let parts = [before.clone(), ids(&rest), data, last];
            let all: HashSet<i64> = parts.into_iter().flatten().collect();
            assert_eq!(all, ids(&toc));
            let twice = rest.entries.iter().filter(|e| before.contains(&e.dump_id));
            assert!(twice.clone().any(|entry| entry.desc == "TABLE"));
            assert!(twice.clone().all(|e| e.desc == "TABLE" || SETTINGS.contains(&&*e.desc)));
            assert!(twice.filter(|e| e.desc == "TABLE").all(|e| e.defn.is_empty()));
            // Written and read again they are still there.
            let head = rewrite_head(archive, &toc, &rest).unwrap();
            assert_eq!(toc_of(&head.bytes).of_kind("TABLE").count(), toc.of_kind("TABLE").count());
            assert!(toc.of_kind("TABLE").count() > 3);
        }
    }
}
