//! The extensions of an archive: does the server have them, and may they be created?

use std::collections::BTreeMap;

use backup_core::Result;
use serde::Deserialize;

use super::finding::some_of;
use super::{Finding, Inquiry};
use crate::sql::quote_literal;

const SUBJECT: &str = "extensions";

/// What the server has of an extension.
#[derive(Debug, Deserialize)]
struct Available {
    /// The version that is installed by default.
    version: String,
    /// Only superusers may create it.
    superuser: bool,
    /// Owners of a database may create it all the same.
    trusted: bool,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let wanted = &inquiry.needs.extensions;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let installed = installed(inquiry).await?;
    let available = available(inquiry).await?;
    // What the live database has already is not created again in place.
    let stays = |name: &str| inquiry.is_in_place() && installed.contains_key(name);
    let created = || wanted.iter().filter(|(name, _)| !stays(name));
    let mut findings = Vec::new();

    let missing: Vec<&String> =
        created().map(|(name, _)| name).filter(|name| !available.contains_key(*name)).collect();
    if !missing.is_empty() {
        findings.push(Finding::blocking(
            SUBJECT,
            format!("the server lacks {}", some_of(missing)),
            "install the packages that bring them (select * from pg_available_extensions shows what is there)",
        ));
    }
    let there = || created().filter_map(|(name, from)| Some((name, from, available.get(name)?)));
    if !inquiry.role.superuser {
        let refused: Vec<&String> = there()
            .filter(|(_, _, available)| available.superuser && !available.trusted)
            .map(|(name, _, _)| name)
            .collect();
        if !refused.is_empty() {
            findings.push(Finding::new(
                inquiry.superuser_severity(),
                SUBJECT,
                format!(
                    "{} may not create {}: they are not trusted",
                    inquiry.role.name,
                    some_of(refused)
                ),
                "restore as a superuser",
            ));
        }
    }
    let other: Vec<String> = there()
        .filter_map(|(name, from, available)| {
            let before = from.as_ref().or_else(|| installed.get(name))?;
            let now = &available.version;
            (before != now).then(|| format!("{name} {now} instead of {before}"))
        })
        .collect();
    if !other.is_empty() {
        findings.push(Finding::note(
            SUBJECT,
            format!("the restored database gets other versions: {}", some_of(other)),
            "read the release notes of these extensions, and let the application be tested with them",
        ));
    }
    Ok(findings)
}

/// Extensions of the live database and their versions.
async fn installed(inquiry: &Inquiry<'_>) -> Result<BTreeMap<String, String>> {
    let Some(psql) = inquiry.live_psql() else { return Ok(BTreeMap::new()) };
    let sql =
        "select coalesce(json_object_agg(extname, extversion), '{}') from pg_catalog.pg_extension";
    psql.query_json(sql).await
}

async fn available(inquiry: &Inquiry<'_>) -> Result<BTreeMap<String, Available>> {
    let names: Vec<String> =
        inquiry.needs.extensions.keys().map(|name| quote_literal(name)).collect();
    let sql = format!(
        "select coalesce(json_object_agg(a.name, json_build_object(
            'version', a.default_version, 'superuser', coalesce(v.superuser, true),
            'trusted', coalesce(v.trusted, false))), '{{}}')
         from pg_catalog.pg_available_extensions a
         left join pg_catalog.pg_available_extension_versions v
            on v.name = a.name and v.version = a.default_version
         where a.name in ({})",
        names.join(", ")
    );
    inquiry.psql.query_json(&sql).await
}
