//! What is due, and when to look again. Pure: schedules, what was done and a "now" in.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Calendar;
use crate::config::{Config, DEFAULT_TIMEOUT};

/// What can be done on a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// `backup`, with all that belongs to it.
    Backup,
    /// `verify` of the job's latest backup.
    Verify,
    /// `drill` of the job's latest backup.
    Drill,
}

impl Work {
    /// The verb's name.
    pub fn verb(self) -> &'static str {
        match self {
            Work::Backup => "backup",
            Work::Verify => "verify",
            Work::Drill => "drill",
        }
    }
}

/// One thing to do for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What.
    pub work: Work,
    /// For which job.
    pub job: String,
    /// When.
    pub calendar: Calendar,
    /// How long it may take.
    pub timeout: Duration,
}

impl Task {
    /// Its name in state and logs: `backup/database`.
    pub fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.work.verb(), self.job)
    }
}

/// Everything that a configuration wants done on a schedule, backups first.
pub fn tasks(config: &Config) -> Vec<Task> {
    let mut tasks = Vec::new();
    let whens = [
        (Work::Backup, None),
        (Work::Verify, config.schedules.verify.as_ref()),
        (Work::Drill, config.schedules.drill.as_ref()),
    ];
    for (work, shared) in whens {
        for (name, job) in &config.job {
            // What can't be restored into a database can't be drilled.
            let applies = work != Work::Drill || job.postgres.is_some();
            let own = if work == Work::Backup { job.schedule.as_ref() } else { shared };
            let Some(calendar) = own.filter(|_| applies) else { continue };
            let timeout = match work {
                Work::Backup => job.timeout.unwrap_or(DEFAULT_TIMEOUT),
                Work::Verify | Work::Drill => DEFAULT_TIMEOUT,
            };
            tasks.push(Task { work, job: name.clone(), calendar: calendar.clone(), timeout });
        }
    }
    tasks
}

/// What is known of a task's runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Times up to this one are done with; of a new task the time it was first seen.
    pub handled: Timestamp,
    /// When the last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<Timestamp>,
    /// When the last run that succeeded began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Timestamp>,
    /// Exit code of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

/// The last runs by the tasks' names.
pub type LastRuns = BTreeMap<String, LastRun>;

/// Tasks, and what decides about their times.
#[derive(Debug, Clone)]
pub struct Agenda {
    /// What is to be done.
    pub tasks: Vec<Task>,
    /// The zone of the schedules.
    pub zone: TimeZone,
    /// Each run comes later than its time by a random part of this.
    pub random_delay: Duration,
    /// What makes this host's delays others than another's.
    pub seed: u64,
}

/// A task and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appointment {
    /// The task.
    pub task: Task,
    /// When it is due: now or earlier means at once.
    pub due: Timestamp,
}

impl Agenda {
    /// Begins the record of tasks that are new: they wait for their first time. A record from
    /// the future is a clock that was set back: it must not keep anything from being done.
    pub fn begin(&self, runs: &mut LastRuns, now: Timestamp) {
        for task in &self.tasks {
            let fresh = LastRun { handled: now, ..LastRun::default() };
            let run = runs.entry(task.name()).or_insert(fresh);
            run.handled = run.handled.min(now);
        }
    }

    /// What comes first. However many times were missed, a task comes once.
    pub fn next(&self, runs: &LastRuns) -> Option<Appointment> {
        let appointments = self.tasks.iter().filter_map(|task| {
            let handled = runs.get(&task.name())?.handled;
            let time = task.calendar.next_after(handled, &self.zone)?;
            Some(Appointment { task: task.clone(), due: self.delayed(task, time) })
        });
        // Of equal ones the first in the list.
        appointments.min_by_key(|appointment| appointment.due)
    }

    fn delayed(&self, task: &Task, time: Timestamp) -> Timestamp {
        let seconds = self.random_delay.as_secs();
        if seconds == 0 {
            return time;
        }
        let mut hasher = DefaultHasher::new();
        (self.seed, task.name(), time.as_second()).hash(&mut hasher);
        let delay = Duration::from_secs(hasher.finish() % (seconds + 1));
        time.checked_add(delay).unwrap_or(time)
    }
}
