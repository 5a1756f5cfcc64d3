//! The roles that an archive names: are they there, or will they be?

use std::collections::BTreeSet;

use backup_core::Result;

use super::finding::some_of;
use super::{Finding, Inquiry, ownership};

const SUBJECT: &str = "roles";

pub(super) fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let defined: BTreeSet<&str> =
        inquiry.options.globals.iter().flat_map(|globals| globals.role_names()).collect();
    let missing = missing(inquiry);
    let (created, lost): (Vec<&str>, Vec<&str>) =
        missing.iter().map(String::as_str).partition(|role| defined.contains(role));
    if !lost.is_empty() {
        findings.push(lacks(inquiry, &lost));
    }
    findings.extend(unmapped(inquiry));
    let to_create: Vec<&str> =
        defined.into_iter().filter(|role| !inquiry.roles.contains_key(*role)).collect();
    if !to_create.is_empty() {
        findings.push(creates(inquiry, &to_create));
    }
    findings.extend(ownership::check(inquiry, &created));
    if !inquiry.needs.complete && !inquiry.options.no_owners {
        findings.push(Finding::note(
            SUBJECT,
            "only owners were compared: without the archive's table of contents it is not known whom its grants name",
            "nothing to do: the restore compares them before it starts",
        ));
    }
    Ok(findings)
}

/// Roles that are needed under these options, and that the server lacks.
fn missing(inquiry: &Inquiry<'_>) -> BTreeSet<String> {
    let (needs, options) = (inquiry.needs, inquiry.options);
    let owning = needs.owners.iter().chain(&needs.grantees).filter(|_| !options.no_owners);
    owning
        .chain(&needs.named_roles)
        .filter(|role| !options.role_map.contains_key(*role))
        .filter(|role| !inquiry.roles.contains_key(*role))
        .cloned()
        .collect()
}

fn lacks(inquiry: &Inquiry<'_>, lost: &[&str]) -> Finding {
    let named: Vec<&&str> =
        lost.iter().filter(|role| inquiry.needs.named_roles.contains(**role)).collect();
    let mut remedy = match inquiry.options.globals {
        Some(_) => "create them, or map them to others (--role OLD=NEW)".to_owned(),
        None => "create them, restore the backup's own roles with it (--with-globals), or map them to others (--role OLD=NEW)".to_owned(),
    };
    if named.is_empty() {
        remedy.push_str(", or leave owners and grants out (--no-owner)");
    } else {
        remedy.push_str(&format!(
            "; policies or user mappings name {}, so --no-owner does not help",
            some_of(named)
        ));
    }
    Finding::blocking(SUBJECT, format!("the server lacks {}", some_of(lost)), remedy)
}

/// Roles that others are mapped to and that don't exist.
fn unmapped(inquiry: &Inquiry<'_>) -> Option<Finding> {
    let targets: BTreeSet<&String> = inquiry.options.role_map.values().collect();
    let missing: Vec<&String> =
        targets.into_iter().filter(|role| !inquiry.roles.contains_key(*role)).collect();
    if missing.is_empty() {
        return None;
    }
    let detail = format!("roles are mapped to {}, which the server lacks", some_of(missing));
    Some(Finding::blocking(SUBJECT, detail, "create them, or map to roles that exist"))
}

fn creates(inquiry: &Inquiry<'_>, created: &[&str]) -> Finding {
    let names = some_of(created);
    let me = &inquiry.role.name;
    if inquiry.role.createrole {
        return Finding::note(
            SUBJECT,
            format!("these are created from the backup: {names}"),
            "nothing to do; they stay, also when the restore fails later",
        );
    }
    Finding::blocking(
        SUBJECT,
        format!("{me} may not create roles, and these are missing: {names}"),
        format!("let a superuser create them, or allow it: ALTER ROLE {me} CREATEROLE"),
    )
}
