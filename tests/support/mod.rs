//! The program as a user runs it, in a folder of its own.

mod claims;
pub mod keys;
mod processes;
pub mod stores;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use backup_testkit::postgres::{PostgresServer, client_tools};
use serde_json::Value;
use tokio::process::{Child, Command};

pub use claims::{
    CLAIMS, claims_digest, claims_server, claims_server_with, run_old_script, while_locked,
};
pub use processes::{Watch, arguments_of, assert_absent_below, process_ids};

/// Longest time one call of the program may take in a test.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);

/// What `cargo xtask test` built; beside the test's own binary when run by hand.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("MARB_BACKUP_PROGRAM") {
        return program.into();
    }
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let program = path.join("marb-backup");
    assert!(program.exists(), "build it first: cargo build --package backup-cli");
    program
}

/// A seed for random cases: the run's own, printed so that it can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var("MARB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("MARB_TEST_SEED={seed}");
    seed
}

/// How many random cases of a kind: `few` in tests, `many` in the soak.
pub fn cases(few: usize, many: usize) -> usize {
    if std::env::var_os("MARB_SOAK").is_some() { many } else { few }
}

/// `PATH` with client tools of every version that the tests have, for servers of any version.
fn path_with_all_tools() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = [17, 18].into_iter().filter_map(client_tools);
    std::env::join_paths(tools.chain(std::env::split_paths(&path))).unwrap()
}

/// How a call of the program ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code as a shell gives it: 128 and the number of the signal that ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Finished {
    /// The JSON document it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:#?}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr names the stage, this cause and a next step.
    #[track_caller]
    pub fn explains(self, stage: &str, cause: &str) -> Self {
        let named = format!("error: {stage}: ");
        assert!(
            self.stderr.lines().any(|line| line.starts_with(&named)),
            "no {named:?}: {self:#?}"
        );
        assert!(self.stderr.contains(cause), "no {cause:?}: {self:#?}");
        let advises = |line: &str| line.strip_prefix("  next:  ").is_some_and(|l| !l.is_empty());
        assert!(self.stderr.lines().any(advises), "no next step: {self:#?}");
        self
    }
}

/// What a storage holds: the backups it lists, and all its files.
#[derive(Debug, PartialEq)]
pub struct Holdings {
    pub listed: Vec<String>,
    pub files: Vec<PathBuf>,
}

/// A folder with a config, a passphrase, a storage and state.
pub struct Scratch {
    folder: tempfile::TempDir,
}

/// The passphrase of every scratch.
pub const PASSPHRASE: &str = "plänted-s3cret pass#phrase \\ $HOME";

impl Scratch {
    /// A scratch whose job `database` backs up `url`, encrypted by a passphrase.
    pub fn new(url: &str) -> Self {
        Self::with_job(url, "")
    }

    /// A scratch with more lines for the job.
    pub fn with_job(url: &str, job: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Self { folder };
        let path = |name: &str| scratch.path(name).display().to_string();
        let config = format!(
            "state_dir = '{state}'\n[storage.local]\nurl = 'file://{backups}'\n\
             [encryption]\npassphrase = {{ file = '{key}' }}\n\
             [job.database]\npostgres = {{ url = {{ env = 'TEST_DATABASE_URL' }} }}\nstorages = ['local']\n{job}\n",
            state = path("state"),
            backups = path("backups"),
            key = path("key"),
        );
        scratch.write("key", &format!("{PASSPHRASE}\n"));
        scratch.write("url", &format!("{url}\n"));
        scratch.write("marb-backup.toml", &config);
        scratch
    }

    /// A scratch for a database of a server.
    pub fn of(server: &PostgresServer, database: &str) -> Self {
        Self::new(&server.url(database))
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder, 0600.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
    }

    /// Replaces text in the config.
    pub fn edit_config(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.path("marb-backup.toml")).unwrap();
        assert!(config.contains(from), "the config has no {from:?}");
        self.write("marb-backup.toml", &config.replace(from, to));
    }

    /// A call of the program, ready to be changed and started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let url = std::fs::read_to_string(self.path("url")).unwrap();
        let mut command = Command::new(program());
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TEST_DATABASE_URL", url.trim_end())
            .env_remove("MARB_BACKUP_CONFIG")
            .env("HOME", self.folder.path())
            .env("PATH", path_with_all_tools())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments)).await
    }

    /// Starts the program.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Ids of the backups that are listed.
    pub async fn listed(&self) -> Vec<String> {
        let listed = self.run(&["list", "--json"]).await.expect(0).json();
        let backups = listed["backups"].as_array().unwrap().clone();
        backups.iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The folder of the only (or newest) backup.
    pub async fn backup_folder(&self) -> PathBuf {
        let id = self.listed().await.pop().expect("there is no backup");
        self.path("backups").join("database").join(&id[..4]).join(&id[4..6]).join(id)
    }

    /// What the storage holds now.
    pub async fn holdings(&self) -> Holdings {
        Holdings { listed: self.listed().await, files: self.stored_files() }
    }

    /// Asserts that a run works now, and that its backup is whole.
    pub async fn assert_next_run_works(&self) {
        let before = self.listed().await.len();
        self.run(&["backup"]).await.expect(0);
        assert_eq!(self.listed().await.len(), before + 1);
        self.run(&["verify", "latest"]).await.expect(0);
    }

    /// Every file below the storage.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect_files(&self.path("backups"), &mut files);
        files.sort();
        files
    }
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { collect_files(&path, files) } else { files.push(path) }
    }
}

/// Runs a command to its end.
pub async fn finish(mut command: Command) -> Finished {
    ended(command.output()).await
}

/// Waits for the end of a started program.
pub async fn finish_started(child: Child) -> Finished {
    ended(child.wait_with_output()).await
}

async fn ended(output: impl Future<Output = std::io::Result<Output>>) -> Finished {
    let output = tokio::time::timeout(CALL_TIMEOUT, output).await;
    let output = output.expect("the program hangs").unwrap();
    let signal = output.status.signal();
    Finished {
        code: output.status.code().or(signal.map(|n| 128 + n)).unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The URL of another database on the same server, for `--to`.
pub fn target_file(scratch: &Scratch, server: &PostgresServer, database: &str) -> String {
    scratch.write("target-url", &server.url(database));
    format!("file:{}", scratch.path("target-url").display())
}
