//! Doing things on schedules: by systemd, by cron, or by our own daemon, at the same times.

mod agenda;
mod calendar;
mod cron;
mod daemon;
mod install;
mod state;
mod systemd;

pub use agenda::{Agenda, Appointment, LastRun, LastRuns, Task, Work, tasks};
pub use calendar::Calendar;
pub use cron::crontab;
pub use daemon::{Clock, Daemon, Event, Log, Runner, STOP_TIMEOUT};
pub use install::{Changes, MARK, install, present, remove};
pub use state::{STATE_FILE, StateFile};
pub use systemd::{Site, credential_name, units};
