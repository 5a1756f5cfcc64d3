//! The slots: what each single rule keeps, and why it passes over the rest.

use std::collections::{BTreeMap, BTreeSet};

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
    let local =
        |backup: &&BackupSummary| backup.id.started().to_zoned(rules.time_zone.clone()).date();
    let dates: Vec<Date> = backups.iter().map(local).collect();
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
            let slots: Vec<Date> = dates.iter().map(|date| period.slot(*date)).collect();
            all.push(holders(period, how_many, rules.prefer_proven, backups, &slots));
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
        match self {
            Period::Day => date,
            Period::Week => {
                let back = date.weekday().to_monday_zero_offset();
                date.checked_sub(jiff::Span::new().days(back)).unwrap_or(date)
            }
            Period::Month => date.first_of_month(),
            Period::Year => date.first_of_year(),
        }
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

/// Each of `backups` is in the slot of the same place in `slots`.
fn holders(
    period: Period,
    how_many: HowMany,
    prefer_proven: bool,
    backups: &[&BackupSummary],
    slots: &[Date],
) -> Vec<Verdict> {
    let mut holders: BTreeMap<Date, Holder> = BTreeMap::new();
    for (backup, slot) in backups.iter().zip(slots) {
        let drilled = prefer_proven && backup.drilled;
        let candidate = Holder { id: backup.id, good: backup.good, drilled };
        let holder = holders.entry(*slot).or_insert(candidate);
        // The newest came first, so only what is of a better sort takes the slot over.
        if (candidate.good, candidate.drilled) > (holder.good, holder.drilled) {
            *holder = candidate;
        }
    }
    let mut counted = holders.iter().rev().filter(|(_, holder)| holder.good);
    // The oldest slot that counts, once all are taken.
    let oldest = counted.nth(how_many.limit().saturating_sub(1)).map(|(slot, _)| *slot);
    let verdict = |(backup, slot): (&&BackupSummary, &Date)| {
        let label = period.label(*slot);
        match holders.get(slot) {
            _ if oldest.is_some_and(|oldest| *slot < oldest) => {
                Verdict::Passes(format!("{label} is older than the newest {how_many}"))
            }
            Some(holder) if holder.id != backup.id => {
                Verdict::Passes(format!("{label} is held by {}", holder.id))
            }
            Some(holder) if !holder.good => {
                Verdict::Keeps(format!("not good, but {label} holds no good one"))
            }
            Some(holder) if holder.drilled => Verdict::Keeps(format!("{label}, proven by a drill")),
            _ => Verdict::Keeps(label),
        }
    };
    backups.iter().zip(slots).map(verdict).collect()
}

/// Each backup is a slot of its own; one that was encrypted anew shares it with what it was made
/// of.
fn last(how_many: HowMany, backups: &[&BackupSummary]) -> Vec<Verdict> {
    let states = states(backups);
    let mut counted: BTreeMap<BackupId, usize> = BTreeMap::new();
    backups
        .iter()
        .zip(states)
        .map(|(backup, state)| {
            let number = counted.get(&state).copied();
            if number.is_none() && counted.len() >= how_many.limit() {
                return Verdict::Passes(format!("it is older than the last {how_many}"));
            }
            if !backup.good {
                return Verdict::Keeps(format!("not good, but among the last {how_many}"));
            }
            let next = counted.len() + 1;
            let number = *counted.entry(state).or_insert(next);
            Verdict::Keeps(match how_many {
                HowMany::All => format!("last {number}"),
                HowMany::Number(most) => format!("last {number} of {most}"),
            })
        })
        .collect()
}

/// Which state of what was backed up each of `backups` holds, by the id of what it was made of in
/// the beginning. That may be gone: of two that were made of it, it still tells that they are one.
fn states(backups: &[&BackupSummary]) -> Vec<BackupId> {
    let made_of: BTreeMap<BackupId, BackupId> =
        backups.iter().filter_map(|backup| Some((backup.id, backup.same_data_as?))).collect();
    let first = |backup: &&BackupSummary| {
        let mut state = backup.id;
        // A manifest that somebody altered may lead round and round.
        let mut passed = BTreeSet::new();
        while let Some(of) = made_of.get(&state)
            && passed.insert(state)
        {
            state = *of;
        }
        state
    };
    backups.iter().map(first).collect()
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
