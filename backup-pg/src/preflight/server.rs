//! The server itself: may anything be changed there, and do versions and tools suit?

use backup_core::Result;

use super::{Finding, Inquiry};
use crate::tools::how_to_install;

const SUBJECT: &str = "server";

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if inquiry.admin.is_standby() {
        findings.push(Finding::blocking(
            SUBJECT,
            "it is a standby (or still recovers): nothing can be changed there",
            "name the primary instead",
        ));
    }
    if is_read_only(inquiry).await? {
        findings.push(Finding::blocking(
            SUBJECT,
            "its sessions are read-only: default_transaction_read_only is on",
            "find out who set it and why (it may be a server that was switched off on purpose); \
             then take it back, or add options='-c default_transaction_read_only=off' to the connection",
        ));
    }
    findings.extend(versions(inquiry));
    findings.extend(tools(inquiry).await?);
    Ok(findings)
}

/// In the session that restores: that of the live database has settings of its own.
async fn is_read_only(inquiry: &Inquiry<'_>) -> Result<bool> {
    let live = inquiry.live_psql().filter(|_| inquiry.is_in_place());
    let sql = "select to_json(current_setting('default_transaction_read_only') = 'on')";
    live.as_ref().unwrap_or(&inquiry.psql).query_json(sql).await
}

fn versions(inquiry: &Inquiry<'_>) -> Vec<Finding> {
    let major = inquiry.major;
    let mut findings = Vec::new();
    if let Some(source) = inquiry.needs.server_major.filter(|source| *source > major) {
        findings.push(Finding::warning(
            SUBJECT,
            format!("it is PostgreSQL {major}, the backup came from {source}"),
            "restore on the same version or a newer one: what an older one does not know makes the restore fail",
        ));
    }
    if let Some(dump) = inquiry.needs.dump_major.filter(|dump| *dump > major)
        && inquiry.needs.server_major.is_none_or(|source| source <= major)
    {
        findings.push(Finding::note(
            SUBJECT,
            format!("pg_dump {dump} wrote the archive, the server is PostgreSQL {major}"),
            "nothing to do: settings that the server does not know are passed over",
        ));
    }
    findings
}

async fn tools(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let Some(archive) = inquiry.needs.archive else { return Ok(Vec::new()) };
    let needed = inquiry.major.max(archive.first_reader());
    let installed = inquiry.options.search.installed().await?;
    if installed.iter().any(|tools| tools.version().major >= needed) {
        return Ok(Vec::new());
    }
    let newest = installed.first().map_or("none".to_owned(), |t| t.version().to_string());
    Ok(vec![Finding::blocking(
        "client tools",
        format!(
            "pg_restore {needed} or newer is needed (archive format {archive}, server {}); the newest here is {newest}",
            inquiry.major
        ),
        how_to_install(needed),
    )])
}
