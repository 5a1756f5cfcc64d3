//! Choices from a real archive of many kinds of objects, see fixtures/tables.sql.

use super::*;
use crate::ArchiveReader;
use backup_core::ErrorKind;

fn toc() -> Toc {
    let mut reader = ArchiveReader::new();
    reader.feed(include_bytes!("fixtures/tables.dump")).unwrap();
    reader.toc().unwrap().clone()
}

fn chosen(
    patterns: &[&str],
    what: SelectedPart,
    present: &Present,
) -> Result<(Vec<String>, Vec<String>)> {
    let toc = toc();
    let tables = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let selection = Selection { tables, what, into_schema: None };
    let selected = select(&toc, &selection, present)?;
    let wanted = toc.entries.iter().filter(|e| selected.entries.contains(&e.dump_id));
    let labels = wanted.filter(|e| !SETTINGS.contains(&e.desc.as_str()));
    let mut labels: Vec<String> = labels.map(|e| format!("{} {}", e.desc, e.tag)).collect();
    labels.sort();
    Ok((labels, selected.notes))
}

fn existing(relations: &[(&str, &str)]) -> Present {
    let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    Present {
        relations: relations.iter().map(own).collect(),
        types: [own(&("audit", "mood"))].into(),
        functions: [own(&("audit", "tf()"))].into(),
        schemas: ["audit".to_owned(), "public".to_owned()].into(),
        is_existing: true,
        ..Present::default()
    }
}

const LOG: [&str; 15] = [
    "ACL COLUMN log.v",
    "ACL TABLE log",
    "COMMENT COLUMN log.v",
    "COMMENT TABLE log",
    "CONSTRAINT log log_pkey",
    "FK CONSTRAINT log log_pid_fkey",
    "INDEX log_v_idx",
    "POLICY log po",
    "ROW SECURITY log",
    "SEQUENCE SET log_id_seq",
    "SEQUENCE log_id_seq",
    "STATISTICS st",
    "TABLE DATA log",
    "TABLE log",
    "TRIGGER log tr",
];

#[test]
fn what_belongs_to_a_table_comes_with_it() {
    let there = existing(&[("public", "parent")]);
    let (labels, notes) = chosen(&["log"], SelectedPart::All, &there).unwrap();
    assert_eq!(labels, LOG);
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn a_new_database_gets_what_the_table_needs() {
    let nothing = Present::default();
    let (labels, notes) = chosen(&["audit.log"], SelectedPart::All, &nothing).unwrap();
    for needed in ["SCHEMA audit", "TYPE mood", "FUNCTION tf()"] {
        assert!(labels.iter().any(|label| label == needed), "{needed} in {labels:?}");
    }
    // The other table is not there: neither are those that refer to it.
    assert!(!labels.iter().any(|l| l.starts_with("FK ") || l.starts_with("POLICY")), "{labels:?}");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("public.parent is neither")), "{notes:?}");
    let (labels, notes) = chosen(&["log", "parent"], SelectedPart::All, &nothing).unwrap();
    for needed in ["FK CONSTRAINT log log_pid_fkey", "POLICY log po", "RULE parent r"] {
        assert!(labels.iter().any(|label| label == needed), "{needed} in {labels:?}");
    }
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn rows_alone_or_definitions_alone() {
    let there = existing(&[("audit", "log"), ("audit", "log_id_seq")]);
    let (labels, _) = chosen(&["log"], SelectedPart::DataOnly, &there).unwrap();
    assert_eq!(labels, ["SEQUENCE SET log_id_seq", "TABLE DATA log"]);
    let there = existing(&[("public", "parent")]);
    let (labels, _) = chosen(&["log"], SelectedPart::SchemaOnly, &there).unwrap();
    let without_rows =
        LOG.iter().filter(|l| **l != "TABLE DATA log" && !l.starts_with("SEQUENCE SET"));
    assert_eq!(labels, without_rows.copied().collect::<Vec<_>>());
}

#[test]
fn sequences_and_partitions_come_along() {
    let nothing = Present::default();
    let (labels, _) = chosen(&["public.pt"], SelectedPart::All, &nothing).unwrap();
    assert_eq!(
        labels,
        [
            "INDEX ATTACH pt1_b_idx",
            "INDEX pt1_b_idx",
            "INDEX pt_b_idx",
            "TABLE ATTACH pt1",
            "TABLE DATA pt1",
            "TABLE pt",
            "TABLE pt1",
        ]
    );
    // Alone a partition is a table like others; its parent takes it when there is one.
    let (labels, notes) = chosen(&["pt1"], SelectedPart::All, &nothing).unwrap();
    assert_eq!(labels, ["INDEX pt1_b_idx", "TABLE DATA pt1", "TABLE pt1"]);
    assert_eq!(notes.len(), 1);
    let (labels, notes) =
        chosen(&["pt1"], SelectedPart::All, &existing(&[("public", "pt")])).unwrap();
    assert_eq!(labels, ["TABLE ATTACH pt1", "TABLE DATA pt1", "TABLE pt1"]);
    assert!(notes.is_empty(), "{notes:?}");
    // A serial's sequence is its own; another one is made when it is missing.
    let (labels, _) = chosen(&["parent"], SelectedPart::All, &nothing).unwrap();
    for needed in ["SEQUENCE parent_id_seq", "SEQUENCE OWNED BY parent_id_seq", "DEFAULT parent id"]
    {
        assert!(labels.iter().any(|label| label == needed), "{needed} in {labels:?}");
    }
    assert!(!labels.iter().any(|label| label.contains("child")), "{labels:?}");
    let (labels, _) = chosen(&["dd"], SelectedPart::All, &nothing).unwrap();
    let wanted = [
        "SCHEMA audit",
        "SEQUENCE SET loose",
        "SEQUENCE loose",
        "TABLE DATA dd",
        "TABLE dd",
        "TYPE mood",
    ];
    assert_eq!(labels, wanted);
    let there = existing(&[("public", "loose")]);
    let (labels, _) = chosen(&["dd"], SelectedPart::All, &there).unwrap();
    assert_eq!(labels, ["TABLE DATA dd", "TABLE dd"]);
}

#[test]
fn what_cannot_be_made_alone_is_refused() {
    for (pattern, needs) in
        [("vw", "public.parent"), ("mv", "public.parent"), ("child", "public.parent")]
    {
        let error = chosen(&[pattern], SelectedPart::All, &Present::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.message().contains(needs), "{error}");
        assert!(chosen(&[pattern], SelectedPart::All, &existing(&[("public", "parent")])).is_ok());
        assert!(chosen(&[pattern, "parent"], SelectedPart::All, &Present::default()).is_ok());
    }
}

#[test]
fn a_pattern_that_matches_nothing_names_the_nearest() {
    let error = chosen(&["log", "parnet"], SelectedPart::All, &Present::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("public.parent"), "{error}");
}
