//! What a restore does with the live name: swap, confirm, put back, go on after a crash.

use std::time::Duration;

use backup_core::pipeline::Cancel;
use backup_core::{Error, ErrorKind, Result};
use jiff::Timestamp;
use serde::Serialize;

use super::script::{Outcome, Transaction};
use super::sessions::SessionEnded;
use super::state::{Look, MarkedDatabase, SwapState, refuse_unfinished, unfinished};
use super::turn::{TRIES, TRY_PAUSE, Turn, Turned, allow, comment};
use super::{Marker, Names, Phase, RunId, STAGE, Swap};

/// What is to be swapped in: the database called [`Names::restoring`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapOrder {
    /// The run.
    pub run: RunId,
    /// The backup that was restored, for the record.
    pub backup: Option<String>,
}

/// A swap that was done.
#[derive(Debug, Clone, Serialize)]
pub struct Exchanged {
    /// The run.
    pub run: RunId,
    /// What the old database is called now; it is closed.
    pub before: String,
    /// When the live name was closed.
    pub closed_at: Timestamp,
    /// When it was open again, as the new database.
    pub opened_at: Timestamp,
    /// How long it was closed.
    pub closed_for: Duration,
    /// The sessions that were ended.
    pub sessions_ended: Vec<SessionEnded>,
}

/// What putting back did.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum PutBack {
    /// The swap had not come about: the live name is open, and was the old database all along.
    Reopened {
        /// The run.
        run: RunId,
        /// The restored database, which stays.
        scratch: String,
    },
    /// The old database is live again.
    Returned {
        /// The run.
        run: RunId,
        /// What the new database is called now; it is closed.
        failed: String,
        /// From when to when the new database was live: what was written between is in it alone.
        window: (Timestamp, Timestamp),
        /// How long the live name was closed.
        closed_for: Duration,
        /// The sessions that were ended.
        sessions_ended: Vec<SessionEnded>,
    },
}

/// What going on after a crash came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "resumed")]
pub enum Resumed {
    /// The swap was done now.
    Exchanged(Exchanged),
    /// The old database was being put back; it is.
    PutBack(PutBack),
    /// The swap had been done already. It waits to be confirmed.
    Swapped {
        /// The run.
        run: RunId,
        /// What the old database is called.
        before: String,
    },
}

impl Swap {
    /// The comment with which a scratch database gets its name ([`Names::restoring`]): a crash from
    /// that moment on leaves something that [`state`](Self::state) and [`cleanup`](Self::cleanup)
    /// know.
    pub fn first_mark(&self, order: &SwapOrder) -> String {
        self.first_marker(order).text()
    }

    fn first_marker(&self, order: &SwapOrder) -> Marker {
        Marker::restored(&self.live, &order.run, order.backup.clone(), Timestamp::now())
    }

    /// Marks a scratch database as this run's and as made just now, whether it has its
    /// [`first_mark`](Self::first_mark) or not.
    ///
    /// # Errors
    /// `NotFound` when there is no such database, or when the server refuses.
    pub async fn adopt(&self, order: &SwapOrder) -> Result<()> {
        let look = self.look().await?;
        let marker = self.scratch_marker(&look, order)?.1;
        if marker.phase != Phase::Restored {
            return Err(unfinished(&marker));
        }
        let marker = Marker { started: Timestamp::now(), ..marker };
        Transaction::begin(self.limits.lock)
            .step(&comment(&marker.database, Some(&marker.text())))
            .run(&self.admin)
            .await?
            .done("the new database could not be marked")
    }

    /// Swaps the scratch database in: closes both, ends their sessions, renames both in one
    /// transaction, opens the live name.
    ///
    /// When it does not come about, the live name is the old database and open. Dropping the
    /// future stops it as `cancel` does: a task of its own opens the database again. Once the
    /// renaming runs, neither counts.
    ///
    /// # Errors
    /// `Refused` for an unfinished other run or a prepared transaction; `NotFound` without the
    /// scratch or the live database; `Failed` when sessions or locks stay (it names them).
    pub async fn exchange(&self, order: &SwapOrder, cancel: &Cancel) -> Result<Exchanged> {
        let look = self.look().await?;
        refuse_unfinished(&look.state(&self.live), Some(&order.run))?;
        let (coming, marker) = self.scratch_marker(&look, order)?;
        let turn = self.forward(&look, coming, marker)?;
        let turned = self.to_the_end(turn, cancel).await?;
        Ok(exchanged(turned))
    }

    /// Says that the new database works: the old one may be cleaned up some day.
    ///
    /// # Errors
    /// `NotFound` when this run was not swapped in, `Refused` when it is being put back.
    pub async fn confirm(&self, run: &RunId) -> Result<()> {
        for _ in 0..TRIES {
            let look = self.look().await?;
            let state = look.state(&self.live);
            let one = state.of_run(run).ok_or_else(|| nothing_of(run))?;
            match one.marker.phase {
                Phase::Confirmed => return Ok(()),
                Phase::Swapped => {}
                Phase::PuttingBack => return Err(unfinished(&one.marker)),
                _ => return Err(nothing_of(run)),
            }
            let confirmed = Marker { confirmed: true, ..one.marker.in_phase(Phase::Confirmed) };
            // The row of the old database keeps others away; the live one is not touched.
            let transaction = Transaction::begin(self.limits.lock)
                .step(&allow(&one.name, false))
                .only_if(&look.unchanged(&self.live))
                .step(&comment(&one.name, Some(&confirmed.text())));
            match transaction.run(&self.admin).await? {
                Outcome::Changed => {}
                race if race.is_race() => {}
                outcome => return outcome.done("the swap could not be confirmed"),
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        Outcome::Changed.done("the swap could not be confirmed")
    }

    /// Puts the old database back under the live name, in every state of a run. Nothing is
    /// dropped. `run` is the unfinished one by default, else the last that was swapped in; when
    /// that was put back already, an older one has to be named.
    ///
    /// # Errors
    /// `NotFound` when there is nothing to put back; as [`exchange`](Self::exchange) otherwise:
    /// then the live name is open and what it was.
    pub async fn put_back(&self, run: Option<&RunId>, cancel: &Cancel) -> Result<PutBack> {
        for _ in 0..TRIES {
            let look = self.look().await?;
            let state = look.state(&self.live);
            let found = match run {
                Some(run) => state.of_run(run),
                None => state.unfinished().or_else(|| state.last_swapped()),
            };
            let one = found.ok_or_else(|| nothing_to_put_back(&self.live))?;
            let marker = &one.marker;
            match marker.phase {
                Phase::Restored | Phase::Closing => match self.reopen(&look, one).await? {
                    Some(done) => return Ok(done),
                    None => continue,
                },
                Phase::Swapped | Phase::Confirmed | Phase::PuttingBack => {
                    let turned = self.to_the_end(self.back(&look, marker)?, cancel).await?;
                    return Ok(returned(&turned.marker, turned.closed_for(), turned.ended));
                }
                // Who did not name it might go back one swap further than he knows.
                Phase::Failed if run.is_none() => return Err(put_back_already(&state, marker)),
                Phase::Failed => return Ok(returned(marker, Duration::ZERO, Vec::new())),
                Phase::Dropping => {
                    return Err(Error::refused(STAGE, format!("{} is being dropped", one.name))
                        .next_step(
                            "restore a backup instead; `restore --cleanup` finishes the dropping",
                        ));
                }
            }
        }
        Err(Error::failed(STAGE, "another process swaps this database all the time"))
    }

    /// Goes on with the run that a crash left unfinished.
    ///
    /// # Errors
    /// `NotFound` when nothing is unfinished; as [`exchange`](Self::exchange) otherwise.
    pub async fn resume(&self, cancel: &Cancel) -> Result<Resumed> {
        let look = self.look().await?;
        let state = look.state(&self.live);
        let Some(MarkedDatabase { marker, name, .. }) = state.unfinished() else {
            let said = format!("no restore of {} is unfinished", self.live);
            return Err(Error::new(ErrorKind::NotFound, STAGE, said));
        };
        let run = marker.run.clone();
        match marker.phase {
            Phase::Closing => {
                let order = SwapOrder { run, backup: marker.backup.clone() };
                self.exchange(&order, cancel).await.map(Resumed::Exchanged)
            }
            Phase::PuttingBack => self.put_back(Some(&run), cancel).await.map(Resumed::PutBack),
            _ => {
                self.open_live().await?;
                Ok(Resumed::Swapped { run, before: name.clone() })
            }
        }
    }

    /// Opens the live name, which is the old database still; `None` when it no longer is,
    /// because the crashed run's last transaction came through after all.
    async fn reopen(&self, look: &Look, one: &MarkedDatabase) -> Result<Option<PutBack>> {
        let run = one.marker.run.clone();
        let coming = look.named(&one.name).ok_or_else(|| nothing_of(&run))?.oid;
        let settled = self.forward(look, coming, one.marker.clone())?.settle(self).await?;
        let reopened = PutBack::Reopened { run, scratch: one.name.clone() };
        Ok(settled.is_none().then_some(reopened))
    }

    async fn open_live(&self) -> Result<()> {
        self.admin.execute(&allow(&self.live, true)).await
    }

    /// The scratch database's number, and its marker: the one it has, or its first.
    fn scratch_marker(&self, look: &Look, order: &SwapOrder) -> Result<(u32, Marker)> {
        let name = Names::new(&self.live, &order.run).restoring;
        let scratch = look.named(&name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, STAGE, format!("there is no database {name}"))
                .next_step("restore again; `restore --continue` goes on with a run that was swapped already")
        })?;
        Ok((scratch.oid, scratch.marker().unwrap_or_else(|| self.first_marker(order))))
    }

    /// The way from the old to the new database.
    fn forward(&self, look: &Look, coming: u32, marker: Marker) -> Result<Turn> {
        let again = marker.closed.filter(|_| marker.phase == Phase::Closing);
        let closed = again.or_else(|| Some(Timestamp::now()));
        Ok(Turn {
            leaving: self.live_number(look)?,
            coming,
            waiting: Marker { closed, ..marker.in_phase(Phase::Closing) },
            undone: Marker { closed: None, ..marker.in_phase(Phase::Restored) },
            parked: Names::new(&self.live, &marker.run).before,
            begun: again.is_some(),
        })
    }

    /// The way from the new to the old database, which carries `marker`.
    fn back(&self, look: &Look, marker: &Marker) -> Result<Turn> {
        let coming = look.named(&marker.database).ok_or_else(|| nothing_of(&marker.run))?.oid;
        let again = marker.closed.filter(|_| marker.phase == Phase::PuttingBack);
        let closed = again.or_else(|| Some(Timestamp::now()));
        let before = if marker.confirmed { Phase::Confirmed } else { Phase::Swapped };
        Ok(Turn {
            leaving: self.live_number(look)?,
            coming,
            waiting: Marker { closed, ..marker.in_phase(Phase::PuttingBack) },
            undone: Marker { closed: None, ..marker.in_phase(before) },
            parked: Names::new(&self.live, &marker.run).failed,
            begun: again.is_some(),
        })
    }

    fn live_number(&self, look: &Look) -> Result<u32> {
        look.named(&self.live).map(|one| one.oid).ok_or_else(|| {
            let said = format!("there is no database {}", self.live);
            Error::new(ErrorKind::NotFound, STAGE, said).next_step(
                "somebody renamed or dropped it; ALTER DATABASE .. RENAME TO gives the wanted one its name, .. ALLOW_CONNECTIONS true opens it",
            )
        })
    }

    /// Carries a turn out in a task of its own: whoever stops waiting for it stops it, but does
    /// not keep it from opening the database again.
    async fn to_the_end(&self, turn: Turn, cancel: &Cancel) -> Result<Turned> {
        let stop = cancel.child();
        let (swap, heard) = (self.clone(), stop.clone());
        let task = tokio::spawn(async move { turn.run(&swap, &heard).await });
        let _stop = StopWhenDropped(stop);
        task.await.unwrap_or_else(|died| {
            Err(Error::failed(STAGE, "the swap was cut off")
                .next_step("run `restore --rollback`: it opens the database again")
                .caused_by(died))
        })
    }
}

struct StopWhenDropped(Cancel);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.interrupt("nobody waits for the swap any more");
    }
}

fn exchanged(turned: Turned) -> Exchanged {
    Exchanged {
        run: turned.marker.run.clone(),
        before: turned.marker.database.clone(),
        closed_at: turned.closed,
        opened_at: turned.opened,
        closed_for: turned.closed_for(),
        sessions_ended: turned.ended,
    }
}

fn returned(marker: &Marker, closed_for: Duration, sessions_ended: Vec<SessionEnded>) -> PutBack {
    let from = marker.swapped.unwrap_or(marker.started);
    PutBack::Returned {
        run: marker.run.clone(),
        failed: marker.database.clone(),
        window: (from, marker.put_back.unwrap_or_else(Timestamp::now)),
        closed_for,
        sessions_ended,
    }
}

fn nothing_of(run: &RunId) -> Error {
    Error::new(ErrorKind::NotFound, STAGE, format!("no database of restore {run} was swapped in"))
}

fn put_back_already(state: &SwapState, marker: &Marker) -> Error {
    let said = format!("the last restore of {}, {}, was put back already", marker.live, marker.run);
    let error = Error::new(ErrorKind::NotFound, STAGE, said);
    match state.newest_before() {
        Some(older) => error.next_step(format!(
            "to go further back, to before restore {}, name that one",
            older.marker.run
        )),
        None => error.next_step("restore a backup: `list` shows them"),
    }
}

fn nothing_to_put_back(live: &str) -> Error {
    Error::new(ErrorKind::NotFound, STAGE, format!("no older {live} is there to put back"))
        .next_step("restore a backup: `list` shows them")
}
