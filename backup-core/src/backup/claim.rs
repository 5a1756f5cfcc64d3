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
use crate::pipeline::{Context, Limits, within};
use crate::{Creation, Error, ErrorKind, Manifest, Result, Storage, StoredObject, read_small};

/// How long a stopped run waits for the claim it is just making: one it does not know of it
/// can't give back.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a copy of one backup, or a sweep of one folder, may take.
pub(crate) const HOLD_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

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

/// Reserves the first free id of this second in every storage that answers, but none of those
/// that are `used` elsewhere; or, where one can't be asked whether an id is free (`used` is
/// `None`) or can't keep two callers apart, an id with random letters, which is free anyway.
///
/// A claim needs no renewal: the run ends within its timeout, and nobody sweeps a folder
/// whose id is younger than that.
pub(super) async fn claim<'a>(
    plan: &'a BackupPlan,
    used: Option<&BTreeSet<BackupId>>,
    context: &Context,
) -> Result<Claim<'a>> {
    let mut random = used.is_none() || plan.storages.iter().any(|storage| !storage.excludes());
    for suffix in 1..=MAX_SAME_SECOND {
        let id = match random {
            true => BackupId::random(plan.started),
            false => BackupId::new(plan.started, suffix),
        };
        if used.is_some_and(|used| used.contains(&id)) {
            continue;
        }
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
        let mut body = serde_json::json!({
            "host": plan.host, "tool": plan.tool, "started": plan.started,
            "timeout_seconds": plan.timeout.as_secs(),
        });
        if plan.is_of_old_data() {
            body["claimed"] = Timestamp::now().to_string().into();
        }
        let (name, limit) = (storage.name(), plan.limits.commit);
        let key = self.key(layout::CLAIM);
        let created = storage.create_new(&key, Bytes::from(body.to_string()));
        if within(name, limit, created).await? == Creation::Taken {
            return Ok(Answer::Theirs);
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        // An id of former days may be one that is just being removed.
        let pruned = self.key(layout::PRUNED);
        if plan.is_of_old_data() && within(name, limit, storage.stat(&pruned)).await?.is_some() {
            return Ok(Answer::Theirs);
        }
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
    /// When it was made, where that is not when its backup started.
    #[serde(default)]
    claimed: Option<Timestamp>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    purpose: Option<String>,
}

/// The word of a prune in its claims.
const PRUNE: &str = "prune";

/// What a folder is held for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose<'a> {
    word: &'a str,
    host: Option<&'a str>,
}

impl<'a> Purpose<'a> {
    /// To bring the files of a copy.
    pub(crate) const COPY: Self = Self { word: "copy", host: None };
    /// To remove what a crashed run left.
    pub(crate) const SWEEP: Self = Self { word: "sweep", host: None };

    /// To remove a backup, from this host, whose lock of the job is held.
    pub(crate) fn prune(host: &'a str) -> Self {
        Self { word: PRUNE, host: Some(host) }
    }

    /// To remove the old copy of a backup that was encrypted anew, from this host, whose lock of
    /// the job is held.
    pub(crate) fn rekey(host: &'a str) -> Self {
        Self { word: "rekey", host: Some(host) }
    }

    /// Whether a claim is that of a run which must be dead: there is only one such for a job on
    /// a host, and this is it.
    fn succeeds(&self, claimed: &Claimed) -> bool {
        self.host.is_some()
            && claimed.host.as_deref() == self.host
            && claimed.purpose.as_deref() == Some(self.word)
    }
}

impl Claimed {
    /// When the run began.
    fn since(&self) -> Timestamp {
        self.claimed.unwrap_or(self.started)
    }

    /// When the run must have ended, even by another host's clock.
    fn over(&self) -> Option<Timestamp> {
        let timeout = SignedDuration::from_secs(i64::try_from(self.timeout_seconds).ok()?);
        let grace = SignedDuration::try_from(SWEEP_GRACE).ok()?;
        self.since().checked_add(timeout).ok()?.checked_add(grace).ok()
    }
}

/// When the run that claimed `folder` began, if it may still be going on at `now`.
///
/// A claim that nobody here understands is a newer version's: it counts by its age.
///
/// # Errors
/// When it can't be read: then nobody may take the folder for free.
pub(crate) async fn live_since(
    storage: &Arc<dyn Storage>,
    folder: &str,
    manifest: Option<&Manifest>,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    live_beside(storage, folder, manifest, None, now).await
}

/// The same, as somebody sees it who is about to hold the folder himself.
async fn live_beside(
    storage: &Arc<dyn Storage>,
    folder: &str,
    manifest: Option<&Manifest>,
    purpose: Option<&Purpose<'_>>,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let key = format!("{folder}/{}", layout::CLAIM);
    let json = match read_small(&StoredObject::unchecked(Arc::clone(storage), &key)).await {
        Ok(json) => json,
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let claimed = match serde_json::from_slice::<Claimed>(&json) {
        Ok(claimed) => claimed,
        Err(_) => match storage.stat(&key).await? {
            None => return Ok(None),
            Some(object) => Claimed {
                started: object.modified,
                timeout_seconds: HOLD_TIMEOUT.as_secs(),
                claimed: None,
                host: None,
                purpose: None,
            },
        },
    };
    // The run that made a backup which is listed elsewhere gave up here; should it be about to
    // publish here too, then the very same manifest.
    let by_its_run = manifest.is_some_and(|manifest| {
        claimed.host.as_ref() == Some(&manifest.host) && claimed.started == manifest.started
    });
    let succeeded = purpose.is_some_and(|purpose| purpose.succeeds(&claimed));
    let over = by_its_run || succeeded || claimed.over().is_none_or(|over| over <= now);
    Ok((!over).then(|| claimed.since()))
}

/// A folder that a copy, a sweep or a prune holds, so that nobody else works in it.
pub(crate) struct Hold {
    storage: Arc<dyn Storage>,
    key: String,
    body: Bytes,
    limits: Limits,
}

impl Hold {
    /// Holds `folder` for `purpose`; `None` while somebody else may be at work in it. A claim
    /// whose run has ended, or must have, is taken over; that of the run which made the backup
    /// of `manifest` has, and that of a prune of this host, when it is for another prune.
    pub(crate) async fn take(
        storage: &Arc<dyn Storage>,
        folder: &str,
        manifest: Option<&Manifest>,
        purpose: Purpose<'_>,
        now: Timestamp,
        limits: Limits,
    ) -> Result<Option<Self>> {
        let mut body = serde_json::json!({
            "purpose": purpose.word, "started": now, "timeout_seconds": HOLD_TIMEOUT.as_secs(),
            "nonce": rand::random::<u64>().to_string(),
        });
        if let Some(host) = purpose.host {
            body["host"] = host.into();
        }
        let hold = Self {
            storage: Arc::clone(storage),
            key: format!("{folder}/{}", layout::CLAIM),
            body: Bytes::from(body.to_string()),
            limits,
        };
        let mut created = hold.create().await?;
        if created == Creation::Taken
            && live_beside(storage, folder, manifest, Some(&purpose), now).await?.is_none()
        {
            within(storage.name(), limits.sink_stall, storage.delete(&hold.key)).await?;
            created = hold.create().await?;
        }
        if created == Creation::Taken {
            return Ok(None);
        }
        match hold.is_ours().await {
            Ok(ours) => Ok(ours.then_some(hold)),
            Err(error) => {
                // Best effort: a claim alone is no backup, and ends by itself.
                let _ = within(storage.name(), limits.sink_stall, storage.delete(&hold.key)).await;
                Err(error)
            }
        }
    }

    async fn create(&self) -> Result<Creation> {
        let created = self.storage.create_new(&self.key, self.body.clone());
        within(self.storage.name(), self.limits.commit, created).await
    }

    /// Whether nobody took it over: of two that found the same old claim, one is robbed.
    pub(crate) async fn is_ours(&self) -> Result<bool> {
        let stored = StoredObject::unchecked(Arc::clone(&self.storage), &self.key);
        match within(self.storage.name(), self.limits.sink_stall, read_small(&stored)).await {
            Ok(found) => Ok(found == self.body),
            Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the folder free, if it is still ours; a claim that stays is told.
    pub(crate) async fn release(self, context: &Context) {
        match self.is_ours().await {
            Ok(true) => {
                release(self.storage.as_ref(), &self.key, self.limits.sink_stall, context).await;
            }
            Ok(false) => {}
            Err(error) => {
                context.warn(&format!("a claim may stay in {}: {error}", self.storage.name()));
            }
        }
    }
}

/// Removes a claim; one that stays is told.
pub(crate) async fn release(storage: &dyn Storage, key: &str, limit: Duration, context: &Context) {
    let name = storage.name();
    if let Err(error) = within(name, limit, storage.delete(key)).await {
        context.warn(&format!("a claim stays in {name}: {error}"));
    }
}
