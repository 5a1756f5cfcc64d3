//! pg_hba.conf and the new names: whoever is let into the live database by its name may not be
//! let into the restored one before it has that name.

use std::time::Duration;

use backup_core::Result;
use serde::Deserialize;

use super::finding::some_of;
use super::locale::is_about;
use super::{Finding, Inquiry};
use crate::{Connection, Psql, WORKING_PREFIX};

const SUBJECT: &str = "pg_hba.conf";

/// How long a try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Whoever is turned away by name.
const REJECT: &str = "reject";

#[derive(Debug, Deserialize)]
struct Rule {
    line: u32,
    databases: Vec<String>,
    method: String,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if inquiry.is_in_place() {
        return Ok(findings);
    }
    let admin = inquiry.admin.connection();
    if let Some(scratch) = inquiry.options.new_names.first().filter(|name| !name.is_empty()) {
        // The name that it has while it is filled, and the one that it has then.
        let working = format!("{WORKING_PREFIX}preflight");
        for name in [&working, scratch] {
            findings.extend(try_name(inquiry, admin, name).await);
        }
        for client in &inquiry.options.clients {
            findings.extend(try_name(inquiry, client, scratch).await);
        }
    }
    findings.extend(rules(inquiry).await?);
    Ok(findings)
}

/// Connects to a database that does not exist: the server looks into pg_hba.conf and at the
/// password first, so that its answer tells whether one would get in.
async fn try_name(inquiry: &Inquiry<'_>, connection: &Connection, name: &str) -> Option<Finding> {
    let psql = Psql::new(inquiry.admin.tools(), &connection.with_database(name));
    let error = psql.with_timeout(TRY_TIMEOUT).query_text("select 1").await.err()?;
    let who = connection.parameter("user").unwrap_or(&inquiry.role.name);
    let at = connection.server().unwrap_or_else(|| inquiry.admin.name());
    if is_about(&error, "no such database") {
        return Some(Finding::blocking(
            SUBJECT,
            format!("a connection pooler at {at} does not know the database {name}"),
            "connect to the server itself, or let the pooler pass on every name (pgbouncer: a line `* =`)",
        ));
    }
    // In whatever language: a missing database is named, and pg_hba.conf is not.
    let turned_away = is_about(&error, "pg_hba.conf");
    if is_about(&error, name) && !turned_away {
        return None;
    }
    let pattern = inquiry.live_name.unwrap_or(name);
    let remedy = match turned_away {
        true => format!(
            "let a line of pg_hba.conf hold for it (database: all; or from PostgreSQL 16 on the patterns \"/^{WORKING_PREFIX}\" and \"/^{pattern}_\"), and reload"
        ),
        false => error.advice().unwrap_or("look into the server's log").to_owned(),
    };
    Some(Finding::blocking(
        SUBJECT,
        format!(
            "{who} does not get into a database of the new name {name} at {at}: {}",
            error.message()
        ),
        remedy,
    ))
}

/// Lines that name the live database: they don't hold for copies of it under other names.
async fn rules(inquiry: &Inquiry<'_>) -> Result<Option<Finding>> {
    let (Some(live), true) = (inquiry.live_name, inquiry.is_swap()) else { return Ok(None) };
    let readable =
        "select to_json(has_function_privilege('pg_catalog.pg_hba_file_rules()', 'execute')
        and has_table_privilege('pg_catalog.pg_hba_file_rules', 'select'))";
    if !inquiry.psql.query_json::<bool>(readable).await? {
        return Ok(None);
    }
    let sql =
        "select coalesce(json_agg(json_build_object('line', line_number, 'databases', database,
            'method', auth_method) order by line_number), '[]')
        from pg_catalog.pg_hba_file_rules where error is null";
    let rules: Vec<Rule> = inquiry.psql.query_json(sql).await?;
    let by_name: Vec<&Rule> =
        rules.iter().filter(|rule| rule.databases.iter().any(|name| name == live)).collect();
    if by_name.is_empty() {
        return Ok(None);
    }
    let lines = some_of(by_name.iter().map(|rule| format!("{} ({})", rule.line, rule.method)));
    let detail = format!(
        "these lines of pg_hba.conf name {live}: {lines}. They don't hold for the same data under the names of the swap, while it is prepared and afterwards"
    );
    let remedy = "see which lines hold for the new names then, or name them as well (from PostgreSQL 16 on a pattern: /^name_)";
    Ok(Some(match by_name.iter().any(|rule| rule.method == REJECT) {
        true => Finding::warning(SUBJECT, detail, remedy),
        false => Finding::note(SUBJECT, detail, remedy),
    }))
}
