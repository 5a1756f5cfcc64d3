//! The daemon's own rounds: verifications and drills on schedules of their own, and bad news that
//! keep nothing from the rest.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::daemon::Running;
use crate::drill::Drilled;
use crate::support::{CLAIMS, Scratch, claims_server};

/// Longest wait for a drill to begin with its server.
const SERVER_LIMIT: Duration = Duration::from_secs(60);
/// Everything that is due, in the order in which it is done.
const ROUNDS: [(&str, &str); 4] = [
    ("verify/broken", "4"),
    ("verify/database", "0"),
    ("drill/broken", "4"),
    ("drill/database", "0"),
];

/// Two jobs of one database, whose latest backups are verified and drilled once a day, twelve
/// hours from now, and were three days ago.
async fn missed(server: &backup_testkit::postgres::PostgresServer) -> Drilled {
    let drilled = Drilled::of(server, CLAIMS);
    let now = Timestamp::now();
    let hour = (now.as_second() / 3600 + 12) % 24;
    let more = format!(
        "[schedules]\nverify = '{hour:02}:00'\ndrill = '{hour:02}:00'\ntime_zone = 'UTC'\n\
         [job.broken]\npostgres = {{ url = {{ env = 'TEST_DATABASE_URL' }} }}\n\
         storages = ['local']\n[job.database]\n"
    );
    drilled.scratch.edit_config("[job.database]\n", &more);
    let handled = json!({ "handled": now - 72.hours() });
    let tasks: serde_json::Map<String, Value> =
        ROUNDS.iter().map(|(task, _)| ((*task).to_owned(), handled.clone())).collect();
    let _ = std::fs::create_dir(drilled.scratch.path("state"));
    let state = json!({ "format": 1, "tasks": tasks });
    drilled.scratch.write("state/schedule.json", &state.to_string());
    drilled
}

/// Changes a byte in the middle of the dump of a job's only backup.
fn damage(scratch: &Scratch, job: &str) -> PathBuf {
    let is_dump = |path: &&PathBuf| {
        path.components().any(|part| part.as_os_str() == job)
            && path.to_string_lossy().ends_with(".dump.zst.gpg")
    };
    let files = scratch.stored_files();
    let dump = files.iter().find(is_dump).expect("there is no dump").clone();
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    dump
}

/// What a job's only backup is proven to be.
async fn proven(scratch: &Scratch, job: &str) -> Value {
    let listed = scratch.run(&["list", "--job", job, "--json"]).await.expect(0).json();
    let backups = listed["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 1);
    backups[0]["proven"].clone()
}

#[tokio::test]
async fn a_verification_that_fails_is_told_and_the_rest_is_done() {
    let server = claims_server(15, 200).await;
    let drilled = missed(&server).await;
    let scratch = &drilled.scratch;
    for job in ["broken", "database"] {
        scratch.run(&["backup", job]).await.expect(0);
    }
    damage(scratch, "broken");

    let begun = Timestamp::now();
    let mut daemon = Running::start(scratch);
    for (task, exit) in ROUNDS {
        let started = daemon.event().await;
        assert_eq!((&started["event"], &started["task"]), (&"started".into(), &task.into()));
        let ended = daemon.event().await;
        assert_eq!((&ended["event"], &ended["task"]), (&"ended".into(), &task.into()));
        assert_eq!(ended["exit"], exit, "{task}");
    }
    // It waits for tomorrow, with what it just did behind it.
    let next = daemon.event().await;
    assert_eq!((&next["event"], &next["task"]), (&"next".into(), &ROUNDS[0].0.into()));
    let due: Timestamp = next["due"].as_str().unwrap().parse().unwrap();
    assert!(due > begun, "{due}");

    let noted = std::fs::read_to_string(scratch.path("state/schedule.json")).unwrap();
    let noted = &serde_json::from_str::<Value>(&noted).unwrap()["tasks"];
    for (task, exit) in ROUNDS {
        let run = &noted[task];
        assert_eq!(run["exit_code"].to_string(), exit, "{noted:#}");
        assert_eq!(run["succeeded"].is_null(), exit != "0", "{noted:#}");
        let handled: Timestamp = run["handled"].as_str().unwrap().parse().unwrap();
        assert!(handled >= begun, "{task} would be done again: {noted:#}");
    }

    let broken = proven(scratch, "broken").await;
    assert_eq!(
        (&broken["verified"]["passed"], &broken["drilled"]["passed"]),
        (&false.into(), &false.into())
    );
    let whole = proven(scratch, "database").await;
    assert_eq!(
        (&whole["verified"]["passed"], &whole["drilled"]["passed"]),
        (&true.into(), &true.into())
    );
    let [here, second] = drilled.proofs();
    assert_eq!(here.iter().filter(|name| name.ends_with("-drill.json")).count(), 1, "{here:?}");
    assert!(second.iter().any(|name| name.ends_with("-drill.json")), "{second:?}");

    // What was found is told by name, on the output of the daemon.
    let told = daemon.end(scratch).await;
    assert!(told.contains("DAMAGED") && told.contains(".dump.zst.gpg: "), "{told}");
    assert!(drilled.folders().is_empty(), "a server of a drill is left");
}

/// SIGTERM in the middle of a drill: its server is gone, and it is done after the next start.
#[tokio::test]
async fn a_drill_that_a_signal_broke_off_leaves_no_server_and_is_done_again() {
    let server = claims_server(15, 200).await;
    let drilled = missed(&server).await;
    let scratch = &drilled.scratch;
    for job in ["broken", "database"] {
        scratch.run(&["backup", job]).await.expect(0);
    }
    let mut daemon = Running::start(scratch);
    loop {
        let told = daemon.event().await;
        if (&told["event"], &told["task"]) == (&"started".into(), &"drill/broken".into()) {
            break;
        }
    }
    let begun = Instant::now();
    while drilled.folders().is_empty() {
        assert!(begun.elapsed() < SERVER_LIMIT, "no server is made");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    daemon.end(scratch).await;
    assert!(drilled.folders().is_empty(), "a server of a drill is left");
    assert_eq!(proven(scratch, "broken").await["drilled"], Value::Null);

    let mut daemon = Running::start(scratch);
    for task in ["drill/broken", "drill/database"] {
        assert_eq!(daemon.event().await["task"], task);
        assert_eq!(daemon.event().await["exit"], "0", "{task}");
    }
    daemon.end(scratch).await;
    assert_eq!(proven(scratch, "broken").await["drilled"]["passed"], true);
}
