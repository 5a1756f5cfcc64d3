//! No secret in a command line, a log, an error, or a file.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

const PASSPHRASE: &str = "a-passphrase-nobody-may-see";

/// Keeps everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every command line of this machine.
fn command_lines() -> String {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.map(|entry| fs::read(entry.path().join("cmdline")).unwrap_or_default());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
}

#[tokio::test]
async fn secrets_are_seen_by_ssh_alone() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);

    let options = SftpOptions { password: true, ..SftpOptions::default() };
    let server = SftpServer::start_with(&options).await.unwrap();
    let mut settings = settings(&server);
    settings.secrets.insert("password".into(), SftpServer::PASSWORD.to_owned().into());
    settings.secrets.insert("passphrase".into(), PASSPHRASE.to_owned().into());
    option(&mut settings, "identity_file", &server.stranger_key_file());
    let storage = Sftp::from_url("offsite", &url(&server), &settings).unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let watching = std::thread::spawn(move || {
        let mut seen = String::new();
        while !until.load(Ordering::SeqCst) {
            seen += &command_lines();
        }
        seen
    });
    write(&storage, "x", &random(1, 2_000_000)).await.unwrap();
    read(&storage, "x", ByteRange::ALL).await.unwrap();
    done.store(true, Ordering::SeqCst);
    let seen = watching.join().unwrap();
    assert!(seen.contains("StrictHostKeyChecking=yes"), "ssh was watched");

    settings.secrets.insert("password".into(), format!("{}x", SftpServer::PASSWORD).into());
    let error = Sftp::from_url("offsite", &url(&server), &settings).unwrap();
    let error = error.list("").await.unwrap_err();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("connected"), "something was logged: {logged}");
    let askpass: Vec<_> = fs::read_dir(std::env::temp_dir())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("marb-askpass-"))
        .flat_map(|entry| files(&entry.path()))
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .collect();
    assert!(!askpass.is_empty(), "the open connection has its askpass program");
    for (what, text) in [
        ("command lines", seen),
        ("log", logged),
        ("error", format!("{error:?} {error} {:?} {:?}", error.advice(), error.causes())),
        ("storage", format!("{storage:?} {settings:?}")),
        ("askpass", askpass.concat()),
    ] {
        for secret in [SftpServer::PASSWORD, PASSPHRASE] {
            assert!(!text.contains(secret), "a secret in the {what}");
        }
    }
}
