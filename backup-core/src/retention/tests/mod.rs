//! What the rules keep, and what nothing makes them expire.

mod five_years;
mod properties;
mod second_opinion;
mod words;

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

use super::{BackupSummary, Decision, HowMany, RetentionPolicy, RetentionRules};
use crate::BackupId;

/// A good backup that started at a local time.
fn at(local: &str, zone: &TimeZone) -> BackupSummary {
    let civil: DateTime = local.parse().unwrap();
    BackupSummary::good(BackupId::new(civil.to_zoned(zone.clone()).unwrap().timestamp(), 1))
}

/// Good backups that started at UTC times.
fn utc(times: &[&str]) -> Vec<BackupSummary> {
    times.iter().map(|time| at(time, &TimeZone::UTC)).collect()
}

/// An hour after the newest.
fn afterwards(backups: &[BackupSummary]) -> Timestamp {
    let newest = backups.iter().map(|b| b.id.started()).max().unwrap_or(Timestamp::UNIX_EPOCH);
    newest + jiff::SignedDuration::from_hours(1)
}

/// What the rules keep, oldest first.
fn kept(rules: &RetentionRules, backups: &[BackupSummary]) -> Vec<BackupSummary> {
    kept_at(rules, backups, afterwards(backups))
}

fn kept_at(
    rules: &RetentionRules,
    backups: &[BackupSummary],
    now: Timestamp,
) -> Vec<BackupSummary> {
    let decisions = rules.decide(backups, now);
    let mut kept: Vec<BackupSummary> = backups
        .iter()
        .zip(decisions)
        .filter(|(_, decision)| decision.keeps())
        .map(|(backup, _)| backup.clone())
        .collect();
    kept.sort_by_key(|backup| backup.id);
    kept
}

/// The ids of the kept, as text.
fn ids(backups: &[BackupSummary]) -> Vec<String> {
    backups.iter().map(|backup| backup.id.to_string()).collect()
}

fn number(n: u32) -> HowMany {
    HowMany::Number(n)
}
