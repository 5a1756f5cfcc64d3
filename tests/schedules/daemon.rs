//! `run` against a real server.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use super::*;
use crate::support::{CLAIMS, claims_server, while_locked};

/// Longest wait for a line of the log.
const LINE_TIMEOUT: Duration = Duration::from_secs(120);
/// The task of these tests.
const TASK: &str = "backup/database";

/// Plants what the daemon noted of its task: times up to this one are done with.
pub fn plant(scratch: &Scratch, handled: Timestamp) {
    let _ = std::fs::create_dir(scratch.path("state"));
    let state = json!({ "format": 1, "tasks": { TASK: { "handled": handled } } });
    scratch.write("state/schedule.json", &state.to_string());
}

fn noted(scratch: &Scratch) -> Value {
    let text = std::fs::read_to_string(scratch.path("state/schedule.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["tasks"][TASK].clone()
}

/// A daemon and its log.
pub struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    told: String,
}

impl Running {
    pub fn start(scratch: &Scratch) -> Self {
        let mut child = scratch.start(&["run", "--json"]);
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, told: String::new() }
    }

    /// The next event of the log. What a verb says of an error stands between.
    pub async fn event(&mut self) -> Value {
        loop {
            let line = tokio::time::timeout(LINE_TIMEOUT, self.log.next_line()).await;
            let line = line.expect("it logs nothing").unwrap().expect("it ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            }
            self.told.push_str(&line);
            self.told.push('\n');
        }
    }

    /// Asserts what the next event is.
    pub async fn expect(&mut self, event: &str) -> Value {
        let told = self.event().await;
        assert_eq!((&told["event"], &told["task"]), (&json!(event), &json!(TASK)), "{told}");
        told
    }

    /// Ends it by SIGTERM; nothing that it started may outlive it. What the verbs said is given
    /// back.
    pub async fn end(mut self, scratch: &Scratch) -> String {
        let mut output = self.child.stdout.take().unwrap();
        let mut told = std::mem::take(&mut self.told);
        self.stop(scratch).await;
        output.read_to_string(&mut told).await.unwrap();
        told
    }

    async fn stop(mut self, scratch: &Scratch) {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(LINE_TIMEOUT, self.child.wait()).await;
        assert_eq!(ended.expect("it does not end").unwrap().code(), Some(143));
        scratch.assert_no_process_left();
    }
}

/// A job that is due once a day, twelve hours from now, and was last done three days ago.
fn missed(server: &backup_testkit::postgres::PostgresServer) -> Scratch {
    let now = Timestamp::now();
    let hour = (now.as_second() / 3600 + 12) % 24;
    let job = format!("schedule = '{hour:02}:00'\n[schedules]\ntime_zone = 'UTC'");
    let scratch = Scratch::with_job(&server.url(CLAIMS), &job);
    plant(&scratch, now - 72.hours());
    scratch
}

#[tokio::test]
async fn what_was_missed_is_done_once_and_not_again_after_a_restart() {
    let server = claims_server(15, 200).await;
    let scratch = missed(&server);
    let begun = Timestamp::now();
    let mut first = Running::start(&scratch);
    first.expect("started").await;
    assert_eq!(first.expect("ended").await["exit"], "0");
    let due: Timestamp = first.expect("next").await["due"].as_str().unwrap().parse().unwrap();
    assert!(due > begun && due < begun + 24.hours(), "three were missed, one is done: {due}");
    assert_eq!(scratch.listed().await.len(), 1);
    first.stop(&scratch).await;
    let (holdings, note) = (scratch.holdings().await, noted(&scratch));
    assert_eq!((&note["exit_code"], &note["handled"]), (&json!(0), &note["succeeded"]));
    let folder = scratch.backup_folder().await;
    assert!(holdings.files.iter().all(|file| file.starts_with(&folder)), "{holdings:#?}");

    let mut second = Running::start(&scratch);
    let next = second.expect("next").await;
    assert_eq!(next["due"], due.to_string());
    second.stop(&scratch).await;
    assert_eq!(scratch.holdings().await, holdings);
    assert_eq!(noted(&scratch), note);
    scratch.run(&["verify", "latest"]).await.expect(0);
}

#[tokio::test]
async fn what_a_signal_broke_off_leaves_nothing_and_is_done_after_the_next_start() {
    let server = claims_server(15, 200).await;
    let scratch = missed(&server);
    let before = noted(&scratch);
    while_locked(&server, async {
        let mut daemon = Running::start(&scratch);
        daemon.expect("started").await;
        scratch.wait_for_process("pg_dump").await;
        daemon.stop(&scratch).await;
    })
    .await;
    assert_eq!(scratch.stored_files(), Vec::<PathBuf>::new());
    let note = noted(&scratch);
    assert_eq!((&note["handled"], &note["exit_code"]), (&before["handled"], &json!(143)));

    let mut daemon = Running::start(&scratch);
    daemon.expect("started").await;
    assert_eq!(daemon.expect("ended").await["exit"], "0");
    daemon.stop(&scratch).await;
    assert_eq!(scratch.listed().await.len(), 1);
}
