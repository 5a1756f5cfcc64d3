//! Logical replication from and to the live database, which a swap breaks.

use backup_core::Result;

use super::{Finding, Inquiry, RestoreMode, Severity, publisher, subscriber};

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let mut findings = publisher::check(inquiry).await?;
    findings.extend(subscriber::check(inquiry).await?);
    let subscriptions = &inquiry.needs.subscriptions;
    if !subscriptions.is_empty() {
        let named: Vec<String> =
            subscriptions.iter().map(|(name, server)| format!("{name} (of {server})")).collect();
        let named = named.join(", ");
        findings.push(match inquiry.options.mode {
            RestoreMode::Swap | RestoreMode::InPlace => Finding::note(
                "subscriptions",
                format!("the backup has these, and the restore leaves them out: {named}"),
                "a restored subscription would name the slot of the one that made the backup: create it anew where it is wanted",
            ),
            RestoreMode::Create | RestoreMode::Fill => Finding::warning(
                "subscriptions",
                format!("the backup has these, and the restore makes them, disabled: {named}"),
                "enabled, they would take what is meant for the original: ALTER SUBSCRIPTION .. SET (slot_name = NONE), then drop them",
            ),
        });
    }
    Ok(findings)
}

/// What breaks blocks, unless one accepts that.
pub(super) fn broken(
    inquiry: &Inquiry<'_>,
    subject: &'static str,
    detail: String,
    steps: Vec<String>,
) -> Finding {
    let mut remedy = Vec::new();
    let severity = match inquiry.options.accept_replication_break {
        true => Severity::Warning,
        false => {
            remedy.push("to go on, give --accept-replication-break, and then:".to_owned());
            Severity::Blocking
        }
    };
    remedy.extend(steps);
    Finding::new(severity, subject, detail, remedy.join("\n"))
}
