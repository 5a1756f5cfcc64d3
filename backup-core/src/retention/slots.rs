//! The slots: what each single rule keeps, and why it passes over the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use jiff::civil::Date;

use super::{BackupSummary, HowMany, RetentionRules};
use crate::BackupId;

/// What one rule says of one backup.
pub(super) enum Verdict {
    /// It keeps it, for this reason.
    Keeps(String),
    /// It does not, for this reason.
    Passes(String),
}

/// What every rule that is set says, each of all of `backups` (newest first, with a good one
/// among them).
pub(super) fn verdicts(rules: &RetentionRules, backups: &[&BackupSummary]) -> Vec<Vec<Verdict>> {
    let mut all = Vec::new();
    if rules.keep_last != HowMany::NONE {
        all.push(last(rules.keep_last, backups));
    }
    for (period, how_many) in [
        (Period::Day, rules.keep_daily),
        (Period::Week, rules.keep_weekly),
        (Period::Month, rules.keep_monthly),
        (Period::Year, rules.keep_yearly),
    ] {
        if how_many != HowMany::NONE {
            all.push(slots(period, how_many, rules, backups));
        }
    }
    if rules.keep_within.is_some() {
        all.push(within(rules, backups));
    }
    all
}

/// The length of a slot.
#[derive(Clone, Copy)]
enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// The slot that holds `date`, by its first day: slots order as time does. (Local dates of
    /// backups in order need not: some clocks go back over midnight.)
    fn slot(self, date: Date) -> Date {
        let first = match self {
            Period::Day => return date,
            Period::Week => {
                let back = date.weekday().to_monday_zero_offset();
                return date.checked_sub(jiff::Span::new().days(back)).unwrap_or(date);
            }
            Period::Month => date.first_of_month(),
            Period::Year => date.first_of_year(),
        };
        first
    }

    /// How an operator calls it: "daily slot 2026-11-22", "weekly slot 2026-W47".
    fn label(self, slot: Date) -> String {
        match self {
            Period::Day => format!("daily slot {slot}"),
            Period::Week => {
                let week = slot.iso_week_date();
                format!("weekly slot {:04}-W{:02}", week.year(), week.week())
            }
            Period::Month => format!("monthly slot {:04}-{:02}", slot.year(), slot.month()),
            Period::Year => format!("yearly slot {:04}", slot.year()),
        }
    }
}

/// Who stands for a slot.
#[derive(Clone, Copy)]
struct Holder {
    id: BackupId,
    good: bool,
    drilled: bool,
}

fn slots(
    period: Period,
    how_many: HowMany,
    rules: &RetentionRules,
    backups: &[&BackupSummary],
) -> Vec<Verdict> {
    let slot_of = |backup: &BackupSummary| {
        period.slot(backup.id.started().to_zoned(rules.time_zone.clone()).date())
    };
    let mut holders: BTreeMap<Date, Holder> = BTreeMap::new();
    for backup in backups {
        let drilled = rules.prefer_proven && backup.drilled;
        let candidate = Holder { id: backup.id, good: backup.good, drilled };
        let holder = holders.entry(slot_of(backup)).or_insert(candidate);
        // The newest came first, so only what is of a better sort takes the slot over.
        if (candidate.good, candidate.drilled) > (holder.good, holder.drilled) {
            *holder = candidate;
        }
    }
    let counted: BTreeSet<Date> =
        holders.iter().rev().filter(|(_, h)| h.good).map(|(slot, _)| *slot).collect();
    // The oldest slot that counts, once all are taken.
    let oldest = counted.iter().rev().nth(how_many.limit().saturating_sub(1));
    backups
        .iter()
        .map(|backup| {
            let slot = slot_of(backup);
            let label = period.label(slot);
            match holders.get(&slot) {
                _ if oldest.is_some_and(|oldest| slot < *oldest) => {
                    Verdict::Passes(format!("{label} is older than the newest {how_many}"))
                }
                Some(holder) if holder.id != backup.id => {
                    Verdict::Passes(format!("{label} is held by {}", holder.id))
                }
                Some(holder) if !holder.good => Verdict::Keeps(nothing_better(&label)),
                Some(holder) if holder.drilled => {
                    Verdict::Keeps(format!("{label}, proven by a drill"))
                }
                _ => Verdict::Keeps(label),
            }
        })
        .collect()
}

/// Each backup is a slot of its own.
fn last(how_many: HowMany, backups: &[&BackupSummary]) -> Vec<Verdict> {
    let mut good_before = 0;
    backups
        .iter()
        .map(|backup| {
            if good_before >= how_many.limit() {
                return Verdict::Passes(format!("it is older than the last {how_many}"));
            }
            if !backup.good {
                return Verdict::Keeps(format!("not good, but among the last {how_many}"));
            }
            good_before += 1;
            Verdict::Keeps(match how_many {
                HowMany::All => format!("last {good_before}"),
                HowMany::Number(number) => format!("last {good_before} of {number}"),
            })
        })
        .collect()
}

fn within(rules: &RetentionRules, backups: &[&BackupSummary]) -> Vec<Verdict> {
    let newest = backups.iter().find(|b| b.good).map(|b| b.id.started());
    let span = rules.keep_within.unwrap_or_default();
    // A span that reaches behind the beginning of time holds everything.
    let since = newest.and_then(|newest| {
        newest.to_zoned(rules.time_zone.clone()).checked_sub(span).ok().map(|z| z.timestamp())
    });
    let window = format!("{span:#} of the newest good backup");
    backups
        .iter()
        .map(|backup| {
            if since.is_some_and(|since| backup.id.started() < since) {
                Verdict::Passes(format!("it is not within {window}"))
            } else if backup.good {
                Verdict::Keeps(format!("within {window}"))
            } else {
                Verdict::Keeps(format!("not good, but within {window}"))
            }
        })
        .collect()
}

fn nothing_better(label: impl Display) -> String {
    format!("not good, but {label} holds no good one")
}
