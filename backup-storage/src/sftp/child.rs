//! The `ssh` that carries a connection: started, listened to, never left behind.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as Socket;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use super::cipher;
use super::login::{Login, SSH};

/// How much of what ssh says is kept, in bytes: its last words.
const LAST_WORDS: usize = 8 * 1024;
/// How long an ssh whose connection ended may take to say why.
const LAST_WORDS_TIME: Duration = Duration::from_secs(2);
/// How long ssh may take to tell its configuration.
const EXPLAIN_TIME: Duration = Duration::from_secs(10);

/// Answers ssh's questions from its own environment; holds no secret itself. The password goes
/// to the server alone: a jump host that asks gets none.
///
/// By `printenv`, which is told a name only: an external `printf` would show the secret to
/// everybody who lists processes.
const ASKPASS: &str = r#"#!/bin/sh
case $1 in
"Enter passphrase for "*) exec printenv MARB_SSH_PASSPHRASE ;;
"$MARB_SSH_LOGIN's password: "* | "($MARB_SSH_LOGIN) "*) exec printenv MARB_SSH_PASSWORD ;;
esac
exit 1
"#;

/// A running `ssh`. It is killed when this is dropped, with what it started.
#[derive(Debug)]
pub(super) struct Ssh {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    listening: JoinHandle<()>,
    /// Needed until ssh has asked.
    _askpass: Option<TempDir>,
}

impl Ssh {
    /// Starts it; also gives the stream to the server.
    pub(super) async fn start(stage: &str, login: &Login) -> Result<(Self, UnixStream)> {
        let cannot = |what: &str, e: std::io::Error| {
            Error::failed(stage.to_owned(), format!("can't {what}: {e}")).caused_by(e)
        };
        check_identity_file(stage, login)?;
        let mut command = command(login);
        let explained = explained(stage, login).await;
        command.args(login.arguments(preferred_ciphers(&explained).await.as_deref()));
        let askpass = if login.has_secret() {
            let folder = write_askpass().map_err(|e| {
                cannot("write ssh's askpass program", e)
                    .next_step("let TMPDIR be a folder one may write to")
            })?;
            give_secrets(stage, login, &mut command, &folder, explained)?;
            Some(folder)
        } else {
            None
        };
        // One socket for both directions, as sftp does: it holds more than a pipe.
        let (ours, its) = Socket::pair().map_err(|e| cannot("make a socket", e))?;
        let its_output = its.try_clone().map_err(|e| cannot("make a socket", e))?;
        ours.set_nonblocking(true).map_err(|e| cannot("make a socket", e))?;
        let stream = UnixStream::from_std(ours).map_err(|e| cannot("make a socket", e))?;
        command
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::from(OwnedFd::from(its_output)))
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| not_started(stage, e))?;
        // It holds our copies of its ends: without this, the stream would never end.
        drop(command);
        let said = Arc::default();
        let listening = match child.stderr.take() {
            Some(stderr) => tokio::spawn(listen(stderr, Arc::clone(&said))),
            None => tokio::spawn(async {}),
        };
        Ok((Self { child, said, listening, _askpass: askpass }, stream))
    }

    /// What ssh said before it ended. Waits a little for it to end.
    pub(super) async fn last_words(&mut self) -> String {
        let _ = tokio::time::timeout(LAST_WORDS_TIME, self.child.wait()).await;
        let _ = tokio::time::timeout(LAST_WORDS_TIME, &mut self.listening).await;
        self.said_so_far()
    }

    /// What ssh said up to now.
    pub(super) fn said_so_far(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.listening.abort();
        // Not reaped yet, so its number is still its own. Its group is what leads to a jump host.
        if let Some(group) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// ssh would go on without a key that it can't read, and only say that the login was refused.
fn check_identity_file(stage: &str, login: &Login) -> Result<()> {
    match login.identity_file.as_deref().map(|file| (file, std::fs::File::open(file))) {
        // ssh itself knows what a ~ stands for.
        Some((file, Err(error))) if !file.starts_with("~") => {
            let message = format!("can't read the key {}: {error}", file.display());
            Err(Error::failed(stage.to_owned(), message)
                .next_step("name the private key in the option `identity_file`")
                .caused_by(error))
        }
        _ => Ok(()),
    }
}

fn command(login: &Login) -> Command {
    let mut command = Command::new(SSH);
    command
        // Ctrl-C at a terminal is for us: an ssh that died of it could remove nothing any more.
        .process_group(0)
        .kill_on_drop(true)
        .env_remove("SSH_ASKPASS")
        .env_remove("SSH_ASKPASS_REQUIRE");
    if !login.ambient {
        command.env_remove("SSH_AUTH_SOCK");
    }
    command
}

async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&buffer[..read]);
        let too_many = said.len().saturating_sub(LAST_WORDS);
        said.drain(..too_many);
    }
}

fn not_started(stage: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::failed(stage.to_owned(), "ssh is not installed")
            .next_step(
                "install OpenSSH's client: `apt-get install openssh-client`, \
                 `dnf install openssh-clients`, `apk add openssh-client`",
            )
            .caused_by(error);
    }
    Error::failed(stage.to_owned(), format!("can't start ssh: {error}"))
        .next_step("see that ssh is on PATH and may be run")
        .caused_by(error)
}

fn write_askpass() -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("marb-askpass-").tempdir()?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(folder.path().join("askpass"))?
        .write_all(ASKPASS.as_bytes())?;
    Ok(folder)
}

fn give_secrets(
    stage: &str,
    login: &Login,
    command: &mut Command,
    askpass: &TempDir,
    explained: Result<String>,
) -> Result<()> {
    command
        .env("SSH_ASKPASS", askpass.path().join("askpass"))
        .env("SSH_ASKPASS_REQUIRE", "force")
        // Older clients ask no program without one.
        .env("DISPLAY", "none");
    if let Some(passphrase) = &login.passphrase {
        command.env("MARB_SSH_PASSPHRASE", passphrase.expose_secret());
    }
    if let Some(password) = &login.password {
        command.env("MARB_SSH_LOGIN", asked_for(stage, &explained?)?);
        command.env("MARB_SSH_PASSWORD", password.expose_secret());
    }
    Ok(())
}

/// The ciphers to ask for, where ssh's own order is not the best. What is wrong with ssh's
/// configuration the connection itself says.
async fn preferred_ciphers(explained: &Result<String>) -> Option<String> {
    match explained {
        Ok(explained) if cipher::processor_has_aes() => cipher::preferred(explained).await,
        _ => None,
    }
}

/// What ssh would do for the server: its configuration, a line for each setting.
async fn explained(stage: &str, login: &Login) -> Result<String> {
    let mut explain = command(login);
    explain.args(login.arguments_to_explain()).stdin(Stdio::null());
    let told = match tokio::time::timeout(EXPLAIN_TIME, explain.output()).await {
        Ok(told) => told.map_err(|e| not_started(stage, e))?,
        Err(late) => {
            return Err(Error::failed(stage.to_owned(), "`ssh -G` does not answer")
                .next_step("look for a `Match exec` in ssh_config that hangs")
                .caused_by(late));
        }
    };
    if told.status.success() {
        return Ok(String::from_utf8_lossy(&told.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&told.stderr).trim().to_owned();
    Err(Error::usage(stage.to_owned(), format!("ssh refuses its configuration: {said}"))
        .next_step("`ssh -G HOST` must work"))
}

/// `user@host` as ssh will call the server when it asks for the password.
fn asked_for(stage: &str, explained: &str) -> Result<String> {
    let value = |name: &str| {
        let told = explained.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        told.map(str::to_owned)
    };
    let host = value("hostkeyalias").filter(|alias| alias != "none").or_else(|| value("hostname"));
    let (Some(user), Some(host)) = (value("user"), host) else {
        return Err(Error::usage(stage.to_owned(), "`ssh -G` names neither user nor host")
            .next_step("`ssh -G HOST` must work"));
    };
    // As ssh cuts it.
    Ok(format!("{}@{host}", user.chars().take(30).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(folder: &TempDir, question: &str) -> (bool, String) {
        let told = std::process::Command::new(folder.path().join("askpass"))
            .arg(question)
            .env("MARB_SSH_LOGIN", "me@host")
            .env("MARB_SSH_PASSWORD", "pa$$ 'word' \\n %s")
            .output()
            .unwrap();
        (told.status.success(), String::from_utf8(told.stdout).unwrap())
    }

    #[test]
    fn only_the_server_itself_gets_the_password() {
        let folder = write_askpass().unwrap();
        for question in ["me@host's password: ", "(me@host) Password: "] {
            assert_eq!(answer(&folder, question), (true, "pa$$ 'word' \\n %s\n".into()));
        }
        for question in ["me@gate's password: ", "(me@host.evil) Password: ", "Password: ", ""] {
            assert_eq!(answer(&folder, question), (false, String::new()), "{question}");
        }
        // No passphrase was given.
        assert!(!answer(&folder, "Enter passphrase for key '/k': ").0);
    }

    #[test]
    fn no_program_is_told_a_secret_as_an_argument() {
        assert!(!ASKPASS.contains("$MARB_SSH_PASS") && !ASKPASS.contains("{MARB_SSH_PASS"));
    }
}
