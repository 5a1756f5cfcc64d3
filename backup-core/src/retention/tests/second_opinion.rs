//! A second opinion: the same plain histories by the rules that restic documents for `forget`
//! (https://restic.readthedocs.io/en/stable/060_forget.html), written from that text alone.
//!
//! "For the last n days which have one or more snapshots, keep only the most recent one for each
//! day"; the same for weeks (Monday to Sunday), months, years; `keep-within` counts from the latest
//! snapshot; any one match keeps. One thing restic has and this does not: when there are fewer slots
//! than asked for, it keeps the oldest snapshot as well. So those it keeps on top are left out here.

use std::collections::BTreeSet;

use jiff::Zoned;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const HISTORIES: u64 = 500;

/// What `forget` would keep, the naive way: walk from the newest, and keep the first of each slot
/// until the rule has had its number.
fn forget(rules: &RetentionRules, backups: &[BackupSummary]) -> BTreeSet<BackupId> {
    let mut newest_first: Vec<(BackupId, Zoned)> =
        backups.iter().map(|b| (b.id, b.id.started().to_zoned(rules.time_zone.clone()))).collect();
    newest_first.sort_by_key(|one| std::cmp::Reverse(one.0));
    let mut kept = BTreeSet::new();
    let last = |count: HowMany, name: &dyn Fn(usize, &Zoned) -> String, kept: &mut BTreeSet<_>| {
        let mut seen: Vec<String> = Vec::new();
        for (place, (id, time)) in newest_first.iter().enumerate() {
            let enough = matches!(count, HowMany::Number(n) if seen.len() >= n as usize);
            let slot = name(place, time);
            if !enough && !seen.contains(&slot) {
                seen.push(slot);
                kept.insert(*id);
            }
        }
    };
    last(rules.keep_last, &|place, _| place.to_string(), &mut kept);
    last(rules.keep_daily, &|_, t| t.strftime("%Y-%m-%d").to_string(), &mut kept);
    last(rules.keep_weekly, &|_, t| t.strftime("%G-%V").to_string(), &mut kept);
    last(rules.keep_monthly, &|_, t| t.strftime("%Y-%m").to_string(), &mut kept);
    last(rules.keep_yearly, &|_, t| t.strftime("%Y").to_string(), &mut kept);
    if let (Some(span), Some((_, newest))) = (rules.keep_within, newest_first.first()) {
        let since = newest - span;
        kept.extend(newest_first.iter().filter(|(_, time)| *time >= since).map(|(id, _)| *id));
    }
    kept
}

#[test]
fn plain_histories_come_out_as_restic_documents_it() {
    for seed in 0..HISTORIES {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut count = |most: u32| number(rng.gen_range(0..most));
        let mut rules = RetentionRules {
            keep_last: count(5),
            keep_daily: count(20),
            keep_weekly: count(10),
            keep_monthly: count(10),
            keep_yearly: count(4),
            time_zone: TimeZone::get("Europe/Berlin").unwrap(),
            ..RetentionRules::nothing()
        };
        if rng.gen_bool(0.3) {
            rules.keep_within = Some(jiff::Span::new().days(rng.gen_range(1..60)));
        }
        // By our safety the newest stays; restic refuses a policy that is empty.
        if rules.keep_last == HowMany::NONE {
            rules.keep_last = number(1);
        }
        let mut second = 1_600_000_000 + rng.gen_range(0..100_000_000);
        let backups: Vec<BackupSummary> = (0..rng.gen_range(1..300))
            .map(|_| {
                second += rng.gen_range(1..120_000);
                BackupSummary::good(BackupId::new(Timestamp::from_second(second).unwrap(), 1))
            })
            .collect();
        let ours: BTreeSet<BackupId> = kept(&rules, &backups).iter().map(|b| b.id).collect();
        assert_eq!(ours, forget(&rules, &backups), "seed {seed}: {rules:?}");
    }
}

/// The example of restic's documentation: a backup each Sunday, `--keep-daily 4`.
#[test]
fn twelve_sundays_with_four_days_keep_the_last_four() {
    let rules = RetentionRules { keep_daily: number(4), ..RetentionRules::nothing() };
    let first: DateTime = "2019-09-01T11:00".parse().unwrap();
    let backups: Vec<BackupSummary> = (0..12)
        .map(|week| (first + jiff::Span::new().weeks(week)).to_zoned(TimeZone::UTC).unwrap())
        .map(|time| BackupSummary::good(BackupId::new(time.timestamp(), 1)))
        .collect();
    assert_eq!(
        ids(&kept(&rules, &backups)),
        ["20191027T110000Z", "20191103T110000Z", "20191110T110000Z", "20191117T110000Z"]
    );
}
