//! The lists of a drill's page: checks, definitions that differ, every table.

use std::fmt::Write as _;

use backup_cli::drill::{CheckOutcome, DrillReport, Outcome, TableResult};

use super::escape::{escape, name};
use super::sections::{OPEN, mark, of_outcome};
use crate::command::output;

/// A list of more tables is folded up.
const UNFOLDED_TABLES: usize = 40;

/// The user's SQL.
pub fn checks(page: &mut String, report: &DrillReport) {
    if report.checks.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Own checks</h2>\n<table>\n<thead><tr><th scope=\"col\">SQL</th><th scope=\"col\">Result</th></tr></thead>\n<tbody>\n");
    for check in &report.checks {
        let (class, result) = match &check.outcome {
            CheckOutcome::Passed => ("good", "✔ true".to_owned()),
            CheckOutcome::Failed(answer) => ("bad", format!("✘ {}", escape(answer))),
            CheckOutcome::Error(error) => {
                ("open", format!("– not run<span class=\"why\">{}</span>", escape(error)))
            }
            CheckOutcome::NotRun => ("open", "– not run".to_owned()),
        };
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td class=\"result\"><span class=\"{class}\">{result}</span></td></tr>",
            escape(&check.sql)
        );
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

/// The definitions that differ, before and after.
pub fn schema(page: &mut String, report: &DrillReport) {
    let differences = &report.schema.differences;
    if differences.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Definitions that differ</h2>\n");
    for difference in differences {
        let text = |definition: &Option<String>| match definition {
            Some(text) => format!("<pre>{}</pre>", escape(text.trim())),
            None => "<p>none</p>".to_owned(),
        };
        let _ = writeln!(
            page,
            "<h3>{}</h3>\n<p class=\"soft\">In the backup</p>\n{}\n<p class=\"soft\">Restored</p>\n{}",
            name(&difference.object),
            text(&difference.backup),
            text(&difference.restored)
        );
    }
    page.push_str("</section>\n");
}

/// Every table, those that differ first.
pub fn tables(page: &mut String, report: &DrillReport) {
    if report.tables.is_empty() {
        return;
    }
    page.push_str("<section>\n<h2>Every table</h2>\n");
    let (differing, same): (Vec<_>, Vec<_>) =
        report.tables.iter().chain(&report.large_objects).partition(|table| table.differs());
    if !differing.is_empty() {
        table_list(page, "Tables that differ", &differing);
    }
    let caption = if differing.is_empty() { "In the order of their names" } else { "The others" };
    if same.len() <= UNFOLDED_TABLES {
        table_list(page, caption, &same);
    } else {
        let _ = writeln!(page, "<details>\n<summary>{caption}: {} tables</summary>", same.len());
        table_list(page, caption, &same);
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn table_list(page: &mut String, caption: &str, tables: &[&TableResult]) {
    let _ = write!(
        page,
        "<div class=\"wide\"><table class=\"tables\">\n<caption>{caption}</caption>\n<thead><tr><th scope=\"col\">Table</th><th scope=\"col\" class=\"number\">Rows in the backup</th><th scope=\"col\" class=\"number\">Restored</th><th scope=\"col\">Number</th><th scope=\"col\">Content</th></tr></thead>\n<tbody>\n"
    );
    let number = |rows: Option<u64>| rows.map_or("–".to_owned(), output::count);
    for table in tables {
        let class = if table.differs() { " class=\"differs\"" } else { "" };
        let _ = writeln!(
            page,
            "<tr{class}><th scope=\"row\">{}</th><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"result\">{}</td><td class=\"result\">{}</td></tr>",
            name(&table.label()),
            number(table.rows),
            number(table.restored_rows),
            cell(&table.count, None),
            cell(&table.content, Some(&table.count)),
        );
    }
    page.push_str("</tbody>\n</table></div>\n");
}

/// The same reason is not told twice in a row.
fn cell(outcome: &Outcome, beside: Option<&Outcome>) -> String {
    match outcome {
        Outcome::NotCompared(_) if beside == Some(outcome) => mark(("open", "–")),
        Outcome::NotCompared(why) => {
            format!("{}<span class=\"why\">{}</span>", mark(OPEN), escape(why))
        }
        _ => mark(of_outcome(outcome)),
    }
}
