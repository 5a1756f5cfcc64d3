//! `prune`, `pin`, `unpin` as a user runs them.

use backup_testkit::postgres::PostgresServer;
use serde_json::Value;

use super::history::{local, plant};
use crate::support::{CLAIMS, Finished, Scratch, claims_server, finish, while_locked};

const KEEP_TWO: &str = "[job.database.retention]\nkeep_daily = 0\nkeep_weekly = 0\nkeep_monthly = 0\nkeep_yearly = 0\nkeep_last = 2\n";

/// A scratch with one real backup and four planted ones of the days before.
async fn with_history(job: &str) -> (PostgresServer, Scratch, Vec<String>) {
    let server = claims_server(15, 50).await;
    let scratch = Scratch::with_job(&server.url(CLAIMS), job);
    scratch.run(&["backup"]).await.expect(0);
    plant(&local(&scratch), (1..5).map(|day| day * 24), |_| ()).await;
    let ids = scratch.listed().await;
    assert_eq!(ids.len(), 5);
    (server, scratch, ids)
}

/// The verdict on each backup in a storage.
fn verdicts(run: &Finished, storage: &str) -> Vec<String> {
    let document = run.json();
    let storages = document["jobs"][0]["storages"].as_array().unwrap().clone();
    let found = storages.into_iter().find(|one| one["storage"] == storage).unwrap();
    let backups = found["backups"].as_array().unwrap();
    backups.iter().map(|one| one["verdict"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn prune_tells_first_and_removes_when_told_to() {
    let (_server, scratch, ids) = with_history(KEEP_TWO).await;
    let before = scratch.holdings().await;
    // Without the database, without the key: it may run on another host.
    let mut elsewhere = scratch.command(&["prune"]);
    elsewhere.env_remove("TEST_DATABASE_URL");
    std::fs::remove_file(scratch.path("key")).unwrap();
    let told = finish(elsewhere).await.expect(0).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[1].starts_with("ID ") && lines[1].contains("VERDICT"), "{told}");
    for (line, id) in lines[2..].iter().zip(&ids) {
        assert!(line.starts_with(id.as_str()), "{told}");
    }
    assert_eq!(told.matches(" REMOVE ").count(), 3, "{told}");
    assert!(told.contains("local: 3 backups would go, "), "{told}");
    assert!(told.ends_with("Nothing was changed; --apply removes them.\n"), "{told}");
    let json = scratch.run(&["prune", "--json"]).await.expect(0);
    assert_eq!(verdicts(&json, "local"), ["remove", "remove", "remove", "keep", "keep"]);
    assert_eq!(scratch.holdings().await, before, "a dry run changed something");

    let told = scratch.run(&["prune", "database", "--apply"]).await.expect(0).stdout;
    assert!(told.contains("local: 3 backups removed, "), "{told}");
    assert_eq!(scratch.listed().await, ids[3..]);
    let told = scratch.run(&["prune", "--apply"]).await.expect(0).stdout;
    assert_eq!(told.matches(" keep ").count(), 2, "{told}");
    let files = scratch.stored_files();
    assert!(files.iter().all(|file| ids[3..].iter().any(|id| file.to_string_lossy().contains(id))));
    scratch.run(&["prune", "nosuch"]).await.expect(2);
}

#[tokio::test]
async fn a_backup_prunes_where_the_config_says_so_and_only_there() {
    let (_server, scratch, ids) = with_history("").await;
    scratch.run(&["backup"]).await.expect(0);
    assert_eq!(scratch.listed().await.len(), 6, "without a retention nothing goes by itself");

    scratch.edit_config("[job.database]", &format!("{KEEP_TWO}[job.database]"));
    let run = scratch.run(&["backup"]).await.expect(0);
    assert!(run.stdout.contains("local: 5 backups removed, "), "{run:#?}");
    let left = scratch.listed().await;
    assert_eq!((left.len(), left.iter().any(|id| *id == ids[4])), (2, false), "{left:?}");
    let json = scratch.run(&["backup", "--json"]).await.expect(0).json();
    let done = &json["backups"][0]["prune"]["storages"][0]["done"];
    assert_eq!(done["removed"].as_array().unwrap().len(), 1, "{json}");

    // One that can't prune is stored all the same, and somebody is told.
    plant(&local(&scratch), (1..5).map(|day| day * 24), |_| ()).await;
    scratch.edit_config("keep_last = 2", "keep_last = 2\nmax_delete = 1");
    let run = scratch.run(&["backup"]).await.expect(3);
    assert!(run.stderr.contains("nothing was removed: safety check: 5 backups"), "{run:#?}");
    assert_eq!(scratch.listed().await.len(), 7);
}

#[tokio::test]
async fn the_cap_holds_unless_somebody_lifts_it() {
    let (_server, scratch, ids) = with_history(&format!("{KEEP_TWO}max_delete = 2\n")).await;
    let before = scratch.holdings().await;
    for flags in [&["prune", "--apply"][..], &["prune"]] {
        let run = scratch.run(flags).await.expect(6);
        assert!(run.stderr.contains("at most 2 may in one run"), "{run:#?}");
        assert!(run.stderr.contains("--max-delete"), "{run:#?}");
    }
    assert_eq!(scratch.holdings().await, before);
    scratch.run(&["prune", "--apply", "--max-delete", "3"]).await.expect(0);
    assert_eq!(scratch.listed().await, ids[3..]);
}

#[tokio::test]
async fn staging_with_productions_config_prunes_nothing_of_production() {
    let (_server, scratch, ids) = with_history(KEEP_TWO).await;
    let before = scratch.holdings().await;
    // Older ones of another cluster, as after `backup --adopt` on the wrong host.
    let storage = local(&scratch);
    let foreign = plant(&storage, [200, 300], |manifest| {
        manifest.source.system_identifier = Some("7000000000000000000".to_owned());
    });
    let foreign = foreign.await;
    let run = scratch.run(&["prune", "--apply"]).await.expect(6);
    assert!(run.stderr.contains("2 of the backups of job \"database\" that would go"), "{run:#?}");
    assert_eq!(scratch.listed().await, [&foreign[..], &before.listed].concat());
    // What a backup prunes by itself are its own.
    scratch.run(&["backup"]).await.expect(0);
    let left = scratch.listed().await;
    assert_eq!(left[..3], [&foreign[..], &ids[4..]].concat());
    scratch.run(&["prune", "--apply", "--adopt"]).await.expect(0);
    assert_eq!(scratch.listed().await, left[2..]);
}

#[tokio::test]
async fn a_pinned_backup_stays_and_everybody_sees_why() {
    let (_server, scratch, ids) = with_history(KEEP_TWO).await;
    scratch.run(&["pin", &ids[0], "--reason", " "]).await.expect(2);
    let run = scratch.run(&["pin", &ids[0], "--reason", "audit \u{1b}[2J2026"]).await.expect(0);
    assert_eq!(run.stdout, format!("{} in local: pinned\n", ids[0]));
    let run = scratch.run(&["pin", &ids[0], "--reason", "another"]).await.expect(0);
    assert!(run.stdout.contains("was pinned, with the reason of then"), "{run:#?}");
    let list = scratch.run(&["list"]).await.expect(0).stdout;
    assert_eq!(list.lines().filter(|line| line.contains(", pinned")).count(), 1, "{list}");
    let show = scratch.run(&["show", &ids[0]]).await.expect(0).stdout;
    let line = show.lines().find(|line| line.starts_with("Pinned")).unwrap();
    assert!(line.contains("audit ") && line.contains("2026, by "), "{show}");
    assert!(!show.contains('\u{1b}'), "a terminal would obey it: {show:?}");
    let json = scratch.run(&["show", &ids[0], "--json"]).await.expect(0).json();
    assert_eq!(
        (&json["pinned"], &json["pin"]["backup"]),
        (&Value::Bool(true), &Value::from(&*ids[0]))
    );

    scratch.run(&["prune", "--apply"]).await.expect(0);
    assert_eq!(scratch.listed().await, [&ids[..1], &ids[3..]].concat());
    scratch.run(&["unpin", &ids[0]]).await.expect(0);
    scratch.run(&["prune", "--apply"]).await.expect(0);
    assert_eq!(scratch.listed().await, ids[3..]);
    scratch.run(&["unpin", &ids[0]]).await.expect(5);
}

#[tokio::test]
async fn storages_are_pruned_each_on_its_own() {
    let (_server, scratch, ids) = with_history(KEEP_TWO).await;
    let second = "[storage.disk]\nurl = 's3://nowhere'\nambient_credentials = false\n\
        options = { endpoint = 'http://127.0.0.1:1', region = 'none' }\n\
        secrets = { access_key_id = 'x', secret_access_key = 'x' }\n\
        request_timeout = '1s'\nretry_deadline = '1s'\n[encryption]";
    scratch.edit_config("[encryption]", second);
    scratch.edit_config("storages = ['local']", "storages = ['local', 'disk']");
    let run = scratch.run(&["prune", "--apply"]).await;
    let run = run.expect(3);
    assert!(run.stderr.contains("warning: storage disk: "), "{run:#?}");
    assert_eq!(scratch.run(&["list"]).await.code, 8);
    let left: Vec<_> = std::fs::read_dir(scratch.backup_month(&ids[4])).unwrap().collect();
    assert!(left.len() <= 2, "{left:?}");

    // A manifest that can't be read: somebody should look before anything goes.
    scratch.edit_config("storages = ['local', 'disk']", "storages = ['local']");
    scratch.edit_config(second, "[encryption]");
    plant(&local(&scratch), [72, 96], |_| ()).await;
    let damaged = scratch.backup_month(&ids[0]).join(&ids[0]).join("manifest.json");
    let whole = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, b"{}").unwrap();
    let before = scratch.stored_files();
    let run = scratch.run(&["prune", "--apply"]).await.expect(8);
    assert!(run.stderr.contains("nothing is removed here"), "{run:#?}");
    assert_eq!(scratch.stored_files(), before);
    std::fs::write(&damaged, whole).unwrap();
    scratch.run(&["prune", "--apply"]).await.expect(0);
    assert_eq!(scratch.listed().await.len(), 2);
}

impl Scratch {
    fn backup_month(&self, id: &str) -> std::path::PathBuf {
        self.path("backups").join("database").join(&id[..4]).join(&id[4..6])
    }
}

#[tokio::test]
async fn a_clock_that_stands_before_the_newest_backup_removes_nothing() {
    let (_server, scratch, _) = with_history(KEEP_TWO).await;
    // As if the newest one had been made two days from now.
    plant(&local(&scratch), [-48], |_| ()).await;
    let before = scratch.stored_files();
    let run = scratch.run(&["prune", "--apply"]).await.expect(0);
    assert!(run.stdout.contains("the clock stands before the newest backup"), "{run:#?}");
    assert_eq!(scratch.stored_files(), before);
}

#[tokio::test]
async fn a_prune_waits_for_no_running_backup() {
    let (server, scratch, _) = with_history(KEEP_TWO).await;
    while_locked(&server, async {
        let waiting = scratch.start(&["backup"]);
        scratch.wait_for_process("pg_dump").await;
        let run = scratch.run(&["prune", "--apply"]).await.expect(7);
        run.explains("lock", "another run of job \"database\" is going on");
        scratch.run(&["prune"]).await.expect(0);
        drop(waiting);
    })
    .await;
}

#[tokio::test]
async fn a_backup_that_a_cat_reads_stays_until_the_cat_has_ended() {
    let server = claims_server(15, 20_000).await;
    let scratch = Scratch::with_job(&server.url(CLAIMS), KEEP_TWO);
    scratch.run(&["backup"]).await.expect(0);
    let old = plant(&local(&scratch), [24, 48], |_| ()).await;
    let mark = scratch.backup_month(&old[0]).join(&old[0]).join("readers");
    for end in ["to its end", "interrupted"] {
        // Its output is a pipe that nobody reads yet.
        let mut cat = scratch.command(&["cat", &old[0]]);
        let mut child = cat
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
        // Its folder is there before it is.
        let is_mark = |path: &std::path::PathBuf| {
            path.starts_with(&mark) && path.extension().is_some_and(|e| e == "json")
        };
        while !scratch.stored_files().iter().any(is_mark) {
            assert!(std::time::Instant::now() < limit, "no mark");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let run = scratch.run(&["prune", "--json", "--apply"]).await.expect(0);
        assert_eq!(verdicts(&run, "local"), ["skip", "keep", "keep"]);
        if end == "interrupted" {
            let id = nix::unistd::Pid::from_raw(child.id().unwrap().try_into().unwrap());
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
            let code = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait());
            assert_eq!(code.await.unwrap().unwrap().code(), Some(143));
        } else {
            let read = crate::support::finish_started(child).await.expect(0);
            assert!(read.stdout.len() > 100_000);
        }
        assert!(!mark.exists(), "{end}: its mark is left");
    }
    scratch.run(&["prune", "--apply"]).await.expect(0);
    assert_eq!(scratch.listed().await.len(), 2);
}

#[tokio::test]
async fn a_sync_brings_nothing_that_retention_would_remove() {
    let (_server, scratch, ids) = with_history(KEEP_TWO).await;
    let disk = scratch.path("disk").display().to_string();
    let section = format!("[storage.disk]\nurl = 'file://{disk}'\n[encryption]");
    scratch.edit_config("[encryption]", &section);
    scratch.edit_config("storages = ['local']", "storages = ['local', 'disk']");
    let run = scratch.run(&["sync", "--from", "local", "--to", "disk", "--json"]).await;
    let document = run.json();
    assert_eq!(document["unwanted"], serde_json::json!(ids[..3]), "{document}");
    assert_eq!(document["copied"].as_array().unwrap().len(), 2, "{document}");
    // What is pinned in a third storage is wanted everywhere.
    let third = scratch.path("third").display().to_string();
    let section = format!("[storage.third]\nurl = 'file://{third}'\n[encryption]");
    scratch.edit_config("[encryption]", &section);
    scratch.edit_config("'disk']", "'disk', 'third']");
    let below = format!("database/{}/{}/{}", &ids[0][..4], &ids[0][4..6], ids[0]);
    let (here, there) = (scratch.path("backups").join(&below), scratch.path("third").join(&below));
    std::fs::create_dir_all(&there).unwrap();
    for file in std::fs::read_dir(here).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), there.join(file.file_name())).unwrap();
        }
    }
    std::fs::write(there.join("pin.json"), "{}").unwrap();
    let run = scratch.run(&["sync", "--from", "local", "--to", "disk", "--json"]).await;
    let document = run.json();
    assert_eq!(document["unwanted"], serde_json::json!(ids[1..3]), "{document}");
    // One that can't be asked is named.
    std::fs::remove_dir_all(scratch.path("third")).unwrap();
    std::fs::write(scratch.path("third"), "no folder").unwrap();
    let run = scratch.run(&["sync", "--from", "local", "--to", "disk", "--json"]).await;
    assert!(run.stderr.contains("pins and drills in third"), "{run:#?}");
    assert_eq!(run.json()["unwanted"], serde_json::json!(ids[1..3]));

    // A storage that the job does not name is nobody's to prune: it gets all that it can.
    let elsewhere = format!("file://{}", scratch.path("elsewhere").display());
    let run = scratch.run(&["sync", "--from", "local", "--to", &elsewhere, "--json"]).await;
    assert_eq!(run.json()["unwanted"], serde_json::json!([]));
}
