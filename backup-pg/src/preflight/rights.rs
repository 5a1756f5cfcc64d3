//! What the role that restores may do. A superuser may do all of it.

use backup_core::Result;

use super::finding::some_of;
use super::{Finding, Inquiry, RestoreMode, Severity};
use crate::sql::{quote_ident, quote_literal};

const SUBJECT: &str = "rights";

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    if inquiry.role.superuser {
        return Ok(Vec::new());
    }
    let me = &inquiry.role.name;
    let mut findings = Vec::new();
    if !inquiry.is_in_place() && !inquiry.role.createdb {
        findings.push(Finding::blocking(
            SUBJECT,
            format!("{me} may not make or rename databases"),
            format!("ALTER ROLE {} CREATEDB", quote_ident(me)),
        ));
    }
    findings.extend(owner(inquiry));
    findings.extend(superuser_objects(inquiry));
    if inquiry.is_swap() {
        findings.extend(settings(inquiry).await?);
    }
    Ok(findings)
}

fn owner(inquiry: &Inquiry<'_>) -> Option<Finding> {
    let replaces = matches!(inquiry.options.mode, RestoreMode::Swap | RestoreMode::InPlace);
    let live = inquiry.live().filter(|_| replaces)?;
    let (me, owner) = (&inquiry.role.name, &live.owner);
    let role = inquiry.roles.get(owner);
    if !role.is_some_and(|owner| owner.usable) {
        return Some(Finding::blocking(
            SUBJECT,
            format!("{me} does not own the database {:?}, {owner} does", live.name),
            format!(
                "GRANT {} TO {}, or restore as a superuser",
                quote_ident(owner),
                quote_ident(me)
            ),
        ));
    }
    if inquiry.is_swap() && !role.is_some_and(|owner| owner.assumable) {
        return Some(Finding::blocking(
            SUBJECT,
            format!("{me} may not give the new database to {owner}, who owns {:?}", live.name),
            format!("GRANT {} TO {} WITH SET TRUE", quote_ident(owner), quote_ident(me)),
        ));
    }
    None
}

fn superuser_objects(inquiry: &Inquiry<'_>) -> Option<Finding> {
    let objects = &inquiry.needs.superuser_objects;
    if objects.is_empty() {
        return None;
    }
    let kinds = objects.iter().map(|(kind, names)| format!("{kind} {}", some_of(names)));
    let kinds = kinds.collect::<Vec<_>>().join("; ");
    Some(Finding::new(
        inquiry.superuser_severity(),
        SUBJECT,
        format!("only a superuser may create these of the archive: {kinds}"),
        "restore as a superuser",
    ))
}

/// Settings that other roles have in the live database: who may not set them can't carry them
/// over.
async fn settings(inquiry: &Inquiry<'_>) -> Result<Option<Finding>> {
    let Some(live) = inquiry.live() else { return Ok(None) };
    let sql = format!(
        "select coalesce(json_agg(distinct pg_get_userbyid(setrole)), '[]')
         from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = setdatabase
         where datname = {} and setrole <> 0 and pg_get_userbyid(setrole) <> current_user",
        quote_literal(&live.name)
    );
    let roles: Vec<String> = inquiry.psql.query_json(&sql).await?;
    if roles.is_empty() {
        return Ok(None);
    }
    let me = &inquiry.role.name;
    Ok(Some(Finding::new(
        Severity::Warning,
        SUBJECT,
        format!(
            "{me} may not be able to carry over the settings that these roles have in {:?}: {}",
            live.name,
            some_of(roles)
        ),
        "restore as a superuser, or set them again afterwards: ALTER ROLE .. IN DATABASE .. SET ..",
    )))
}
