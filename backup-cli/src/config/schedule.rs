//! `[schedules]`: what is common to all schedules, and those that no job has.

use std::time::Duration;

use backup_core::{Error, Result};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::load;
use crate::schedule::Calendar;

/// `[schedules]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulesConfig {
    /// When each job's latest backup is verified, `"Sun 05:00"`; never by itself when absent.
    pub verify: Option<Calendar>,
    /// When each job's latest backup is restored for a try, `"monthly 1 06:00"`.
    pub drill: Option<Calendar>,
    /// The zone that all schedules are in, `"Europe/Berlin"`; this host's when absent.
    pub time_zone: Option<String>,
    /// Runs come later than their time by a random part of this, `"10m"`.
    #[serde(deserialize_with = "load::duration")]
    pub random_delay: Option<Duration>,
    /// A unit that systemd starts when a run fails; `%n` is the unit that failed.
    pub on_failure: Option<String>,
}

impl SchedulesConfig {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming the key.
    pub fn check(&self) -> Result<()> {
        if self.on_failure.as_ref().is_some_and(|unit| unit.contains(char::is_whitespace)) {
            return Err(Error::usage("config", "[schedules] on_failure is no name of a unit")
                .next_step("write the name of one unit, \"alert@%n.service\""));
        }
        self.zone(TimeZone::UTC).map(drop)
    }

    /// The zone of the schedules, `local` when none is set.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn zone(&self, local: TimeZone) -> Result<TimeZone> {
        let Some(name) = &self.time_zone else { return Ok(local) };
        TimeZone::get(name).map_err(|e| {
            Error::usage("config", format!("[schedules] time_zone: there is no {name:?}"))
                .next_step(
                    "write a name like \"Europe/Berlin\" or \"UTC\"; needs the package tzdata",
                )
                .caused_by(e)
        })
    }
}
