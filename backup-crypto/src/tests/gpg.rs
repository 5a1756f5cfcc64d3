//! The real gpg, with a home folder of its own.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Recipient, SecretKey};

/// One gpg home. Its agent ends with it.
pub(super) struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    pub(super) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { home }
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs gpg over `input`: its output, or what it said when it failed.
    pub(super) fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home())
            .args(["--batch", "--yes", "--quiet", "--no-tty", "--trust-model", "always"])
            .args(["--pinentry-mode", "loopback"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // It may end before it read everything; its exit status tells.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        });
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(super) fn decrypt(&self, passphrase: &str, sealed: &[u8]) -> Vec<u8> {
        self.run(&["--passphrase", passphrase, "--decrypt"], sealed).unwrap()
    }

    /// Makes a key pair: `algorithm` is `default` (RSA 3072) or `future-default` (cv25519).
    pub(super) fn generate(&self, name: &str, algorithm: &str, passphrase: &str) {
        let arguments = ["--passphrase", passphrase, "--quick-generate-key", name, algorithm];
        self.run(&[&arguments[..], &["default", "never"]].concat(), b"").unwrap();
    }

    pub(super) fn public(&self, name: &str) -> Vec<u8> {
        self.run(&["--export", "--armor", name], b"").unwrap()
    }

    pub(super) fn recipient(&self, name: &str) -> Recipient {
        Recipient::parse(&self.public(name)).unwrap().remove(0)
    }

    pub(super) fn secret(&self, name: &str, passphrase: &str) -> Vec<u8> {
        self.run(&["--passphrase", passphrase, "--export-secret-keys", "--armor", name], b"")
            .unwrap()
    }

    pub(super) fn secret_key(&self, name: &str) -> SecretKey {
        SecretKey::parse(&self.secret(name, "")).unwrap().remove(0)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home())
            .args(["--kill", "all"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
