//! SIGKILL, SIGINT and SIGTERM at every step of a swap and at random moments: of this program,
//! of the clients it runs, of the server's processes. In the end the application's database is
//! whole and reachable, the old one or the new one, and its services run: at once, or after one
//! command where this program itself was killed.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Child;
use tokio::time::sleep;

use crate::support::{Finished, Scratch, cases, finish_started, process_ids, seed};
use crate::swap::Stage;

/// Rows: the steps count, not the data.
const ROWS: u32 = 3000;

/// How long a run may take to come to a step.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// Which database is live, both seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Old,
    New,
}

struct Range {
    stage: Stage,
    random: StdRng,
    /// How long an undisturbed restore takes, and from which moment on the services stop.
    usual: Duration,
    until_stop: Duration,
}

impl Range {
    async fn new(rows: u32) -> Self {
        let stage = Stage::new(15, rows).await;
        // The backup is newer than every swap, once their marks are dated back.
        stage.scratch.run(&["verify"]).await.expect(0);
        let random = StdRng::seed_from_u64(seed());
        let started = Instant::now();
        let child = stage.scratch.start(&["restore", "latest"]);
        wait_for(&stage.scratch, "stop").await;
        let until_stop = started.elapsed();
        finish_started(child).await.expect(0);
        let mut range = Self { stage, random, usual: started.elapsed(), until_stop };
        range.reset().await;
        range
    }

    /// The old database live, and nothing else there.
    async fn reset(&mut self) {
        if self.whole().await == Live::New {
            self.stage.restore(&["--rollback"]).await.expect(0);
        }
        assert_eq!(self.whole().await, Live::Old);
        self.clean_up().await;
        self.stage.order();
        for file in ["sick", "slept"] {
            let _ = std::fs::remove_file(self.stage.scratch.path(file));
        }
    }

    /// Whatever was left is dropped by the program's own cleanup, a day and some later.
    async fn clean_up(&self) {
        let later = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(30);
        self.stage.date_marks("started|swapped|put_back", later).await;
        let cleaned = self.stage.restore(&["--cleanup"]).await.expect(0);
        let sql = "SELECT coalesce(json_agg(datname), '[]') FROM pg_database
                   WHERE datname LIKE 'claims\\_%' OR datname LIKE 'marb\\_restoring\\_%'";
        let names = self.stage.server.sql("postgres", sql).await.unwrap();
        for name in serde_json::from_str::<Vec<String>>(&names).unwrap() {
            // Killed in the moment between two statements: nothing says whose it is, so it stays.
            let comment = format!(
                "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = '{name}'"
            );
            let comment = self.stage.server.sql("postgres", &comment).await.unwrap();
            assert_eq!(comment, "", "{name} is marked and stays: {cleaned:#?}");
            println!("{name} carries no mark yet");
            let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
            self.stage.server.sql("postgres", &drop).await.unwrap();
        }
    }

    /// Asserts that the live database is whole, and says which one it is.
    async fn whole(&self) -> Live {
        let digest = self.stage.live().await;
        let live = if digest == self.stage.old { Live::Old } else { Live::New };
        assert!(live == Live::Old || digest == self.stage.new, "a mixture: {digest}");
        assert_eq!(self.stage.is_migrated().await, live == Live::New, "a mixture");
        live
    }

    /// Asserts that all is in order: a whole database, running services, nothing unfinished.
    async fn assert_in_order(&self) -> Live {
        let live = self.whole().await;
        assert!(self.stage.is_running(), "the services stand still");
        let unfinished = "SELECT count(*) FROM pg_shdescription
                          WHERE description ~ '^marb-backup swap .*\"phase\":\"(closing|swapped|putting-back)\"'";
        assert_eq!(self.stage.server.sql("postgres", unfinished).await.unwrap(), "0");
        live
    }

    /// A random moment: half of them while the application is down.
    fn moment(&mut self) -> Duration {
        let down = (self.until_stop.as_secs_f64(), self.usual.as_secs_f64() * 1.05);
        let (from, to) = if self.random.r#gen() { down } else { (0.0, down.1) };
        Duration::from_secs_f64(self.random.gen_range(from..to))
    }

    /// After this program was killed: one command brings all in order.
    async fn recover(&mut self, killed: &Finished, command: &str) {
        self.stage.scratch.assert_no_process_left();
        if killed.code == 0 {
            assert_eq!(self.assert_in_order().await, Live::New);
            return;
        }
        let run = self.stage.restore(&[command]).await;
        let live = self.assert_in_order().await;
        println!("{command}: exit {}, {live:?} is live", run.code);
        match (command, run.code) {
            ("--rollback", 0) => assert_eq!(live, Live::Old, "{run:#?}"),
            // It was killed before it began.
            (_, 5) => assert!(!run.stderr.contains("unfinished swap"), "{run:#?}"),
            ("--continue", 0) => {}
            ("--continue", 1) => {
                assert!(run.stderr.contains("before it swapped anything"), "{run:#?}");
                assert_eq!(live, Live::Old, "{run:#?}");
            }
            _ => panic!("{run:#?}"),
        }
        // Nothing keeps the next one from beginning.
        self.stage.restore(&["latest", "--dry-run"]).await.expect(0);
    }
}

/// Waits until a hook has begun.
async fn wait_for(scratch: &Scratch, hook: &str) {
    let started = Instant::now();
    let begun = || std::fs::read_to_string(scratch.path("order")).unwrap_or_default();
    while !begun().split_whitespace().any(|line| line == hook) {
        assert!(started.elapsed() < STEP_LIMIT, "{hook} does not come");
        sleep(Duration::from_millis(2)).await;
    }
}

pub fn strike(child: &Child, signal: Signal) {
    // Not waited for yet, so the id is still this process's.
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), signal).unwrap();
}

const COMMANDS: [&str; 2] = ["--rollback", "--continue"];

#[tokio::test]
async fn this_program_is_killed_at_random_moments() {
    let mut range = Range::new(ROWS).await;
    for case in 0..cases(6, 40) {
        let after = range.moment();
        let child = range.stage.scratch.start(&["restore", "latest"]);
        sleep(after).await;
        strike(&child, Signal::SIGKILL);
        let run = finish_started(child).await;
        println!("{case}: SIGKILL after {after:.2?} of {:.2?}: {}", range.usual, run.code);
        range.recover(&run, COMMANDS[case % 2]).await;
        range.reset().await;
    }
}

#[tokio::test]
async fn this_program_is_killed_at_every_step() {
    let mut range = Range::new(ROWS).await;
    for (case, step) in ["before", "migrate", "stop", "start", "after"].into_iter().enumerate() {
        for command in COMMANDS {
            // The hook does its work at the first call, and is met while it does.
            let script = std::fs::read_to_string(range.stage.scratch.path(step)).unwrap();
            let work: String = script.lines().skip(2).map(|line| format!("{line}\n")).collect();
            let slow = format!("test -e slept || {{ touch slept; sleep 1; }}\n{work}");
            range.stage.hook(step, &slow);
            let child = range.stage.scratch.start(&["restore", "latest"]);
            wait_for(&range.stage.scratch, step).await;
            sleep(Duration::from_millis(100)).await;
            strike(&child, Signal::SIGKILL);
            let run = finish_started(child).await;
            println!("{case}: SIGKILL during {step}");
            range.recover(&run, command).await;
            range.reset().await;
            range.stage.hook(step, &work);
        }
    }
    // While the new application is not healthy yet.
    range.stage.hook("start", "touch running; test -e slept || touch sick slept");
    for command in COMMANDS {
        let child = range.stage.scratch.start(&["restore", "latest"]);
        wait_for(&range.stage.scratch, "start").await;
        sleep(Duration::from_millis(300)).await;
        strike(&child, Signal::SIGKILL);
        let run = finish_started(child).await;
        std::fs::remove_file(range.stage.scratch.path("sick")).unwrap();
        assert_eq!(range.whole().await, Live::New);
        range.recover(&run, command).await;
        let expected = if command == "--rollback" { Live::Old } else { Live::New };
        assert_eq!(range.whole().await, expected);
        range.reset().await;
    }
}

/// A command that finishes or undoes may be killed, too.
#[tokio::test]
async fn the_recovery_is_killed() {
    let mut range = Range::new(ROWS).await;
    let slow = "touch running; test -e slept || { touch slept; sleep 5; }";
    let plain = "touch running";
    for case in 0..cases(3, 20) {
        range.stage.hook("start", slow);
        let child = range.stage.scratch.start(&["restore", "latest"]);
        wait_for(&range.stage.scratch, "start").await;
        strike(&child, Signal::SIGKILL);
        let run = finish_started(child).await;
        range.stage.hook("start", plain);
        let down = (range.usual - range.until_stop).as_secs_f64();
        let after = Duration::from_secs_f64(range.random.gen_range(0.0..down * 1.5));
        let second = range.stage.scratch.start(&["restore", COMMANDS[case % 2]]);
        sleep(after).await;
        strike(&second, Signal::SIGKILL);
        let again = finish_started(second).await;
        println!("{case}: {} killed after {after:.2?}: {}", COMMANDS[case % 2], again.code);
        if again.code != 0 {
            range.recover(&run, COMMANDS[case / 2 % 2]).await;
        }
        range.assert_in_order().await;
        range.reset().await;
    }
}

/// What this program undoes by itself: it lives.
async fn by_itself(signal: Signal) {
    let mut range = Range::new(ROWS).await;
    for case in 0..cases(5, 40) {
        let after = range.moment();
        let child = range.stage.scratch.start(&["restore", "latest"]);
        sleep(after).await;
        strike(&child, signal);
        let run = finish_started(child).await;
        println!("{case}: {signal} after {after:.2?} of {:.2?}: {}", range.usual, run.code);
        range.stage.scratch.assert_no_process_left();
        let live = range.assert_in_order().await;
        match run.code {
            0 => assert_eq!(live, Live::New),
            code => {
                assert_eq!(code, 128 + signal as i32, "{run:#?}");
                assert_eq!(live, Live::Old, "{run:#?}");
                let others = range.stage.others().await;
                assert!(others.is_empty() || others == "claims_failed", "{others}: {run:#?}");
            }
        }
        range.reset().await;
    }
}

#[tokio::test]
async fn sigint_undoes_everything() {
    by_itself(Signal::SIGINT).await;
}

#[tokio::test]
async fn sigterm_undoes_everything() {
    by_itself(Signal::SIGTERM).await;
}

/// One of the clients that this program runs is killed.
#[tokio::test]
async fn a_client_program_is_killed() {
    let mut range = Range::new(10 * ROWS).await;
    for case in 0..cases(6, 40) {
        let child = range.stage.scratch.start(&["restore", "latest"]);
        let victim = if case % 3 == 0 { "pg_restore" } else { "psql" };
        if victim == "psql" {
            let after = range.moment();
            sleep(after).await;
        }
        // psql comes and goes: whatever of it shows up for a while is struck.
        let until = if victim == "psql" { Duration::from_millis(500) } else { range.usual };
        let deadline = Instant::now() + until;
        while Instant::now() < deadline {
            if let Some(process) = range.stage.scratch.working(victim) {
                process.signal(Signal::SIGKILL);
                println!("{case}: {victim} is met");
                if victim == "pg_restore" {
                    break;
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
        let run = finish_started(child).await;
        println!("{case}: {victim} killed: {}", run.code);
        let live = range.assert_in_order().await;
        match run.code {
            0 => assert_eq!(live, Live::New, "{run:#?}"),
            // A backup's digest is checked before, so a killed pg_restore is no damage.
            _ => assert_eq!(live, Live::Old, "{run:#?}"),
        }
        range.reset().await;
    }
}

/// A process of the server is killed: it ends all sessions and recovers.
#[tokio::test]
async fn a_process_of_the_server_is_killed() {
    let mut range = Range::new(ROWS).await;
    if range.stage.server.local().is_none() {
        return;
    }
    for case in 0..cases(4, 30) {
        let after = range.moment();
        let child = range.stage.scratch.start(&["restore", "latest"]);
        sleep(after).await;
        let deadline = Instant::now() + range.usual;
        while !kill_a_backend(&range.stage) && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
        let run = finish_started(child).await;
        println!("{case}: a backend killed after {after:.2?}: {}", run.code);
        let started = Instant::now();
        while range.stage.server.sql("postgres", "SELECT 1").await.is_err() {
            assert!(started.elapsed() < STEP_LIMIT, "the server does not come back");
            sleep(Duration::from_millis(50)).await;
        }
        let live = range.assert_in_order().await;
        assert_eq!(live == Live::New, run.code == 0, "{run:#?}");
        range.reset().await;
    }
}

/// Kills a backend that serves a client of this stage's server, if there is one.
pub fn kill_a_backend(stage: &Stage) -> bool {
    let Some(local) = stage.server.local() else { return false };
    let folder = local.server().unwrap().data_dir();
    let is_ours =
        |id: &i32| std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd == folder);
    let serves = |id: &i32| {
        let title = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        title.starts_with("postgres: postgres ")
    };
    match process_ids().filter(is_ours).find(serves) {
        Some(id) => kill(Pid::from_raw(id), Signal::SIGKILL).is_ok(),
        None => false,
    }
}
