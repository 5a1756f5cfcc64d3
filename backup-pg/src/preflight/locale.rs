//! Encoding, locale and collation: does the server have those of the archive, and what differs
//! from the live database?

use backup_core::{DatabaseFacts, Error, Result};

use super::cluster::Database;
use super::finding::some_of;
use super::{Finding, Inquiry};
use crate::sql::{quote_ident, quote_literal};

const ENCODING: &str = "encoding";
const LOCALE: &str = "locale";
const COLLATION: &str = "collation version";

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if let Some(wanted) = &inquiry.needs.database {
        if !inquiry.is_in_place() {
            findings.extend(encoding(inquiry, wanted).await?);
            findings.extend(provider(inquiry, wanted).await?);
            findings.extend(libc_locales(inquiry).await?);
        }
        if let Some(live) = inquiry.live() {
            findings.extend(differences(inquiry, wanted, live));
        }
        findings.extend(collation_version(inquiry, wanted).await?);
    }
    findings.extend(inquiry.live().and_then(outdated_collation));
    Ok(findings)
}

async fn encoding(inquiry: &Inquiry<'_>, wanted: &DatabaseFacts) -> Result<Option<Finding>> {
    if wanted.encoding.is_empty() {
        return Ok(None);
    }
    let name = quote_literal(&wanted.encoding);
    let known = format!("select to_json(pg_char_to_encoding({name}) >= 0)");
    if inquiry.psql.query_json(&known).await? {
        return Ok(None);
    }
    Ok(Some(Finding::blocking(
        ENCODING,
        format!("the server does not know {}", wanted.encoding),
        "make an empty database in an encoding that can hold the data, and restore into that (--to)",
    )))
}

/// The providers that this server can use: ICU only where it was built with it.
async fn provider(inquiry: &Inquiry<'_>, wanted: &DatabaseFacts) -> Result<Option<Finding>> {
    let name = wanted.locale_provider.as_deref().unwrap_or("libc");
    let (since, there) = match name {
        "libc" => (0, true),
        "icu" => {
            // Without ICU the collation stands in the catalog all the same, without a version.
            let sql = "select to_json(coalesce(bool_or(pg_collation_actual_version(oid) is not null), false))
                from pg_catalog.pg_collation where collprovider = 'i'";
            (15, inquiry.psql.query_json(sql).await?)
        }
        "builtin" => (17, true),
        _ => (u32::MAX, false),
    };
    if there && inquiry.major >= since {
        return Ok(None);
    }
    Ok(Some(Finding::blocking(
        LOCALE,
        format!(
            "the backup's database has its locale from {name}, which this server (PostgreSQL {}) can't use for a database",
            inquiry.major
        ),
        "restore on a server that can, or make an empty database with another locale and restore into that (--to)",
    )))
}

/// Locales of the C library that the server's host does not have.
async fn libc_locales(inquiry: &Inquiry<'_>) -> Result<Option<Finding>> {
    let mut missing = Vec::new();
    for locale in &inquiry.needs.libc_locales {
        if !has_locale(inquiry, locale).await? {
            missing.push(locale.as_str());
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    Ok(Some(Finding::blocking(
        LOCALE,
        format!("the server's host lacks {}", some_of(&missing)),
        "generate it there (Debian: a line in /etc/locale.gen, then locale-gen; RHEL: dnf install glibc-langpack-..), \
         or make an empty database with another locale and restore into that (--to)",
    )))
}

/// Asks the C library itself: this setting takes what it knows, and every role may try.
async fn has_locale(inquiry: &Inquiry<'_>, locale: &str) -> Result<bool> {
    if ["", "C", "POSIX"].contains(&locale) {
        return Ok(true);
    }
    let sql = format!("set lc_monetary = {}", quote_literal(locale));
    match inquiry.psql.execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) if is_about(&error, "lc_monetary") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a message names something, in whatever language the server speaks.
pub(super) fn is_about(error: &Error, name: &str) -> bool {
    error.message().contains(name) || error.causes().iter().any(|cause| cause.contains(name))
}

fn differences(inquiry: &Inquiry<'_>, wanted: &DatabaseFacts, live: &Database) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !wanted.encoding.is_empty() && wanted.encoding != live.encoding {
        let remedy = match inquiry.is_in_place() {
            true => {
                "restore beside it (without --in-place): characters that the live one's encoding lacks make a restore fail"
            }
            false => {
                "see to it that the application can work with the backup's; the restored database keeps it"
            }
        };
        let detail =
            format!("the backup has {}, the live database {}", wanted.encoding, live.encoding);
        findings.push(Finding::warning(ENCODING, detail, remedy));
    }
    let provider = wanted.locale_provider.as_deref().unwrap_or("libc");
    let locale = wanted.locale.as_deref().unwrap_or_default();
    let same = provider == live.provider && same_locale(locale, live.effective_locale());
    if !locale.is_empty() && !same {
        findings.push(Finding::warning(
            LOCALE,
            format!("the backup has {locale} ({provider}), the live database {} ({})", live.effective_locale(), live.provider),
            "sorting and comparing of texts may change for the application; the restored database keeps the backup's, except with --in-place",
        ));
    }
    findings
}

/// `en_US.UTF-8` and `en_US.utf8` are the same.
fn same_locale(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "");
    one == other || plain(one) == plain(other)
}

/// The collation library's version there and here, where the backup tells the first.
async fn collation_version(
    inquiry: &Inquiry<'_>,
    wanted: &DatabaseFacts,
) -> Result<Option<Finding>> {
    let (Some(then), Some(locale)) = (&wanted.collation_version, &wanted.locale) else {
        return Ok(None);
    };
    let provider = match wanted.locale_provider.as_deref() {
        Some("icu") => "i",
        Some("builtin") => "b",
        _ => "c",
    };
    let sql = format!(
        "select to_json((select pg_collation_actual_version(oid) from pg_catalog.pg_collation c
            where collprovider = '{provider}' and {locale} in (collcollate,
                to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale')
            order by oid limit 1))",
        locale = quote_literal(locale)
    );
    let now: Option<String> = inquiry.psql.query_json(&sql).await?;
    Ok(now.filter(|now| now != then).map(|now| {
        Finding::warning(
            COLLATION,
            format!("{locale} sorted by version {then} where the backup was made, and sorts by {now} here"),
            "the restore builds every index anew, so nothing needs a REINDEX; \
             tables that are partitioned by ranges of text may refuse rows, and results may come in another order",
        )
    }))
}

/// The live database itself: its indexes are older than the library.
fn outdated_collation(live: &Database) -> Option<Finding> {
    let (made, now) = (live.collation_version.as_ref()?, live.actual_collation_version.as_ref()?);
    if made == now {
        return None;
    }
    let quoted = quote_ident(&live.name);
    Some(Finding::warning(
        COLLATION,
        format!(
            "the live database was made with collation version {made}, the server has {now}: its indexes on texts may be wrong"
        ),
        format!(
            "a restored database has new indexes; if the live one stays: REINDEX DATABASE {quoted}; ALTER DATABASE {quoted} REFRESH COLLATION VERSION"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::same_locale;

    #[test]
    fn spellings_of_a_locale_are_the_same() {
        assert!(same_locale("en_US.UTF-8", "en_US.utf8"));
        assert!(!same_locale("en_US.UTF-8", "de_DE.UTF-8"));
        assert!(!same_locale("C", "C.UTF-8"));
    }
}
