//! A drill that is ended, in the middle: no server and no restored data stay.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::{Drilled, database, start};
use crate::support::{arguments_of, finish_started, process_ids};

/// How long what is left may take to go.
const GONE_LIMIT: Duration = Duration::from_secs(40);

const MUCH: &str = "CREATE TABLE much AS
    SELECT i, repeat(md5(i::text), 20) t FROM generate_series(1, 60000) i; CREATE INDEX ON much (t, i)";

/// Processes that have to do with this folder.
fn processes_at(folder: &str) -> Vec<(i32, Vec<String>)> {
    let all = process_ids().map(|id| (id, arguments_of(id)));
    all.filter(|(_, arguments)| arguments.iter().any(|argument| argument.contains(folder)))
        .collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + GONE_LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a drill and waits until it restores. The folder of its server.
async fn under_way(drilled: &Drilled) -> (tokio::process::Child, PathBuf) {
    let child = drilled.scratch.start(&["drill"]);
    drilled.scratch.wait_for_process("pg_restore").await;
    let folder = drilled.folders().pop().expect("no server");
    assert!(folder.join("data/postmaster.pid").exists());
    (child, folder)
}

async fn assert_nothing_left(drilled: &Drilled, folder: &Path) {
    until("the folder stays", || !folder.exists()).await;
    let folder = folder.display().to_string();
    until("the server runs", || processes_at(&folder).is_empty()).await;
    assert!(drilled.proofs().iter().all(Vec::is_empty));
}

#[tokio::test]
async fn a_stopped_drill_cleans_up_and_says_so() {
    let server = start().await;
    database(&server, "much", MUCH).await;
    let drilled = Drilled::of(&server, "much");
    drilled.backup().await;
    let (child, folder) = under_way(&drilled).await;
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(finish_started(child).await.code, 143);
    assert!(!folder.exists());
    assert_nothing_left(&drilled, &folder).await;
}

#[tokio::test]
async fn a_killed_drill_leaves_no_server_and_no_data() {
    let server = start().await;
    database(&server, "much", MUCH).await;
    let drilled = Drilled::of(&server, "much");
    drilled.backup().await;
    let (child, folder) = under_way(&drilled).await;
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGKILL).unwrap();
    assert_eq!(finish_started(child).await.code, 137);
    assert_nothing_left(&drilled, &folder).await;
}

#[tokio::test]
async fn what_a_killed_watcher_leaves_goes_with_the_next_drill() {
    let server = start().await;
    database(&server, "much", MUCH).await;
    let drilled = Drilled::of(&server, "much");
    drilled.backup().await;
    let (child, folder) = under_way(&drilled).await;
    let path = folder.display().to_string();
    let watchers: Vec<i32> = processes_at(&path)
        .into_iter()
        .filter(|(_, arguments)| arguments[0].ends_with("sh") && arguments[1] == "-c")
        .map(|(id, _)| id)
        .collect();
    assert_eq!(watchers.len(), 1);
    for id in watchers.into_iter().chain([child.id().unwrap() as i32]) {
        kill(Pid::from_raw(id), Signal::SIGKILL).unwrap();
    }
    assert_eq!(finish_started(child).await.code, 137);
    assert!(folder.exists() && !processes_at(&path).is_empty());

    let next = drilled.drill(&[]).await.expect(0);
    assert!(next.stderr.contains("left by a drill that was killed"), "{}", next.stderr);
    assert!(!folder.exists());
    until("the server runs", || processes_at(&path).is_empty()).await;
    assert!(drilled.folders().is_empty());
}

#[tokio::test]
async fn a_drill_leaves_the_server_of_another_one_alone() {
    let server = start().await;
    database(&server, "much", MUCH).await;
    let drilled = Drilled::of(&server, "much");
    drilled.backup().await;
    let (child, folder) = under_way(&drilled).await;
    // Stopped, not ended: it can't get done meanwhile.
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGSTOP).unwrap();
    drilled.drill(&[]).await.expect(0);
    assert!(folder.join("data/postmaster.pid").exists());
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGCONT).unwrap();
    assert_eq!(finish_started(child).await.code, 0);
    assert!(drilled.folders().is_empty());
}
