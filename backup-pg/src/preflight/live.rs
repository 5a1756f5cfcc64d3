//! The live database: may it be replaced as it is?

use backup_core::Result;

use super::cluster::Database;
use super::finding::some_of;
use super::{Finding, Inquiry, RestoreMode, Severity};
use crate::sql::quote_ident;

const LIVE: &str = "live database";
const EVENT_TRIGGERS: &str = "event triggers";

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let Some(name) = inquiry.live_name.filter(|_| inquiry.options.mode != RestoreMode::Create)
    else {
        return Ok(Vec::new());
    };
    let Some(live) = inquiry.live() else { return Ok(vec![no_live(inquiry, name)]) };
    let mut findings = state(inquiry, live);
    if let Some(error) = &inquiry.live_refused {
        findings.push(Finding::new(
            if inquiry.is_in_place() { Severity::Blocking } else { Severity::Warning },
            LIVE,
            format!("{name:?} can't be looked into, so its extensions and publications are not known: {}", error.message()),
            error.advice().unwrap_or("let the role that restores connect to it"),
        ));
    }
    findings.extend(event_triggers(inquiry).await?);
    Ok(findings)
}

fn no_live(inquiry: &Inquiry<'_>, name: &str) -> Finding {
    if inquiry.is_in_place() {
        return Finding::blocking(
            LIVE,
            format!("{name:?} does not exist, so nothing can be restored in place"),
            "leave --in-place out: the database is made then",
        );
    }
    Finding::note(
        LIVE,
        format!("{name:?} does not exist: there is nothing to put away"),
        "nothing to do; check the name if you expected one",
    )
}

fn state(inquiry: &Inquiry<'_>, live: &Database) -> Vec<Finding> {
    let (name, quoted) = (&live.name, quote_ident(&live.name));
    let mut findings = Vec::new();
    if ["template0", "template1"].contains(&name.as_str()) {
        findings.push(Finding::blocking(
            LIVE,
            format!("{name} is one of the server's own templates"),
            "name the database of the application",
        ));
    } else if live.is_template && inquiry.is_swap() {
        findings.push(Finding::warning(
            LIVE,
            format!("{name:?} is a template: whoever makes a database from it gets the restored one"),
            format!("afterwards: ALTER DATABASE {quoted} IS_TEMPLATE true; and, before the old one can be dropped, IS_TEMPLATE false for that"),
        ));
    }
    if inquiry.is_swap() && inquiry.admin.database() == name {
        findings.push(Finding::blocking(
            LIVE,
            format!("the maintenance connection leads to {name:?} itself, which can't be renamed from inside"),
            "let admin_url name another database, such as postgres",
        ));
    }
    if live.is_invalid() {
        findings.push(Finding::blocking(
            LIVE,
            format!("{name:?} is invalid: a DROP DATABASE was cut off, its files may be gone"),
            format!("finish it (DROP DATABASE {quoted}), then restore under the same name"),
        ));
    } else if !live.allows_connections {
        findings.push(Finding::blocking(
            LIVE,
            format!("{name:?} accepts no connections: an unfinished swap, or somebody closed it"),
            format!("finish a swap that was cut off with `restore --continue` or `restore --rollback`; otherwise find out why, then: ALTER DATABASE {quoted} ALLOW_CONNECTIONS true"),
        ));
    }
    findings
}

/// In place they fire on what the restore does; a swap leaves them with the old database.
async fn event_triggers(inquiry: &Inquiry<'_>) -> Result<Option<Finding>> {
    let Some(psql) = inquiry.live_psql() else { return Ok(None) };
    let sql = "select coalesce(json_agg(evtname order by evtname), '[]')
        from pg_catalog.pg_event_trigger where evtenabled <> 'D'";
    let mut names: Vec<String> = psql.query_json(sql).await?;
    if inquiry.is_in_place() {
        let detail = format!(
            "the live database has some, which fire on what the restore does: {}",
            some_of(&names)
        );
        let remedy = "disable them for the restore: ALTER EVENT TRIGGER .. DISABLE";
        return Ok((!names.is_empty()).then(|| Finding::warning(EVENT_TRIGGERS, detail, remedy)));
    }
    let archived = inquiry.needs.superuser_objects.get("event trigger");
    names.retain(|name| !archived.is_some_and(|archived| archived.contains(name)));
    if names.is_empty() || !inquiry.needs.complete {
        return Ok(None);
    }
    let detail = format!("the live database has some that the backup lacks: {}", some_of(&names));
    Ok(Some(Finding::note(
        EVENT_TRIGGERS,
        detail,
        "create them in the restored database, if they are still wanted",
    )))
}
