//! Connections that break or stall, and servers that refuse.

use std::process::Command;
use std::time::Instant;

use backup_core::Creation;

use super::*;

/// The processes below `parent`, each before its own children.
fn below(parent: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            all.push(pid);
            all.extend(below(pid));
        }
    }
    all
}

/// Sends a signal to every session of a server.
fn signal_sessions(server: &SftpServer, signal: &str) {
    let sessions = below(server.pid().unwrap());
    assert!(!sessions.is_empty(), "there is a session");
    for pid in sessions {
        Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    }
}

/// The ssh processes that were started for `server`.
fn children_for(server: &SftpServer) -> usize {
    let known_hosts = server.known_hosts_file();
    let mine = below(std::process::id());
    let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let about = |line: &[u8]| String::from_utf8_lossy(line).contains(known_hosts.to_str().unwrap());
    mine.iter().filter(|pid| about(&line(pid))).count()
}

#[tokio::test]
async fn a_connection_lost_while_writing_is_an_error_and_leaves_nothing() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let piece = random(1, 1_000_000);
    for commits in [false, true] {
        let mut writer = storage.begin("db/x").await.unwrap();
        writer.write(piece.clone().into()).await.unwrap();
        signal_sessions(&server, "-KILL");
        let mut failed = None;
        for _ in 0..20 {
            if let Err(error) = writer.write(piece.clone().into()).await {
                failed = Some(error);
                break;
            }
        }
        let error = failed.expect("a write fails");
        assert_says(&error, ErrorKind::Failed, "connection to 127.0.0.1 was lost", "run again");
        match commits {
            false => writer.abort().await.unwrap(),
            true => assert!(writer.commit().await.is_err(), "half an object is not published"),
        }
        assert_eq!(files(&server.folder()), [] as [PathBuf; 0], "commits: {commits}");
        assert!(storage.list("").await.unwrap().is_empty());
    }
    write(&storage, "db/x", &piece).await.unwrap();
    assert_eq!(children_for(&server), 1, "one connection at a time");
}

/// Everything was written: what is left to do may be done over another connection.
#[tokio::test]
async fn a_commit_survives_a_lost_connection() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let old = random(2, 100_000);
    write(&storage, "db/x", &old).await.unwrap();
    let mut writer = storage.begin("db/x").await.unwrap();
    // A whole request: what is not collected any more.
    let data = random(1, 255 * 1024);
    writer.write(data.clone().into()).await.unwrap();
    let partial = || {
        let found = files(&server.folder());
        found.into_iter().find(|path| path.to_str().unwrap().ends_with(".partial"))
    };
    while fs::metadata(partial().unwrap()).unwrap().len() < data.len() as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The answer to the write has arrived, too.
    storage.stat("db/x").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal_sessions(&server, "-KILL");
    let outcome = writer.commit().await;
    let there = fs::read(server.folder().join("root/db/x")).unwrap();
    match outcome {
        Ok(committed) => {
            assert_eq!(committed.bytes, data.len() as u64);
            assert!(there == data);
        }
        // The loss was noticed before everything had been answered.
        Err(_) => assert!(there == old),
    }
    assert_eq!(partial(), None);
}

#[tokio::test]
async fn a_reading_goes_on_over_a_new_connection() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let data = random(1, 30_000_000);
    write(&storage, "db/x", &data).await.unwrap();
    let mut stream = storage.open("db/x", ByteRange { offset: 5, length: None }).await.unwrap();
    let mut all = Vec::new();
    let mut kills = 0;
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
        if all.len() > (kills + 1) * 9_000_000 {
            signal_sessions(&server, "-KILL");
            kills += 1;
        }
    }
    assert!(all == data[5..] && kills == 3, "{} bytes, {kills} kills", all.len());

    let mut stream = storage.open("db/x", ByteRange::ALL).await.unwrap();
    stream.next_chunk().await.unwrap();
    // Not shorter: that would be noticed anyway.
    fs::write(server.folder().join("root/db/x"), random(2, data.len() + 1)).unwrap();
    signal_sessions(&server, "-KILL");
    let error = loop {
        match stream.next_chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "a mixture of two objects"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_within_the_deadline() {
    let server = SftpServer::start().await.unwrap();
    let mut settings = settings(&server);
    settings.request_timeout = Duration::from_secs(2);
    settings.retry_deadline = Duration::from_secs(1);
    let storage = Sftp::from_url("offsite", &url(&server), &settings).unwrap();
    write(&storage, "x", b"x").await.unwrap();
    let mut writer = storage.begin("y").await.unwrap();
    signal_sessions(&server, "-STOP");
    let began = Instant::now();
    let error = loop {
        if let Err(error) = writer.write(random(1, 1_000_000).into()).await {
            break error;
        }
    };
    assert_says(&error, ErrorKind::Failed, "no answer within 2 s", "run again");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    signal_sessions(&server, "-CONT");
    writer.abort().await.unwrap();
    assert_eq!(storage.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_ssh_is_left_behind() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    let writer = storage.begin("x").await.unwrap();
    assert_eq!(children_for(&server), 1);
    drop(storage);
    assert_eq!(children_for(&server), 1, "the writer still needs it");
    drop(writer);
    let began = Instant::now();
    while children_for(&server) > 0 || !below(server.pid().unwrap()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "an ssh is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_the_right_to_remove_backups_are_written_all_the_same() {
    let server = server_with("ForceCommand internal-sftp -P remove,rmdir").await;
    let storage = storage(&server);
    let data = random(1, 5_000_000);
    assert_eq!(storage.create_new("db/claim", "c".into()).await.unwrap(), Creation::Created);
    assert_eq!(storage.create_new("db/claim", "d".into()).await.unwrap(), Creation::Taken);
    write(&storage, "db/dump", &data).await.unwrap();
    write(&storage, "db/dump", &data[1..]).await.unwrap();
    let there = |name: &str| fs::read(server.folder().join("root/db").join(name)).unwrap();
    assert!(there("dump") == data[1..] && there("claim") == b"c");
    assert_eq!(
        files(&server.folder()).len(),
        2,
        "and nothing is left: {:?}",
        files(&server.folder())
    );

    let mut writer = storage.begin("db/aborted").await.unwrap();
    writer.write("x".into()).await.unwrap();
    let error = writer.abort().await.unwrap_err();
    assert_says(&error, ErrorKind::Failed, "can't remove", "allowed this by the server");
    assert!(error.to_string().contains("/db/aborted."), "what stays is named: {error}");
    let error = storage.delete("db/dump").await.unwrap_err();
    assert_says(&error, ErrorKind::Failed, "can't delete", "allowed this by the server");
    assert_eq!(storage.list("").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_to_read_from_refuses_writers_and_serves_readers() {
    let server = server_with("ForceCommand internal-sftp -R").await;
    let storage = storage(&server);
    fs::create_dir_all(server.folder().join("root/a")).unwrap();
    fs::write(server.folder().join("root/a/x"), "x").unwrap();
    assert_eq!(read(&storage, "a/x", ByteRange::ALL).await.unwrap(), b"x");
    for error in [
        storage.begin("a/y").await.err().unwrap(),
        storage.begin("new/y").await.err().unwrap(),
        storage.create_new("a/z", "z".into()).await.unwrap_err(),
        storage.delete("a/x").await.unwrap_err(),
    ] {
        assert_says(&error, ErrorKind::Failed, "permission denied", "own the folder");
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    let server = SftpServer::start().await.unwrap();
    let disk = server.folder().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this test may not mount");
        return;
    }
    let url = format!("{}/disk/root", server.url());
    let storage = Sftp::from_url("offsite", &url, &settings(&server)).unwrap();
    let outcome = async {
        write(&storage, "db/old", b"an older backup").await?;
        let error = write(&storage, "db/new", &random(1, 20_000_000)).await.unwrap_err();
        let claim = storage.create_new("db/c", random(1, 9_000_000).into()).await.unwrap_err();
        Ok::<_, Error>((error, claim, files(&disk)))
    };
    let outcome = outcome.await;
    Command::new("umount").arg("--lazy").arg(&disk).status().unwrap();
    let (error, claim, left) = outcome.unwrap();
    assert_says(&error, ErrorKind::Failed, "the disk is full", "prune");
    assert_says(&claim, ErrorKind::Failed, "the disk is full", "prune");
    assert_eq!(left, [disk.join("root/db/old")]);
}

/// Whoever stops waiting for `begin` never hears of the file: it is removed on the side.
#[tokio::test]
async fn a_begin_that_is_given_up_leaves_nothing() {
    let server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    storage.stat("x").await.unwrap();
    let mut given_up = 0;
    for micros in 0..60 {
        let patience = std::time::Duration::from_micros(micros * 50);
        match tokio::time::timeout(patience, storage.begin("db/2026/dump")).await {
            Ok(writer) => writer.unwrap().abort().await.unwrap(),
            Err(_) => given_up += 1,
        }
    }
    assert!(given_up > 10, "only {given_up}");
    // What goes on on the side ends soon.
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let root = server.folder().join("root");
    loop {
        let left = fs::read_dir(&root).map(|all| all.count()).unwrap_or_default();
        if left == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{left} files or folders stay");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
