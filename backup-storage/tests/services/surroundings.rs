//! What the surroundings hold: variables, files of the account, roles of a machine, an agent.
//!
//! A process's environment is its own, so each case opens a storage in a process made for it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::Storage;
use backup_storage::{Azure, Gcs, S3, Settings, Sftp};
use backup_testkit::servers::{
    AzureServer, BUCKET, GcsServer, Recorder, S3Access, S3Server, SftpServer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::objects::write;

/// The variables that tell the process what to open: a URL, and options as `name=value` lines.
const URL: &str = "MARB_TEST_URL";
const OPTIONS: &str = "MARB_TEST_OPTIONS";

/// Longest request to the service of a machine, in bytes.
const REQUEST_BYTES: usize = 16 * 1024;

/// Where nothing is, nothing opens. In a process that is told what to open this does that.
#[tokio::test]
async fn nothing_opens_without_surroundings() {
    if let Ok(url) = std::env::var(URL) {
        return open_as_told(&url).await;
    }
    let server = S3Server::start().await.unwrap();
    assert!(!Surroundings::of_s3(&server, &[]).open("nothing", &[]).await);
}

async fn open_as_told(url: &str) {
    let options = std::env::var(OPTIONS).unwrap_or_default();
    let options = options.lines().filter_map(|line| line.split_once('='));
    let mut settings = Settings {
        retry_deadline: std::time::Duration::from_secs(3),
        request_timeout: std::time::Duration::from_secs(5),
        ..Settings::default()
    };
    settings.options.extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let storage: Box<dyn Storage> = match url.split_once(':').unwrap().0 {
        "s3" => Box::new(S3::from_url("offsite", url, &settings).unwrap()),
        "gs" => Box::new(Gcs::from_url("offsite", url, &settings).unwrap()),
        "az" => Box::new(Azure::from_url("offsite", url, &settings).unwrap()),
        _ => Box::new(Sftp::from_url("offsite", url, &settings).unwrap()),
    };
    write(&*storage, "opened", b"x").await.unwrap();
    storage.delete("opened").await.unwrap();
}

/// A process of one's own: its home, its variables, and what it opens.
struct Surroundings {
    home: tempfile::TempDir,
    command: tokio::process::Command,
}

impl Surroundings {
    fn opening(url: &str, options: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "surroundings::nothing_opens_without_surroundings"])
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", home.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(URL, url)
            .env(OPTIONS, options.join("\n"));
        Self { home, command }
    }

    fn of_s3(server: &S3Server, options: &[(&str, &str)]) -> Self {
        let endpoint = server.endpoint();
        let usual = [("endpoint", endpoint.as_str()), ("region", S3Server::REGION)];
        Self::opening(&format!("s3://{BUCKET}/p"), &[&usual, options].concat())
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn set(mut self, variables: &[(&str, &str)]) -> Self {
        self.command.envs(variables.iter().copied());
        self
    }

    /// Whether the storage opened; none of `secrets` may be told.
    async fn open(mut self, what: &str, secrets: &[&str]) -> bool {
        let output = self.command.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = told + &String::from_utf8_lossy(&output.stderr);
        for secret in secrets {
            assert!(!told.contains(secret), "{what} tells a secret: {told}");
        }
        let opened = output.status.success();
        assert_eq!(told.contains("1 passed"), opened, "{what}: {told}");
        opened
    }
}

#[tokio::test]
async fn profiles_and_variables_of_aws_open() {
    let server = S3Server::start().await.unwrap();
    let good = server.keys(S3Access::Admin);
    let profile = |name: &str, id: &str, secret: &str| {
        format!("[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    };
    let wrong = profile("default", "NOBODY", "planted-wrong-secret");
    let both = wrong.clone() + &profile("vault", good.access_key, good.secret_key);
    let right = profile("default", good.access_key, good.secret_key);
    let keys = [("AWS_ACCESS_KEY_ID", good.access_key), ("AWS_SECRET_ACCESS_KEY", good.secret_key)];
    let opening =
        |options, file: &str| Surroundings::of_s3(&server, options).file(".aws/credentials", file);
    for (what, surroundings, opens) in [
        ("the default profile", opening(&[], &right), true),
        ("AWS_PROFILE", opening(&[], &both).set(&[("AWS_PROFILE", "vault")]), true),
        ("the option", opening(&[("profile", "vault")], &both), true),
        ("variables", opening(&[], &both).set(&keys), true),
        ("a wrong profile", opening(&[], &both), false),
    ] {
        let secrets = [good.secret_key, "planted-wrong-secret"];
        assert_eq!(surroundings.open(what, &secrets).await, opens, "{what}");
    }
}

/// The service by which a cloud tells a machine its role: it answers what is asked for by
/// `METHOD /path` with a body, as long as the request has the line that goes with it.
struct RoleService {
    endpoint: String,
    task: tokio::task::JoinHandle<()>,
    asked: Arc<Mutex<Vec<String>>>,
}

type Answers = Vec<(&'static str, &'static str, String)>;

impl RoleService {
    async fn start(answers: Answers) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = vec![0; REQUEST_BYTES];
                let read = client.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
                let found = answers.iter().find(|(asks, needs, _)| {
                    request.starts_with(&asks.to_lowercase()) && request.contains(needs)
                });
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let (status, body) = match found {
                    Some((_, _, body)) => ("200 OK", body.as_str()),
                    None => ("403 Forbidden", "planted-answer"),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        Self { endpoint, task, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for RoleService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a role's keys come as.
fn role_keys() -> String {
    serde_json::json!({
        "Code": "Success",
        "AccessKeyId": "THEROLESKEY",
        "SecretAccessKey": "planted-role-secret",
        "Token": "planted-session-token",
        "Expiration": "2999-01-01T00:00:00Z",
    })
    .to_string()
}

/// How many requests a storage sends that are signed with the keys of a role. Only AWS itself
/// would take them, so what counts is that they come, and that no other does.
async fn signed_by_role(server: &S3Server, what: &str, variables: &[(&str, &str)]) -> usize {
    let relay = Recorder::before(server.address()).await.unwrap();
    let endpoint = relay.endpoint();
    let options = [("endpoint", endpoint.as_str()), ("region", S3Server::REGION)];
    let surroundings = Surroundings::opening(&format!("s3://{BUCKET}/p"), &options).set(variables);
    assert!(!surroundings.open(what, &["planted-"]).await, "{what}");
    let heads = relay.heads();
    for head in &heads {
        assert!(head.contains("Credential=THEROLESKEY/"), "{what}: {head}");
        assert!(head.contains("x-amz-security-token: planted-session-token"), "{what}: {head}");
    }
    heads.len()
}

#[tokio::test]
async fn the_role_of_a_container_signs() {
    let server = S3Server::start().await.unwrap();
    let needs = "authorization: planted-container-token";
    let service = RoleService::start(vec![("GET /role ", needs, role_keys())]).await;
    let at = format!("{}/role", service.endpoint);
    let variables = |token| {
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", at.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token),
        ]
    };
    assert!(signed_by_role(&server, "role", &variables("planted-container-token")).await > 0);
    let asked = service.asked().len();
    assert_eq!(signed_by_role(&server, "wrong token", &variables("planted-wrong")).await, 0);
    assert!(service.asked().len() > asked, "it was asked, and refused");
}

#[tokio::test]
async fn the_role_of_an_instance_signs() {
    let server = S3Server::start().await.unwrap();
    let with_token = "x-aws-ec2-metadata-token: planted-instance-token";
    let service = RoleService::start(vec![
        ("PUT /latest/api/token ", "token-ttl-seconds", "planted-instance-token".into()),
        ("GET /latest/meta-data/iam/security-credentials/backups ", with_token, role_keys()),
        ("GET /latest/meta-data/iam/security-credentials/ ", with_token, "backups".into()),
    ])
    .await;
    let closed = RoleService::start(Vec::new()).await;
    for (what, service, signs) in [("open", &service, true), ("closed", &closed, false)] {
        let variables = [
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint.as_str()),
        ];
        assert_eq!(signed_by_role(&server, what, &variables).await > 0, signs, "{what}");
        assert!(!service.asked().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn variables_of_azure_open() {
    let server = AzureServer::start().await.unwrap();
    let endpoint = server.endpoint();
    let opening =
        || Surroundings::opening(&format!("az://{BUCKET}/p"), &[("endpoint", endpoint.as_str())]);
    let account = AzureServer::ACCOUNT;
    let wrong = "cGxhbnRlZC13cm9uZy1zZWNyZXQ=";
    for (name, key_name, key, opens) in [
        ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", AzureServer::KEY, true),
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", AzureServer::KEY, true),
        ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", wrong, false),
    ] {
        let surroundings = opening().set(&[(name, account), (key_name, key)]);
        let opened = surroundings.open(key_name, &[AzureServer::KEY, wrong]).await;
        assert_eq!(opened, opens, "{name}, {key_name}");
    }
}

/// The emulator takes every token, so what counts is that ours came with the requests.
#[tokio::test]
async fn the_account_of_a_machine_at_google_opens() {
    let server = GcsServer::start().await.unwrap();
    let relay = Recorder::before(server.address()).await.unwrap();
    let token =
        r#"{"access_token":"planted-machine-token","expires_in":3599,"token_type":"Bearer"}"#;
    let asks = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    let service = RoleService::start(vec![(asks, "metadata-flavor: google", token.into())]).await;
    let host = service.endpoint.trim_start_matches("http://");
    let endpoint = relay.endpoint();
    let surroundings =
        Surroundings::opening(&format!("gs://{BUCKET}/p"), &[("endpoint", endpoint.as_str())])
            .set(&[("GCE_METADATA_HOST", host)]);
    assert!(surroundings.open("machine", &["planted-"]).await, "{:?}", service.asked());
    let (heads, ours) = (relay.heads(), "authorization: Bearer planted-machine-token");
    assert!(!heads.is_empty() && heads.iter().all(|head| head.contains(ours)), "{heads:?}");
}

/// An agent of ssh that holds the server's key; ended when dropped.
struct Agent {
    child: tokio::process::Child,
    socket: std::path::PathBuf,
}

impl Agent {
    async fn holding(key: &Path, folder: &Path) -> Self {
        let socket = folder.join("agent");
        let child = tokio::process::Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        while !socket.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let mut add = tokio::process::Command::new("ssh-add");
        let added = add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status().await.unwrap();
        assert!(added.success());
        Self { child, socket }
    }
}

#[tokio::test]
async fn a_key_that_an_agent_holds_opens() {
    let server = SftpServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::holding(&server.key_file(), folder.path()).await;
    let hosts = server.known_hosts_file();
    let options = [("known_hosts", hosts.to_str().unwrap())];
    let opening = || Surroundings::opening(&format!("{}/root", server.url()), &options);
    let with_agent = [("SSH_AUTH_SOCK", agent.socket.to_str().unwrap())];
    assert!(opening().set(&with_agent).open("agent", &[]).await);
    assert!(!opening().open("no agent", &[]).await);
    agent.child.kill().await.unwrap();
    assert!(!opening().set(&with_agent).open("an agent that is gone", &[]).await);
}
