//! An id of one's own: a claim object, created only where there is none, reserves it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{BackupPlan, SWEEP_GRACE};
use crate::layout::{self, BackupId, MAX_SAME_SECOND};
use crate::pipeline::{Context, within};
use crate::{Creation, Error, ErrorKind, Manifest, Result, Storage, StoredObject, read_small};

/// How long a stopped run waits for the claim it is just making: one it does not know of it
/// can't give back.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// An id, and the storages in which its folder is ours.
pub(super) struct Claim<'a> {
    plan: &'a BackupPlan,
    pub(super) id: BackupId,
    /// Whether the id is our own without anybody's answer.
    random: bool,
    held: Mutex<BTreeSet<usize>>,
    /// Storages that did not answer. They are out of this run: without a claim, the folder of
    /// this id may be somebody else's there.
    pub(super) failed: Vec<(String, Error)>,
}

/// Reserves the first free id of this second in every storage that answers, or, where one can't
/// be asked whether an id is free (`blind`) or can't keep two callers apart, an id with random
/// letters, which is free anyway.
///
/// A claim needs no renewal: the run ends within its timeout, and nobody sweeps a folder
/// whose id is younger than that.
pub(super) async fn claim<'a>(
    plan: &'a BackupPlan,
    blind: bool,
    context: &Context,
) -> Result<Claim<'a>> {
    let mut random = blind || plan.storages.iter().any(|storage| !storage.excludes());
    for suffix in 1..=MAX_SAME_SECOND {
        let id = match random {
            true => BackupId::random(plan.started),
            false => BackupId::new(plan.started, suffix),
        };
        let mut claim = Claim { plan, id, random, held: Mutex::default(), failed: Vec::new() };
        match claim.take_unless_stopped(context).await {
            Ok(Answer::Ours) => {
                for (storage, error) in &claim.failed {
                    context.warn(&format!("storage {storage} failed: {error}"));
                }
                return Ok(claim);
            }
            Ok(other) => {
                random |= matches!(other, Answer::Unknown);
                claim.give_back(context).await;
            }
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

/// Whose an id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Ours,
    /// The claim is ours; whether a finished run has used the id before, there is no telling.
    Unknown,
    Theirs,
}

impl Claim<'_> {
    fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.id.folder(&self.plan.job))
    }

    async fn take_unless_stopped(&mut self, context: &Context) -> Result<Answer> {
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
    ///
    /// One storage after the other until the first gave its claim, then the rest at once: of
    /// two runs that want the same id, the one that comes too late there goes no further.
    async fn take(&mut self) -> Result<Answer> {
        let plan = self.plan;
        let mut answer = Answer::Ours;
        let mut rest = 0..plan.storages.len();
        while self.held().is_empty() && answer == Answer::Ours {
            let Some(next) = rest.next() else { break };
            let taken = self.take_in(next).await;
            answer = answer.max(self.note(next, taken));
        }
        if answer == Answer::Ours {
            let taken = join_all(rest.clone().map(|index| self.take_in(index))).await;
            for (index, taken) in rest.zip(taken) {
                answer = answer.max(self.note(index, taken));
            }
        }
        if answer != Answer::Ours || self.held().len() >= plan.policy.required(plan.storages.len())
        {
            return Ok(answer);
        }
        let first = self.failed.drain(..).next().map(|(_, error)| error);
        Err(first.unwrap_or_else(|| Error::failed("claim", "no storage answers")))
    }

    /// The storages that gave their claim, in the order of the plan.
    pub(super) fn held(&self) -> Vec<Arc<dyn Storage>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|index| Arc::clone(&self.plan.storages[*index])).collect()
    }

    fn note(&mut self, index: usize, taken: Result<Answer>) -> Answer {
        taken.unwrap_or_else(|error| {
            self.failed.push((self.plan.storages[index].name().to_owned(), error));
            Answer::Ours
        })
    }

    async fn take_in(&self, index: usize) -> Result<Answer> {
        let plan = self.plan;
        let storage = &plan.storages[index];
        let body = serde_json::json!({
            "host": plan.host, "tool": plan.tool, "started": plan.started,
            "timeout_seconds": plan.timeout.as_secs(),
        });
        let (name, limit) = (storage.name(), plan.limits.commit);
        let key = self.key(layout::CLAIM);
        let created = storage.create_new(&key, Bytes::from(body.to_string()));
        if within(name, limit, created).await? == Creation::Taken {
            return Ok(Answer::Theirs);
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        // A finished run has given its claim back; then its manifest is there.
        let manifest = self.key(layout::MANIFEST);
        Ok(match within(name, limit, storage.stat(&manifest)).await {
            Ok(None) => Answer::Ours,
            Ok(Some(_)) => Answer::Theirs,
            Err(_) if self.random => Answer::Ours,
            Err(error) => {
                tracing::warn!(storage = name, "can't be asked whether an id is free: {error}");
                Answer::Unknown
            }
        })
    }

    async fn give_back(&self, context: &Context) {
        let key = self.key(layout::CLAIM);
        let limit = self.plan.limits.sink_stall;
        let held = self.held();
        join_all(held.iter().map(|held| release(held.as_ref(), &key, limit, context))).await;
    }
}

/// What a claim tells about its run's end.
#[derive(Deserialize)]
struct Claimed {
    started: Timestamp,
    timeout_seconds: u64,
    #[serde(default)]
    host: Option<String>,
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
pub(crate) async fn may_be_running(
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

/// Whether whoever claimed `folder` is done with it for certain: the run must have ended by
/// `now`, or it is the one that made the backup of `manifest`. That one published elsewhere and
/// gave up here; should it be about to publish here too, then the very same manifest.
pub(crate) async fn is_over(
    storage: &Arc<dyn Storage>,
    folder: &str,
    manifest: &Manifest,
    now: Timestamp,
) -> Result<bool> {
    let key = format!("{folder}/{}", layout::CLAIM);
    let json = match read_small(&StoredObject::unchecked(Arc::clone(storage), key)).await {
        Ok(json) => json,
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let Ok(claimed) = serde_json::from_slice::<Claimed>(&json) else { return Ok(true) };
    let by_its_run =
        claimed.host.as_ref() == Some(&manifest.host) && claimed.started == manifest.started;
    Ok(by_its_run || claimed.over().is_none_or(|over| over <= now))
}

/// Removes a claim; one that stays is told.
pub(crate) async fn release(storage: &dyn Storage, key: &str, limit: Duration, context: &Context) {
    let name = storage.name();
    if let Err(error) = within(name, limit, storage.delete(key)).await {
        context.warn(&format!("a claim stays in {name}: {error}"));
    }
}
