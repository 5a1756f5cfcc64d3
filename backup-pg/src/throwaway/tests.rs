//! Against the newest server of this machine: PostgreSQL is a prerequisite of the tests.

use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn newest_local() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let major = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb").exists().then(|| (major, path.join("bin")))
        })
        .collect();
    found.sort();
    found.pop().unwrap().1
}

fn fresh_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("marb-throwaway-{}-{count}", std::process::id()))
}

/// What psql says to `sql`, run as root or whoever we are.
fn ask(url: &str, sql: &str) -> std::result::Result<String, String> {
    let output = Command::new("psql").args(["-XAtc", sql, url]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.split(' ').nth(2) != Some("Z"))
}

#[test]
fn a_socket_server_starts_answers_and_leaves_nothing() {
    let folder = fresh_folder();
    let options = ThrowawayOptions {
        settings: vec![("cluster_name".into(), "it's \\ mine".into())],
        ..Default::default()
    };
    let mut server = ThrowawayServer::start(&newest_local(), &folder, &options).unwrap();
    let url = server.connection_string("postgres");
    assert_eq!(ask(&url, "SHOW cluster_name").unwrap(), "it's \\ mine");
    assert_eq!(ask(&url, "SHOW listen_addresses").unwrap(), "");
    assert_eq!(fs::metadata(server.socket_folder()).unwrap().mode() & 0o777, 0o700);
    assert!(server.is_running());
    let pid = server.pid().unwrap();
    server.stop().unwrap();
    assert!(!alive(pid) && !folder.exists());
}

#[test]
fn a_tcp_server_asks_for_the_password_everywhere() {
    let options = ThrowawayOptions {
        tcp: true,
        password: Some("s3cret: /@%ä".to_owned().into()),
        ..Default::default()
    };
    let server = ThrowawayServer::start(&newest_local(), &fresh_folder(), &options).unwrap();
    let url = server.connection_string("postgres");
    assert_eq!(ask(&url, "SELECT 1").unwrap(), "1");
    assert!(ask(&url.replace("s3cret", "guess"), "SELECT 1").unwrap_err().contains("password"));
    let socket = format!(
        "host={} port={} user=postgres password=guess",
        server.socket_folder().display(),
        server.port()
    );
    assert!(ask(&socket, "SELECT 1").unwrap_err().contains("password"));
    assert!(!format!("{server:?}").contains("s3cret"));
}

#[test]
fn tcp_without_a_password_and_a_folder_in_use_are_refused() {
    let options = ThrowawayOptions { tcp: true, ..Default::default() };
    let folder = fresh_folder();
    let error = ThrowawayServer::start(&newest_local(), &folder, &options).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Usage);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("precious"), "data").unwrap();
    let error = ThrowawayServer::start(&newest_local(), &folder, &Default::default()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Refused);
    assert_eq!(fs::read(folder.join("precious")).unwrap(), b"data");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn it_comes_back_after_a_crash_with_its_data() {
    let mut server =
        ThrowawayServer::start(&newest_local(), &fresh_folder(), &Default::default()).unwrap();
    let url = server.connection_string("postgres");
    ask(&url, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
    ask(&url, "CHECKPOINT").unwrap();
    for how in [Shutdown::Kill, Shutdown::Immediate, Shutdown::Fast] {
        let pid = server.pid().unwrap();
        server.shut_down(how).unwrap();
        assert!(!alive(pid) && server.pid().is_none());
        assert!(ask(&url, "SELECT 1").is_err());
        server.start_up().unwrap();
        assert_eq!(ask(&url, "SELECT answer FROM kept").unwrap(), "42", "{how:?}");
    }
}

#[test]
fn a_dropped_server_is_gone_and_a_failed_start_leaves_nothing_and_says_why() {
    let folder = fresh_folder();
    let server = ThrowawayServer::start(&newest_local(), &folder, &Default::default()).unwrap();
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!alive(pid) && !folder.exists());

    let options = ThrowawayOptions {
        settings: vec![("max_connections".into(), "many".into())],
        ..Default::default()
    };
    let error = ThrowawayServer::start(&newest_local(), &folder, &options).unwrap_err();
    assert!(error.causes().concat().contains("max_connections"), "{error:?}");
    assert!(!folder.exists());
}

#[test]
fn the_watcher_ends_a_server_whose_owner_died() {
    let mut server =
        ThrowawayServer::start(&newest_local(), &fresh_folder(), &Default::default()).unwrap();
    // Closing our end of the pipe is what our death does.
    drop(server.running.as_mut().unwrap().watcher.as_mut().unwrap().stdin.take());
    let ended = wait_for(&mut server.running.as_mut().unwrap().server, STOP_TIMEOUT);
    assert!(ended.is_some());
}
