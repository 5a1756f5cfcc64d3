//! Edits on the table of contents of a real archive.

use super::*;
use crate::ArchiveReader;

fn toc() -> Toc {
    let mut reader = ArchiveReader::new();
    reader.feed(include_bytes!("../archive/fixtures/tables.dump")).unwrap();
    reader.toc().unwrap().clone()
}

fn ids(toc: &Toc, names: &[(&str, &str)]) -> BTreeSet<i64> {
    let wanted = |e: &&TocEntry| {
        crate::archive::is_relation(e) && names.contains(&(e.namespace.as_str(), e.tag.as_str()))
    };
    toc.entries.iter().filter(wanted).map(|e| e.dump_id).collect()
}

fn entry<'a>(toc: &'a Toc, desc: &str, tag: &str) -> &'a TocEntry {
    toc.entries.iter().find(|e| e.desc == desc && e.tag == tag).unwrap()
}

#[test]
fn what_is_named_after_a_table_moves_with_it_and_nothing_else() {
    let mut toc = toc();
    let relations = ids(&toc, &[("audit", "log"), ("audit", "log_id_seq")]);
    into_schema(&mut toc, &relations, "new \"one").unwrap();
    let quoted = r#""new ""one""#;
    let table = entry(&toc, "TABLE", "log");
    assert_eq!(table.namespace, "new \"one");
    assert!(table.defn.starts_with(&format!("CREATE TABLE {quoted}.log (")), "{}", table.defn);
    assert!(table.defn.contains("m audit.mood"), "the type stays: {}", table.defn);
    assert_eq!(
        entry(&toc, "TABLE DATA", "log").copy_stmt.split('(').next().unwrap(),
        format!("COPY {quoted}.log ")
    );
    let set = &entry(&toc, "SEQUENCE SET", "log_id_seq").defn;
    assert!(set.contains(r#"setval('"new ""one".log_id_seq'"#), "{set}");
    let key = &entry(&toc, "FK CONSTRAINT", "log log_pid_fkey").defn;
    assert!(
        key.contains(&format!("ONLY {quoted}.log")) && key.contains("REFERENCES public.parent"),
        "{key}"
    );
    let trigger = &entry(&toc, "TRIGGER", "log tr").defn;
    assert!(
        trigger.contains(&format!("ON {quoted}.log")) && trigger.contains("audit.tf()"),
        "{trigger}"
    );
    for (desc, tag) in [("INDEX", "log_v_idx"), ("POLICY", "log po"), ("STATISTICS", "st")] {
        let defn = &entry(&toc, desc, tag).defn;
        assert!(defn.contains(quoted) && !defn.contains("audit."), "{defn}");
    }
    for (desc, tag) in [("ACL", "TABLE log"), ("COMMENT", "COLUMN log.v")] {
        assert!(entry(&toc, desc, tag).defn.contains(quoted));
    }
    for (desc, tag) in
        [("FUNCTION", "tf()"), ("TYPE", "mood"), ("SCHEMA", "audit"), ("TABLE", "parent")]
    {
        let (before, after) = (self::toc(), entry(&toc, desc, tag));
        assert_eq!(entry(&before, desc, tag), after);
    }
}

#[test]
fn names_inside_defaults_move_with_their_sequence() {
    let mut toc = toc();
    let relations = ids(&toc, &[("public", "parent"), ("public", "parent_id_seq")]);
    into_schema(&mut toc, &relations, "x").unwrap();
    let default = &entry(&toc, "DEFAULT", "parent id").defn;
    assert!(default.contains(r#"nextval('"x".parent_id_seq'::regclass)"#), "{default}");
    let owned = &entry(&toc, "SEQUENCE OWNED BY", "parent_id_seq").defn;
    assert_eq!(owned.trim(), r#"ALTER SEQUENCE "x".parent_id_seq OWNED BY "x".parent.id;"#);
}

#[test]
fn two_tables_of_one_name_do_not_fit_one_schema() {
    let mut toc = toc();
    let relations = ids(&toc, &[("audit", "log"), ("public", "dd")]);
    let table = toc.entries.iter_mut().find(|e| e.desc == "TABLE" && e.tag == "dd").unwrap();
    table.tag = "log".to_owned();
    assert!(into_schema(&mut toc, &relations, "x").is_err());
}

#[test]
fn subscriptions_go_with_their_comments() {
    let mut toc = toc();
    let example = entry(&toc, "TABLE", "parent").clone();
    let make = |dump_id, desc: &str, tag: &str, dependencies: &[i64]| TocEntry {
        dump_id,
        desc: desc.to_owned(),
        tag: tag.to_owned(),
        dependencies: dependencies.to_vec(),
        ..example.clone()
    };
    let before = toc.entries.len();
    toc.entries.extend([
        make(90_001, "SUBSCRIPTION", "s", &[]),
        make(90_002, "COMMENT", "SUBSCRIPTION s", &[90_001]),
        make(90_003, "SUBSCRIPTION TABLE", "s parent", &[90_001, example.dump_id]),
        make(90_004, "COMMENT", "TABLE parent", &[example.dump_id]),
    ]);
    leave_out_subscriptions(&mut toc);
    assert_eq!(toc.entries.len(), before + 1);
    assert_eq!(toc.entries.last().unwrap().dump_id, 90_004);
}
