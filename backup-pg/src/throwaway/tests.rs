//! Against the newest server of this machine: PostgreSQL is a prerequisite of the tests.

use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::test_server::bin_dir;

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

fn is_up(pid: u32) -> bool {
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
    let mut server = ThrowawayServer::start(&bin_dir(), &folder, &options).unwrap();
    let url = server.connection_string("postgres");
    assert_eq!(ask(&url, "SHOW cluster_name").unwrap(), "it's \\ mine");
    assert_eq!(ask(&url, "SHOW listen_addresses").unwrap(), "");
    assert_eq!(fs::metadata(server.socket_folder()).unwrap().mode() & 0o777, 0o700);
    assert!(server.is_running());
    let pid = server.pid().unwrap();
    server.stop().unwrap();
    assert!(!is_up(pid) && !folder.exists());
}

#[test]
fn a_tcp_server_asks_for_the_password_everywhere() {
    let options = ThrowawayOptions {
        tcp: true,
        password: Some("s3cret: /@%ä".to_owned().into()),
        ..Default::default()
    };
    let server = ThrowawayServer::start(&bin_dir(), &fresh_folder(), &options).unwrap();
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
    let error = ThrowawayServer::start(&bin_dir(), &folder, &options).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Usage);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("precious"), "data").unwrap();
    let error = ThrowawayServer::start(&bin_dir(), &folder, &Default::default()).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Refused);
    assert_eq!(fs::read(folder.join("precious")).unwrap(), b"data");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn it_comes_back_after_a_crash_with_its_data() {
    let mut server =
        ThrowawayServer::start(&bin_dir(), &fresh_folder(), &Default::default()).unwrap();
    let url = server.connection_string("postgres");
    ask(&url, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
    ask(&url, "CHECKPOINT").unwrap();
    for how in [Shutdown::Kill, Shutdown::Immediate, Shutdown::Fast] {
        let pid = server.pid().unwrap();
        server.shut_down(how).unwrap();
        assert!(!is_up(pid) && server.pid().is_none());
        assert!(ask(&url, "SELECT 1").is_err());
        server.start_up().unwrap();
        assert_eq!(ask(&url, "SELECT answer FROM kept").unwrap(), "42", "{how:?}");
    }
}

#[test]
fn a_dropped_server_is_gone_and_a_failed_start_leaves_nothing_and_says_why() {
    let folder = fresh_folder();
    let server = ThrowawayServer::start(&bin_dir(), &folder, &Default::default()).unwrap();
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!is_up(pid) && !folder.exists());

    let options = ThrowawayOptions {
        settings: vec![("max_connections".into(), "many".into())],
        ..Default::default()
    };
    let error = ThrowawayServer::start(&bin_dir(), &folder, &options).unwrap_err();
    assert!(error.causes().concat().contains("max_connections"), "{error:?}");
    assert!(!folder.exists());
}

#[test]
fn the_watcher_ends_a_server_whose_owner_died() {
    let mut server =
        ThrowawayServer::start(&bin_dir(), &fresh_folder(), &Default::default()).unwrap();
    // Closing our end of the pipe is what our death does.
    drop(server.running.as_mut().unwrap().watcher.as_mut().unwrap().stdin.take());
    let ended = wait_for(&mut server.running.as_mut().unwrap().server, STOP_TIMEOUT);
    assert!(ended.is_some());
}

#[test]
fn what_dead_owners_left_is_swept_and_nothing_else() {
    let parent = fresh_folder();
    fs::create_dir(&parent).unwrap();
    fs::set_permissions(&parent, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let options = ThrowawayOptions::default();
    let start = |folder: &Path| ThrowawayServer::start(&bin_dir(), folder, &options).unwrap();

    let alive = ScratchFolder::make(&parent, "mine_").unwrap();
    let running = start(alive.path());
    // A server whose owner forgot it: nobody holds a lock on its folder.
    let left = parent.join("mine_left");
    let forgotten = start(&left);
    let pid = forgotten.pid().unwrap();
    std::mem::forget(forgotten);
    let empty = parent.join("mine_empty");
    fs::create_dir(&empty).unwrap();
    let others = [parent.join("other"), parent.join("mine_target")];
    fs::create_dir(&others[0]).unwrap();
    fs::write(&others[1], "a file").unwrap();
    std::os::unix::fs::symlink(&others[0], parent.join("mine_link")).unwrap();
    let foreign = parent.join("mine_of_somebody");
    if getuid().is_root() {
        fs::create_dir(&foreign).unwrap();
        std::os::unix::fs::chown(&foreign, Some(12_345), None).unwrap();
    }

    let (mut removed, failed) = sweep(&parent, "mine_");
    removed.sort();
    assert_eq!(removed, [empty.clone(), left.clone()]);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!left.exists() && !empty.exists());
    // It is our child and was not waited for: a zombie at most.
    assert!(!is_up(pid));
    assert!(is_up(running.pid().unwrap()) && others.iter().all(|path| path.exists()));
    assert!(parent.join("mine_link").is_symlink());
    assert_eq!(foreign.exists(), getuid().is_root());

    let path = alive.path().to_owned();
    drop(running);
    drop(alive);
    assert!(!path.exists());
    fs::remove_dir_all(parent).unwrap();
}
