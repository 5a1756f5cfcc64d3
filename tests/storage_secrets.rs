//! Secrets of storages, right ones and wrong ones: nowhere in what the program prints, logs,
//! stores or starts, whether it works or fails.

use std::net::SocketAddr;
use std::process::Command;

use backup_testkit::postgres::PostgresServer;
use backup_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use backup_testkit::servers::{
    AzureServer, BUCKET, GcsServer, S3Access, S3Server, SftpOptions, SftpServer,
};

use crate::support::{
    CLAIMS, Finished, Scratch, Watch, assert_absent_below, claims_server, finish,
};

/// What all secrets of this file's own have in common. Other tests watch for other words.
const BURIED: &str = "buried-";
const KEY_PASSPHRASE: &str = "buried-key-passphrase-4801";
/// Programs that tests of these services themselves give secrets on a command line.
const OF_TESTS: [&str; 2] = ["curl", "ssh-keygen"];
/// The storages beside `local`: two ways into Azure and into SFTP.
const STORES: [&str; 6] = ["s3", "azure", "token", "gcs", "password", "key"];

/// What opens a storage; or, wrong, does not.
struct Secrets {
    s3: [String; 2],
    azure_key: String,
    azure_token: String,
    /// None opens an emulator.
    gcs: Option<String>,
    sftp_password: String,
    key_passphrase: String,
}

impl Secrets {
    fn right(stores: &Stores) -> Self {
        let s3 = stores.s3.keys(S3Access::Admin);
        Self {
            s3: [s3.access_key.to_owned(), s3.secret_key.to_owned()],
            azure_key: AzureServer::KEY.to_owned(),
            azure_token: stores.azure.sas("rwdlac").unwrap(),
            gcs: None,
            sftp_password: SftpServer::PASSWORD.to_owned(),
            key_passphrase: KEY_PASSPHRASE.to_owned(),
        }
    }

    fn wrong(stores: &Stores, private_key: &str) -> Self {
        let right = Self::right(stores);
        let (token, _) = right.azure_token.split_once("&sig=").unwrap();
        let service_account = serde_json::json!({
            "type": "service_account", "project_id": "p", "private_key_id": "buried-key-id-4802",
            "private_key": private_key, "client_email": "me@p.iam.gserviceaccount.com",
            "token_uri": format!("{}/token", stores.gcs.endpoint()),
        });
        Self {
            s3: ["buried-access-key-4803".to_owned(), "buried-secret-key-4804".to_owned()],
            // "buried-..." in base64, as a key has to be.
            azure_key: "YnVyaWVkLWF6dXJlLWtleS00ODA1YnVyaWVkLWF6dXJl".to_owned(),
            azure_token: format!("{token}&sig=buried-token-4806%3D"),
            gcs: Some(service_account.to_string()),
            sftp_password: "buried-password-4807 'x' %40".to_owned(),
            key_passphrase: "buried-other-passphrase-4808".to_owned(),
        }
    }

    /// What must be seen nowhere. The name of an account, or an access key that is no secret by
    /// itself, counts only where it is planted.
    fn hidden(&self) -> Vec<String> {
        let signature = self.azure_token.split_once("sig=").unwrap().1.to_owned();
        let decoded = signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
        let mut hidden = vec![
            BURIED.to_owned(),
            self.s3[1].clone(),
            self.azure_key.clone(),
            signature,
            decoded,
            self.sftp_password.clone(),
            self.key_passphrase.clone(),
        ];
        // Lines of a private key.
        let json = self.gcs.iter().flat_map(|json| json.split("\\n"));
        hidden.extend(json.filter(|line| line.len() == 64).map(str::to_owned));
        hidden
    }
}

/// A server of each kind, each behind a proxy.
struct Stores {
    s3: S3Server,
    azure: AzureServer,
    gcs: GcsServer,
    sftp: SftpServer,
    proxies: [FaultProxy; 4],
}

impl Stores {
    async fn start() -> Self {
        let password = SftpOptions { password: true, ..SftpOptions::default() };
        let (s3, azure, gcs, sftp) = tokio::join!(
            S3Server::start(),
            AzureServer::start(),
            GcsServer::start(),
            SftpServer::start_with(&password)
        );
        let (s3, azure, gcs, sftp) = (s3.unwrap(), azure.unwrap(), gcs.unwrap(), sftp.unwrap());
        let proxies = [s3.address(), azure.address(), gcs.address(), sftp.address()]
            .map(|address| FaultProxy::start(address, Plan::pass()).unwrap());
        Self { s3, azure, gcs, sftp, proxies }
    }

    fn set_plan(&self, plan: Plan) {
        self.proxies.iter().for_each(|proxy| proxy.set_plan(plan).unwrap());
    }

    /// The sections of all storages, through the proxies and impatient.
    fn sections(&self, scratch: &Scratch, secrets: &Secrets) -> String {
        let [s3, azure, gcs, sftp] = [0, 1, 2, 3].map(|index| self.proxies[index].address());
        let section = |name: &str, url: String, options: String, secrets: String| {
            format!(
                "[storage.{name}]\nurl = '{url}/{name}'\noptions = {{ {options} }}\nsecrets = {{ {secrets} }}\n\
                 ambient_credentials = false\nrequest_timeout = '1s'\nretry_deadline = '1s'\n"
            )
        };
        let account = AzureServer::ACCOUNT;
        let azure = format!("endpoint = 'http://{azure}/{account}', account_name = '{account}'");
        let ssh = self.ssh_options(scratch, sftp);
        let key = scratch.path("ssh-key");
        let folder = format!("sftp://{}@{sftp}{}", self.sftp.user(), self.sftp.folder().display());
        let gcs_secret = secrets.gcs.as_ref().map(|json| format!("credential_json = '''{json}'''"));
        let anonymous = if secrets.gcs.is_none() { ", anonymous = 'yes'" } else { "" };
        [
            section(
                "s3",
                format!("s3://{BUCKET}"),
                format!("endpoint = 'http://{s3}', region = '{}'", S3Server::REGION),
                format!(
                    "access_key_id = '{}', secret_access_key = '{}'",
                    secrets.s3[0], secrets.s3[1]
                ),
            ),
            section(
                "azure",
                format!("az://{BUCKET}"),
                azure.clone(),
                format!("account_key = '{}'", secrets.azure_key),
            ),
            section(
                "token",
                format!("az://{BUCKET}"),
                azure,
                format!("sas_token = '{}'", secrets.azure_token),
            ),
            section(
                "gcs",
                format!("gs://{BUCKET}"),
                format!("endpoint = 'http://{gcs}'{anonymous}"),
                gcs_secret.unwrap_or_default(),
            ),
            section(
                "password",
                folder.clone(),
                ssh.clone(),
                format!("password = '''{}'''", secrets.sftp_password),
            ),
            section(
                "key",
                folder,
                format!("{ssh}, identity_file = '{}'", key.display()),
                format!("passphrase = '{}'", secrets.key_passphrase),
            ),
        ]
        .concat()
    }

    fn ssh_options(&self, scratch: &Scratch, via: SocketAddr) -> String {
        let line = format!("[{}]:{} {}\n", via.ip(), via.port(), self.sftp.host_key());
        scratch.write("known_hosts", &line);
        format!("known_hosts = '{}'", scratch.path("known_hosts").display())
    }
}

/// A database, and a scratch whose job goes to `local`, and once configured to all storages.
struct Buried {
    _database: PostgresServer,
    stores: Stores,
    scratch: Scratch,
    config: String,
    private_key: String,
}

impl Buried {
    async fn new() -> Self {
        let (database, stores) = tokio::join!(claims_server(15, 5_000), Stores::start());
        let scratch = Scratch::of(&database, CLAIMS);
        std::fs::copy(stores.sftp.key_file(), scratch.path("ssh-key")).unwrap();
        let key = scratch.path("ssh-key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-p", "-P", "", "-N", KEY_PASSPHRASE, "-f"]).arg(&key);
        assert!(keygen.status().unwrap().success());
        let made = Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
        let private_key = String::from_utf8(made.stdout).unwrap();
        assert!(private_key.contains("PRIVATE KEY"), "{private_key}");
        let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
        Self { _database: database, stores, scratch, config, private_key }
    }

    fn configure(&self, secrets: &Secrets) {
        let sections = self.stores.sections(&self.scratch, secrets);
        let config = self.config.replace("[encryption]", &format!("{sections}[encryption]"));
        let names = STORES.map(|name| format!("'{name}'")).join(", ");
        let config = config.replace("['local']", &format!("['local', {names}]"));
        self.scratch.write("marb-backup.toml", &config);
    }

    /// Runs the program at its loudest and asserts that it said no secret.
    async fn run(&self, arguments: &[&str], hidden: &[String]) -> Finished {
        let mut command = self.scratch.command(arguments);
        command.arg("-vv");
        let run = finish(command).await;
        let loud = run.stderr.contains("TRACE") || arguments[0] != "backup";
        assert!(loud, "it was not loud: {run:#?}");
        for line in run.stdout.lines().chain(run.stderr.lines()) {
            let told = hidden.iter().find(|secret| line.contains(secret.as_str()));
            assert_eq!(told, None, "{arguments:?} told it: {line}");
        }
        run
    }
}

/// Asserts that no process had a secret in its arguments, and that ssh was seen.
fn assert_silent(watch: Watch, hidden: &[String]) {
    let seen = watch.finish();
    let program = |line: &[String]| {
        let path = line.first().cloned().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    };
    for wanted in ["marb-backup", "ssh"] {
        assert!(seen.iter().any(|line| program(line) == wanted), "did not see {wanted}");
    }
    let ours = seen.iter().filter(|line| !OF_TESTS.contains(&program(line).as_str()));
    let lines: Vec<String> = ours.map(|line| line.join(" ")).collect();
    let told = |line: &&String| hidden.iter().any(|secret| line.contains(secret.as_str()));
    assert_eq!(lines.iter().filter(told).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn what_works_tells_no_secret() {
    let buried = Buried::new().await;
    let secrets = Secrets::right(&buried.stores);
    let hidden = secrets.hidden();
    buried.configure(&secrets);
    let watch = Watch::start();
    for arguments in [
        &["backup"][..],
        &["backup", "--json"],
        &["list"],
        &["list", "--json"],
        &["show", "latest", "--json"],
        &["cat", "latest", "globals.sql"],
        &["verify", "--all"],
        &["doctor"],
        &["config", "check", "--json"],
    ] {
        buried.run(arguments, &hidden).await.expect(0);
    }
    for name in STORES {
        buried.run(&["sync", "--from", name, "--to", "local"], &hidden).await.expect(0);
        buried.run(&["copy", "latest", "--from", "local", "--to", name], &hidden).await.expect(0);
    }
    assert_silent(watch, &hidden);
    // Every storage has the same files.
    assert!(assert_absent_below(&buried.scratch.path("backups"), &hidden) > 10);
    assert_absent_below(&buried.scratch.path("state"), &hidden);
    for name in ["password", "key"] {
        let folder = buried.stores.sftp.folder().join(name);
        assert!(assert_absent_below(&folder, &hidden) > 10);
    }
}

/// Each verb, with storages that all fail.
async fn all_fail(buried: &Buried, hidden: &[String]) {
    for arguments in [
        &["backup"][..],
        &["list", "--json"],
        &["verify", "--all", "--json"],
        &["doctor", "--json"],
        &["sync", "--from", "local", "--to", "token"],
        &["copy", "latest", "--from", "gcs", "--to", "local"],
    ] {
        let run = buried.run(arguments, hidden).await;
        assert_ne!(run.code, 0, "{arguments:?}: {run:#?}");
    }
}

/// A copy into each storage, all of which fail.
async fn copies_fail(buried: &Buried, hidden: &[String]) {
    for name in STORES {
        let copy = ["copy", "latest", "--from", "local", "--to", name];
        let run = buried.run(&copy, hidden).await;
        assert_ne!(run.code, 0, "{copy:?}: {run:#?}");
        assert!(run.stderr.contains(&format!("storage {name}")), "{copy:?}: {run:#?}");
    }
}

#[tokio::test]
async fn what_is_refused_tells_no_secret() {
    let buried = Buried::new().await;
    // Into `local` alone, so that there is something to copy.
    buried.scratch.run(&["backup"]).await.expect(0);
    let secrets = Secrets::wrong(&buried.stores, &buried.private_key);
    let mut hidden = secrets.hidden();
    hidden.extend(secrets.s3.clone());
    buried.configure(&secrets);
    let watch = Watch::start();
    all_fail(&buried, &hidden).await;
    copies_fail(&buried, &hidden).await;
    assert_silent(watch, &hidden);
    assert_absent_below(&buried.scratch.path("backups"), &hidden);
    assert_absent_below(&buried.scratch.path("state"), &hidden);
}

#[tokio::test]
async fn what_breaks_tells_no_secret() {
    let buried = Buried::new().await;
    let secrets = Secrets::right(&buried.stores);
    let hidden = secrets.hidden();
    buried.configure(&secrets);
    buried.run(&["backup"], &hidden).await.expect(0);
    let watch = Watch::start();
    for plan in [
        Plan::after_bytes(300, Direction::Down, Fault::Truncate).for_ever(),
        Plan::after_bytes(3_000, Direction::Up, Fault::Reset).for_ever(),
        Plan::refuse(),
    ] {
        buried.stores.set_plan(plan);
        all_fail(&buried, &hidden).await;
    }
    copies_fail(&buried, &hidden).await;
    assert_silent(watch, &hidden);
    assert_absent_below(&buried.scratch.path("state"), &hidden);
}

/// Where people put secrets that belong elsewhere.
#[tokio::test]
async fn what_is_misplaced_is_not_repeated() {
    let scratch = Scratch::new("postgresql:///claims");
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let mut repeated = Vec::new();
    for section in [
        "url = 's3://AKIA:buried-1@bucket/x'",
        "url = 's3://bucket/x?secret_access_key=buried-2'",
        "url = 'az://container/x?sv=1&sig=buried-3'",
        "url = 'sftp://me:buried-4@host/x'",
        "url = 'sftp://me@host/x?password=buried-5'",
        "url = 'gs://token:buried-6@bucket/x'",
        "url = 'ftp://me:buried-7@host/x'",
        "url = 's3:/me:buried-16@bucket/x'",
        "url = 's3://bucket/x'\noptions = { endpoint = 'https://me:buried-8@host', region = 'x' }",
        "url = 's3://bucket/x'\noptions = { region = 'x' }\nsecrets = { secret_access_key = ['buried-9'] }",
        "url = 's3://bucket/x'\noptions = { region = 'x' }\nsecrets = { password = 'buried-10' }",
        "url = 'az://container/x'\noptions = { account_name = 'a' }\nsecrets = { account_key = 'buried-11 no base64' }",
        "url = 'gs://bucket/x'\nsecrets = { credential_json = 'buried-12 no JSON' }",
        "url = 'gs://bucket/x'\nsecrets = { credential_json = '{\"private_key\": \"buried-13\"}' }",
        "url = 'sftp://me@host.invalid/x'\nsecrets = { password = 'buried-14\nburied-15' }",
    ] {
        let section = format!("[storage.off]\n{section}\nretry_deadline = '1s'\n[encryption]");
        let config = config.replace("[encryption]", &section);
        scratch.write("marb-backup.toml", &config.replace("['local']", "['off']"));
        for arguments in [&["config", "check"][..], &["backup"], &["list", "--json"], &["doctor"]] {
            let mut command = scratch.command(arguments);
            command.arg("-vv");
            let run = finish(command).await;
            let told = |line: &&str| line.contains(BURIED);
            let lines = run.stdout.lines().chain(run.stderr.lines()).filter(told);
            repeated.extend(lines.map(|line| format!("{}: {line}", arguments[0])));
            assert!(run.code != 0 || arguments[0] == "config", "{arguments:?}: {section}");
        }
    }
    assert_eq!(repeated, [""; 0]);
}
