//! An id of one's own: a claim object, created only where there is none, reserves it.

use bytes::Bytes;

use super::BackupPlan;
use crate::layout::{self, BackupId, MAX_SAME_SECOND};
use crate::pipeline::Context;
use crate::{Creation, Error, ErrorKind, Result};

/// Reserves the first free id of this second in every storage that answers.
///
/// A claim needs no renewal: the run ends within its timeout, and nobody sweeps a folder
/// whose id is younger than that.
pub(super) async fn claim(plan: &BackupPlan, context: &Context) -> Result<BackupId> {
    for suffix in 1..=MAX_SAME_SECOND {
        let id = BackupId::new(plan.started, suffix);
        if context.cancel.guard(claim_everywhere(plan, id, context)).await? {
            return Ok(id);
        }
    }
    Err(Error::new(
        ErrorKind::Locked,
        "claim",
        format!("{MAX_SAME_SECOND} runs of job {:?} started in this second", plan.job),
    ))
}

/// Whether the id is ours in every storage that can be written to.
async fn claim_everywhere(plan: &BackupPlan, id: BackupId, context: &Context) -> Result<bool> {
    let key = format!("{}/{}", id.folder(&plan.job), layout::CLAIM);
    let body = serde_json::json!({
        "host": plan.host, "tool": plan.tool, "started": plan.started,
        "timeout_seconds": plan.timeout.as_secs(),
    });
    let mut claimed = Vec::new();
    let mut failures = Vec::new();
    for storage in &plan.storages {
        match storage.create_new(&key, Bytes::from(body.to_string())).await {
            Ok(Creation::Created) => claimed.push(storage),
            Ok(Creation::Taken) => {
                for storage in claimed {
                    if let Err(error) = storage.delete(&key).await {
                        context.warn(&format!("a claim stays in {}: {error}", storage.name()));
                    }
                }
                return Ok(false);
            }
            Err(error) => failures.push(error),
        }
    }
    // A storage that does not answer will fail its parts too, under the job's policy.
    if claimed.len() >= plan.policy.required(plan.storages.len()) {
        return Ok(true);
    }
    for storage in claimed {
        // Best effort: the run fails anyway, and a claim alone is no backup.
        let _ = storage.delete(&key).await;
    }
    Err(failures.into_iter().next().unwrap_or_else(|| Error::failed("claim", "no storage answers")))
}
