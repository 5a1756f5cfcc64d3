//! Random histories under random rules: what must hold for each. The seed of a failure is told.

use std::collections::BTreeSet;

use jiff::Span;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::*;

/// How many histories are looked at.
const HISTORIES: u64 = 3_000;
/// Most backups in one.
const MOST_BACKUPS: usize = 60;

/// Runs `check` over every history and set of rules.
fn for_each(check: impl Fn(&mut StdRng, &RetentionRules, &[BackupSummary])) {
    for seed in 0..HISTORIES {
        let mut rng = StdRng::seed_from_u64(seed);
        let rules = rules(&mut rng);
        let history = history(&mut rng, &rules.time_zone);
        let told = std::panic::AssertUnwindSafe(|| check(&mut rng, &rules, &history));
        if let Err(found) = std::panic::catch_unwind(told) {
            eprintln!("seed {seed}: {rules:?} over {:?}", ids(&history));
            std::panic::resume_unwind(found);
        }
    }
}

fn rules(rng: &mut StdRng) -> RetentionRules {
    let zones = ["UTC", "Europe/Berlin", "America/Santiago", "Pacific/Apia", "America/Goose_Bay"];
    let mut count = || match rng.gen_range(0..10) {
        0..=3 => HowMany::NONE,
        4..=8 => number(rng.gen_range(1..15)),
        _ => HowMany::All,
    };
    RetentionRules {
        keep_last: count(),
        keep_daily: count(),
        keep_weekly: count(),
        keep_monthly: count(),
        keep_yearly: count(),
        keep_within: match rng.gen_range(0..4) {
            0 => Some(Span::new().hours(rng.gen_range(1..100))),
            1 => Some(Span::new().days(rng.gen_range(1..400)).months(rng.gen_range(0..20))),
            _ => None,
        },
        prefer_proven: rng.gen_bool(0.5),
        time_zone: TimeZone::get(zones.choose(rng).unwrap()).unwrap(),
    }
}

/// A history with gaps, bursts and several a day, around changes of the clock and leap days, with
/// jumps of the host's clock in both directions, in any order.
fn history(rng: &mut StdRng, zone: &TimeZone) -> Vec<BackupSummary> {
    let moments = [
        "2024-02-28T12:00:00Z", // a leap day
        "2024-03-30T12:00:00Z", // summer time in Berlin
        "2024-04-06T12:00:00Z", // winter time in Santiago
        "2024-09-07T12:00:00Z", // summer time in Santiago
        "2024-10-26T12:00:00Z", // winter time in Berlin
        "2011-12-28T12:00:00Z", // the day that Apia left out
        "2010-11-06T12:00:00Z", // winter time in Goose Bay
        "2020-12-26T12:00:00Z", // week 53
        "1999-12-30T12:00:00Z",
    ];
    let start: Timestamp = moments.choose(rng).unwrap().parse().unwrap();
    let hour = 3_600;
    let usual_gap = *[1, hour / 2, 6 * hour, 24 * hour, 24 * hour, 7 * 24 * hour, 30 * 24 * hour]
        .choose(rng)
        .unwrap();
    let shares = [0.0, 0.05, 0.3, 0.9];
    let [bad, pinned, drilled, linked, rekeyed] =
        std::array::from_fn(|_| *shares.choose(rng).unwrap());
    let mut moment = start.to_zoned(zone.clone());
    let mut taken = BTreeSet::new();
    let mut history: Vec<BackupSummary> = Vec::new();
    for _ in 0..rng.gen_range(0..MOST_BACKUPS) {
        let seconds = match rng.gen_range(0..20) {
            0 => rng.gen_range(0..400 * 24 * hour), // a gap
            1 => -rng.gen_range(0..40 * 24 * hour), // the host's clock was set back
            2..=4 => rng.gen_range(0..60),          // a burst
            _ => usual_gap + rng.gen_range(0..=usual_gap / 10),
        };
        moment = &moment + jiff::SignedDuration::from_secs(seconds);
        let id = (1..).map(|n| BackupId::new(moment.timestamp(), n)).find(|id| taken.insert(*id));
        let needs = match history.choose(rng) {
            Some(other) if rng.gen_bool(linked * 0.5) => vec![other.id],
            _ => Vec::new(),
        };
        history.push(BackupSummary {
            id: id.unwrap(),
            good: !rng.gen_bool(bad),
            pinned: rng.gen_bool(pinned),
            drilled: rng.gen_bool(drilled),
            needs,
            same_data_as: None,
        });
        // Encrypted anew, and the old one is still there: a later run removes it.
        while rng.gen_bool(rekeyed * 0.7) {
            let Some(old) = history.last().map(|old| old.id) else { break };
            let id =
                (1..).map(|n| BackupId::new(moment.timestamp(), n)).find(|id| taken.insert(*id));
            history.push(BackupSummary {
                good: !rng.gen_bool(bad),
                needs: vec![old],
                same_data_as: Some(old),
                ..BackupSummary::good(id.unwrap())
            });
        }
    }
    if rng.gen_bool(0.5) {
        history.shuffle(rng);
    }
    history
}

/// The kept ones of what was decided.
fn chosen(history: &[BackupSummary], decisions: &[Decision]) -> BTreeSet<BackupId> {
    assert_eq!(history.len(), decisions.len());
    let kept = history.iter().zip(decisions).filter(|(_, decision)| decision.keeps());
    kept.map(|(backup, _)| backup.id).collect()
}

#[test]
fn the_safety_rules_hold_whatever_is_set() {
    for_each(|_, rules, history| {
        let decisions = rules.decide(history, afterwards(history));
        let kept = chosen(history, &decisions);
        let newest_good = history.iter().filter(|b| b.good).map(|b| b.id).max();
        let mut needed: BTreeSet<BackupId> = BTreeSet::new();
        for (backup, decision) in history.iter().zip(&decisions) {
            let id = backup.id;
            let is_kept = kept.contains(&id);
            assert!(is_kept || Some(id) != newest_good, "{id} is the newest good one");
            assert!(is_kept || !backup.pinned, "{id} is pinned");
            assert!(is_kept || newest_good.is_some(), "{id}: nothing good is left");
            assert!(is_kept || newest_good.is_none_or(|good| id < good), "{id} is newer");
            if is_kept {
                needed.extend(&backup.needs);
            }
            match decision {
                Decision::Keep(reasons) => assert!(!reasons.is_empty()),
                Decision::Expire(reason) => assert!(reason.starts_with("no rule keeps it: ")),
            }
        }
        assert!(needed.is_subset(&kept), "what a kept one needs is kept");
    });
}

#[test]
fn nothing_expires_when_the_clock_is_behind() {
    for_each(|rng, rules, history| {
        let Some(newest) = history.iter().map(|b| b.id.started()).max() else { return };
        let back = jiff::SignedDuration::from_secs(rng.gen_range(1..400 * 86_400));
        assert_eq!(kept_at(rules, history, newest - back).len(), history.len());
    });
}

#[test]
fn time_alone_expires_nothing() {
    for_each(|rng, rules, history| {
        let soon = afterwards(history);
        let later = soon + jiff::SignedDuration::from_secs(rng.gen_range(1..3_000_000_000));
        assert_eq!(rules.decide(history, soon), rules.decide(history, later));
    });
}

#[test]
fn raising_a_count_never_loses_a_backup() {
    for_each(|rng, rules, history| {
        let before = chosen(history, &rules.decide(history, afterwards(history)));
        let mut more = rules.clone();
        let counts = [
            &mut more.keep_last,
            &mut more.keep_daily,
            &mut more.keep_weekly,
            &mut more.keep_monthly,
            &mut more.keep_yearly,
        ];
        for count in counts {
            if let HowMany::Number(n) = *count
                && rng.gen_bool(0.5)
            {
                *count =
                    if rng.gen_bool(0.1) { HowMany::All } else { number(n + rng.gen_range(1..5)) };
            }
        }
        more.keep_within = match more.keep_within {
            None => Some(Span::new().days(3)),
            Some(span) => Some(span.checked_add(Span::new().hours(1)).unwrap_or(span)),
        };
        let after = chosen(history, &more.decide(history, afterwards(history)));
        assert!(before.is_subset(&after), "lost: {:?}", before.difference(&after));
    });
}

#[test]
fn deciding_again_expires_nothing_more() {
    for_each(|_, rules, history| {
        let left = kept(rules, history);
        assert_eq!(kept_at(rules, &left, afterwards(history)), left);
    });
}

/// Also a cap, a crash or an object lock in between changes nothing: whichever of the expired are
/// deleted first, what is kept at last is the same.
#[test]
fn a_prune_that_was_interrupted_ends_where_it_would_have() {
    for_each(|rng, rules, history| {
        let whole = kept(rules, history);
        let mut left: Vec<BackupSummary> = history.to_vec();
        left.retain(|backup| whole.iter().any(|kept| kept.id == backup.id) || rng.gen_bool(0.5));
        assert_eq!(kept_at(rules, &left, afterwards(history)), whole);
    });
}

#[test]
fn the_order_says_nothing() {
    for_each(|rng, rules, history| {
        let before = chosen(history, &rules.decide(history, afterwards(history)));
        let mut shuffled = history.to_vec();
        shuffled.shuffle(rng);
        assert_eq!(chosen(&shuffled, &rules.decide(&shuffled, afterwards(history))), before);
    });
}

/// No slot that counts is left without the best it had.
#[test]
fn every_slot_that_counts_keeps_a_good_backup() {
    for_each(|_, rules, history| {
        let HowMany::Number(n @ 1..) = rules.keep_daily else { return };
        let day = |b: &BackupSummary| b.id.started().to_zoned(rules.time_zone.clone()).date();
        let good = |backups: &[BackupSummary]| -> Vec<jiff::civil::Date> {
            let days: BTreeSet<_> = backups.iter().filter(|b| b.good).map(day).collect();
            days.into_iter().rev().take(n as usize).collect()
        };
        assert_eq!(good(&kept(rules, history)), good(history));
    });
}

/// What a backup is the oldest known copy of, the naive way.
fn state_of(history: &[BackupSummary], id: BackupId) -> BackupId {
    let made_of = history.iter().find(|b| b.id == id).and_then(|b| b.same_data_as);
    made_of.map_or(id, |of| state_of(history, of))
}

/// As many different states stay as are to, however often one is there.
#[test]
fn the_last_ones_are_counted_by_what_they_hold() {
    for_each(|_, rules, history| {
        let HowMany::Number(n @ 1..) = rules.keep_last else { return };
        let good: BTreeSet<BackupId> = history.iter().filter(|b| b.good).map(|b| b.id).collect();
        let mut wanted: Vec<BackupId> = Vec::new();
        for id in good.iter().rev() {
            let state = state_of(history, *id);
            if !wanted.contains(&state) {
                wanted.push(state);
            }
        }
        wanted.truncate(n as usize);
        let only = RetentionRules { keep_last: rules.keep_last, ..RetentionRules::nothing() };
        let left = kept(&only, history);
        for state in &wanted {
            let held = left.iter().any(|b| b.good && state_of(history, b.id) == *state);
            assert!(held, "nothing good is left of {state}");
        }
        // Beyond them only what is kept for another reason: pinned, needed, or newer.
        let newest_good = good.last();
        let needed: BTreeSet<BackupId> = left.iter().flat_map(|b| b.needs.clone()).collect();
        for backup in left.iter().filter(|b| b.good && !b.pinned && !needed.contains(&b.id)) {
            let state = state_of(history, backup.id);
            assert!(wanted.contains(&state) || Some(&backup.id) == newest_good, "{}", backup.id);
        }
    });
}

/// A pair is judged as the newer one alone would be.
#[test]
fn what_was_encrypted_anew_changes_nothing_for_the_others() {
    for_each(|_, rules, history| {
        let whole: Vec<BackupSummary> = history
            .iter()
            .map(|b| BackupSummary { good: true, drilled: false, pinned: false, ..b.clone() })
            .collect();
        let replaced: BTreeSet<BackupId> = whole.iter().filter_map(|b| b.same_data_as).collect();
        let newer: Vec<BackupSummary> =
            whole.iter().filter(|b| !replaced.contains(&b.id)).cloned().collect();
        let with = chosen(&whole, &rules.decide(&whole, afterwards(history)));
        let without = chosen(&newer, &rules.decide(&newer, afterwards(history)));
        // What another needs may be an older one of a pair, which no rule keeps by itself.
        let of_needed =
            whole.iter().filter(|b| b.needs.iter().any(|of| Some(*of) != b.same_data_as));
        if of_needed.count() == 0 {
            assert_eq!(with.difference(&replaced).copied().collect::<BTreeSet<_>>(), without);
        }
    });
}
