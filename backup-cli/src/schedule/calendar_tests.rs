//! Calendars against brute force over minutes, and against systemd's own reading.

use std::process::Command;

use super::*;

const TABLE: [(&str, &str, &str); 8] = [
    ("02:00", "*-*-* 02:00:00", "0 2 * * *"),
    ("Sun 03:00", "Sun *-*-* 03:00:00", "0 3 * * 7"),
    ("Mon..Fri 02:00", "Mon,Tue,Wed,Thu,Fri *-*-* 02:00:00", "0 2 * * 1,2,3,4,5"),
    ("*:15", "*-*-* *:15:00", "15 * * * *"),
    ("*:0/20", "*-*-* *:00,20,40:00", "0,20,40 * * * *"),
    ("0/6:30", "*-*-* 00,06,12,18:30:00", "30 0,6,12,18 * * *"),
    ("monthly 1,15 04:00", "*-*-01,15 04:00:00", "0 4 1,15 * *"),
    ("sat,Mon 14,2:5", "Mon,Sat *-*-* 02,14:05:00", "5 2,14 * * 1,6"),
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn calendar(text: &str) -> Calendar {
    text.parse().unwrap()
}

#[test]
fn systemd_and_cron_are_told_the_same() {
    for (text, systemd, cron) in TABLE {
        assert_eq!(calendar(text).to_systemd(), systemd);
        assert_eq!(calendar(text).to_cron(), cron);
    }
}

#[test]
fn what_not_all_can_say_is_refused_with_a_cure() {
    let cases = [
        ("2026-01-01 02:00", "is no day of the week"),
        ("Sun 02:00:30", "seconds can't be told to cron"),
        ("monthly 31 02:00", "no days from 1 to 28"),
        ("monthly 0 02:00", "no days from 1 to 28"),
        ("Sun monthly 1 02:00", "is no schedule"),
        ("monthly 02:00", "is no schedule"),
        ("*:0/7", "does not divide 60 minutes evenly"),
        ("24:00", "none of the hours 0 to 23"),
        ("02:60", "none of the minutes 0 to 59"),
        ("+2:00", "none of the hours"),
        ("Sat..Mon 02:00", "over the end of the week"),
        ("daily", "is no time"),
        ("", "is no schedule"),
    ];
    for (text, why) in cases {
        let error = text.parse::<Calendar>().unwrap_err();
        assert!(error.message().contains(why), "{text}: {error}");
        assert!(error.advice().unwrap().starts_with("write "), "{text}");
    }
}

#[test]
fn a_time_in_the_gap_is_due_once_right_after_it() {
    let calendar = calendar("0,2:0/30");
    let after = at("2026-03-28T23:45:00Z");
    let first = calendar.next_after(after, &berlin()).unwrap();
    assert_eq!(first, at("2026-03-29T01:00:00Z"), "02:00 and 02:30 are skipped: 03:00");
    let next = calendar.next_after(first, &berlin()).unwrap();
    assert_eq!(next, at("2026-03-29T22:00:00Z"), "not a second time for 02:30");
    assert!(calendar.meets_a_gap(after, &berlin()));
    assert!(!calendar.meets_a_gap(after, &TimeZone::UTC));
}

#[test]
fn a_repeated_time_is_due_once() {
    let calendar = calendar("02:30");
    let first = calendar.next_after(at("2026-10-24T12:00:00Z"), &berlin()).unwrap();
    assert_eq!(first, at("2026-10-25T00:30:00Z"));
    let next = calendar.next_after(first, &berlin()).unwrap();
    assert_eq!(next, at("2026-10-26T01:30:00Z"));
}

/// The first minute after `after` whose wall clock is the calendar's; without changes of the
/// clock in between there is nothing to interpret.
fn by_force(calendar: &Calendar, after: Timestamp) -> Timestamp {
    let mut minute = Timestamp::from_second((after.as_second() / 60 + 1) * 60).unwrap();
    loop {
        let wall = minute.to_zoned(TimeZone::UTC);
        let hour = calendar.hours.as_ref().is_none_or(|hours| hours.contains(&(wall.hour() as u8)));
        let fits = hour && calendar.minutes.contains(&(wall.minute() as u8));
        let day = match &calendar.days {
            Days::All => true,
            Days::Week(days) => {
                days.iter().any(|d| DAYS[*d as usize] == wall.strftime("%a").to_string())
            }
            Days::Month(days) => days.contains(&(wall.day() as u8)),
        };
        if fits && day {
            return minute;
        }
        minute += 1.minute();
    }
}

#[test]
fn next_after_agrees_with_brute_force() {
    // Steps without a common measure with days: every part of the week and month is hit.
    let mut from = at("2024-02-27T23:58:31Z");
    for round in 0..60 {
        for (text, ..) in TABLE {
            let calendar = calendar(text);
            let next = calendar.next_after(from, &TimeZone::UTC).unwrap();
            assert_eq!(next, by_force(&calendar, from), "{text} after {from}");
            let then = calendar.next_after(next, &TimeZone::UTC).unwrap();
            assert!(then > next, "{text} stands still at {next}");
        }
        from += (7_000 + 613 * round).minutes();
    }
}

#[test]
fn next_after_agrees_with_systemd() {
    let there = Command::new("systemd-analyze").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("not compared: there is no systemd-analyze");
        return;
    }
    for (text, ..) in TABLE {
        let calendar = calendar(text);
        let expression = format!("{} Europe/Berlin", calendar.to_systemd());
        // Both changes of the clock lie between the runs of one or the other.
        for base in ["2026-03-27 09:13:20", "2026-10-25 03:00:00", "2028-02-27 20:00:00"] {
            let base_time = format!("--base-time={base} UTC");
            let mut command = Command::new("systemd-analyze");
            command.args(["calendar", "--iterations=6", &base_time, &expression]).env("TZ", "UTC");
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let theirs: Vec<Timestamp> = output
                .lines()
                .filter(|line| line.contains("Next elapse:") || line.contains("Iter. #"))
                .map(|line| line.split_whitespace().rev().take(3).collect::<Vec<_>>())
                .map(|words| at(&format!("{}T{}Z", words[2], words[1])))
                .collect();
            assert_eq!(theirs.len(), 6, "{output}");
            let mut after = at(&format!("{}Z", base.replace(' ', "T")));
            for their in theirs {
                let mut our = calendar.next_after(after, &berlin()).unwrap();
                // The one difference: what lies in the gap systemd leaves out.
                if our == at("2026-03-29T01:00:00Z") && their != our {
                    our = calendar.next_after(our, &berlin()).unwrap();
                }
                assert_eq!(our, their, "{text} after {after}\n{output}");
                after = our;
            }
        }
    }
}
