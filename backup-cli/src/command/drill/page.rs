//! The page about a drill, for people who have to rely on it: one file, nothing to load, no
//! script. What is wrong stands on top.

use std::fmt::Write as _;

use backup_cli::drill::{DrillReport, Outcome, Verdict};
use jiff::Timestamp;

use super::escape::{escape, name};
use super::{lists, sections};
use crate::command::output;

const STYLE: &str = include_str!("page.css");

/// Nothing is loaded and nothing run, even if text slipped through.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const INTRODUCTION: &str = "In a restore drill a backup is restored to a separate place, compared \
    with what was recorded when it was made, and removed again. The original database takes no \
    part in it.";

/// The whole page.
pub fn render(report: &DrillReport) -> String {
    let title = format!("Restore drill of {} ({})", report.backup.database, report.backup.id);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(&title)
    );
    head(&mut page, report);
    page.push_str("<main>\n");
    sections::problems(&mut page, report);
    sections::compared(&mut page, report);
    sections::restored(&mut page, report);
    sections::times(&mut page, report);
    lists::checks(&mut page, report);
    lists::schema(&mut page, report);
    lists::tables(&mut page, report);
    sections::remarks(&mut page, report);
    sections::evidence(&mut page, report);
    page.push_str("</main>\n");
    let _ = write!(
        page,
        "<footer>Made by {} on {} at {}. All times are UTC.</footer>\n</body>\n</html>\n",
        escape(&report.tool),
        name(&report.host),
        output::time(report.finished)
    );
    page
}

fn head(page: &mut String, report: &DrillReport) {
    let database = name(&report.backup.database);
    let (class, sign, word, sentence) = match report.verdict {
        Verdict::Passed => ("good", "✔", "Passed", passed(report)),
        Verdict::Failed => ("bad", "✘", "Failed", failed(report)),
        Verdict::NotProven => (
            "open",
            "?",
            "Not proven",
            "The drill did not come to its end. This says nothing about the backup, good or bad."
                .to_owned(),
        ),
    };
    let _ = write!(
        page,
        "<header>\n<p class=\"kicker\">Restore drill</p>\n\
         <h1>Database {database}, backup of {}</h1>\n\
         <p class=\"intro\">{INTRODUCTION}</p>\n\
         <div class=\"verdict {class}\" role=\"status\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span>\
         <div><strong>{word}</strong><p>{sentence}</p></div></div>\n",
        taken(report),
    );
    facts(page, report);
    page.push_str("</header>\n");
}

fn taken(report: &DrillReport) -> String {
    let started = report.backup.started;
    started.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()
}

/// What the verdict rests on, and what not, in a sentence.
fn passed(report: &DrillReport) -> String {
    let with_rows = report.tables.iter().filter(|table| table.rows.is_some()).count();
    let exact = report.tables.iter().filter(|t| t.rows.is_some() && t.content == Outcome::Equal);
    let rows = match (exact.count(), with_rows) {
        (_, 0) => "It holds no rows to compare.".to_owned(),
        (exact, all) if exact == all => {
            "Every row of every table is the same as when the backup was made.".to_owned()
        }
        (0, _) => "Every table has as many rows as when the backup was made; their content was \
                   not compared."
            .to_owned(),
        (exact, all) => format!(
            "Every row of {exact} of {all} tables is the same as when the backup was made; the \
             others were not compared in full."
        ),
    };
    format!("The backup was restored completely. {rows}")
}

/// A check of the user's may fail on a backup that came back as it was made.
fn failed(report: &DrillReport) -> String {
    let tables = report.tables.iter().chain(&report.large_objects);
    let came_back = !report.tables.is_empty()
        && !tables.clone().any(|table| table.differs())
        && report.schema.differences.is_empty();
    let what = match (report.restored, came_back) {
        (false, _) => "The backup could not be restored.",
        (true, true) => {
            "The backup came back as it was made, but not every configured check is true."
        }
        (true, false) => "What came back is not what was backed up.",
    };
    format!("{what} Do not rely on this backup until the findings below are understood.")
}

fn facts(page: &mut String, report: &DrillReport) {
    let started = report.started;
    let (restored, until) = match report.restored {
        true => {
            (output::duration(report.times.restore), "from the first byte to a usable database")
        }
        false => ("–".to_owned(), "the restore did not come to its end"),
    };
    let rows = match report.restored {
        true => output::count(report.rows()),
        false => "–".to_owned(),
    };
    let tables = match report.tables_counted() {
        0 => "in no table".to_owned(),
        1 => "in 1 table".to_owned(),
        counted => format!("in {} tables", output::count(counted as u64)),
    };
    let facts = [
        ("Drilled", date(started), format!("at {} UTC", started.strftime("%H:%M"))),
        ("Age of the backup", age(report), "when the drill began".to_owned()),
        ("Time to restore", restored, until.to_owned()),
        ("Rows compared", rows, tables),
    ];
    page.push_str("<dl class=\"facts\">\n");
    for (what, value, more) in facts {
        let _ = writeln!(page, "<div><dt>{what}</dt><dd>{value}<small>{more}</small></dd></div>");
    }
    page.push_str("</dl>\n");
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn age(report: &DrillReport) -> String {
    let Some(taken) = report.backup.started else { return "–".to_owned() };
    output::ago(taken, report.started).trim_end_matches(" ago").to_owned()
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
