//! The daemon over months that pass in a moment: its clock moves only when it sleeps.

use std::collections::BTreeSet;
use std::sync::Mutex;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::super::{LastRun, Work};
use super::*;

/// A clock that goes on when somebody sleeps, and stops the daemon at an end.
struct Simulated {
    now: Mutex<Timestamp>,
    end: Timestamp,
    stop: Cancel,
}

#[async_trait]
impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        // The run beside it comes first, as on a real clock.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let mut now = self.now.lock().unwrap();
        *now += duration;
        if *now >= self.end {
            self.stop.interrupt("the end");
        }
    }
}

/// Notes what it is asked to do.
struct Noting {
    clock: Arc<Simulated>,
    runs: Mutex<Vec<(String, Timestamp, u8)>>,
    /// Runs of these tasks never end by themselves.
    hanging: BTreeSet<&'static str>,
    /// Neither do they when asked to.
    deaf: bool,
    running: Mutex<bool>,
    /// How long a run takes.
    takes: Duration,
}

#[async_trait(?Send)]
impl Runner for Noting {
    async fn run(&self, task: &Task, cancel: &Cancel) -> u8 {
        assert!(!std::mem::replace(&mut *self.running.lock().unwrap(), true), "two at once");
        let began = self.clock.now();
        let code = if self.hanging.contains(task.name().as_str()) {
            if self.deaf {
                *self.running.lock().unwrap() = false;
                std::future::pending::<()>().await;
            }
            cancel.cancelled().await;
            1
        } else {
            *self.clock.now.lock().unwrap() += self.takes;
            0
        };
        *self.running.lock().unwrap() = false;
        self.runs.lock().unwrap().push((task.name(), began, code));
        code
    }
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn tell(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn task(work: Work, calendar: &str, timeout: Duration) -> Task {
    Task { work, job: "db".to_owned(), calendar: calendar.parse().unwrap(), timeout }
}

const HOUR: Duration = Duration::from_secs(3600);

struct Stage {
    folder: tempfile::TempDir,
    tasks: Vec<Task>,
    hanging: BTreeSet<&'static str>,
    deaf: bool,
    delay: Duration,
}

impl Stage {
    fn new(tasks: Vec<Task>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, tasks, hanging: BTreeSet::new(), deaf: false, delay: Duration::ZERO }
    }

    /// Plays from one moment to another; gives the runs and the log.
    async fn play(&self, from: &str, to: &str) -> (Vec<(String, Timestamp, u8)>, Vec<String>) {
        let stop = Cancel::default();
        let clock =
            Arc::new(Simulated { now: Mutex::new(at(from)), end: at(to), stop: stop.clone() });
        let runner = Arc::new(Noting {
            clock: clock.clone(),
            runs: Mutex::default(),
            hanging: self.hanging.clone(),
            deaf: self.deaf,
            running: Mutex::default(),
            takes: Duration::from_secs(120),
        });
        let log = Arc::new(Lines::default());
        let daemon = Daemon {
            agenda: Agenda {
                tasks: self.tasks.clone(),
                zone: TimeZone::get("Europe/Berlin").unwrap(),
                random_delay: self.delay,
                seed: 7,
            },
            state: StateFile::new(self.folder.path()),
            clock,
            runner: runner.clone(),
            log: log.clone(),
        };
        daemon.run(&stop).await.unwrap();
        let runs = runner.runs.lock().unwrap().clone();
        let lines = log.0.lock().unwrap().clone();
        (runs, lines)
    }

    fn state(&self) -> LastRun {
        StateFile::new(self.folder.path()).read().unwrap()["backup/db"].clone()
    }
}

/// The wall-clock times of a task's runs, as `DD HH:MM`.
fn walls(runs: &[(String, Timestamp, u8)], name: &str) -> Vec<String> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let ours = runs.iter().filter(|(run, ..)| run == name);
    ours.map(|(_, at, _)| at.to_zoned(zone.clone()).strftime("%d %H:%M").to_string()).collect()
}

#[tokio::test]
async fn over_a_month_every_run_happens_once_and_in_order() {
    let stage = Stage::new(vec![
        task(Work::Backup, "02:30", HOUR),
        task(Work::Verify, "Sun 05:00", HOUR),
        task(Work::Drill, "monthly 1 02:30", HOUR),
    ]);
    // March has the gap, at 02:30 on the 29th.
    let (runs, _) = stage.play("2026-02-28T23:30:00Z", "2026-03-31T21:00:00Z").await;
    let days = (1..=31).map(|day| match day {
        29 => "29 03:00".to_owned(),
        day => format!("{day:02} 02:30"),
    });
    assert_eq!(walls(&runs, "backup/db"), days.collect::<Vec<_>>());
    let sundays = [1, 8, 15, 22, 29].map(|day| format!("{day:02} 05:00"));
    assert_eq!(walls(&runs, "verify/db"), sundays);
    // Due at the same time as the backup: after it.
    assert_eq!(walls(&runs, "drill/db"), ["01 02:32"]);
    assert!(runs.is_sorted_by_key(|(_, at, _)| *at));
}

#[tokio::test]
async fn when_the_clocks_go_back_it_runs_once() {
    let stage = Stage::new(vec![task(Work::Backup, "02:30", HOUR)]);
    let (runs, _) = stage.play("2026-10-23T22:00:00Z", "2026-10-27T22:00:00Z").await;
    let times: Vec<Timestamp> = runs.iter().map(|(_, at, _)| *at).collect();
    let expected = ["24T00:30", "25T00:30", "26T01:30", "27T01:30"];
    assert_eq!(times, expected.map(|time| at(&format!("2026-10-{time}:00Z"))));
}

#[tokio::test]
async fn what_was_missed_is_caught_up_once() {
    let stage = Stage::new(vec![task(Work::Backup, "02:00", HOUR)]);
    let (runs, _) = stage.play("2026-06-01T12:00:00Z", "2026-06-03T12:00:00Z").await;
    assert_eq!(walls(&runs, "backup/db"), ["02 02:00", "03 02:00"]);
    // A week without us.
    let (runs, _) = stage.play("2026-06-10T12:00:00Z", "2026-06-12T12:00:00Z").await;
    assert_eq!(walls(&runs, "backup/db"), ["10 14:00", "11 02:00", "12 02:00"]);
    // A restart catches nothing up that was done.
    let (runs, _) = stage.play("2026-06-12T13:00:00Z", "2026-06-12T14:00:00Z").await;
    assert!(runs.is_empty(), "{runs:?}");
}

#[tokio::test]
async fn a_run_that_hangs_is_stopped_and_the_next_ones_do_not_stack() {
    let mut stage = Stage::new(vec![
        task(Work::Backup, "*:00", 5 * HOUR / 2),
        task(Work::Verify, "12:10", HOUR),
    ]);
    stage.hanging.insert("backup/db");
    let (runs, lines) = stage.play("2026-06-01T09:30:00Z", "2026-06-01T16:00:00Z").await;
    // Stopped after 2 h 30 min; what passed meanwhile is one run.
    let backups = walls(&runs, "backup/db");
    assert_eq!(&backups[..2], ["01 12:00", "01 14:32"], "{runs:?}");
    assert_eq!(walls(&runs, "verify/db"), ["01 14:30"], "waited for its turn");
    assert!(lines.iter().any(|line| line.starts_with("TimedOut")));
    assert!(runs.iter().all(|(name, _, code)| name != "backup/db" || *code == 1));
}

#[tokio::test]
async fn a_run_that_does_not_stop_is_given_up() {
    let mut stage =
        Stage::new(vec![task(Work::Backup, "02:00", HOUR), task(Work::Verify, "02:10", HOUR)]);
    stage.hanging.insert("backup/db");
    stage.deaf = true;
    let (runs, lines) = stage.play("2026-06-01T12:00:00Z", "2026-06-02T12:00:00Z").await;
    assert!(lines.iter().any(|line| line.starts_with("GivenUp")), "{lines:?}");
    assert_eq!(walls(&runs, "verify/db"), ["02 03:20"]);
    let state = stage.state();
    assert_eq!((state.exit_code, state.succeeded), (Some(1), None));
}

#[tokio::test]
async fn what_our_own_end_broke_off_is_done_after_the_next_start() {
    let mut stage = Stage::new(vec![task(Work::Backup, "02:00", 8 * HOUR)]);
    stage.hanging.insert("backup/db");
    let (runs, _) = stage.play("2026-06-01T12:00:00Z", "2026-06-02T08:00:00Z").await;
    // The simulated clock jumps to the end of the timeout, beyond the end of the play.
    assert_eq!(runs.len(), 1);
    stage.hanging.clear();
    let (runs, _) = stage.play("2026-06-02T09:00:00Z", "2026-06-02T09:30:00Z").await;
    assert_eq!(walls(&runs, "backup/db"), ["02 11:00"]);
    assert_eq!(stage.state().succeeded, Some(at("2026-06-02T09:00:00Z")));
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nothing_from_being_done() {
    let stage = Stage::new(vec![task(Work::Backup, "02:00", HOUR)]);
    stage.play("2031-01-01T12:00:00Z", "2031-01-03T12:00:00Z").await;
    let (runs, _) = stage.play("2026-06-01T12:00:00Z", "2026-06-03T12:00:00Z").await;
    assert_eq!(walls(&runs, "backup/db"), ["02 02:00", "03 02:00"]);
}

#[tokio::test]
async fn a_random_delay_stays_in_its_limits_and_makes_no_second_run() {
    let mut stage = Stage::new(vec![task(Work::Backup, "02:00", HOUR)]);
    stage.delay = Duration::from_secs(1800);
    let (runs, _) = stage.play("2026-06-01T12:00:00Z", "2026-06-21T12:00:00Z").await;
    assert_eq!(runs.len(), 20);
    let delays: BTreeSet<SignedDuration> = (2..)
        .zip(&runs)
        .map(|(day, (_, began, _))| {
            began.duration_since(at(&format!("2026-06-{day:02}T00:00:00Z")))
        })
        .collect();
    assert!(delays.len() > 10 && delays.iter().all(|d| (0..=1860).contains(&d.as_secs())));
}

#[test]
fn a_state_that_is_not_ours_is_no_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFile::new(folder.path());
    let runs = LastRuns::from([("backup/db".to_owned(), LastRun::default())]);
    state.write(&runs).unwrap();
    assert_eq!(state.read().unwrap(), runs);
    let path = folder.path().join(super::super::STATE_FILE);
    for text in ["", "{\"format\": 2, \"tasks\": {}}"] {
        std::fs::write(&path, text).unwrap();
        assert!(state.read().is_err(), "{text:?}");
    }
}
