//! The harness itself, against the real programs: they start, answer, obey and are gone.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Says what a start cost, for the table in the module's documentation.
fn report(name: &str, start: Instant, pid: Option<u32>) -> u32 {
    let pid = pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!("{name}: {:.1} s, {memory}", start.elapsed().as_secs_f32());
    pid
}

/// curl signs for S3; the answer's body and then its status.
fn s3(server: &S3Server, access: S3Access, args: &[&str]) -> String {
    let S3Keys { access_key, secret_key } = server.keys(access);
    s3_as(access_key, secret_key, args)
}

fn s3_as(access_key: &str, secret_key: &str, args: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "20", "-w", " %{http_code}", "--aws-sigv4"]);
    curl.args(["aws:amz:us-east-1:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
    let output = curl.args(["--user", &format!("{access_key}:{secret_key}")]).args(args).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

#[tokio::test]
async fn s3_knows_who_may_what_and_keeps_its_data() {
    let start = Instant::now();
    let mut server = S3Server::start().await.unwrap();
    let pid = report("SeaweedFS", start, server.pid());
    let object = format!("{}/{BUCKET}/object", server.endpoint());
    let put = ["-X", "PUT", "--data-binary", "hello", object.as_str()];
    assert!(s3(&server, S3Access::ReadOnly, &put).ends_with(" 403"));
    assert_eq!(s3(&server, S3Access::WriteOnly, &put), " 200");
    for refused in [vec![object.as_str()], vec!["-X", "DELETE", &object], vec!["-I", &object]] {
        let said = s3(&server, S3Access::WriteOnly, &refused);
        assert!(said.ends_with(" 403"), "{refused:?}: {said}");
    }
    let list = format!("{}/{BUCKET}?list-type=2", server.endpoint());
    assert!(s3(&server, S3Access::WriteOnly, &[&list]).ends_with(" 403"));
    assert!(s3(&server, S3Access::ReadOnly, &[&list]).contains("<Key>object</Key>"));
    assert_eq!(s3(&server, S3Access::ReadOnly, &[&object]), "hello 200");
    assert!(s3_as("TESTADMIN", "guess", &[&object]).contains("SignatureDoesNotMatch"));

    server.end().await.unwrap();
    assert!(!alive(pid) && TcpStream::connect(server.address()).is_err());
    server.start_again().await.unwrap();
    assert_eq!(s3(&server, S3Access::Admin, &[&object]), "hello 200");
}

#[tokio::test]
async fn s3_write_only_may_upload_in_parts_and_abort() {
    let server = S3Server::start().await.unwrap();
    let object = format!("{}/{BUCKET}/parts", server.endpoint());
    let writer = |args: &[&str]| s3(&server, S3Access::WriteOnly, args);
    let begun = writer(&["-X", "POST", &format!("{object}?uploads=")]);
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
    let part = format!("{object}?partNumber=1&uploadId={id}");
    assert_eq!(writer(&["-X", "PUT", "--data-binary", "abc", &part]), " 200");
    assert_eq!(writer(&["-X", "DELETE", &format!("{object}?uploadId={id}")]), " 204");
    let pending = format!("{}/{BUCKET}?uploads=", server.endpoint());
    let pending = s3(&server, S3Access::Admin, &[&pending]);
    assert!(pending.ends_with(" 200") && !pending.contains("<UploadId>"), "{pending}");
}

#[tokio::test]
async fn a_locked_bucket_has_versions_and_object_lock() {
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    let ask = |what: &str| {
        s3(&server, S3Access::Admin, &[&format!("{}/locked?{what}=", server.endpoint())])
    };
    assert!(ask("versioning").contains("<Status>Enabled</Status>"));
    assert!(ask("object-lock").contains("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"));
    let refused = server.make_bucket("x").await.unwrap_err();
    assert!(refused.to_string().contains("s3.bucket.create -name x"), "{refused}");
}

#[tokio::test]
async fn azure_checks_signatures_and_keeps_its_data() {
    let start = Instant::now();
    let mut server = AzureServer::start().await.unwrap();
    let pid = report("Azurite", start, server.pid());
    let blob = format!("/{}/{BUCKET}/blob", AzureServer::ACCOUNT);
    let ask = async |server: &AzureServer, method: &str, sas: &str, body: &str| {
        let head = "x-ms-version: 2021-12-02\r\nx-ms-blob-type: BlockBlob\r\n";
        let target = format!("{method} {blob}?{sas}");
        http::request(server.address(), &target, head, body).await.unwrap()
    };
    let (all, write_only) = (server.sas("rwdl").unwrap(), server.sas("cw").unwrap());
    let wrong = all.replace("sig=", "sig=AAAA");
    assert_eq!(ask(&server, "PUT", &wrong, "hello").await.status, 403);
    assert_eq!(ask(&server, "PUT", &write_only, "hello").await.status, 201);
    assert_eq!(ask(&server, "GET", &write_only, "").await.status, 403);
    assert!(ask(&server, "GET", &all, "").await.text.ends_with("hello"));

    server.end().await.unwrap();
    assert!(!alive(pid) && TcpStream::connect(server.address()).is_err());
    server.start_again().await.unwrap();
    assert!(ask(&server, "GET", &all, "").await.text.ends_with("hello"));
}

#[tokio::test]
async fn gcs_keeps_its_data() {
    let start = Instant::now();
    let mut server = GcsServer::start().await.unwrap();
    let pid = report("fake-gcs-server", start, server.pid());
    let upload = format!("POST /upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=a%2Fb");
    let sent = http::request(server.address(), &upload, "", "hello").await.unwrap();
    assert_eq!(sent.status, 200, "{sent:?}");
    server.end().await.unwrap();
    assert!(!alive(pid) && TcpStream::connect(server.address()).is_err());
    server.start_again().await.unwrap();
    let object = format!("GET /storage/v1/b/{BUCKET}/o/a%2Fb?alt=media");
    let object = http::request(server.address(), &object, "", "").await.unwrap();
    assert!(object.text.ends_with("hello"), "{object:?}");
}

/// Runs commands of sftp's; `options` come before the server's name.
fn sftp(server: &SftpServer, options: &[&str], commands: &str) -> Output {
    let batch = server.folder().with_file_name("batch");
    std::fs::write(&batch, commands).unwrap();
    let mut sftp = Command::new("sftp");
    sftp.arg("-F").arg(server.ssh_config_file()).args(options).arg("-b").arg(batch);
    sftp.arg(SftpServer::ALIAS).output().unwrap()
}

#[tokio::test]
async fn sftp_opens_to_its_key_and_only_that() {
    let start = Instant::now();
    let mut server = SftpServer::start().await.unwrap();
    let pid = report("sshd", start, server.pid());
    let done = sftp(&server, &[], "mkdir made\nput /etc/hostname made/name\n");
    assert!(done.status.success(), "{done:?}");
    assert!(server.folder().join("made/name").exists(), "sessions start in the folder");

    let stranger = format!("IdentityFile={}", server.stranger_key_file().display());
    let config = std::fs::read_to_string(server.ssh_config_file()).unwrap();
    let stranger_config = server.folder().with_file_name("stranger_config");
    let key = format!("IdentityFile \"{}\"", server.key_file().display());
    assert!(config.contains(&key));
    std::fs::write(&stranger_config, config.replace(&key, &stranger)).unwrap();
    let mut ssh = Command::new("sftp");
    let refused = ssh.arg("-F").arg(&stranger_config).args(["-b", "/dev/null", SftpServer::ALIAS]);
    let refused = String::from_utf8_lossy(&refused.output().unwrap().stderr).into_owned();
    assert!(refused.contains("Permission denied"), "{refused}");

    server.end().await.unwrap();
    assert!(!alive(pid) && !sftp(&server, &[], "pwd\n").status.success());
    server.start_again().await.unwrap();
    assert!(sftp(&server, &[], "ls made/name\n").status.success());
}

#[tokio::test]
async fn sftp_obeys_further_configuration() {
    let config = &["ForceCommand internal-sftp -P remove"];
    let server = SftpServer::start_with(&SftpOptions { config, password: false }).await.unwrap();
    let target = server.folder().join("name");
    let put = format!("put /etc/hostname {}\n", target.display());
    assert!(sftp(&server, &[], &put).status.success());
    let removed = sftp(&server, &[], &format!("rm {}\n", target.display()));
    assert!(!removed.status.success() && target.exists(), "{removed:?}");
}

#[tokio::test]
async fn sftp_asks_for_its_password() {
    let options = SftpOptions { config: &[], password: true };
    let server = SftpServer::start_with(&options).await.unwrap();
    let log_in = |password: &str| {
        let answer = server.folder().with_file_name("answer");
        let quoted = password.replace('\'', "'\\''");
        std::fs::write(&answer, format!("#!/bin/sh\nprintf '%s\\n' '{quoted}'\n")).unwrap();
        std::fs::set_permissions(&answer, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(server.ssh_config_file()).args(["-o", "PubkeyAuthentication=no"]);
        ssh.args(["-o", "NumberOfPasswordPrompts=1", SftpServer::ALIAS, "true"]);
        ssh.env("SSH_ASKPASS", answer).env("SSH_ASKPASS_REQUIRE", "force");
        ssh.output().unwrap().status.success()
    };
    assert!(log_in(SftpServer::PASSWORD), "{}", server.log());
    assert!(!log_in("guess"), "{}", server.log());
    let folder = server.folder().parent().unwrap().to_string_lossy().into_owned();
    let copies = || {
        let entries = std::fs::read_dir("/tmp").unwrap().flatten();
        let texts = entries.filter_map(|e| std::fs::read_to_string(e.path().join("sshd")).ok());
        texts.filter(|text| text.contains(&folder)).count()
    };
    assert!(copies() > 0);
    drop(server);
    assert_eq!(copies(), 0);
}

#[tokio::test]
async fn an_sshd_serves_as_a_jump_host() {
    let (jump, target) = (SftpServer::start().await.unwrap(), SftpServer::start().await.unwrap());
    let proxy = format!(
        "ProxyCommand=ssh -F {} -W %h:%p {}",
        jump.ssh_config_file().display(),
        SftpServer::ALIAS
    );
    let done = sftp(&target, &["-o", &proxy], "put /etc/hostname name\n");
    assert!(done.status.success() && target.folder().join("name").exists(), "{done:?}");
    assert!(jump.log().contains("Accepted publickey"), "{}", jump.log());
}

#[tokio::test]
async fn the_end_of_sshd_ends_its_sessions() {
    let mut server = SftpServer::start().await.unwrap();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(server.ssh_config_file()).args([SftpServer::ALIAS, "sleep", "600"]);
    let mut session = ssh.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.log().contains("Accepted publickey") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.end().await.unwrap();
    while session.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the session outlived its server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_shared_server_is_one_until_nobody_holds_it() {
    // On other threads too: a test may spawn its steps.
    let other = tokio::spawn(GcsServer::shared());
    let one = GcsServer::shared().await.unwrap();
    let other = other.await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&one, &other));
    let pid = one.pid().unwrap();
    drop(one);
    assert!(alive(pid));
    drop(other);
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let folder = process::new_folder().unwrap();
    let path = folder.path().to_path_buf();
    let mut process = process::Process::new("a shell", Path::new("/bin/sh"), folder).unwrap();
    process.command().args(["-c", "echo the disk is full >&2; exit 3"]);
    let error = process.start(|| std::future::ready(false)).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    drop(process);
    assert!(!path.exists());
}

/// Runs as a child of the next test, which kills it.
#[tokio::test]
async fn child_that_dies_with_a_server() {
    let Some(report) = std::env::var_os("MARB_TEST_DIES_WITH_A_SERVER") else { return };
    let server = GcsServer::start().await.unwrap();
    let folder = std::fs::read_link(format!("/proc/{}/cwd", server.pid().unwrap())).unwrap();
    std::fs::write(report, format!("{} {}", server.pid().unwrap(), folder.display())).unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn a_killed_test_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "servers::tests::child_that_dies_with_a_server"]);
    test.env("MARB_TEST_DIES_WITH_A_SERVER", &report);
    let mut test = test.stdout(std::process::Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let wait = Duration::from_millis(20);
    let said = loop {
        match std::fs::read_to_string(&report) {
            Ok(said) if said.contains(' ') => break said,
            _ => assert!(Instant::now() < deadline, "the server did not start"),
        }
        tokio::time::sleep(wait).await;
    };
    let (pid, files) = said.split_once(' ').unwrap();
    test.kill().unwrap();
    test.wait().unwrap();
    while alive(pid.parse().unwrap()) || Path::new(files).exists() {
        assert!(Instant::now() < deadline, "{said} is still there");
        tokio::time::sleep(wait).await;
    }
}
