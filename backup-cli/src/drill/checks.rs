//! The user's own checks: SQL that must give one true value in the restored database.

use std::time::Duration;

use backup_core::pipeline::Context;
use backup_core::{ErrorKind, Result};
use backup_pg::Psql;

use super::report::{CheckOutcome, CheckResult};

/// Longest time for one check when the config does not say.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Runs every check, one after the other; each in a transaction that can't write.
///
/// # Errors
/// Only when the run was interrupted: what is wrong with a check is in its result.
pub(super) async fn run(
    psql: &Psql,
    checks: &[String],
    limit: Duration,
    context: &Context,
) -> Result<Vec<CheckResult>> {
    let psql = psql.with_timeout(limit);
    let mut results = Vec::new();
    for sql in checks {
        let outcome = match context.cancel.guard(psql.query_text(&script(sql))).await {
            Ok(answer) => judge(&answer),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => CheckOutcome::Error(error.to_string()),
        };
        results.push(CheckResult { sql: sql.clone(), outcome });
    }
    Ok(results)
}

/// Names without a schema mean what they mean to the application: the database's own search path.
fn script(sql: &str) -> String {
    format!("begin read only;\nreset search_path;\n{sql}\n;\nrollback")
}

/// What it gave is not told: it may be data.
fn judge(answer: &str) -> CheckOutcome {
    match answer {
        "t" => CheckOutcome::Passed,
        "f" => CheckOutcome::Failed("false".to_owned()),
        _ => CheckOutcome::Failed("no single true value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_true_value_passes() {
        assert_eq!(judge("t"), CheckOutcome::Passed);
        for wrong in ["f", "", "t\nt", "1", "true", "t|t"] {
            assert!(matches!(judge(wrong), CheckOutcome::Failed(_)), "{wrong:?}");
        }
        assert!(!format!("{:?}", judge("Erika Mustermann")).contains("Erika"));
    }
}
