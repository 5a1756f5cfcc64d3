//! The sections of a drill's page.

use std::fmt::Write as _;
use std::time::Duration;

use backup_cli::drill::{DrillReport, Outcome, TableResult, Verdict};

use super::escape::{escape, name};
use crate::command::output;

/// What is wrong, the worst first. Nothing when nothing is.
pub fn problems(page: &mut String, report: &DrillReport) {
    if let Some(left) = &report.left_behind {
        let _ = writeln!(
            page,
            "<h2>Left behind</h2>\n<p class=\"bad\">Restored data could not be removed: {}</p>",
            escape(left)
        );
    }
    if report.problems.is_empty() {
        return;
    }
    let (heading, class) = match report.verdict {
        Verdict::Failed => ("What is wrong", "bad"),
        _ => ("What kept it from its end", "open"),
    };
    let _ =
        writeln!(page, "<section>\n<h2 class=\"{class}\">{heading}</h2>\n<ol class=\"problems\">");
    for problem in &report.problems {
        let kind = if problem.is_failure { "" } else { "<span class=\"soft\">Not done: </span>" };
        let _ = write!(page, "<li>{kind}{}", escape(&problem.text));
        if let Some(step) = &problem.next_step {
            let _ = write!(page, "<br><span class=\"soft\">Next: {}</span>", escape(step));
        }
        page.push_str("</li>\n");
    }
    page.push_str("</ol>\n</section>\n");
}

/// What came of one comparison: class, sign and word.
pub type Mark = (&'static str, &'static str);

const EQUAL: Mark = ("good", "✔ equal");
const DIFFERS: Mark = ("bad", "✘ differs");
const DONE: Mark = ("good", "✔ done");
/// A comparison that was not made.
pub const OPEN: Mark = ("open", "– not compared");

/// A result as a word of its colour.
pub fn mark((class, text): Mark) -> String {
    format!("<span class=\"{class}\">{text}</span>")
}

/// Every comparison, with its result and how it was made.
pub fn compared(page: &mut String, report: &DrillReport) {
    let mut rows = vec![restore_row(report)];
    rows.extend(row_rows(report));
    if let Some(objects) = &report.large_objects {
        rows.push((
            "Large objects",
            of_outcome(&objects.content),
            format!("{} objects, compared like rows.", output::count(objects.rows.unwrap_or(0))),
        ));
    }
    rows.push(("Definitions", schema_mark(report), schema_how(report)));
    rows.push(check_row(report));
    page.push_str("<section>\n<h2>What was compared</h2>\n<table class=\"compared\">\n<thead><tr><th scope=\"col\">What</th><th scope=\"col\">Result</th><th scope=\"col\">How</th></tr></thead>\n<tbody>\n");
    for (what, result, how) in rows {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{what}</th><td class=\"result\">{}</td><td>{}</td></tr>",
            mark(result),
            escape(&how)
        );
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

/// What was looked at, what came of it, and how.
type Row = (&'static str, Mark, String);

const NOT_RESTORED: &str = "Not compared: the restore did not come to its end.";

fn restore_row(report: &DrillReport) -> Row {
    let (mark, how) = match (report.restored, report.verdict) {
        (true, _) => (
            DONE,
            "Every byte read had its recorded SHA-256, was decrypted and unpacked without a \
             fault, and PostgreSQL's own pg_restore ended without an error.",
        ),
        (false, Verdict::Failed) => (("bad", "✘ failed"), "See what is wrong, above."),
        (false, _) => (("open", "– not finished"), "See what kept it from its end, above."),
    };
    ("Restore", mark, how.to_owned())
}

fn row_rows(report: &DrillReport) -> [Row; 2] {
    let (number, content) = ("Number of rows", "Content of rows");
    if !report.restored {
        return [number, content].map(|what| (what, OPEN, NOT_RESTORED.to_owned()));
    }
    let all = report.tables.iter().filter(|table| table.rows.is_some()).count();
    let counted = format!(
        "Equal in {} of {all} tables that have rows in the backup, counted again.",
        count(report, |t| &t.count)
    );
    let hashed = format!(
        "Equal in {} of {all} tables: a keyed 256-bit hash of each row, summed up, against the \
         sum taken during the backup.",
        count(report, |t| &t.content)
    );
    [
        (number, overall(report, |t| &t.count), counted),
        (content, overall(report, |t| &t.content), hashed),
    ]
}

fn check_row(report: &DrillReport) -> Row {
    let (all, passed) = (report.checks.len(), report.checks_passed());
    let (mark, how) = match (all, report.checks_run()) {
        (0, _) => (("open", "– none"), "No SQL checks are configured.".to_owned()),
        (_, 0) => (("open", "– not run"), format!("None of {all} configured SQL checks was run.")),
        _ if passed == all => {
            (("good", "✔ true"), format!("{passed} of {all} configured SQL checks gave true."))
        }
        _ => (
            ("bad", "✘ not all true"),
            format!("{passed} of {all} configured SQL checks gave true."),
        ),
    };
    ("Own checks", mark, how)
}

fn count(report: &DrillReport, pick: fn(&TableResult) -> &Outcome) -> usize {
    let with_rows = report.tables.iter().filter(|table| table.rows.is_some());
    with_rows.filter(|table| *pick(table) == Outcome::Equal).count()
}

fn overall(report: &DrillReport, pick: fn(&TableResult) -> &Outcome) -> Mark {
    let with_rows = || report.tables.iter().filter(|table| table.rows.is_some());
    if report.tables.iter().any(|table| *pick(table) == Outcome::Differs) {
        DIFFERS
    } else if with_rows().next().is_none() {
        ("open", "– nothing to compare")
    } else if with_rows().all(|table| *pick(table) == Outcome::Equal) {
        EQUAL
    } else if with_rows().any(|table| *pick(table) == Outcome::Equal) {
        ("open", "✔ equal, not all")
    } else {
        OPEN
    }
}

/// The mark of a comparison.
pub fn of_outcome(outcome: &Outcome) -> Mark {
    match outcome {
        Outcome::Equal => EQUAL,
        Outcome::Differs => DIFFERS,
        Outcome::NotCompared(_) => OPEN,
    }
}

fn schema_mark(report: &DrillReport) -> Mark {
    match (&report.schema.not_compared, report.schema.differences.is_empty()) {
        (Some(_), _) => OPEN,
        (None, true) => EQUAL,
        (None, false) => DIFFERS,
    }
}

fn schema_how(report: &DrillReport) -> String {
    let schema = &report.schema;
    if let Some(why) = &schema.not_compared {
        return format!("Not compared: {why}.");
    }
    let mut how = format!(
        "{} definitions (tables, indexes, constraints, functions, views and all others), dumped again.",
        output::count(schema.compared as u64)
    );
    if schema.rewritten > 0 {
        how.push_str(&format!(
            " PostgreSQL writes {} of them with other casts and parentheses after any restore; they mean the same.",
            schema.rewritten
        ));
    }
    if !report.place.with_owners {
        how.push_str(" Owners and grants were not restored and not compared.");
    }
    how
}

fn pairs(page: &mut String, pairs: &[(&str, String)]) {
    page.push_str("<dl class=\"pairs\">\n");
    for (what, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(page, "<dt>{what}</dt><dd>{value}</dd>");
    }
    page.push_str("</dl>\n");
}

/// From where to where.
pub fn restored(page: &mut String, report: &DrillReport) {
    let (backup, place) = (&report.backup, &report.place);
    let versions = |server: &str, tool: &str, version: &str| match version {
        "" => escape(server),
        version => escape(&format!("{server}, {tool} {version}")),
    };
    page.push_str("<section>\n<h2>What was restored, and where</h2>\n<h3>The backup</h3>\n");
    let source_version = backup.server_version.as_deref().unwrap_or("unknown");
    let of = |at: Option<jiff::Timestamp>| at.map(output::time).unwrap_or_default();
    pairs(
        page,
        &[
            ("Database", format!("{} on {}", name(&backup.database), name(&backup.server))),
            ("Backup", format!("<code>{}</code> of job {}", escape(&backup.id), name(&backup.job))),
            ("Taken", format!("{} to {}", of(backup.started), of(backup.finished))),
            (
                "PostgreSQL",
                versions(
                    source_version,
                    "read by pg_dump",
                    backup.pg_dump.as_deref().unwrap_or_default(),
                ),
            ),
            ("Application", backup.app_version.as_deref().map(escape).unwrap_or_default()),
            (
                "Read from",
                format!(
                    "storage {} (stored in {})",
                    name(&backup.read_from),
                    escape(&backup.stored_in.join(", "))
                ),
            ),
            (
                "Size",
                format!(
                    "{} stored, {} unpacked",
                    output::size(backup.stored_bytes),
                    output::size(backup.plain_bytes)
                ),
            ),
            ("Origin", escape(&backup.origin)),
        ],
    );
    page.push_str("<h3>The server it was restored to</h3>\n");
    let kind = match place.throwaway {
        true => "a throwaway server on this host, reachable by nobody else, removed afterwards"
            .to_owned(),
        false => format!("{}, in a new database that was dropped afterwards", name(&place.server)),
    };
    pairs(
        page,
        &[
            ("Server", kind),
            (
                "PostgreSQL",
                versions(&place.server_version, "restored by pg_restore", &place.pg_restore),
            ),
            ("Database", format!("<code>{}</code>", escape(&place.database))),
        ],
    );
    page.push_str("</section>\n");
}

/// The steps, each as long as it took.
pub fn times(page: &mut String, report: &DrillReport) {
    let times = &report.times;
    let steps: [(&str, Duration, bool); 8] = [
        ("Preparing the server", times.prepare, false),
        ("Restore", times.restore, false),
        ("waiting for data (download, decryption, unpacking)", times.waiting, true),
        ("loading it", times.loading, true),
        ("indexes, constraints, counting, statistics", times.finishing, true),
        ("Reading again and comparing", times.compare, false),
        ("Own checks", times.checks, false),
        ("Removing everything", times.clean_up, false),
    ];
    let longest = steps.iter().map(|(_, took, _)| took.as_secs_f64()).fold(0.001, f64::max);
    page.push_str("<section>\n<h2>How long it took</h2>\n<table>\n<caption>The restore is what an emergency would wait for, on a server like this one.");
    if report.place.throwaway {
        page.push_str(" A throwaway server does not wait for its disk (fsync is off): expect a production server to take longer.");
    }
    page.push_str("</caption>\n<thead><tr><th scope=\"col\">Step</th><th scope=\"col\" class=\"number\">Time</th><th scope=\"col\">Share</th></tr></thead>\n<tbody>\n");
    for (step, took, is_part) in steps {
        let class = if is_part { " class=\"part\"" } else { "" };
        let share = took.as_secs_f64() / longest * 100.0;
        let _ = writeln!(
            page,
            "<tr{class}><th scope=\"row\">{step}</th><td class=\"number\">{}</td><td class=\"bar\"><span style=\"width:{share:.1}%\"></span></td></tr>",
            output::duration(took)
        );
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

/// What one must know, and what a drill never compares.
pub fn remarks(page: &mut String, report: &DrillReport) {
    page.push_str("<section>\n<h2>Remarks</h2>\n<ul>\n");
    for note in &report.notes {
        let _ = writeln!(page, "<li>{}</li>", escape(note));
    }
    if !report.place.roles_created.is_empty() {
        let roles: Vec<String> = report.place.roles_created.iter().map(|role| name(role)).collect();
        let _ = writeln!(page, "<li>Roles made from the backup: {}</li>", roles.join(", "));
    }
    page.push_str(
        "<li>Never part of a drill: tablespaces, subscriptions, replication slots, the server's own \
         configuration, and whatever lies outside the database.</li>\n</ul>\n</section>\n",
    );
}

/// What can be looked up later, and room for whoever looked.
pub fn evidence(page: &mut String, report: &DrillReport) {
    page.push_str("<section>\n<h2>Evidence</h2>\n");
    let backup = &report.backup;
    let proofs = report.proofs.iter().map(|proof| match &proof.error {
        None => format!("{}: <code>proofs/{}</code>", name(&proof.storage), escape(&proof.file)),
        Some(error) => format!(
            "{}: <span class=\"bad\">not stored: {}</span>",
            name(&proof.storage),
            escape(error)
        ),
    });
    let removed = match report.left_behind {
        None => "removed at the end of the drill",
        Some(_) => "<span class=\"bad\">not removed, see the top of this page</span>",
    };
    let mut proofs = proofs.collect::<Vec<_>>().join("<br>");
    if proofs.is_empty() {
        proofs = "none: a drill without a result leaves none".to_owned();
    }
    pairs(
        page,
        &[
            (
                "Drill",
                format!("{} to {}", output::time(report.started), output::time(report.finished)),
            ),
            ("Drilled by", format!("{} on {}", escape(&report.tool), name(&report.host))),
            ("Backup made by", escape(&backup.tool)),
            (
                "Dump, as stored",
                format!(
                    "{} bytes, SHA-256 <code>{}</code>",
                    output::count(backup.stored_bytes),
                    escape(&backup.sha256)
                ),
            ),
            ("Proof", proofs),
            ("Restored data", removed.to_owned()),
        ],
    );
    page.push_str("<div class=\"sign-off\"><div>Reviewed by</div><div>Date</div><div>Signature</div></div>\n</section>\n");
}
