//! Dropping what former swaps left, and only that: a database with our marker, in a phase that
//! is over, when a backup newer than the swap is known to be good.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::script::{Outcome, Transaction};
use super::state::MarkedDatabase;
use super::turn::{TRIES, TRY_PAUSE, allow, comment};
use super::{Marker, Names, Phase, RunId, STAGE, Swap};
use crate::sql::{quote_ident, quote_literal};

/// How long DROP DATABASE may take.
const DROP_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long a scratch database is kept at least: somebody may be at work on it still.
const SCRATCH_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What may be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupOrder {
    /// The time.
    pub now: Timestamp,
    /// How old something has to be.
    pub keep_old: Duration,
    /// When the newest verified backup of the live database began; `None` when there is none.
    pub newest_verified: Option<Timestamp>,
}

/// One database of a former swap.
#[derive(Debug, Clone, Serialize)]
pub struct CleanupItem {
    /// Its name.
    pub database: String,
    /// What its comment says.
    pub marker: Marker,
    /// Its size on the server's disk, where it may be known.
    pub bytes: Option<u64>,
    /// What happens or happened to it.
    pub outcome: CleanupOutcome,
}

/// What a cleanup does with a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum CleanupOutcome {
    /// Would be dropped.
    Drop,
    /// Is gone.
    Dropped {
        /// The subscriptions that went with it. Their publishers were not contacted: a slot
        /// there stays, unless the live database's subscription uses it.
        subscriptions: Vec<String>,
        /// The replication slots of this server that went with it.
        slots: Vec<String>,
    },
    /// Stays, and why.
    Kept(String),
    /// Could not be dropped, and why.
    Failed(String),
}

impl CleanupOrder {
    /// What is to be done with a database that carries this marker.
    fn judge(&self, marker: &Marker) -> CleanupOutcome {
        let kept = |why: &str| CleanupOutcome::Kept(why.to_owned());
        let (since, holds_writes) = match marker.phase {
            Phase::Dropping => return CleanupOutcome::Drop,
            Phase::Closing | Phase::Swapped | Phase::PuttingBack => {
                return kept(
                    "its run is not finished: `restore --continue` or `restore --rollback`",
                );
            }
            Phase::Restored => (Some(marker.started), false),
            Phase::Confirmed => (marker.swapped, true),
            Phase::Failed => (marker.put_back, true),
        };
        let Some(since) = since else { return kept("its comment does not say since when") };
        if holds_writes && self.newest_verified.is_none_or(|backup| backup <= since) {
            return kept("no backup that began later has been verified");
        }
        let keep = if holds_writes { self.keep_old } else { self.keep_old.max(SCRATCH_KEPT) };
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        match since.checked_add(keep) {
            Ok(until) if until <= self.now => CleanupOutcome::Drop,
            Ok(until) => CleanupOutcome::Kept(format!("it is kept until {until}")),
            Err(_) => kept("it is kept for ever"),
        }
    }
}

impl Swap {
    /// What [`cleanup`](Self::cleanup) would do. Changes nothing.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn plan_cleanup(&self, order: &CleanupOrder) -> Result<Vec<CleanupItem>> {
        let state = self.state().await?;
        let item = |one: MarkedDatabase| CleanupItem {
            outcome: order.judge(&one.marker),
            database: one.name,
            marker: one.marker,
            bytes: one.bytes,
        };
        Ok(state.marked.into_iter().map(item).collect())
    }

    /// Drops the databases of former swaps that may go. What can't be dropped is told in its
    /// item and keeps none of the others.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn cleanup(&self, order: &CleanupOrder) -> Result<Vec<CleanupItem>> {
        let mut items = self.plan_cleanup(order).await?;
        for item in items.iter_mut().filter(|item| item.outcome == CleanupOutcome::Drop) {
            let may_go = |marker: &Marker| order.judge(marker) == CleanupOutcome::Drop;
            item.outcome = match self.drop_marked(&item.database, may_go, "").await {
                Ok(dropped) => dropped,
                Err(error) => CleanupOutcome::Failed(told(&error)),
            };
        }
        Ok(items)
    }

    /// Drops the scratch database of a run that failed before its swap, ending what is
    /// connected to it. `Ok` also when it is gone already.
    ///
    /// # Errors
    /// `Refused` when the run is further than that, `Failed` when it could not be dropped.
    pub async fn drop_restored(&self, run: &RunId) -> Result<()> {
        let name = Names::new(&self.live, run).restoring;
        if self.look().await?.named(&name).is_none() {
            return Ok(());
        }
        self.adopt_for_dropping(&name, run).await?;
        let may_go = |marker: &Marker| matches!(marker.phase, Phase::Restored | Phase::Dropping);
        self.drop_marked(&name, may_go, " WITH (FORCE)").await.map(drop)
    }

    /// A run that failed early had not marked it yet.
    async fn adopt_for_dropping(&self, name: &str, run: &RunId) -> Result<()> {
        let look = self.look().await?;
        if look.named(name).is_none_or(|one| one.marker().is_some()) {
            return Ok(());
        }
        self.adopt(&super::SwapOrder { run: run.clone(), backup: None }).await
    }

    /// Marks a database as being dropped, so that nobody puts it back meanwhile, and drops it.
    async fn drop_marked(
        &self,
        name: &str,
        may_go: impl Fn(&Marker) -> bool,
        force: &str,
    ) -> Result<CleanupOutcome> {
        let oid = self.begin_dropping(name, may_go).await?;
        let subscriptions = self.drop_subscriptions(name, oid).await?;
        let slots = self.slots_of(name).await?;
        let quoted = quote_ident(name);
        let dropping = self.admin.with_timeout(DROP_TIMEOUT);
        if let Err(error) = dropping.execute(&format!("DROP DATABASE {quoted}{force}")).await {
            // The answer may have been lost, or another cleanup was quicker.
            if self.look().await?.numbered(oid).is_some() {
                return Err(error);
            }
        }
        Ok(CleanupOutcome::Dropped { subscriptions, slots })
    }

    async fn begin_dropping(&self, name: &str, may_go: impl Fn(&Marker) -> bool) -> Result<u32> {
        for _ in 0..TRIES {
            let look = self.look().await?;
            let one = look.named(name).ok_or_else(|| gone(name))?;
            let marker = one.marker().filter(|marker| marker.live == self.live && may_go(marker));
            let Some(marker) = marker.filter(|_| name != self.live) else {
                return Err(Error::refused(STAGE, format!("{name} is not to be dropped any more")));
            };
            // A database whose dropping was cut off is invalid, and can only be dropped.
            if marker.phase == Phase::Dropping {
                if one.open {
                    self.admin.execute(&allow(name, false)).await?;
                }
                return Ok(one.oid);
            }
            let template = format!("ALTER DATABASE {} IS_TEMPLATE false", quote_ident(name));
            let transaction = Transaction::begin(self.limits.lock)
                .step(&allow(name, false))
                .step(&template)
                .only_if(&look.unchanged(&self.live))
                .step(&comment(name, Some(&marker.in_phase(Phase::Dropping).text())));
            match transaction.run(&self.admin).await? {
                Outcome::Done => return Ok(one.oid),
                Outcome::Changed => {}
                race if race.is_race() => {}
                outcome => outcome.done(&format!("{name} could not be marked"))?,
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        Err(Error::failed(STAGE, format!("{name} could not be marked: others change it")))
    }

    /// The replication slots that belong to this database, which go with it.
    async fn slots_of(&self, name: &str) -> Result<Vec<String>> {
        let sql = format!(
            "select coalesce(json_agg(slot_name order by slot_name), '[]')
             from pg_catalog.pg_replication_slots where database = {}",
            quote_literal(name)
        );
        self.admin.query_json(&sql).await
    }
}

fn gone(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, STAGE, format!("there is no database {name} any more"))
}

fn told(error: &Error) -> String {
    match error.advice() {
        Some(advice) => format!("{} ({advice})", error.message()),
        None => error.message().to_owned(),
    }
}
