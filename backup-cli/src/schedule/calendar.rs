//! When something is due: a small language that systemd, cron and our daemon understand alike.
//!
//! ```text
//! [DAYS] HOURS:MINUTES      "02:00"  "Sun 03:00"  "Mon..Fri 02:00"  "*:15"  "monthly 1 04:00"
//! DAYS                      Mon,Wed  Mon..Fri  monthly N[,N]  (N from 1 to 28)
//! HOURS, MINUTES            02  02,14  * (hours only)  0/15 (every 15; has to divide 24 or 60)
//! ```
//!
//! Absent on purpose: seconds and years (cron has none), days 29 to 31 (some months have none), a
//! day of the week together with a day of the month (cron takes either, systemd both).

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Names of the days, Monday first.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Last day that every month has.
const LAST_COMMON_DAY: u8 = 28;
/// Hours of a day.
const HOURS: u8 = 24;
/// Minutes of an hour.
const MINUTES: u8 = 60;
/// Days that are searched for the next time: more than lie between two of any schedule.
const SEARCHED_DAYS: usize = 40;

/// The days of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    /// Every day.
    All,
    /// Days of the week, 0 is Monday.
    Week(Vec<u8>),
    /// Days of the month.
    Month(Vec<u8>),
}

/// Times at which something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    written: String,
    days: Days,
    /// None for every hour.
    hours: Option<Vec<u8>>,
    minutes: Vec<u8>,
}

impl Calendar {
    /// The first time after `after`, in a time zone.
    ///
    /// A time that the clocks skip is due once, right after the gap. A time that comes twice is
    /// due the first time only. Every hour means every hour that the clock shows, once each.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // A day earlier: the gap of a zone may swallow a midnight.
        let first = after.to_zoned(zone.clone()).date().checked_sub(1.day()).ok()?;
        let days = first.series(1.day()).take(SEARCHED_DAYS).filter(|day| self.has_day(*day));
        days.filter_map(|day| self.times_of(day, zone).filter(|time| *time > after).min()).next()
    }

    fn times_of<'a>(
        &'a self,
        day: Date,
        zone: &'a TimeZone,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        let hours = self.hours.clone().unwrap_or_else(|| (0..HOURS).collect());
        let times = hours.into_iter().flat_map(|hour| {
            self.minutes.iter().filter_map(move |m| Time::new(hour as i8, *m as i8, 0, 0).ok())
        });
        times.filter_map(move |time| self.moment(day, time, zone))
    }

    fn moment(&self, day: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
        let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time));
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } if self.hours.is_none() => None,
            AmbiguousOffset::Gap { .. } => {
                // Read with the offset from before the gap, it lies behind the change.
                // (The very first time of it lies on the change: one second more.)
                let behind = ambiguous.later().ok()?.checked_add(1.second()).ok()?;
                zone.preceding(behind).next().map(|change| change.timestamp())
            }
            _ => ambiguous.earlier().ok(),
        }
    }

    fn has_day(&self, day: Date) -> bool {
        match &self.days {
            Days::All => true,
            Days::Week(days) => days.contains(&(day.weekday().to_monday_zero_offset() as u8)),
            Days::Month(days) => days.contains(&(day.day() as u8)),
        }
    }

    /// Whether a time falls into an hour that the clocks skip within a year of `from`: systemd
    /// leaves such a run out.
    pub fn meets_a_gap(&self, from: Timestamp, zone: &TimeZone) -> bool {
        let Some(hours) = &self.hours else { return false };
        let first = from.to_zoned(zone.clone()).date();
        let in_gap = |day: Date, hour: u8, minute: u8| {
            let time = Time::new(hour as i8, minute as i8, 0, 0).unwrap_or_default();
            let ambiguous = zone.to_ambiguous_timestamp(day.to_datetime(time));
            matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. })
        };
        let days = first.series(1.day()).take(366).filter(|day| self.has_day(*day));
        days.into_iter()
            .any(|day| hours.iter().any(|h| self.minutes.iter().any(|m| in_gap(day, *h, *m))))
    }

    /// As systemd's `OnCalendar=` has it, without a zone.
    pub fn to_systemd(&self) -> String {
        let (week, month) = match &self.days {
            Days::All => (String::new(), "*".to_owned()),
            Days::Week(days) => {
                let names: Vec<&str> = days.iter().map(|day| DAYS[usize::from(*day)]).collect();
                (format!("{} ", names.join(",")), "*".to_owned())
            }
            Days::Month(days) => (String::new(), joined(days, 2)),
        };
        let hours = self.hours.as_ref().map_or("*".to_owned(), |hours| joined(hours, 2));
        format!("{week}*-*-{month} {hours}:{}:00", joined(&self.minutes, 2))
    }

    /// The first five fields of a crontab's line.
    pub fn to_cron(&self) -> String {
        let hours = self.hours.as_ref().map_or("*".to_owned(), |hours| joined(hours, 1));
        let (month, week) = match &self.days {
            Days::All => ("*".to_owned(), "*".to_owned()),
            // Cron counts from Sunday, and knows it as 7, too.
            Days::Week(days) => {
                ("*".to_owned(), joined(&days.iter().map(|day| day + 1).collect::<Vec<_>>(), 1))
            }
            Days::Month(days) => (joined(days, 1), "*".to_owned()),
        };
        format!("{} {hours} {month} * {week}", joined(&self.minutes, 1))
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Calendar {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String, cure: &str| {
            Error::usage("schedule", format!("{text:?}: {why}")).next_step(cure)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, time) = match words[..] {
            [time] => (Days::All, time),
            ["monthly", days, time] => {
                (Days::Month(month_days(days).map_err(|why| wrong(why, DAYS_CURE))?), time)
            }
            [days, time] if days != "monthly" => {
                (Days::Week(week_days(days).map_err(|why| wrong(why, DAYS_CURE))?), time)
            }
            _ => return Err(wrong("is no schedule".to_owned(), EXAMPLES)),
        };
        let Some((hours, minutes)) = time.split_once(':') else {
            return Err(wrong(format!("{time:?} is no time"), EXAMPLES));
        };
        if minutes.contains(':') {
            return Err(wrong("seconds can't be told to cron".to_owned(), EXAMPLES));
        }
        let hours = match hours {
            "*" => Ok(None),
            hours => numbers(hours, HOURS, "hours").map(Some),
        };
        Ok(Self {
            written: words.join(" "),
            days,
            hours: hours.map_err(|why| wrong(why, EXAMPLES))?,
            minutes: numbers(minutes, MINUTES, "minutes").map_err(|why| wrong(why, EXAMPLES))?,
        })
    }
}

impl<'de> serde::Deserialize<'de> for Calendar {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|error: Error| {
            let advice = error.advice().unwrap_or_default();
            serde::de::Error::custom(format!("schedule {}; {advice}", error.message()))
        })
    }
}

const EXAMPLES: &str = "write \"02:00\", \"02,14:30\", \"*:15\", \"*:0/15\", \"Sun 03:00\", \
                        \"Mon..Fri 02:00\" or \"monthly 1 04:00\"";
const DAYS_CURE: &str = "write \"Sun\", \"Mon,Thu\", \"Mon..Fri\", or \"monthly 1\" (1 to 28: days \
                         that every month has)";

fn joined(numbers: &[u8], width: usize) -> String {
    let words: Vec<String> = numbers.iter().map(|n| format!("{n:0width$}")).collect();
    words.join(",")
}

type Parsed = std::result::Result<Vec<u8>, String>;

/// `02`, `02,14`, or `0/15`: every fifteenth from 0 on.
fn numbers(text: &str, limit: u8, what: &str) -> Parsed {
    if let Some((start, step)) = text.split_once('/') {
        let start = number(start, limit, what)?;
        let step = number(step, limit, what)?;
        // Others would leave a shorter gap at the end of the day or hour.
        if step == 0 || !limit.is_multiple_of(step) || start >= step {
            return Err(format!("\"{text}\" does not divide {limit} {what} evenly"));
        }
        return Ok((start..limit).step_by(step.into()).collect());
    }
    let mut all: Vec<u8> = text
        .split(',')
        .map(|one| number(one, limit, what))
        .collect::<std::result::Result<_, _>>()?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn number(text: &str, limit: u8, what: &str) -> std::result::Result<u8, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number < limit);
    number.ok_or_else(|| format!("{text:?} is none of the {what} 0 to {}", limit - 1))
}

fn month_days(text: &str) -> Parsed {
    let mut days = numbers(text, LAST_COMMON_DAY + 1, "days")
        .map_err(|_| format!("{text:?} names no days from 1 to {LAST_COMMON_DAY}"))?;
    if text.contains('/') || days.contains(&0) {
        return Err(format!("{text:?} names no days from 1 to {LAST_COMMON_DAY}"));
    }
    days.sort_unstable();
    Ok(days)
}

fn week_days(text: &str) -> Parsed {
    let day = |name: &str| {
        let index = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        index.map(|index| index as u8).ok_or_else(|| format!("{name:?} is no day of the week"))
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            Some((from, to)) => {
                let (from, to) = (day(from)?, day(to)?);
                if from >= to {
                    return Err(format!("\"{part}\" runs over the end of the week"));
                }
                days.extend(from..=to);
            }
            None => days.push(day(part)?),
        }
    }
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
