//! SFTP: an sshd of one's own, with its own host key, users' keys and passwords.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backup_core::Result;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::process::{Process, free_addresses, new_folder, started};
use super::programs::Programs;
use super::shared::Shared;
use super::{STAGE, cannot};

/// How an [`SftpServer`] differs from the plain one.
#[derive(Debug, Clone, Copy, Default)]
pub struct SftpOptions<'a> {
    /// Further lines of sshd_config, such as `ForceCommand internal-sftp -P remove`; they come
    /// first, and of a setting sshd takes the first.
    pub config: &'a [&'a str],
    /// Whether [`SftpServer::PASSWORD`] opens it too, besides the key.
    pub password: bool,
}

/// An sshd of one's own; it ends when dropped, with its sessions.
///
/// Users log in as whoever runs the test. A second server serves as a jump host of the first.
#[derive(Debug)]
pub struct SftpServer {
    process: Process,
    address: SocketAddr,
    user: String,
    host_key: String,
    password: bool,
}

static SHARED: Shared<SftpServer> = Shared::new();

impl SftpServer {
    /// The password where there is one: characters special to URLs and shells, none to files.
    pub const PASSWORD: &str = "p@ss/w%rd 'for' \"tests\"#";
    /// The server's name in [`ssh_config_file`](Self::ssh_config_file).
    pub const ALIAS: &str = "throwaway";

    /// Starts a server that a key opens.
    pub async fn start() -> Result<Self> {
        Self::start_with(&SftpOptions::default()).await
    }

    /// Starts a server with options.
    pub async fn start_with(options: &SftpOptions<'_>) -> Result<Self> {
        started(|| Self::prepared(options), Self::up).await
    }

    /// The plain server that tests of this process share; it ends with the last that holds it.
    pub async fn shared() -> Result<Arc<Self>> {
        SHARED.get(Self::start()).await
    }

    fn prepared(options: &SftpOptions<'_>) -> Result<Self> {
        let programs = Programs::listed();
        let (sshd, folder) = (programs.sshd()?, new_folder()?);
        let [address] = free_addresses()?;
        let user = said(Command::new("id").arg("-un"))?;
        if user == "root" {
            // Where the system's own service never ran it is missing.
            fs::create_dir_all("/run/sshd").map_err(|e| cannot("no /run/sshd").caused_by(e))?;
        }
        for key in ["host_key", "key", "stranger_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key]);
            said(keygen.current_dir(folder.path()))?;
        }
        let host_key = fs::read_to_string(folder.path().join("host_key.pub"));
        let host_key = host_key.map_err(|e| cannot("no host key").caused_by(e))?;
        let host_key = host_key.trim_end_matches(" test\n").to_owned();
        fs::create_dir(folder.path().join("files"))
            .map_err(|e| cannot("no folder for files").caused_by(e))?;
        write(&folder, "sshd_config", &sshd_config(address, folder.path(), options))?;
        write(&folder, "known_hosts", &format!("{}\n", known_host(address, &host_key)))?;
        write(&folder, "ssh_config", &ssh_config(address, folder.path(), &user))?;
        let mut process = Process::new("sshd", &sshd, folder)?;
        process.command().args(["-D", "-e", "-f", "sshd_config"]);
        if options.password {
            let (wrapper, matrix) = programs.password_login()?;
            know_the_password(&mut process, &user, &wrapper, &matrix)?;
        }
        Ok(Self { process, address, user, host_key, password: options.password })
    }

    async fn up(mut self) -> Result<Self> {
        self.come_up().await.map(|()| self)
    }

    async fn come_up(&mut self) -> Result<()> {
        let address = self.address;
        self.process.start(|| greets(address)).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of [`folder`](Self::folder).
    pub fn url(&self) -> String {
        format!("sftp://{}@{}{}", self.user, self.address, self.folder().display())
    }

    /// Who logs in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// An empty folder for the test's files; sessions start in it.
    pub fn folder(&self) -> PathBuf {
        self.process.folder().join("files")
    }

    /// The private key that opens it, in OpenSSH's format and without a passphrase.
    pub fn key_file(&self) -> PathBuf {
        self.process.folder().join("key")
    }

    /// A private key that it does not know.
    pub fn stranger_key_file(&self) -> PathBuf {
        self.process.folder().join("stranger_key")
    }

    /// A known_hosts file with this server in it, and no other.
    pub fn known_hosts_file(&self) -> PathBuf {
        self.process.folder().join("known_hosts")
    }

    /// The line of [`known_hosts_file`](Self::known_hosts_file).
    pub fn known_host(&self) -> String {
        known_host(self.address, &self.host_key)
    }

    /// The server's public key, `ssh-ed25519 AAAA…`.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// A configuration of ssh's in which [`ALIAS`](Self::ALIAS) is this server, with its key.
    pub fn ssh_config_file(&self) -> PathBuf {
        self.process.folder().join("ssh_config")
    }

    /// What the server logged, sessions included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.process.folder().join("log")).unwrap_or_default()
    }

    /// Ends it with all its sessions.
    pub async fn end(&mut self) -> Result<()> {
        self.process.kill();
        Ok(())
    }

    /// Starts it again, on its port with its keys and files.
    pub async fn start_again(&mut self) -> Result<()> {
        self.come_up().await
    }
}

impl Drop for SftpServer {
    fn drop(&mut self) {
        if self.password {
            self.process.kill();
            remove_services(self.process.folder());
        }
    }
}

/// Removes the copies of our PAM service that the wrapper of a killed sshd leaves in /tmp.
fn remove_services(folder: &Path) {
    let ours = folder.to_string_lossy();
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let service = entry.path().join("sshd");
        let is_pam = entry.file_name().to_string_lossy().starts_with("pam.");
        if is_pam && fs::read_to_string(service).is_ok_and(|text| text.contains(&*ours)) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn sshd_config(address: SocketAddr, folder: &Path, options: &SftpOptions<'_>) -> String {
    let mut config = options.config.join("\n");
    let (pam, folder) = (if options.password { "yes" } else { "no" }, folder.display());
    // Quoted paths: the temporary folder may have spaces. -d makes relative paths end up in it.
    let _ = write!(
        config,
        "\nListenAddress {address}\nHostKey \"{folder}/host_key\"\n\
         AuthorizedKeysFile \"{folder}/key.pub\"\nPidFile none\nStrictModes no\n\
         UsePAM {pam}\nPasswordAuthentication {pam}\nKbdInteractiveAuthentication no\n\
         PermitRootLogin yes\nUseDNS no\nMaxStartups 200\nMaxSessions 200\n\
         Subsystem sftp internal-sftp -d \"{folder}/files\"\n"
    );
    config
}

fn ssh_config(address: SocketAddr, folder: &Path, user: &str) -> String {
    let (host, port, folder) = (address.ip(), address.port(), folder.display());
    format!(
        "Host {}\n  HostName {host}\n  Port {port}\n  User {user}\n  \
         IdentityFile \"{folder}/key\"\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile \"{folder}/known_hosts\"\n  StrictHostKeyChecking yes\n",
        SftpServer::ALIAS
    )
}

fn known_host(address: SocketAddr, host_key: &str) -> String {
    format!("[{}]:{} {host_key}", address.ip(), address.port())
}

/// Lets sshd ask a file of ours for passwords, where it would ask the machine's.
fn know_the_password(
    process: &mut Process,
    user: &str,
    wrapper: &Path,
    matrix: &Path,
) -> Result<()> {
    let folder = process.folder().to_path_buf();
    let (matrix, passwords) = (matrix.display(), folder.join("passwords"));
    let service: String = ["auth", "account", "session"]
        .map(|kind| format!("{kind} required {matrix} passdb={}\n", passwords.display()))
        .concat();
    let line = format!("{user}:{}:sshd\n", SftpServer::PASSWORD);
    fs::create_dir(folder.join("pam"))
        .and_then(|()| fs::write(folder.join("pam/sshd"), service))
        .and_then(|()| fs::write(&passwords, line))
        .map_err(|e| cannot("cannot write the passwords").caused_by(e))?;
    let command = process.command();
    command.env("PAM_WRAPPER", "1").env("PAM_WRAPPER_SERVICE_DIR", folder.join("pam"));
    command.env("LD_PRELOAD", wrapper);
    Ok(())
}

fn write(folder: &TempDir, name: &str, text: &str) -> Result<()> {
    let path = folder.path().join(name);
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
        .map_err(|e| cannot(format!("cannot write {name}")).caused_by(e))
}

async fn greets(address: SocketAddr) -> bool {
    let Ok(mut connection) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 4];
    connection.read_exact(&mut greeting).await.is_ok() && &greeting == b"SSH-"
}

fn said(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|e| cannot(format!("cannot run {command:?}")).caused_by(e))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).trim().to_owned());
    }
    let errors = String::from_utf8_lossy(&stderr);
    Err(backup_core::Error::failed(STAGE, format!("{command:?} failed: {errors}")))
}
