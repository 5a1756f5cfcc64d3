//! Statements for databases with hostile names, of every version's spelling.

use super::*;
use crate::archive::{ArchiveReader, Section};

const OLD: &str = "a \"b\nDATABASE 😀";
const NEW: &str = "it's \"new\"; --";

/// A table of contents with these entries instead of its own.
fn toc(entries: &[(&str, &str, &str)]) -> Toc {
    let mut reader = ArchiveReader::new();
    reader.feed(include_bytes!("archive/fixtures/pg15-none.dump")).unwrap();
    let mut toc = reader.toc().unwrap().clone();
    toc.entries.truncate(1);
    let empty = TocEntry {
        has_data: false,
        section: Section::None,
        defn: String::new(),
        owner: "ow\"ner".to_owned(),
        namespace: String::new(),
        exact: true,
        ..toc.entries.pop().unwrap()
    };
    let entry = |(desc, tag, defn): &(&str, &str, &str)| TocEntry {
        desc: (*desc).to_owned(),
        tag: (*tag).to_owned(),
        defn: (*defn).to_owned(),
        ..empty.clone()
    };
    toc.entries = entries.iter().map(entry).collect();
    toc
}

fn old() -> String {
    quote_ident(OLD)
}

fn create(options: &str) -> Toc {
    toc(&[("DATABASE", OLD, &format!("CREATE DATABASE {} WITH {options};\n\n\n", old()))])
}

fn planned(options: &str, major: u32) -> String {
    let map = TablespaceMap {
        ignore: false,
        renamed: [("fast ssd".to_owned(), "other".to_owned())].into(),
    };
    plan_database(&create(options), NEW, major, &map).unwrap().create
}

#[test]
fn encoding_and_locale_are_kept_and_the_name_is_new() {
    let options =
        "TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8'";
    let head = r#"CREATE DATABASE "it's ""new""; --" WITH TEMPLATE = template0 ENCODING = 'UTF8'"#;
    assert_eq!(planned(options, 15), format!("{head} LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8'"));
    assert_eq!(planned(options, 14), format!("{head} LOCALE = 'C.UTF-8'"));
}

#[test]
fn what_newer_versions_spell_is_kept() {
    for options in [
        "ENCODING = 'UTF8' LOCALE_PROVIDER = icu LC_COLLATE = 'C' LC_CTYPE = 'de' ICU_LOCALE = 'de-AT' ICU_RULES = '&a < ''g'' = x'",
        "ENCODING = 'UTF8' LOCALE_PROVIDER = builtin LOCALE = 'C' BUILTIN_LOCALE = 'C.UTF-8'",
    ] {
        let sql = planned(&format!("TEMPLATE = template0 {options}"), 17);
        assert!(sql.ends_with(options), "{sql}");
    }
}

#[test]
fn versions_of_collations_and_oids_stay_behind() {
    let sql = planned(
        "TEMPLATE = template0 OID = 16999 ENCODING = 'UTF8' COLLATION_VERSION = '2.36'",
        16,
    );
    assert!(sql.ends_with("TEMPLATE = template0 ENCODING = 'UTF8'"), "{sql}");
}

#[test]
fn tablespaces_are_mapped_kept_or_left_out() {
    assert!(
        planned("ENCODING = 'UTF8' TABLESPACE = \"fast ssd\"", 15)
            .ends_with("TABLESPACE = \"other\"")
    );
    assert!(planned("ENCODING = 'UTF8' TABLESPACE = slow", 15).ends_with("TABLESPACE = \"slow\""));
    let ignore = TablespaceMap { ignore: true, ..TablespaceMap::default() };
    let plan = plan_database(&create("ENCODING = 'UTF8' TABLESPACE = slow"), NEW, 15, &ignore);
    assert!(plan.unwrap().create.ends_with("ENCODING = 'UTF8'"));
}

#[test]
fn properties_name_the_new_database_and_nothing_else_changes() {
    let old = old();
    let tag = format!("DATABASE {old}");
    let settings = format!(
        "ALTER DATABASE {old} CONNECTION LIMIT = 17;\nALTER DATABASE {old} IS_TEMPLATE = true;\n\
         ALTER DATABASE {old} SET \"my.DATABASE\" TO 'DATABASE {OLD}', 'x';\n\
         ALTER ROLE \"DATABASE\" IN DATABASE {old} SET search_path TO '', 'DATABASE a';\n"
    );
    let comment = format!("COMMENT ON DATABASE {old} IS E'DATABASE {old} \\'; x';");
    let acl = format!(
        "REVOKE ALL ON DATABASE {old} FROM PUBLIC;\nSET SESSION AUTHORIZATION bob;\n\
         GRANT CONNECT ON DATABASE {old} TO \"DATABASE\";\nRESET SESSION AUTHORIZATION;\n"
    );
    let label = format!("SECURITY LABEL FOR dummy ON DATABASE {old} IS 'x';");
    let create = format!("CREATE DATABASE {old} WITH TEMPLATE = template0 ENCODING = 'UTF8';");
    let toc = toc(&[
        ("DATABASE", OLD, &create),
        ("COMMENT", &tag, &comment),
        ("COMMENT", "TABLE x", "COMMENT ON TABLE x IS 'DATABASE';"),
        ("DATABASE PROPERTIES", OLD, &settings),
        ("SECURITY LABEL", &tag, &label),
        ("ACL", &tag, &acl),
    ]);
    let plan = plan_database(&toc, NEW, 15, &TablespaceMap::default()).unwrap();
    let new = quote_ident(NEW);
    let comment = format!("COMMENT ON DATABASE {new} IS E'DATABASE {old} \\'; x'");
    assert_eq!(plan.comment, Some(comment));
    assert_eq!(
        plan.properties,
        [
            format!("ALTER DATABASE {new} OWNER TO \"ow\"\"ner\""),
            format!("ALTER DATABASE {new} CONNECTION LIMIT = 17"),
            format!("ALTER DATABASE {new} IS_TEMPLATE = true"),
            format!("ALTER DATABASE {new} SET \"my.DATABASE\" TO 'DATABASE {OLD}', 'x'"),
            format!(
                "ALTER ROLE \"DATABASE\" IN DATABASE {new} SET search_path TO '', 'DATABASE a'"
            ),
            format!("SECURITY LABEL FOR dummy ON DATABASE {new} IS 'x'"),
            format!(
                "REVOKE ALL ON DATABASE {new} FROM PUBLIC;\nSET SESSION AUTHORIZATION bob;\n\
                 GRANT CONNECT ON DATABASE {new} TO \"DATABASE\";\nRESET SESSION AUTHORIZATION"
            ),
        ]
    );
}

#[test]
fn a_statement_about_another_database_is_refused() {
    let create = format!("CREATE DATABASE {} WITH ENCODING = 'UTF8';", old());
    let toc = toc(&[
        ("DATABASE", OLD, &create),
        ("DATABASE PROPERTIES", OLD, "ALTER DATABASE prod RENAME TO x;"),
    ]);
    assert!(plan_database(&toc, NEW, 15, &TablespaceMap::default()).is_err());
}

#[test]
fn facts_are_those_of_the_provider() {
    let icu = "TEMPLATE = template0 ENCODING = 'LATIN1' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de'";
    let facts = database_facts(&create(icu)).unwrap();
    assert_eq!((facts.name.as_str(), facts.encoding.as_str()), (OLD, "LATIN1"));
    assert_eq!(facts.locale_provider.as_deref(), Some("icu"));
    assert_eq!(facts.locale.as_deref(), Some("de"));
    assert!(database_facts(&toc(&[])).is_none());
}
