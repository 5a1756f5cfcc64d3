//! Key pairs of gpg's, as files.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A keyring of gpg's of its own, and key files beside it.
pub struct Keyring {
    folder: PathBuf,
}

/// A key pair in files.
pub struct KeyFiles {
    pub public: PathBuf,
    pub secret: PathBuf,
    /// As gpg prints it.
    pub fingerprint: String,
}

impl Keyring {
    /// A keyring in a folder that is made for it.
    pub fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(folder.join("home")).unwrap();
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder.join("home"), private).unwrap();
        Self { folder }
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Runs gpg; what it printed.
    pub fn gpg(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]);
        command.args(["--passphrase", ""]).args(arguments).env("GNUPGHOME", self.home());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// A pair of the name, that expires after `expires`; `made` sets gpg's clock.
    pub fn pair(&self, name: &str, expires: &str, made: Option<&str>) -> KeyFiles {
        let clock: Vec<&str> = made.iter().flat_map(|at| ["--faked-system-time", at]).collect();
        let make = ["--quick-generate-key", name, "future-default", "default", expires];
        self.gpg(&[&clock[..], &make].concat());
        let listed = self.gpg(&["--with-colons", "--list-keys", name]);
        let line = listed.lines().find(|line| line.starts_with("fpr")).unwrap();
        let fingerprint = line.split(':').nth(9).unwrap().to_owned();
        let secret = self.folder.join(format!("{name}-secret.asc"));
        let file = secret.display().to_string();
        self.gpg(&["--armor", "--output", &file, "--export-secret-keys", name]);
        let public = self.export(name);
        KeyFiles { public, secret, fingerprint }
    }

    /// The public half as it is now, in a file.
    pub fn export(&self, name: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}-public.asc"));
        self.gpg(&["--armor", "--output", &path.display().to_string(), "--export", name]);
        path
    }

    /// Revokes a pair by the certificate that gpg made for it, and exports it again.
    pub fn revoke(&self, name: &str, key: &KeyFiles) {
        let certificate = self.home().join("openpgp-revocs.d");
        let certificate = certificate.join(format!("{}.rev", key.fingerprint));
        let text = std::fs::read_to_string(certificate).unwrap();
        let file = self.folder.join("revocation");
        std::fs::write(&file, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
        self.gpg(&["--import", &file.display().to_string()]);
        self.export(name);
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        // The agent that gpg left behind.
        let mut end = Command::new("gpgconf");
        let _ = end.args(["--kill", "all"]).env("GNUPGHOME", self.home()).status();
    }
}

/// A path as a word of a configuration or a command line.
pub fn word(path: &Path) -> String {
    path.display().to_string()
}
