//! Restore beside, prove, swap: a backup into a database that is in use.
//!
//! The backup is restored into a database of its own beside the live one, compared, checked and
//! migrated there while the application runs. Only then the services stop, the two databases
//! exchange their names, the services start, and the application says that it works. What fails
//! at any step is put back; nothing that was ever live is dropped.
//!
//! Architecture invariants: how far a swap is stands on the server
//! ([`backup_pg::swap`]), so one command finishes or undoes it from anywhere; services that
//! were stopped are started again in every outcome but a killed process, and by that command
//! then.

mod beside;
pub(crate) mod checks;
mod cleanup;
mod plan;
mod recover;
mod site;
mod ticket;
pub(crate) mod url;
mod window;

use std::panic::AssertUnwindSafe;

use backup_core::pipeline::Context;
use backup_core::{Error, Result};
use backup_pg::swap::{Resumed, RunId, SwapOrder};
use futures_util::FutureExt;
use jiff::Timestamp;

pub use checks::SqlCheckPassed;
pub use cleanup::Leftover;
pub use plan::{PlannedStep, SwapPlan};
pub use recover::Recovery;
pub use site::SwapTarget;

use crate::opened_source::OpenedSource;
use crate::{Deployment, RestoreFrom, RestoreOptions, RestoreSummary};
use beside::Beside;
use site::Site;
use window::Window;

/// How a backup is swapped in.
#[derive(Debug, Clone)]
pub struct SwapOptions {
    /// The database that is to be replaced.
    pub target: SwapTarget,
    /// How it is restored; its own target does not count.
    pub restore: RestoreOptions,
    /// Keep the new database when it fails before it was live.
    pub keep_failed: bool,
}

/// A backup that is live now.
#[derive(Debug)]
pub struct SwapReport {
    /// What was restored and compared.
    pub restored: RestoreSummary,
    /// The live database.
    pub database: String,
    /// The run.
    pub run: RunId,
    /// Where the old database stays, closed.
    pub before: String,
    /// The SQL checks.
    pub checks: Vec<SqlCheckPassed>,
    /// Migrations that were run.
    pub migrations: usize,
    /// How long the application was down: from the first `stop` to healthy.
    pub downtime: std::time::Duration,
    /// How long the database was closed.
    pub closed_for: std::time::Duration,
    /// How many sessions were ended.
    pub sessions_ended: usize,
    /// Whether the application itself said that it works.
    pub healthy: bool,
    /// What one must know, a line each.
    pub notes: Vec<String>,
}

impl Deployment {
    /// `Ok` when no swap of this database is unfinished: whatever else is restored into it would
    /// go away with a rollback.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when one is; when the server can't be asked.
    pub async fn refuse_unfinished_swap(&self, target: &SwapTarget) -> Result<()> {
        self.site(target).await?.swap().refuse_unfinished().await
    }

    /// What [`Deployment::restore_and_swap`] would do. Touches nothing.
    ///
    /// # Errors
    /// When archive or server can't be read. What stands in the way is among the findings.
    pub async fn plan_swap(
        &self,
        from: RestoreFrom<'_>,
        options: &SwapOptions,
        context: &Context,
    ) -> Result<SwapPlan> {
        let site = context.cancel.guard(self.site(&options.target)).await?;
        self.attempt(site, from, options, context).await?.plan().await
    }

    /// Restores a backup beside a live database, proves it, and swaps it in. `tell` gets the
    /// plan before anything is touched.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the preflight found something
    /// in the way or an unfinished swap is there; otherwise the first cause. In every case the
    /// old database is live, and the services that were stopped run again, or the error says
    /// what to do.
    pub async fn restore_and_swap(
        &self,
        from: RestoreFrom<'_>,
        options: &SwapOptions,
        context: &Context,
        tell: &(dyn Fn(&SwapPlan) + Sync),
    ) -> Result<SwapReport> {
        let site = context.cancel.guard(self.site(&options.target)).await?;
        let (ticket, _job) = site.lock(self)?;
        let planning = async {
            let attempt = self.attempt(site.clone(), from, options, context).await?;
            let plan = attempt.plan().await?;
            tell(&plan);
            plan.refuse_blocking()?;
            Ok(attempt)
        };
        let attempt = planning.await.inspect_err(|_| site.warn_of_killed(&ticket, context))?;
        let started = site.start_after_killed(&ticket, context).await;
        ticket.begin(&attempt.order.run)?;
        let done = AssertUnwindSafe(attempt.build_and_swap()).catch_unwind().await;
        let done = done.unwrap_or_else(|_| {
            Err(Error::failed("restore", "broke off; please report this")
                .next_step("run `marb-backup restore --rollback`"))
        });
        if done.is_err() {
            let _ = site.run_every("on_failure", &site.config.on_failure, context).await;
        }
        // Told as a warning when it fails: what it comes after is done.
        let _ = site.run_every("after", &site.config.after, context).await;
        match done {
            // The killed run's services are owed by this one now: its note stays and says so.
            Err(error) if started.is_err() && site.start(context).await.is_err() => {
                Err(standing_still(error))
            }
            done => {
                ticket.end();
                done
            }
        }
    }

    /// Opens what is to go live, under a run of its own. Touches nothing.
    async fn attempt<'a>(
        &'a self,
        site: Site,
        from: RestoreFrom<'_>,
        options: &'a SwapOptions,
        context: &'a Context,
    ) -> Result<Attempt<'a>> {
        let swap = site.swap();
        context.cancel.guard(swap.refuse_unfinished()).await?;
        let run = swap.new_run(Timestamp::now()).await?;
        let source = self.open_for_restore(from, &options.restore, context).await?;
        let order = SwapOrder { run, backup: from.backup_id() };
        Ok(Attempt { deployment: self, site, source, options, order, context })
    }
}

/// The same error, which also says that the services could not be started.
fn standing_still(error: Error) -> Error {
    let advice = error.advice().map(|advice| format!("{advice}; ")).unwrap_or_default();
    error.next_step(format!(
        "{advice}the services may stand still: `marb-backup restore --rollback` starts them"
    ))
}

/// One backup on its way into a live database.
struct Attempt<'a> {
    deployment: &'a Deployment,
    site: Site,
    source: OpenedSource,
    options: &'a SwapOptions,
    order: SwapOrder,
    context: &'a Context,
}

impl Attempt<'_> {
    async fn build_and_swap(&self) -> Result<SwapReport> {
        let beside = self.build_beside().await?;
        let (site, order) = (&self.site, &self.order);
        let window = Window {
            site: site.clone(),
            order: order.clone(),
            resumes: false,
            keep_failed: self.options.keep_failed,
            context: self.context.clone(),
        };
        let passed = window.pass().await?;
        let Resumed::Exchanged(exchanged) = passed.resumed else {
            return Err(Error::failed("swap", "the databases were not swapped"));
        };
        let Beside { restored, checks, mut notes } = beside;
        notes.extend(restored.notes.iter().cloned());
        Ok(SwapReport {
            restored,
            database: site.live.clone(),
            run: order.run.clone(),
            before: exchanged.before,
            checks,
            migrations: site.config.migrate.len(),
            downtime: passed.downtime,
            closed_for: exchanged.closed_for,
            sessions_ended: exchanged.sessions_ended.len(),
            healthy: site.health.is_some(),
            notes,
        })
    }
}
