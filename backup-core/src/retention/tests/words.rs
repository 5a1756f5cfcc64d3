//! Single cases, with the words an operator reads.

use super::*;

/// The decision on each, in the order given.
fn told(rules: &RetentionRules, backups: &[BackupSummary]) -> Vec<String> {
    rules
        .decide(backups, afterwards(backups))
        .into_iter()
        .map(|decision| match decision {
            Decision::Keep(reasons) => format!("keep: {}", reasons.join("; ")),
            Decision::Expire(reason) => format!("expire: {reason}"),
        })
        .collect()
}

fn daily_and_weekly() -> RetentionRules {
    RetentionRules { keep_daily: number(2), keep_weekly: number(1), ..RetentionRules::nothing() }
}

#[test]
fn each_decision_names_the_slots() {
    let backups =
        utc(&["2026-11-20T02:00", "2026-11-21T02:00", "2026-11-22T02:00", "2026-11-22T13:00"]);
    assert_eq!(
        told(&daily_and_weekly(), &backups),
        [
            "expire: no rule keeps it: daily slot 2026-11-20 is older than the newest 2; \
             weekly slot 2026-W47 is held by 20261122T130000Z",
            "keep: daily slot 2026-11-21",
            "expire: no rule keeps it: daily slot 2026-11-22 is held by 20261122T130000Z; \
             weekly slot 2026-W47 is held by 20261122T130000Z",
            "keep: the newest good backup; daily slot 2026-11-22; weekly slot 2026-W47",
        ]
    );
}

#[test]
fn spans_and_the_last_ones_are_told() {
    let rules = RetentionRules {
        keep_last: number(1),
        keep_within: Some(jiff::Span::new().days(2)),
        ..RetentionRules::nothing()
    };
    let backups = utc(&["2026-11-20T01:59", "2026-11-20T02:00", "2026-11-22T02:00"]);
    assert_eq!(
        told(&rules, &backups),
        [
            "expire: no rule keeps it: it is older than the last 1; \
             it is not within 2d of the newest good backup",
            "keep: within 2d of the newest good backup",
            "keep: the newest good backup; last 1 of 1; within 2d of the newest good backup",
        ]
    );
}

#[test]
fn bad_backups_fill_no_slot_and_stay_where_there_is_nothing_better() {
    let mut backups = utc(&[
        "2026-11-18T02:00", // bad, beyond both days that count
        "2026-11-19T02:00",
        "2026-11-20T01:00", // bad, an older one of its day
        "2026-11-20T02:00", // bad, the only day without a good one
        "2026-11-21T02:00", // bad, with a good one of the same day
        "2026-11-21T03:00",
        "2026-11-22T02:00", // bad, newer than the newest good one
    ]);
    for place in [0, 2, 3, 4, 6] {
        backups[place].good = false;
    }
    let rules = RetentionRules { keep_daily: number(2), ..RetentionRules::nothing() };
    assert_eq!(
        told(&rules, &backups),
        [
            "expire: no rule keeps it: daily slot 2026-11-18 is older than the newest 2",
            "keep: daily slot 2026-11-19",
            "expire: no rule keeps it: daily slot 2026-11-20 is held by 20261120T020000Z",
            "keep: not good, but daily slot 2026-11-20 holds no good one",
            "expire: no rule keeps it: daily slot 2026-11-21 is held by 20261121T030000Z",
            "keep: the newest good backup; daily slot 2026-11-21",
            "keep: not good, but newer than the newest good backup: it may be repairable; \
             not good, but daily slot 2026-11-22 holds no good one",
        ]
    );
}

#[test]
fn a_proven_backup_stands_for_its_slot_only_where_wanted() {
    let mut backups =
        utc(&["2026-11-20T02:00", "2026-11-20T03:00", "2026-11-20T04:00", "2026-11-21T02:00"]);
    backups[0].drilled = true;
    backups[1].drilled = true;
    let mut rules = RetentionRules { keep_daily: number(2), ..RetentionRules::nothing() };
    assert_eq!(ids(&kept(&rules, &backups)), ["20261120T040000Z", "20261121T020000Z"]);
    rules.prefer_proven = true;
    assert_eq!(ids(&kept(&rules, &backups)), ["20261120T030000Z", "20261121T020000Z"]);
    assert_eq!(told(&rules, &backups)[1], "keep: daily slot 2026-11-20, proven by a drill");
    // A drill of what is damaged since proves nothing.
    backups[1].good = false;
    assert_eq!(ids(&kept(&rules, &backups)), ["20261120T020000Z", "20261121T020000Z"]);
}

#[test]
fn what_a_kept_backup_needs_stays_over_several_links() {
    let mut backups = utc(&["2026-11-18T02:00", "2026-11-19T02:00", "2026-11-20T02:00"]);
    let chain: Vec<BackupId> = backups.iter().map(|b| b.id).collect();
    backups[1].needs = vec![chain[0]];
    backups[2].needs = vec![chain[1]];
    let rules = RetentionRules { keep_last: number(1), ..RetentionRules::nothing() };
    assert_eq!(
        told(&rules, &backups),
        [
            "keep: needed by 20261119T020000Z",
            "keep: needed by 20261120T020000Z",
            "keep: the newest good backup; last 1 of 1",
        ]
    );
}

#[test]
fn nothing_expires_with_a_clock_that_is_behind_or_without_a_good_backup() {
    let mut backups = utc(&["2026-11-18T02:00", "2026-11-19T02:00"]);
    let rules = RetentionRules::nothing();
    let before = "2026-11-19T01:59:59Z".parse().unwrap();
    let decisions = rules.decide(&backups, before);
    let behind = "the clock stands before the newest backup".to_owned();
    assert_eq!(decisions[0], Decision::Keep(vec![behind]));
    assert_eq!(kept(&rules, &backups).len(), 1);
    backups.iter_mut().for_each(|backup| backup.good = false);
    assert_eq!(told(&rules, &backups), ["keep: no good backup exists"; 2]);
}

#[test]
fn weeks_are_those_of_iso_and_cross_the_year() {
    let rules = RetentionRules { keep_weekly: number(2), ..RetentionRules::nothing() };
    // 2020-12-28 to 2021-01-03 is week 53 of 2020.
    let backups =
        utc(&["2020-12-27T12:00", "2020-12-28T12:00", "2021-01-03T12:00", "2021-01-04T12:00"]);
    let told = told(&rules, &backups);
    assert_eq!(told[2], "keep: weekly slot 2020-W53");
    assert_eq!(told[3], "keep: the newest good backup; weekly slot 2021-W01");
    assert!(told[1].ends_with("weekly slot 2020-W53 is held by 20210103T120000Z"), "{}", told[1]);
    assert!(told[0].starts_with("expire"));
}

#[test]
fn a_day_begins_where_the_job_says() {
    let rules = |zone: &str| RetentionRules {
        keep_daily: HowMany::All,
        time_zone: TimeZone::get(zone).unwrap(),
        ..RetentionRules::nothing()
    };
    // 23:30 and 00:30 in Berlin: one day in UTC, two there.
    let backups = utc(&["2026-06-14T21:30", "2026-06-14T22:30"]);
    assert_eq!(kept(&rules("UTC"), &backups).len(), 1);
    assert_eq!(kept(&rules("Europe/Berlin"), &backups).len(), 2);
    // Santiago's clocks went back at midnight: 23:30 came twice on 2024-04-06, in one day.
    let backups = utc(&["2024-04-07T02:30", "2024-04-07T03:30", "2024-04-07T04:30"]);
    assert_eq!(
        ids(&kept(&rules("America/Santiago"), &backups)),
        ["20240407T033000Z", "20240407T043000Z"]
    );
}

#[test]
fn a_day_that_comes_twice_around_another_is_one_slot() {
    // In Goose Bay clocks went back from 00:01 to 23:01 of the day before.
    let rules = RetentionRules {
        keep_daily: number(2),
        time_zone: TimeZone::get("America/Goose_Bay").unwrap(),
        ..RetentionRules::nothing()
    };
    // 23:30 on Saturday, 00:00:30 on Sunday, 23:30 on Saturday again, noon on Sunday.
    let backups =
        utc(&["2010-11-07T02:30", "2010-11-07T03:00:30", "2010-11-07T03:30", "2010-11-07T16:00"]);
    assert_eq!(ids(&kept(&rules, &backups)), ["20101107T033000Z", "20101107T160000Z"]);
}

#[test]
fn a_job_that_stopped_keeps_what_it_had() {
    let backups = utc(&["2016-02-28T02:00", "2016-02-29T02:00", "2016-03-01T02:00"]);
    let in_fifty_years = "2066-01-01T00:00:00Z".parse().unwrap();
    let rules = RetentionRules {
        keep_daily: number(3),
        keep_within: Some(jiff::Span::new().days(1)),
        ..RetentionRules::nothing()
    };
    assert_eq!(kept_at(&rules, &backups, in_fifty_years), backups);
    // Also the span counts from the newest: one day holds these two.
    let only_within = RetentionRules { keep_daily: HowMany::NONE, ..rules };
    assert_eq!(kept_at(&only_within, &backups, in_fifty_years), &backups[1..]);
}

/// Old and new copy of three nights, two of them encrypted anew twice, and one alone.
#[test]
fn a_backup_and_what_was_made_of_it_are_one_of_the_last() {
    let copy = |night: &str, n: u32, of: Option<u32>| {
        let second = at(night, &TimeZone::UTC).id.started();
        let of = of.map(|of| BackupId::new(second, of));
        BackupSummary {
            needs: of.into_iter().collect(),
            same_data_as: of,
            ..BackupSummary::good(BackupId::new(second, n))
        }
    };
    let [first, second, third, fourth] =
        ["2026-11-19T02:00", "2026-11-20T02:00", "2026-11-21T02:00", "2026-11-22T02:00"];
    // What the second night's copies were made of is gone.
    let mut backups = vec![
        copy(first, 1, None),
        copy(second, 2, Some(1)),
        copy(second, 3, Some(1)),
        copy(third, 1, None),
        copy(third, 2, Some(1)),
        copy(third, 3, Some(2)),
        copy(fourth, 1, None),
    ];
    let only = |n: u32| RetentionRules { keep_last: number(n), ..RetentionRules::nothing() };
    let stays = |backups: &[BackupSummary], n: u32| kept(&only(n), backups).len();
    // Number of the last, copies that stay.
    for (n, copies) in [(1, 1), (2, 4), (3, 6), (4, 7), (9, 7)] {
        assert_eq!(stays(&backups, n), copies, "the last {n}");
    }
    assert_eq!(
        told(&only(2), &backups),
        [
            "expire: no rule keeps it: it is older than the last 2",
            "expire: no rule keeps it: it is older than the last 2",
            "expire: no rule keeps it: it is older than the last 2",
            "keep: last 2 of 2; needed by 20261121T020000Z-2",
            "keep: last 2 of 2; needed by 20261121T020000Z-3",
            "keep: last 2 of 2",
            "keep: the newest good backup; last 1 of 2",
        ]
    );
    // The new one is damaged: the old one stands for the night.
    backups[5].good = false;
    backups[4].good = false;
    assert_eq!(stays(&backups, 2), 4);
    assert_eq!(stays(&backups, 3), 6);
}
