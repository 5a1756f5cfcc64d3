//! The page with hostile and with missing things in it.

use std::time::Duration;

use backup_cli::drill::{
    BackupFacts, CheckOutcome, CheckResult, PlaceFacts, Problem, SchemaDifference, SchemaResult,
    StoredProof, TableResult, Times,
};

use super::*;

const HOSTILE: &str = "</title></style></pre><script>alert(1)</script>\"'&\u{202e}\n-->";

fn table(name: &str, count: Outcome, content: Outcome) -> TableResult {
    TableResult {
        schema: "public".to_owned(),
        name: name.to_owned(),
        rows: Some(1_234_567),
        restored_rows: Some(1_234_567),
        count,
        content,
    }
}

/// A report in which every text is `text`.
fn report(verdict: Verdict, text: &str) -> DrillReport {
    let text = || text.to_owned();
    let at = "2026-11-22T02:00:00Z".parse().unwrap();
    DrillReport {
        verdict,
        problems: vec![Problem {
            is_failure: true,
            text: text(),
            public: text(),
            next_step: Some(text()),
        }],
        backup: BackupFacts {
            id: text(),
            job: text(),
            database: text(),
            server: text(),
            server_version: Some(text()),
            pg_dump: Some(text()),
            app_version: Some(text()),
            started: Some(at),
            finished: Some(at),
            tool: text(),
            stored_bytes: 1,
            plain_bytes: 2,
            sha256: text(),
            origin: text(),
            read_from: text(),
            stored_in: vec![text(), text()],
        },
        place: PlaceFacts {
            throwaway: false,
            server: text(),
            server_version: text(),
            database: text(),
            pg_restore: text(),
            pg_dump: text(),
            roles_created: vec![text()],
            with_owners: true,
        },
        started: at,
        finished: at,
        tool: text(),
        host: text(),
        times: Times { restore: Duration::from_secs(3), ..Times::default() },
        restored: true,
        tables: vec![
            table(&text(), Outcome::Equal, Outcome::NotCompared(text())),
            table("other", Outcome::Equal, Outcome::Differs),
        ],
        large_objects: Some(table(&text(), Outcome::Equal, Outcome::Equal)),
        schema: SchemaResult {
            compared: 3,
            rewritten: 1,
            differences: vec![SchemaDifference {
                object: text(),
                backup: Some(text()),
                restored: None,
            }],
            not_compared: None,
        },
        checks: vec![
            CheckResult { sql: text(), outcome: CheckOutcome::Failed(text()) },
            CheckResult { sql: text(), outcome: CheckOutcome::Error(text()) },
        ],
        notes: vec![text()],
        left_behind: Some(text()),
        proofs: vec![
            StoredProof { storage: text(), file: text(), error: None },
            StoredProof { storage: text(), file: text(), error: Some(text()) },
        ],
    }
}

/// The tags of a page, in their order.
fn tags(page: &str) -> Vec<&str> {
    let pieces = page.split('<').skip(1);
    pieces.map(|piece| piece.split_once('>').expect("an open tag").0).collect()
}

#[test]
fn hostile_texts_stay_texts() {
    let (harmless, hostile) =
        (render(&report(Verdict::Failed, "x")), render(&report(Verdict::Failed, HOSTILE)));
    assert_eq!(tags(&harmless), tags(&hostile));
    assert!(hostile.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!hostile.contains('\u{202e}'));
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = render(&report(Verdict::Passed, "x"));
    for loads in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(loads), "{loads}");
    }
}

#[test]
fn the_verdict_and_what_is_wrong_come_first() {
    let page = render(&report(Verdict::Failed, "something is wrong here"));
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text:?}"));
    assert!(at("<strong>Failed</strong>") < at("What is wrong"));
    assert!(at("What is wrong") < at("What was compared"));
    assert!(at("Tables that differ") < at("The others"));
    assert!(!page.contains("Passed"));
    assert!(render(&report(Verdict::NotProven, "x")).contains("<strong>Not proven</strong>"));
}

#[test]
fn the_sentence_says_no_more_than_was_proven() {
    let sentence = |contents: &[Outcome]| {
        let mut report = report(Verdict::Passed, "x");
        let tables = contents.iter().map(|content| table("t", Outcome::Equal, content.clone()));
        report.tables = tables.collect();
        passed(&report)
    };
    let not = || Outcome::NotCompared("why".to_owned());
    assert!(sentence(&[Outcome::Equal, Outcome::Equal]).contains("Every row of every table"));
    assert!(sentence(&[Outcome::Equal, not()]).contains("Every row of 1 of 2 tables"));
    assert!(sentence(&[not(), not()]).contains("content was not compared"));
    assert!(sentence(&[]).contains("no rows"));
}

/// A page must not praise what did not happen.
#[test]
fn of_a_restore_that_failed_nothing_is_told_but_that() {
    let mut failed = report(Verdict::Failed, "it is damaged");
    failed.restored = false;
    (failed.tables, failed.large_objects) = (Vec::new(), None);
    failed.schema = SchemaResult {
        not_compared: Some("it did not come to that".to_owned()),
        ..SchemaResult::default()
    };
    failed.checks = vec![CheckResult { sql: "select".to_owned(), outcome: CheckOutcome::NotRun }];
    let page = render(&failed);
    for told in [
        "The backup could not be restored.",
        "✘ failed",
        "<dd>–<small>the restore did not come to its end</small></dd>",
        "Not compared: the restore did not come to its end.",
        "None of 1 configured SQL checks was run.",
    ] {
        assert!(page.contains(told), "{told}");
    }
    for untrue in ["Every byte read", "✔", "usable database", "Equal in", "No SQL checks"] {
        assert!(!page.contains(untrue), "{untrue}");
    }
    failed.verdict = Verdict::NotProven;
    assert!(render(&failed).contains("– not finished"));
}
