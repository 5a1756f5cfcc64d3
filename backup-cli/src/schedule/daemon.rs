//! The daemon: waits for what is due and has it done, one after the other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};
use jiff::Timestamp;

use super::{Agenda, LastRuns, StateFile, Task};

/// Longest sleep before the clock is looked at again: it may be set, or the machine suspended.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How long a run that was asked to stop may clean up. Its own limits (of an abort, of a
/// manifest) are 10 minutes each.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Exit code of a run that was given up.
const EXIT_FAILED: u8 = 1;

/// The time of day, and waiting.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day; may jump.
    fn now(&self) -> Timestamp;
    /// Waits that long.
    async fn sleep(&self, duration: Duration);
}

/// Does what is due, on the thread that the daemon runs on.
#[async_trait(?Send)]
pub trait Runner: Send + Sync {
    /// Does it as the verb does, tells its errors, and gives the exit code. Stops when `cancel`
    /// says so.
    async fn run(&self, task: &Task, cancel: &Cancel) -> u8;
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// This comes next.
    Waiting(&'a Task, Timestamp),
    /// A run begins; its time is given.
    Started(&'a Task, Timestamp),
    /// A run ended with an exit code.
    Ended(&'a Task, u8),
    /// A run took too long, and is stopped.
    TimedOut(&'a Task),
    /// A run did not stop, and is not waited for any more.
    GivenUp(&'a Task),
    /// The last runs can't be noted: a restart may do something again.
    NotNoted(&'a Error),
    /// Nothing has a schedule.
    Idle,
}

/// Told of what happens.
pub trait Log: Send + Sync {
    /// Something happened.
    fn tell(&self, event: &Event<'_>);
}

/// What the loop works with.
pub struct Daemon {
    /// What is to be done when.
    pub agenda: Agenda,
    /// Where the last runs are kept.
    pub state: StateFile,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Does it.
    pub runner: Arc<dyn Runner>,
    /// Is told.
    pub log: Arc<dyn Log>,
}

impl Daemon {
    /// Runs until `stop` says so; a run that is going on is stopped and cleans up.
    ///
    /// # Errors
    /// When what ran last can't be read or noted at the start; later that is only told.
    pub async fn run(&self, stop: &Cancel) -> Result<()> {
        let mut runs = self.state.read()?;
        self.agenda.begin(&mut runs, self.clock.now());
        self.state.write(&runs)?;
        let mut told = None;
        while !stop.is_cancelled() {
            let now = self.clock.now();
            self.agenda.begin(&mut runs, now);
            let Some(next) = self.agenda.next(&runs) else {
                self.log.tell(&Event::Idle);
                stop.cancelled().await;
                break;
            };
            if next.due <= now {
                self.log.tell(&Event::Started(&next.task, next.due));
                self.run_task(&next.task, &mut runs, stop).await;
                continue;
            }
            if told.as_ref() != Some(&next) {
                self.log.tell(&Event::Waiting(&next.task, next.due));
                told = Some(next.clone());
            }
            let wait = Duration::try_from(next.due.duration_since(now)).unwrap_or_default();
            tokio::select! {
                () = self.clock.sleep(wait.min(LOOK_INTERVAL)) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn run_task(&self, task: &Task, runs: &mut LastRuns, stop: &Cancel) {
        let began = self.clock.now();
        runs.entry(task.name()).or_default().attempted = Some(began);
        self.note(runs);
        let code = self.within_limits(task, stop).await;
        let run = runs.entry(task.name()).or_default();
        run.exit_code = Some(code);
        // What our own end broke off is done again after the next start.
        if code == 0 || !stop.is_cancelled() {
            // Times that passed meanwhile are one run that was missed.
            run.handled = began;
        }
        if code == 0 {
            run.succeeded = Some(began);
        }
        self.note(runs);
        self.log.tell(&Event::Ended(task, code));
    }

    async fn within_limits(&self, task: &Task, stop: &Cancel) -> u8 {
        let cancel = stop.child();
        let mut run = self.runner.run(task, &cancel);
        tokio::select! {
            biased;
            code = &mut run => return code,
            () = stop.cancelled() => {}
            () = self.clock.sleep(task.timeout) => {
                self.log.tell(&Event::TimedOut(task));
                cancel.time_out(format!("{task} took longer than its timeout"));
            }
        }
        tokio::select! {
            biased;
            code = &mut run => code,
            () = self.clock.sleep(STOP_TIMEOUT) => {
                self.log.tell(&Event::GivenUp(task));
                EXIT_FAILED
            }
        }
    }

    fn note(&self, runs: &LastRuns) {
        if let Err(error) = self.state.write(runs) {
            self.log.tell(&Event::NotNoted(&error));
        }
    }
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
