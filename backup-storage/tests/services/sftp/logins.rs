//! Ways in, and what is said of those that don't lead in.

use std::time::Instant;

use super::*;

fn secret(settings: &mut Settings, name: &str, value: &str) {
    settings.secrets.insert(name.into(), value.to_owned().into());
}

fn with(server: &SftpServer, settings: &Settings) -> Sftp {
    Sftp::from_url("offsite", &url(server), settings).unwrap()
}

async fn refusal(server: &SftpServer, settings: &Settings) -> Error {
    with(server, settings).list("").await.unwrap_err()
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_does_not() {
    let options = SftpOptions { password: true, ..SftpOptions::default() };
    let server = SftpServer::start_with(&options).await.unwrap();
    let mut settings = settings(&server);
    settings.options.remove("identity_file");
    secret(&mut settings, "password", SftpServer::PASSWORD);
    write(&with(&server, &settings), "x", b"x").await.unwrap();

    secret(&mut settings, "password", "wrong");
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses the login", "check user, key and password");
    settings.secrets.clear();
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses the login", "check user, key and password");
}

#[tokio::test]
async fn a_key_with_a_passphrase_opens_with_that() {
    let server = SftpServer::start().await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let key = scratch.path().join("my 'encrypted' key 100%");
    fs::copy(server.key_file(), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "", "-N", "open $esame", "-f"]).arg(&key);
    assert!(keygen.status().unwrap().success());

    let mut settings = settings(&server);
    option(&mut settings, "identity_file", &key);
    secret(&mut settings, "passphrase", "open $esame");
    write(&with(&server, &settings), "x", b"x").await.unwrap();
    secret(&mut settings, "passphrase", "wrong");
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses the login", "`passphrase` first");
    settings.secrets.clear();
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses the login", "`passphrase`");
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_refused() {
    let server = SftpServer::start().await.unwrap();
    let mut settings = settings(&server);
    option(&mut settings, "identity_file", &server.stranger_key_file());
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses the login", "authorized_keys");
    assert!(error.causes()[0].contains("Permission denied (publickey"), "{error:?}");

    option(&mut settings, "identity_file", &server.folder().join("no-such-key"));
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "no-such-key", "`identity_file`");
}

#[tokio::test]
async fn hosts_of_the_users_ssh_config_are_known_by_their_alias() {
    let server = SftpServer::start().await.unwrap();
    let mut settings = Settings::default();
    option(&mut settings, "ssh_config", &server.ssh_config_file());
    let url = format!("scp://{}{}/root", SftpServer::ALIAS, server.folder().display());
    let storage = Sftp::from_url("offsite", &url, &settings).unwrap();
    write(&storage, "x", b"x").await.unwrap();
    assert_eq!(fs::read(server.folder().join("root/x")).unwrap(), b"x");
}

#[tokio::test]
async fn an_unknown_and_a_changed_host_key_are_refused() {
    let server = SftpServer::start().await.unwrap();
    let other = SftpServer::start().await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let known_hosts = scratch.path().join("known hosts");
    let mut settings = settings(&server);
    option(&mut settings, "known_hosts", &known_hosts);
    for absent in [true, false] {
        if !absent {
            fs::write(&known_hosts, "").unwrap();
        }
        let error = refusal(&server, &settings).await;
        assert_says(&error, ErrorKind::Refused, "is not known", "ssh-keyscan -p");
    }
    let name = server.known_host().split_once(' ').unwrap().0.to_owned();
    fs::write(&known_hosts, format!("{name} {}\n", other.host_key())).unwrap();
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Refused, "HAS CHANGED", &format!("ssh-keygen -R '{name}'"));
    assert!(!server.log().contains("Accepted"), "nobody logged in");

    fs::write(&known_hosts, format!("{name} {}\n", server.host_key())).unwrap();
    write(&with(&server, &settings), "x", b"x").await.unwrap();
}

#[tokio::test]
async fn a_jump_host_leads_to_the_server() {
    let server = SftpServer::start().await.unwrap();
    let authorized = format!("AuthorizedKeysFile {}.pub", server.key_file().display());
    let mut settings = settings(&server);
    let scratch = tempfile::tempdir().unwrap();
    let known_hosts = scratch.path().join("known_hosts");
    option(&mut settings, "known_hosts", &known_hosts);
    for (forwarding, leads) in [("AllowTcpForwarding yes", true), ("AllowTcpForwarding no", false)]
    {
        let options = SftpOptions { config: &[&authorized, forwarding], ..SftpOptions::default() };
        let jump = SftpServer::start_with(&options).await.unwrap();
        settings.options.insert("jump".into(), format!("{}@{}", jump.user(), jump.address()));
        fs::write(&known_hosts, format!("{}\n", server.known_host())).unwrap();
        let error = refusal(&server, &settings).await;
        assert_says(&error, ErrorKind::Refused, "is not known", "known_hosts");

        let both = format!("{}\n{}\n", server.known_host(), jump.known_host());
        fs::write(&known_hosts, both).unwrap();
        let written = write(&with(&server, &settings), "x", b"x").await;
        assert!(jump.log().contains("Accepted publickey"), "it went through the jump host");
        match leads {
            true => written.unwrap(),
            false => {
                let error = written.unwrap_err();
                assert_says(&error, ErrorKind::Failed, "jump host does not lead", "AllowTcp");
            }
        }
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named_within_the_deadline() {
    let mut server = SftpServer::start().await.unwrap();
    let mut settings = settings(&server);
    settings.request_timeout = Duration::from_secs(2);
    settings.retry_deadline = Duration::from_secs(1);
    server.end().await.unwrap();
    let began = Instant::now();
    let error = refusal(&server, &settings).await;
    assert_says(&error, ErrorKind::Failed, "refuses connections", "SSH server runs");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("sftp://{}/backups", silent.local_addr().unwrap());
    let storage = Sftp::from_url("offsite", &silent_url, &settings).unwrap();
    let error = storage.begin("x").await.err().unwrap();
    assert_says(&error, ErrorKind::Failed, "does not answer", "firewalls");

    let storage = Sftp::from_url("offsite", "sftp://nowhere.invalid/backups", &settings).unwrap();
    let error = storage.stat("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("nowhere.invalid"), "{error:?}");
    assert!(error.advice().unwrap().contains("DNS"), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_comes_back_in_time_is_no_error() {
    let mut server = SftpServer::start().await.unwrap();
    let storage = storage(&server);
    write(&storage, "x", b"x").await.unwrap();
    server.end().await.unwrap();
    let listing = tokio::spawn(async move { storage.list("").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!listing.is_finished());
    server.start_again().await.unwrap();
    assert_eq!(listing.await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn what_answers_but_speaks_no_sftp_is_named() {
    let server = server_with("ForceCommand echo Welcome to this machine").await;
    let error = refusal(&server, &settings(&server)).await;
    assert_says(&error, ErrorKind::Failed, "does not speak SFTP", ".bashrc");
    let server = server_with("ForceCommand false").await;
    let mut settings = settings(&server);
    settings.retry_deadline = Duration::from_secs(1);
    let error = refusal(&server, &settings).await;
    assert!(error.to_string().contains("127.0.0.1"), "{error:?}");
}

#[tokio::test]
async fn settings_that_mean_nothing_here_are_refused() {
    let url = "sftp://me@host/backups";
    let bad = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        Sftp::from_url("offsite", url, &settings).unwrap_err()
    };
    for (error, about) in [
        (bad(|s| drop(s.options.insert("region".into(), "x".into()))), "\"region\""),
        (bad(|s| secret(s, "secret_key", "x")), "\"secret_key\""),
        (bad(|s| secret(s, "passphrase", "x")), "identity_file"),
        (bad(|s| drop(s.options.insert("jump".into(), "-oProxyCommand=x".into()))), "jump"),
        (bad(|s| drop(s.objects.tags.insert("a".into(), "b".into()))), "no tags"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(about), "{error:?}");
    }
    let error = Sftp::from_url("s", "sftp://me:hunter2@h/a", &Settings::default()).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

/// The cipher that the first connection of `settings` got.
async fn cipher(settings: impl FnOnce(&mut Settings, &SftpServer)) -> String {
    let server = server_with("LogLevel DEBUG1").await;
    let mut given = super::settings(&server);
    settings(&mut given, &server);
    write(&with(&server, &given), "x", b"x").await.unwrap();
    let log = server.log();
    let line = log.lines().find_map(|line| line.split_once("client->server cipher: "));
    line.unwrap().1.split(' ').next().unwrap().to_owned()
}

/// Which tests run on: without AES in the processor, ssh's own first choice is the faster one.
#[tokio::test]
async fn the_fast_cipher_is_asked_for_unless_somebody_chose() {
    let has_aes = fs::read_to_string("/proc/cpuinfo").unwrap().contains(" aes ");
    let ours = cipher(|_, _| {}).await;
    assert_eq!(ours.contains("-gcm@"), has_aes, "{ours}");
    let chosen = cipher(|settings, server| {
        let config = server.folder().join("config");
        fs::write(&config, "Ciphers aes256-ctr,aes128-gcm@openssh.com\n").unwrap();
        option(settings, "ssh_config", &config);
    });
    assert_eq!(chosen.await, "aes256-ctr");
}
