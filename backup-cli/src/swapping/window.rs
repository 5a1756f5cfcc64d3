//! The time in which the application is down: stop, exchange, start, health; and the way back
//! when one of them fails.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use backup_core::pipeline::{Cancel, Context};
use backup_core::{Error, ErrorKind, Result};
use backup_pg::swap::{Phase, PutBack, Resumed, SwapOrder};
use futures_util::FutureExt;

use super::beside::discard;
use super::site::Site;

/// How long a server that does not answer is asked again before the way back is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// What a passage came to.
pub(super) struct Passed {
    pub resumed: Resumed,
    /// From the first `stop` to the healthy application.
    pub downtime: Duration,
}

/// One passage through the window.
pub(super) struct Window {
    pub site: Site,
    pub order: SwapOrder,
    /// Go on where a run was cut off.
    pub resumes: bool,
    /// Keep the new database when it was never live.
    pub keep_failed: bool,
    pub context: Context,
}

impl Window {
    /// Swaps, in a task of its own: whoever stops waiting for it does not leave the services
    /// stopped.
    ///
    /// # Errors
    /// What failed, and what was done about it: the old database is live again.
    pub async fn pass(self) -> Result<Passed> {
        let passing = tokio::spawn(async move {
            let through = AssertUnwindSafe(self.through()).catch_unwind().await;
            match through.unwrap_or_else(|_| Err(panicked())) {
                Ok(passed) => Ok(passed),
                Err(Halt::Unconfirmed(error)) => Err(error),
                Err(Halt::Failed(error)) => Err(self.undo(error).await),
            }
        });
        passing.await.unwrap_or_else(|died| {
            Err(Error::failed("swap", "the swap was cut off")
                .next_step("run `marb-backup restore --rollback`")
                .caused_by(died))
        })
    }

    async fn through(&self) -> Result<Passed, Halt> {
        let (site, cancel) = (&self.site, &self.context.cancel);
        let started = Instant::now();
        let resumed = self.exchange().await?;
        let well = match site.start(&self.context).await {
            Ok(()) => site.wait_for_health(&self.context, cancel).await,
            failed => failed,
        };
        if let (Err(error), Resumed::Swapped { .. }) = (&well, &resumed) {
            // Live since an earlier run, perhaps for days: nobody asked to lose what was written.
            let message = format!("{}; the new database stays live, unconfirmed", error.message());
            return Err(Halt::Unconfirmed(
                Error::failed(error.stage().to_owned(), message)
                    .next_step("mend the application and run `marb-backup restore --continue` again, or `--rollback` to the old database"),
            ));
        }
        well?;
        let downtime = match &resumed {
            Resumed::Exchanged(done) if site.config.stop.is_empty() && site.health.is_none() => {
                done.closed_for
            }
            _ => started.elapsed(),
        };
        if matches!(resumed, Resumed::PutBack(_)) {
            return Ok(Passed { resumed, downtime });
        }
        // Without a health check nobody has looked yet.
        if cancel.is_cancelled() {
            return Err(cancel.error().into());
        }
        self.confirm().await?;
        Ok(Passed { resumed, downtime })
    }

    async fn exchange(&self) -> Result<Resumed> {
        let (site, cancel) = (&self.site, &self.context.cancel);
        let swap = site.swap();
        let is_swapped = self.resumes && {
            let state = patiently(|| swap.state()).await?;
            state.unfinished().is_some_and(|one| one.marker.phase == Phase::Swapped)
        };
        if !is_swapped {
            site.run_until_failure("stop", &site.config.stop, &self.context).await?;
        }
        self.context.step("swapping the databases");
        match self.resumes {
            true => swap.resume(cancel).await,
            false => swap.exchange(&self.order, cancel).await.map(Resumed::Exchanged),
        }
    }

    async fn confirm(&self) -> Result<(), Halt> {
        let swap = self.site.swap();
        patiently(|| swap.confirm(&self.order.run)).await.map_err(|error| {
            if matches!(error.kind(), ErrorKind::Refused | ErrorKind::NotFound) {
                // Somebody else puts it back, or has: there is nothing of ours to undo.
                return Halt::Unconfirmed(error);
            }
            // It works: putting the old one back would only lose what is written by now.
            Halt::Unconfirmed(
                Error::new(
                    ErrorKind::Incomplete,
                    "swap",
                    "the new database is live and works, but that could not be noted",
                )
                .next_step("run `marb-backup restore --continue` when the server answers")
                .caused_by(error),
            )
        })
    }

    /// Puts the old database back, starts the services, and tells both with what had failed.
    async fn undo(&self, cause: Error) -> Error {
        let site = &self.site;
        self.context.warn(&format!("{cause}; putting the old database back"));
        let put_back = self.put_back().await;
        let started = site.start(&self.context).await;
        if put_back.is_ok() {
            let healthy = site.wait_for_health(&self.context, &Cancel::default()).await;
            if let Err(error) = healthy {
                self.context.warn(&format!("with the old database, too: {error}"));
            }
        }
        if let Ok(Undone::NotSwapped) = &put_back {
            discard(site, &self.order, self.keep_failed, &self.context).await;
        }
        tell(cause, &site.live, &put_back, &started)
    }

    async fn put_back(&self) -> Result<Undone> {
        let (site, run) = (&self.site, &self.order.run);
        let swap = site.swap();
        let state = patiently(|| swap.state()).await?;
        let phase = state.of_run(run).map(|one| one.marker.phase);
        if matches!(phase, Some(Phase::Swapped | Phase::Confirmed | Phase::PuttingBack)) {
            // What started with the new database must not write into the old one half-way.
            let _ = site.run_every("stop", &site.config.stop, &self.context).await;
        }
        if !phase.is_some_and(|phase| phase.is_unfinished() || phase == Phase::Confirmed) {
            return Ok(Undone::NotSwapped);
        }
        let undisturbed = Cancel::default();
        match patiently(|| swap.put_back(Some(run), &undisturbed)).await? {
            PutBack::Reopened { .. } => Ok(Undone::NotSwapped),
            PutBack::Returned { failed, window, .. } => Ok(Undone::Returned { failed, window }),
        }
    }
}

/// Why a passage ended early.
enum Halt {
    /// It is to be undone.
    Failed(Error),
    /// It came about all the same.
    Unconfirmed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn panicked() -> Halt {
    Halt::Failed(Error::failed("swap", "broke off; please report this"))
}

/// What the way back came to.
enum Undone {
    /// The live name was the old database all along.
    NotSwapped,
    /// The new one was live for a while.
    Returned { failed: String, window: (jiff::Timestamp, jiff::Timestamp) },
}

/// Tries again what a server that restarts would refuse for a while.
pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(
    mut work: impl FnMut() -> F,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match work().await {
            Err(error) if error.kind() == ErrorKind::Failed && started.elapsed() < PATIENCE => {
                tracing::debug!(%error, "again");
                tokio::time::sleep(PAUSE).await;
            }
            settled => return settled,
        }
    }
}

/// The cause with what became of everything.
fn tell(cause: Error, live: &str, put_back: &Result<Undone>, started: &Result<()>) -> Error {
    let kind = match cause.kind() {
        kind @ (ErrorKind::Interrupted | ErrorKind::Refused | ErrorKind::Locked) => kind,
        _ => ErrorKind::Failed,
    };
    let mut message = cause.message().to_owned();
    let mut next = cause.advice().map(str::to_owned);
    match put_back {
        Ok(Undone::NotSwapped) => {
            message.push_str(&format!("; {live} is the old database, as before"));
        }
        Ok(Undone::Returned { failed, window: (from, to) }) => {
            message.push_str(&format!(
                "; the old database is back as {live}. The new one stays, closed, as {failed}: \
                 it alone holds what was written from {from:.0} to {to:.0}"
            ));
        }
        Err(error) => {
            message.push_str(&format!("; the old database could NOT be put back: {error}"));
            next =
                Some("run `marb-backup restore --rollback` as soon as the server answers".into());
        }
    }
    if let Err(error) = started {
        message.push_str(&format!("; the services could not be started: {error}"));
        next = Some("start the services by hand".to_owned());
    }
    let told = Error::new(kind, cause.stage().to_owned(), message);
    let told = match next {
        Some(next) => told.next_step(next),
        None => told,
    };
    match cause.causes() {
        causes if causes.is_empty() => told,
        causes => told.caused_by(causes.join(": ")),
    }
}
