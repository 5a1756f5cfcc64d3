//! The names that databases get by a restore.

use backup_core::Result;

use super::{Finding, Inquiry};

const NAMES: &str = "database names";

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let longest = "select to_json(current_setting('max_identifier_length')::int4)";
    let longest: usize = inquiry.psql.query_json(longest).await?;
    let mut findings = Vec::new();
    let mut seen: Vec<&str> = inquiry.live_name.into_iter().collect();
    for name in &inquiry.options.new_names {
        findings.extend(new_name(inquiry, name, longest, &seen));
        seen.push(name);
    }
    Ok(findings)
}

fn new_name(inquiry: &Inquiry<'_>, name: &str, longest: usize, seen: &[&str]) -> Option<Finding> {
    let length = name.len();
    let (detail, remedy) = if name.is_empty() {
        ("a name is empty".to_owned(), "name the database".to_owned())
    } else if length > longest {
        let detail = format!("{name:?} has {length} bytes; the server cuts names after {longest}");
        (detail, "use a shorter name".to_owned())
    } else if seen.contains(&name) {
        (format!("{name:?} is wanted for two databases"), "use different names".to_owned())
    } else if inquiry.databases.iter().any(|database| database.name == name) {
        let detail = format!("a database {name:?} exists already");
        (detail, "use another name, or drop that database if nobody needs it".to_owned())
    } else {
        return None;
    };
    Some(Finding::blocking(NAMES, detail, remedy))
}
