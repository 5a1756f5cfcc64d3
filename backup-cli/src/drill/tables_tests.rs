//! The comparison of tables, case by case.

use backup_core::RowDigests;
use backup_pg::{ArchiveReader, Toc};

use super::*;

/// The table of contents of an archive without entries: nothing is known of any columns.
fn no_columns() -> Toc {
    let int = |n: u8| vec![0, n, 0, 0, 0];
    let mut archive = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
    // Compression and date; three texts and the number of entries.
    (0..8).for_each(|_| archive.extend(int(0)));
    (0..4).for_each(|_| archive.extend(int(0)));
    let mut reader = ArchiveReader::new();
    reader.feed(&archive).unwrap();
    reader.toc().unwrap().clone()
}

fn table(name: &str, data: TableData, digest: Option<&str>) -> TableContents {
    let digest = digest.map(str::to_owned);
    TableContents { schema: "public".to_owned(), name: name.to_owned(), data, digest }
}

fn inventory(tables: Vec<TableContents>) -> Inventory {
    let digests = RowDigests {
        algorithm: "sum".to_owned(),
        key: "key".to_owned(),
        settings: BTreeMap::new(),
    };
    Inventory { tables, row_digests: Some(digests), ..Inventory::default() }
}

fn rows(rows: u64) -> TableData {
    TableData::Complete { rows }
}

fn compare(recorded: &Inventory, found: &Inventory, no_digests: Option<&str>) -> Vec<TableResult> {
    let toc = no_columns();
    let no_digests = no_digests.map(str::to_owned);
    Comparison { recorded, found, archive: &toc, restored: &toc, no_digests }.tables()
}

#[test]
fn what_is_not_the_same_differs_and_what_is_not_known_is_not_equal() {
    let recorded = inventory(vec![
        table("a_same", rows(2), Some("1")),
        table("b_changed", rows(2), Some("1")),
        table("c_fewer", rows(2), Some("1")),
        table("d_gone", rows(2), Some("1")),
        table("e_excluded", TableData::Excluded, None),
        table("f_no_digest", rows(2), None),
        table("g_uncounted", TableData::Uncounted, None),
        table("h_partitioned", TableData::Partitioned, None),
    ]);
    let found = inventory(vec![
        table("a_same", rows(2), Some("1")),
        table("b_changed", rows(2), Some("2")),
        table("c_fewer", rows(1), Some("2")),
        table("e_excluded", rows(0), Some("0")),
        table("f_no_digest", rows(2), Some("1")),
        table("g_uncounted", rows(7), Some("1")),
        table("h_partitioned", TableData::Partitioned, None),
        table("i_from_nowhere", rows(0), Some("0")),
        table("j_of_extension", TableData::ExtensionConfiguration { rows: 1 }, Some("0")),
    ]);
    let results = compare(&recorded, &found, None);
    let short = |outcome: &Outcome| match outcome {
        Outcome::Equal => '=',
        Outcome::Differs => '!',
        Outcome::NotCompared(_) => '?',
    };
    let told: Vec<String> = results
        .iter()
        .map(|r| format!("{}{}{}", &r.name[..1], short(&r.count), short(&r.content)))
        .collect();
    assert_eq!(told, ["a==", "b=!", "c!!", "d!!", "e??", "f=?", "g??", "h==", "i!!"]);
    assert!(results[1].differs() && !results[4].differs());
}

#[test]
fn without_comparable_digests_rows_are_only_counted() {
    let recorded = inventory(vec![table("a", rows(2), Some("1"))]);
    let found = inventory(vec![table("a", rows(2), Some("2"))]);
    let results = compare(&recorded, &found, Some("another version"));
    assert_eq!(results[0].count, Outcome::Equal);
    assert_eq!(results[0].content, Outcome::NotCompared("another version".to_owned()));
}

#[test]
fn large_objects_are_compared_where_there_are_any() {
    let with = |count, digest: &str| Inventory {
        large_objects: Some(count),
        large_objects_digest: Some(digest.to_owned()),
        ..inventory(Vec::new())
    };
    let toc = no_columns();
    let compare = |recorded: &Inventory, found: &Inventory| {
        let no_digests = None;
        Comparison { recorded, found, archive: &toc, restored: &toc, no_digests }.large_objects()
    };
    assert_eq!(compare(&with(0, "0"), &with(0, "0")), None);
    assert!(!compare(&with(2, "1"), &with(2, "1")).unwrap().differs());
    assert!(compare(&with(2, "1"), &with(2, "3")).unwrap().differs());
    assert!(compare(&with(2, "1"), &with(1, "1")).unwrap().differs());
    assert!(compare(&with(0, "0"), &with(1, "1")).unwrap().differs());
}
