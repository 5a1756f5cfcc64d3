//! The user's own SQL checks: each must give one true value.

use std::time::{Duration, Instant};

use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};
use backup_pg::Psql;
use serde::Serialize;

/// Longest time one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A check that held.
#[derive(Debug, Clone, Serialize)]
pub struct SqlCheckPassed {
    /// The SQL.
    pub sql: String,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Runs every check in the database of `psql`. They can't change anything.
///
/// # Errors
/// When one gives anything but one true value. What it gave is not shown: it may be data.
pub(crate) async fn run_checks(
    psql: &Psql,
    checks: &[String],
    cancel: &Cancel,
) -> Result<Vec<SqlCheckPassed>> {
    let psql = psql.with_timeout(CHECK_TIMEOUT);
    let mut passed = Vec::new();
    for sql in checks {
        let started = Instant::now();
        let answer = cancel.guard(psql.query_text(&read_only(sql))).await.map_err(|error| {
            match error.kind() {
                backup_core::ErrorKind::Interrupted => error,
                _ => failed(sql, "could not be run").caused_by(error),
            }
        })?;
        match answer.as_str() {
            "t" => passed.push(SqlCheckPassed {
                sql: sql.clone(),
                seconds: started.elapsed().as_secs_f64(),
            }),
            "f" => return Err(failed(sql, "does not hold: it gave false")),
            _ => return Err(failed(sql, "does not hold: it gave no single true value")),
        }
    }
    Ok(passed)
}

/// A session begins with an empty search path; the check is to find tables as the application
/// does.
fn read_only(sql: &str) -> String {
    format!("begin read only;\nreset search_path;\n{sql}\n;\nrollback")
}

fn failed(sql: &str, what: &str) -> Error {
    Error::failed("check", format!("{:?} {what}", sql.trim()))
        .next_step("look into the backup, or correct `checks` under [restore]")
}
