//! Databases that are being filled: their names, the mark each carries, and dropping what a killed
//! restore left of them.
//!
//! The mark is the database's comment. It goes in the very transaction that gives the database its
//! own name. CREATE DATABASE can't share a transaction with anything, so a database is made closed
//! and opened together with its mark: one without a mark that is still closed holds nothing, for
//! nobody ever was in it, and its name tells when it was made.

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
    /// The comment that the database gets in the transaction that gives it its own name: the mark
    /// of whoever goes on with it. Without one it gets what the archive says.
    #[serde(skip)]
    pub comment: Option<String>,
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
    /// When it was made, of one that a restore was killed at before it could mark it: it is as
    /// it was made, closed and empty.
    pub untouched_since: Option<Timestamp>,
    /// Its size on the server's disk; `None` where this role may not know.
    pub bytes: Option<u64>,
    /// Whether somebody is connected to it.
    pub in_use: bool,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    comment: Option<String>,
    open: bool,
    bytes: Option<u64>,
    in_use: bool,
}

impl Listed {
    fn untouched_since(&self) -> Option<Timestamp> {
        let untouched = !self.open && self.comment.is_none();
        untouched.then(|| made_at(&self.name)).flatten()
    }
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
            untouched_since: one.untouched_since(),
            name: one.name,
            bytes: one.bytes,
            in_use: one.in_use,
        };
        Ok(listed.into_iter().map(working).collect())
    }

    /// Why it stays; `None` when it is certain that a killed restore left it.
    pub fn kept(&self, now: Timestamp, least_age: SignedDuration) -> Option<String> {
        let marked = self.mark.as_ref().map(|mark| mark.started);
        let Some(started) = marked.or(self.untouched_since) else {
            return Some(format!(
                "it carries no mark of ours; when no restore is running: dropdb {}",
                self.name
            ));
        };
        if self.in_use {
            return Some("somebody is connected to it: a restore that still runs".to_owned());
        }
        match started.checked_add(least_age) {
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

/// A name that no other restore has: process and time.
pub(super) fn working_name() -> String {
    name_made_at(std::process::id(), Timestamp::now())
}

fn name_made_at(process: u32, time: Timestamp) -> String {
    format!("{WORKING_PREFIX}{process:x}_{:x}", time.as_nanosecond())
}

/// The time in such a name; `None` when it is another name.
fn made_at(name: &str) -> Option<Timestamp> {
    let (process, nanoseconds) = name.strip_prefix(WORKING_PREFIX)?.split_once('_')?;
    let process = u32::from_str_radix(process, 16).ok()?;
    let time = Timestamp::from_nanosecond(i128::from_str_radix(nanoseconds, 16).ok()?).ok()?;
    (name_made_at(process, time) == name).then_some(time)
}

/// The SQL that makes a database, closed, then marks and opens it at once.
pub(super) fn create_sql(create: &str, name: &str, purpose: &Purpose) -> String {
    let mark = mark_sql(name, purpose);
    let open = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", quote_ident(name));
    format!("{create} ALLOW_CONNECTIONS = false;\nBEGIN;\n{mark};\n{open};\nCOMMIT")
}

/// The SQL that marks a database.
fn mark_sql(name: &str, purpose: &Purpose) -> String {
    let mark = WorkingMark {
        database: name.to_owned(),
        purpose: purpose.clone(),
        started: Timestamp::now(),
    };
    // A map of plain values with text keys can't fail.
    comment_sql(name, Some(&format!("{MARK}{}", serde_json::to_string(&mark).unwrap_or_default())))
}

/// The SQL that puts another comment in the mark's place, or none.
pub(super) fn comment_sql(name: &str, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON DATABASE {} IS {text}", quote_ident(name))
}

fn query() -> String {
    // The size of a database that one may not connect to would be an error.
    format!(
        "select coalesce(json_agg(json_build_object('name', datname,
            'comment', shobj_description(d.oid, 'pg_database'), 'open', datallowconn,
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
        let purpose =
            Purpose { kind: "swap".into(), live: "it's".into(), run: None, comment: None };
        let name = working_name();
        let sql = mark_sql(&name, &purpose);
        let text = sql.split_once(" IS '").unwrap().1.trim_end_matches('\'').replace("''", "'");
        let mark = WorkingMark::read(&name, &text).unwrap();
        assert_eq!(mark.purpose, purpose);
        assert_eq!(WorkingMark::read("another", &text), None);
        Working { name, mark: Some(mark), untouched_since: None, bytes: None, in_use }
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
        let untouched = Working { untouched_since: made_at(&unmarked.name), ..unmarked };
        assert!(untouched.kept(Timestamp::now(), day).unwrap().contains("goes after"));
        assert_eq!(untouched.kept(later, day), None);
        let used = Working { in_use: true, ..untouched };
        assert!(used.kept(later, day).unwrap().contains("connected"));
    }

    #[test]
    fn only_what_is_closed_without_a_comment_and_tells_its_time_is_untouched() {
        let name = working_name();
        assert!(Timestamp::now().duration_since(made_at(&name).unwrap()).as_secs() < 60);
        let listed = |name: &str, open, comment: Option<&str>| Listed {
            name: name.to_owned(),
            comment: comment.map(str::to_owned),
            open,
            bytes: None,
            in_use: false,
        };
        assert_eq!(listed(&name, false, None).untouched_since(), made_at(&name));
        assert_eq!(listed(&name, true, None).untouched_since(), None);
        assert_eq!(listed(&name, false, Some("mine")).untouched_since(), None);
        let foreign = ["", "mine", "1_", "_1", "1_+1", "1_-1", "1_01", "1_1A", "1_1_1", "g_1"];
        for tail in foreign {
            let name = format!("{WORKING_PREFIX}{tail}");
            assert_eq!(listed(&name, false, None).untouched_since(), None, "{name}");
        }
    }
}
