//! The environment as a value: handed in by whoever owns the process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use crate::schedule::credential_name;

/// Where systemd puts a service's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Environment variables, and behind them those of a `.env` file.
///
/// The library never reads the process's own environment; the program passes
/// [`std::env::vars_os`], an embedding application whatever it likes.
#[derive(Clone, Default)]
pub struct Environment {
    process: BTreeMap<OsString, OsString>,
    file: BTreeMap<String, String>,
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("process", &self.process.keys())
            .field("file", &self.file.keys())
            .finish()
    }
}

impl Environment {
    /// An environment of these variables.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { process: variables.into_iter().collect(), file: BTreeMap::new() }
    }

    /// Puts the variables of a `.env` file behind those that are there.
    ///
    /// # Errors
    /// When the file can't be read, or a line is no assignment.
    pub fn with_env_file(mut self, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(self.credential(path)).map_err(|e| {
            Error::usage("env file", format!("{} can't be read", path.display()))
                .caused_by(e)
                .next_step("correct `env_file`, or let this user read the file")
        })?;
        self.file = super::env_file::parse(&text, path)?;
        Ok(self)
    }

    /// A variable's value. An empty one counts as absent, as libpq and most programs have it.
    pub fn get(&self, name: &str) -> Option<String> {
        let process = self.process.get(std::ffi::OsStr::new(name));
        // What is no text counts as absent: a mangled passphrase would be another passphrase.
        let value = process.and_then(|value| value.to_str()).map(str::to_owned);
        value.or_else(|| self.file.get(name).cloned()).filter(|value| !value.is_empty())
    }

    /// Where a file with a secret is to be read: systemd's copy of it when the unit that
    /// `schedule systemd` wrote has one (`LoadCredential`), else the file itself.
    pub fn credential(&self, path: &Path) -> PathBuf {
        let folder = self.process.get(std::ffi::OsStr::new(CREDENTIALS_VARIABLE));
        let copy = folder.map(|folder| Path::new(folder).join(credential_name(path)));
        copy.filter(|copy| path.is_absolute() && copy.is_file()).unwrap_or_else(|| path.to_owned())
    }

    /// The program search path.
    pub fn path(&self) -> Option<OsString> {
        self.process.get(std::ffi::OsStr::new("PATH")).cloned()
    }

    /// Where state is kept when the configuration does not say.
    pub fn default_state_dir(&self, is_root: bool) -> PathBuf {
        if is_root {
            return PathBuf::from("/var/lib/marb-backup");
        }
        let home = || PathBuf::from(self.get("HOME").unwrap_or_else(|| "/tmp".to_owned()));
        self.get("XDG_STATE_HOME")
            .map_or_else(|| home().join(".local/state"), PathBuf::from)
            .join("marb-backup")
    }
}
