//! The default policy over five years of daily backups: how many remain, and which.

use super::*;

/// Daily at 02:00 in Berlin.
fn five_years(zone: &TimeZone) -> Vec<BackupSummary> {
    let mut day = jiff::civil::date(2022, 1, 1);
    let last = jiff::civil::date(2026, 12, 31);
    let mut backups = Vec::new();
    while day <= last {
        backups.push(at(&format!("{day}T02:00"), zone));
        day = day.tomorrow().unwrap();
    }
    backups
}

/// The table of docs/retention.md.
#[rustfmt::skip]
const LEFT: [&str; 52] = [
    // The last of each year.
    "2022-12-31", "2023-12-31", "2024-12-31", "2025-12-31",
    // The last of each month of the last twelve.
    "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30",
    "2026-07-31", "2026-08-31", "2026-09-30",
    // And the Sundays of the last twelve weeks.
    "2026-10-18", "2026-10-25", "2026-10-31", "2026-11-01", "2026-11-08", "2026-11-15",
    "2026-11-22", "2026-11-29", "2026-11-30",
    // The last thirty days.
    "2026-12-02", "2026-12-03", "2026-12-04", "2026-12-05", "2026-12-06", "2026-12-07",
    "2026-12-08", "2026-12-09", "2026-12-10", "2026-12-11", "2026-12-12", "2026-12-13",
    "2026-12-14", "2026-12-15", "2026-12-16", "2026-12-17", "2026-12-18", "2026-12-19",
    "2026-12-20", "2026-12-21", "2026-12-22", "2026-12-23", "2026-12-24", "2026-12-25",
    "2026-12-26", "2026-12-27", "2026-12-28", "2026-12-29", "2026-12-30", "2026-12-31",
];

fn days(backups: &[BackupSummary], zone: &TimeZone) -> Vec<String> {
    backups.iter().map(|b| b.id.started().to_zoned(zone.clone()).date().to_string()).collect()
}

#[test]
fn the_default_over_five_years() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let rules = RetentionRules { time_zone: zone.clone(), ..RetentionRules::default() };
    let backups = five_years(&zone);
    assert_eq!(backups.len(), 1826);
    assert_eq!(days(&kept(&rules, &backups), &zone), LEFT);
}

/// Pruned after each backup, the same is left as when it is pruned once after five years; and in
/// no year there were ever more than 60.
#[test]
fn pruned_every_day_the_same_remains() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let rules = RetentionRules { time_zone: zone.clone(), ..RetentionRules::default() };
    let mut left = Vec::new();
    for backup in five_years(&zone) {
        left.push(backup);
        left = kept(&rules, &left);
        assert!(left.len() <= 60, "{}", left.len());
    }
    assert_eq!(days(&left, &zone), LEFT);
}
