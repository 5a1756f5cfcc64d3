//! An id of one's own: a claim object, created only where there is none, reserves it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{BackupPlan, SWEEP_GRACE};
use crate::layout::{self, BackupId, MAX_SAME_SECOND};
use crate::pipeline::{Context, within};
use crate::{Creation, Error, ErrorKind, Result, Storage, StoredObject, read_small};

/// How long a stopped run waits for the claim it is just making: one it does not know of it
/// can't give back.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// An id, and the storages in which its folder is ours.
pub(super) struct Claim<'a> {
    plan: &'a BackupPlan,
    pub(super) id: BackupId,
    pub(super) held: Vec<Arc<dyn Storage>>,
    /// Storages that did not answer. They are out of this run: without a claim, the folder of
    /// this id may be somebody else's there.
    pub(super) failed: Vec<(String, Error)>,
}

/// Reserves the first free id of this second in every storage that answers.
///
/// A claim needs no renewal: the run ends within its timeout, and nobody sweeps a folder
/// whose id is younger than that.
pub(super) async fn claim<'a>(plan: &'a BackupPlan, context: &Context) -> Result<Claim<'a>> {
    for suffix in 1..=MAX_SAME_SECOND {
        let id = BackupId::new(plan.started, suffix);
        let mut claim = Claim { plan, id, held: Vec::new(), failed: Vec::new() };
        match claim.take_unless_stopped(context).await {
            Ok(true) => {
                for (storage, error) in &claim.failed {
                    context.warn(&format!("storage {storage} failed: {error}"));
                }
                return Ok(claim);
            }
            Ok(false) => claim.give_back(context).await,
            Err(error) => {
                claim.give_back(context).await;
                return Err(error);
            }
        }
    }
    Err(Error::new(
        ErrorKind::Locked,
        "claim",
        format!("{MAX_SAME_SECOND} runs of job {:?} started in this second", plan.job),
    ))
}

impl Claim<'_> {
    fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.id.folder(&self.plan.job))
    }

    async fn take_unless_stopped(&mut self, context: &Context) -> Result<bool> {
        let mut taking = pin!(self.take());
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => {}
            taken = &mut taking => return taken,
        }
        let _ = tokio::time::timeout(STOP_GRACE, taking).await;
        Err(context.cancel.error())
    }

    /// Whether the id is free, and ours now in enough storages.
    async fn take(&mut self) -> Result<bool> {
        let plan = self.plan;
        for storage in &plan.storages {
            match self.take_in(storage).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => self.failed.push((storage.name().to_owned(), error)),
            }
        }
        if self.held.len() >= plan.policy.required(plan.storages.len()) {
            return Ok(true);
        }
        let first = self.failed.drain(..).next().map(|(_, error)| error);
        Err(first.unwrap_or_else(|| Error::failed("claim", "no storage answers")))
    }

    async fn take_in(&mut self, storage: &Arc<dyn Storage>) -> Result<bool> {
        let plan = self.plan;
        let body = serde_json::json!({
            "host": plan.host, "tool": plan.tool, "started": plan.started,
            "timeout_seconds": plan.timeout.as_secs(),
        });
        let (name, limit) = (storage.name(), plan.limits.commit);
        let key = self.key(layout::CLAIM);
        let created = storage.create_new(&key, Bytes::from(body.to_string()));
        if within(name, limit, created).await? == Creation::Taken {
            return Ok(false);
        }
        self.held.push(Arc::clone(storage));
        // A finished run has given its claim back; then its manifest is there.
        let manifest = self.key(layout::MANIFEST);
        match within(name, limit, storage.stat(&manifest)).await {
            Ok(found) => Ok(found.is_none()),
            Err(error) => {
                self.held.pop();
                // Best effort: a claim alone is no backup, and is swept.
                let _ = within(name, limit, storage.delete(&key)).await;
                Err(error)
            }
        }
    }

    async fn give_back(&self, context: &Context) {
        for storage in &self.held {
            release(self.plan, storage.as_ref(), &self.key(layout::CLAIM), context).await;
        }
    }
}

/// What a claim tells about its run's end.
#[derive(Deserialize)]
struct Claimed {
    started: Timestamp,
    timeout_seconds: u64,
}

impl Claimed {
    /// When the run must have ended, even by another host's clock.
    fn over(&self) -> Option<Timestamp> {
        let timeout = SignedDuration::from_secs(i64::try_from(self.timeout_seconds).ok()?);
        let grace = SignedDuration::try_from(SWEEP_GRACE).ok()?;
        self.started.checked_add(timeout).ok()?.checked_add(grace).ok()
    }
}

/// Whether the claim in `folder` says that its run may still be going on at `now`: it may have
/// a longer timeout than ours. A claim that can't be read says nothing.
pub(super) async fn may_be_running(
    storage: &Arc<dyn Storage>,
    folder: &str,
    now: Timestamp,
) -> bool {
    let key = format!("{folder}/{}", layout::CLAIM);
    let Ok(json) = read_small(&StoredObject::unchecked(Arc::clone(storage), key)).await else {
        return false;
    };
    let claimed: Option<Claimed> = serde_json::from_slice(&json).ok();
    claimed.and_then(|claimed| claimed.over()).is_some_and(|over| over > now)
}

/// Removes a claim; one that stays is told.
pub(super) async fn release(
    plan: &BackupPlan,
    storage: &dyn Storage,
    key: &str,
    context: &Context,
) {
    let name = storage.name();
    if let Err(error) = within(name, plan.limits.sink_stall, storage.delete(key)).await {
        context.warn(&format!("a claim stays in {name}: {error}"));
    }
}
