//! `restore --rollback` and `restore --continue`: one command after a crash, or after second
//! thoughts.

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Error, ErrorKind, Result};
use backup_pg::swap::{Phase, PutBack, Resumed, RunId, SwapState};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::site::{Site, SwapTarget};
use super::ticket::Ticket;
use super::window::{Window, patiently};
use crate::Deployment;
use crate::lock::JobLock;
use backup_pg::swap::SwapOrder;

/// A swap that was confirmed longer ago is rolled back only when it is named: it is hardly the
/// one that is meant.
const PLAINLY_MEANT: SignedDuration = SignedDuration::from_hours(24);

/// What a rollback or a continuation does, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Recovery {
    /// The old database is put back under the live name.
    PutBack {
        /// The run.
        run: RunId,
        /// What the new database is called then; absent when it was never live.
        failed: Option<String>,
        /// From when to when the new database was live.
        window: Option<(Timestamp, Timestamp)>,
    },
    /// The new database is live, and is confirmed.
    Confirmed {
        /// The run.
        run: RunId,
        /// What the old one is called.
        before: String,
    },
    /// Nothing had been swapped, or all was put back already: the services are started.
    Started {
        /// The run.
        run: RunId,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Aim {
    PutBack(RunId),
    Finish(RunId),
    OnlyStart(RunId),
}

impl Deployment {
    /// Puts the old database back, in every state, and starts the services. `run` names another
    /// than the newest swap.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is nothing to put back; [`ErrorKind::Refused`] when the
    /// newest swap is long over and was not named.
    pub async fn roll_back(
        &self,
        target: &SwapTarget,
        run: Option<&RunId>,
        dry_run: bool,
        context: &Context,
    ) -> Result<Recovery> {
        let (site, ticket, _job, state) = self.scene(target, context).await?;
        let aim = aim_of_rollback(&state, ticket.killed().as_ref(), run, Timestamp::now())
            .map_err(|error| named(error, &site.live))?;
        if dry_run {
            return Ok(foreseen(&aim, &state));
        }
        site.carry_out_and_end(&aim, &ticket, context).await
    }

    /// Finishes a run that was cut off: swaps where the swap was under way, starts the services,
    /// waits for health, confirms. What fails is put back.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing was cut off; [`ErrorKind::Failed`] when the run that
    /// was cut off had not swapped anything yet: its services are started then.
    pub async fn go_on(
        &self,
        target: &SwapTarget,
        dry_run: bool,
        context: &Context,
    ) -> Result<Recovery> {
        let (site, ticket, _job, state) = self.scene(target, context).await?;
        let aim = aim_of_going_on(&state, ticket.killed().as_ref())
            .map_err(|error| named(error, &site.live))?;
        if dry_run {
            return Ok(foreseen(&aim, &state));
        }
        let done = site.carry_out_and_end(&aim, &ticket, context).await?;
        match (&done, state.of_run(aim.run()).map(|one| one.marker.phase)) {
            (Recovery::Started { .. }, Some(Phase::Confirmed | Phase::Failed)) => Ok(done),
            (Recovery::Started { run }, _) => Err(not_swapped(run, &site.live)),
            _ => Ok(done),
        }
    }

    async fn scene(
        &self,
        target: &SwapTarget,
        context: &Context,
    ) -> Result<(Site, Ticket, Option<JobLock>, SwapState)> {
        let site = context.cancel.guard(self.site(target)).await?;
        let (ticket, job) = site.lock(self)?;
        let swap = site.swap();
        let state = context.cancel.guard(patiently(|| swap.state())).await?;
        Ok((site, ticket, job, state))
    }
}

impl Aim {
    fn run(&self) -> &RunId {
        match self {
            Self::PutBack(run) | Self::Finish(run) | Self::OnlyStart(run) => run,
        }
    }
}

impl Site {
    /// Also runs the hooks that the killed run did not come to: `on_failure` when it came to
    /// nothing, `after` in any case. As long as something is unfinished they wait.
    async fn carry_out_and_end(
        &self,
        aim: &Aim,
        ticket: &Ticket,
        context: &Context,
    ) -> Result<Recovery> {
        let done = self.carry_out(aim, context).await;
        if done.is_err() && !self.is_settled().await {
            return done;
        }
        if ticket.killed().is_some() {
            // Told as warnings when they fail: what they come after is done.
            if !matches!(done, Ok(Recovery::Confirmed { .. })) {
                let _ = self.run_every("on_failure", &self.config.on_failure, context).await;
            }
            let _ = self.run_every("after", &self.config.after, context).await;
        }
        ticket.end();
        done
    }

    /// Whether nothing is left to be finished or put back, as far as the server says.
    async fn is_settled(&self) -> bool {
        self.swap().state().await.is_ok_and(|state| state.unfinished().is_none())
    }

    async fn carry_out(&self, aim: &Aim, context: &Context) -> Result<Recovery> {
        match aim {
            Aim::PutBack(run) => self.return_to_old(run, context).await,
            Aim::Finish(run) => self.finish(run, context).await,
            Aim::OnlyStart(run) => {
                self.start(context).await?;
                self.wait_for_health(context, &context.cancel).await?;
                Ok(Recovery::Started { run: run.clone() })
            }
        }
    }

    /// The services start again whatever comes of it.
    async fn return_to_old(&self, run: &RunId, context: &Context) -> Result<Recovery> {
        let undisturbed = Cancel::default();
        let _ = self.run_every("stop", &self.config.stop, context).await;
        context.step("putting the old database back");
        let swap = self.swap();
        let put_back = patiently(|| swap.put_back(Some(run), &undisturbed)).await;
        let started = self.start(context).await;
        let put_back = put_back?;
        started?;
        self.wait_for_health(context, &undisturbed).await.map_err(|error| {
            let message = format!("the old database is back, but {}", error.message());
            Error::failed("health", message).next_step("look into the application's log")
        })?;
        Ok(match put_back {
            PutBack::Reopened { run, .. } => Recovery::PutBack { run, failed: None, window: None },
            PutBack::Returned { run, failed, window, .. } => {
                Recovery::PutBack { run, failed: Some(failed), window: Some(window) }
            }
        })
    }

    async fn finish(&self, run: &RunId, context: &Context) -> Result<Recovery> {
        let order = SwapOrder { run: run.clone(), backup: None };
        let window = Window {
            site: self.clone(),
            order,
            resumes: true,
            keep_failed: true,
            context: context.clone(),
        };
        match window.pass().await?.resumed {
            Resumed::Exchanged(done) => {
                Ok(Recovery::Confirmed { run: done.run, before: done.before })
            }
            Resumed::Swapped { run, before } => Ok(Recovery::Confirmed { run, before }),
            Resumed::PutBack(PutBack::Reopened { run, .. }) => {
                Ok(Recovery::PutBack { run, failed: None, window: None })
            }
            Resumed::PutBack(PutBack::Returned { run, failed, window, .. }) => {
                Ok(Recovery::PutBack { run, failed: Some(failed), window: Some(window) })
            }
        }
    }
}

fn aim_of_rollback(
    state: &SwapState,
    killed: Option<&RunId>,
    named: Option<&RunId>,
    now: Timestamp,
) -> Result<Aim> {
    let unfinished = state.unfinished().map(|one| &one.marker.run);
    if let Some(run) = named {
        return match (state.of_run(run), unfinished) {
            (_, Some(other)) if other != run => {
                Err(Error::refused("rollback", format!("restore {other} is unfinished"))
                    .next_step(format!("name that one: restore --rollback --run {other}")))
            }
            (None, _) => Err(nothing("no database of this run is there")),
            _ => Ok(Aim::PutBack(run.clone())),
        };
    }
    if let Some(one) = state.unfinished() {
        let swapped = one.marker.swapped.filter(|_| one.marker.phase == Phase::Swapped);
        if let Some(swapped) = swapped.filter(|at| now.duration_since(*at) > PLAINLY_MEANT) {
            return Err(long_ago(swapped, &one.marker.run));
        }
        return Ok(Aim::PutBack(one.marker.run.clone()));
    }
    let newest = state.marked.iter().rfind(|one| one.marker.phase != Phase::Dropping);
    // A run that was killed before it left anything on the server: the swap before it is not
    // the one that is meant.
    if let Some(run) = killed
        && newest.is_none_or(|newest| newest.marker.run < *run)
    {
        return Ok(Aim::OnlyStart(run.clone()));
    }
    let newest = newest.ok_or_else(|| nothing("nothing was swapped"))?;
    let marker = &newest.marker;
    match marker.phase {
        Phase::Confirmed => {
            let swapped = marker.swapped.unwrap_or(marker.started);
            if now.duration_since(swapped) > PLAINLY_MEANT {
                return Err(long_ago(swapped, &marker.run));
            }
            let put_back = state.marked.iter().filter_map(|one| one.marker.put_back).max();
            if put_back.is_some_and(|at| at > swapped) {
                return Err(Error::refused(
                    "rollback",
                    "the last thing that was done is a rollback; going back further has to be said",
                )
                .next_step(format!("restore --rollback --run {}", marker.run)));
            }
            Ok(Aim::PutBack(marker.run.clone()))
        }
        _ => Ok(Aim::OnlyStart(marker.run.clone())),
    }
}

fn long_ago(swapped: Timestamp, run: &RunId) -> Error {
    Error::refused(
        "rollback",
        format!("the newest swap is from {swapped:.0}: all that was written since would leave the live database"),
    )
    .next_step(format!("if that is what you want: restore --rollback --run {run}"))
}

fn aim_of_going_on(state: &SwapState, killed: Option<&RunId>) -> Result<Aim> {
    if let Some(one) = state.unfinished() {
        return Ok(Aim::Finish(one.marker.run.clone()));
    }
    let newest = state.marked.iter().rfind(|one| one.marker.phase != Phase::Dropping);
    match (killed, newest) {
        (Some(run), newest) if newest.is_none_or(|newest| newest.marker.run <= *run) => {
            Ok(Aim::OnlyStart(run.clone()))
        }
        (_, Some(newest)) if newest.marker.phase == Phase::Restored => {
            Ok(Aim::OnlyStart(newest.marker.run.clone()))
        }
        _ => Err(nothing("nothing is unfinished")),
    }
}

fn nothing(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, "restore", what.to_owned()).next_step(
        "`marb-backup restore --cleanup --dry-run` shows what is there of earlier restores",
    )
}

fn named(error: Error, live: &str) -> Error {
    let advice = error.advice().unwrap_or_default().to_owned();
    let message = format!("{live}: {}", error.message());
    Error::new(error.kind(), error.stage().to_owned(), message).next_step(advice)
}

fn not_swapped(run: &RunId, live: &str) -> Error {
    Error::failed(
        "restore",
        format!("restore {run} was cut off before it swapped anything: {live} is the old database, and the services were started"),
    )
    .next_step("start the restore again")
}

/// What would come of it, for `--dry-run`.
fn foreseen(aim: &Aim, state: &SwapState) -> Recovery {
    let marker = state.of_run(aim.run()).map(|one| &one.marker);
    match aim {
        Aim::OnlyStart(run) => Recovery::Started { run: run.clone() },
        Aim::Finish(run) => Recovery::Confirmed {
            run: run.clone(),
            before: marker.map_or_else(String::new, |marker| {
                backup_pg::swap::Names::new(&marker.live, run).before
            }),
        },
        Aim::PutBack(run) => {
            let swapped = marker.and_then(|marker| marker.swapped);
            let failed = marker
                .filter(|_| swapped.is_some())
                .map(|marker| backup_pg::swap::Names::new(&marker.live, run).failed);
            Recovery::PutBack {
                run: run.clone(),
                failed,
                window: swapped.map(|from| (from, Timestamp::now())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
