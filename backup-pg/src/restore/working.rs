//! Databases that are being filled: their names, the mark each carries from its first moment, and
//! dropping what a killed restore left of them.
//!
//! The mark is the database's comment, written in the same breath as it is made. It goes when the
//! database gets its own name.

use std::time::Duration;

use backup_core::Result;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::sql::{quote_ident, quote_literal};

/// How the name of a database starts until its restore is complete.
pub const WORKING_PREFIX: &str = "marb_restoring_";

/// How such a comment begins.
const MARK: &str = "marb-backup restoring ";

/// How long dropping one may take.
const DROP_TIMEOUT: Duration = Duration::from_secs(1800);

/// What a database is filled for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purpose {
    /// `restore`, `swap` or `drill`.
    pub kind: String,
    /// The name that it is all about: of the live database, or the one that it will have.
    pub live: String,
    /// The run, where it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// The mark of a database that is being filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingMark {
    /// The database that carries this: a comment that a copy brought along is none.
    pub database: String,
    /// What it is filled for.
    #[serde(flatten)]
    pub purpose: Purpose,
    /// When it was made.
    pub started: Timestamp,
}

/// A database under a working name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Working {
    /// Its name.
    pub name: String,
    /// What its comment says; `None` when nobody marked it.
    pub mark: Option<WorkingMark>,
    /// Its size on the server's disk; `None` where this role may not know.
    pub bytes: Option<u64>,
    /// Whether somebody is connected to it.
    pub in_use: bool,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    comment: Option<String>,
    bytes: Option<u64>,
    in_use: bool,
}

impl WorkingMark {
    fn read(name: &str, comment: &str) -> Option<Self> {
        let mark: Self = serde_json::from_str(comment.strip_prefix(MARK)?).ok()?;
        (mark.database == name).then_some(mark)
    }
}

impl Working {
    /// Every database of the server under a working name.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn list(server: &Server) -> Result<Vec<Self>> {
        let listed: Vec<Listed> = server.psql().query_json(&query()).await?;
        let working = |one: Listed| Self {
            mark: one.comment.as_deref().and_then(|text| WorkingMark::read(&one.name, text)),
            name: one.name,
            bytes: one.bytes,
            in_use: one.in_use,
        };
        Ok(listed.into_iter().map(working).collect())
    }

    /// Why it stays; `None` when it is certain that a killed restore left it.
    pub fn kept(&self, now: Timestamp, least_age: SignedDuration) -> Option<String> {
        let Some(mark) = &self.mark else {
            return Some(format!(
                "it carries no mark of ours; when no restore is running: dropdb {}",
                self.name
            ));
        };
        if self.in_use {
            return Some("somebody is connected to it: a restore that still runs".to_owned());
        }
        match mark.started.checked_add(least_age) {
            Ok(until) if until <= now => None,
            Ok(until) => Some(format!("a restore may still be at it; it goes after {until:.0}")),
            Err(_) => Some("its mark says a time that can't be".to_owned()),
        }
    }

    /// Drops it, unless somebody connected to it meanwhile.
    ///
    /// # Errors
    /// When the server does not.
    pub async fn drop_from(&self, server: &Server) -> Result<()> {
        let quoted = quote_ident(&self.name);
        // The archive's own property may have made it a template, which can't be dropped.
        let sql =
            format!("ALTER DATABASE {quoted} IS_TEMPLATE false;\nDROP DATABASE IF EXISTS {quoted}");
        server.psql().with_timeout(DROP_TIMEOUT).execute(&sql).await
    }
}

/// A name that no other restore has.
pub(super) fn working_name() -> String {
    let now = Timestamp::now().as_nanosecond();
    format!("{WORKING_PREFIX}{:x}_{:x}", std::process::id(), now)
}

/// The SQL that marks a database.
pub(super) fn mark_sql(name: &str, purpose: &Purpose) -> String {
    let mark = WorkingMark {
        database: name.to_owned(),
        purpose: purpose.clone(),
        started: Timestamp::now(),
    };
    // A map of plain values with text keys can't fail.
    let text = format!("{MARK}{}", serde_json::to_string(&mark).unwrap_or_default());
    format!("COMMENT ON DATABASE {} IS {}", quote_ident(name), quote_literal(&text))
}

/// The SQL that takes the mark away.
pub(super) fn unmark_sql(name: &str) -> String {
    format!("COMMENT ON DATABASE {} IS NULL", quote_ident(name))
}

fn query() -> String {
    // The size of a database that one may not connect to would be an error.
    format!(
        "select coalesce(json_agg(json_build_object('name', datname,
            'comment', shobj_description(d.oid, 'pg_database'),
            'bytes', case when has_database_privilege(d.oid, 'CONNECT')
                or pg_has_role('pg_read_all_stats', 'USAGE') then pg_database_size(d.oid) end,
            'in_use', exists (select from pg_catalog.pg_stat_activity a where a.datid = d.oid))
            order by datname), '[]')
         from pg_catalog.pg_database d where starts_with(datname, '{WORKING_PREFIX}')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working(in_use: bool) -> Working {
        let purpose = Purpose { kind: "swap".into(), live: "it's".into(), run: None };
        let name = working_name();
        let sql = mark_sql(&name, &purpose);
        let text = sql.split_once(" IS '").unwrap().1.trim_end_matches('\'').replace("''", "'");
        let mark = WorkingMark::read(&name, &text).unwrap();
        assert_eq!(mark.purpose, purpose);
        assert_eq!(WorkingMark::read("another", &text), None);
        Working { name, mark: Some(mark), bytes: None, in_use }
    }

    #[test]
    fn only_what_is_marked_old_and_unused_goes() {
        let day = SignedDuration::from_hours(24);
        let later = Timestamp::now() + SignedDuration::from_hours(25);
        assert_eq!(working(false).kept(later, day), None);
        assert!(working(false).kept(Timestamp::now(), day).unwrap().contains("goes after"));
        assert!(working(true).kept(later, day).unwrap().contains("connected"));
        let unmarked = Working { mark: None, ..working(false) };
        assert!(unmarked.kept(later, day).unwrap().contains("no mark"));
    }
}
