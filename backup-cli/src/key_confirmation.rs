//! Whether somebody proved that the key is kept off this host, by typing it.
//!
//! A passphrase that lives only on the host burns with it, and every backup with the
//! passphrase. So `doctor` warns until the operator has typed what opens the backups.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use backup_core::{Error, Result, Transform};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::Deployment;

/// File in the state folder. It is encrypted under the confirmed passphrase (or names the
/// confirmed key ids), so that a changed key is not taken for confirmed, and no hash of a
/// passphrase lies around.
const CONFIRMATION: &str = "key-confirmed";

/// What stands in it under the encryption.
const CONFIRMED: &[u8] = b"the operator typed this passphrase from a copy off this host";

impl Deployment {
    /// Whether the key in use was confirmed.
    ///
    /// # Errors
    /// When the configured key can't be read.
    pub async fn key_is_confirmed(&self) -> Result<bool> {
        let keys = self.keys().await?;
        let Ok(stored) = std::fs::read(self.confirmation_file()) else { return Ok(false) };
        match keys.passphrase_transform() {
            Some(transform) => {
                let mut plain = Vec::new();
                Ok(transform.decode(&mut &stored[..], &mut plain).is_ok() && plain == CONFIRMED)
            }
            None => Ok(stored == keys.labels().join("\n").into_bytes()),
        }
    }

    /// What the operator has to type: the passphrase, or the id of a recipient's key.
    ///
    /// # Errors
    /// When the configured key can't be read.
    pub async fn key_to_confirm(&self) -> Result<String> {
        let keys = self.keys().await?;
        Ok(match keys.passphrase_transform() {
            Some(_) => "the passphrase".to_owned(),
            None => format!(
                "the id of the private key you hold, one of {} recipients'",
                keys.labels().len()
            ),
        })
    }

    /// Takes what the operator typed and remembers that it is right.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when it is something else.
    pub async fn confirm_key(&self, typed: &SecretString) -> Result<Timestamp> {
        let keys = self.keys().await?;
        let wrong = || {
            Error::refused("key", "that is not the key in use").next_step(
                "find the copy that opens the backups, or make one now and keep it off this host",
            )
        };
        let stored = match keys.passphrase_transform() {
            Some(transform) => {
                if !keys.is_passphrase(typed) {
                    return Err(wrong());
                }
                let mut sealed = Vec::new();
                transform.encode(&mut &CONFIRMED[..], &mut sealed)?;
                sealed
            }
            None => {
                let typed: String = typed.expose_secret().split_whitespace().collect();
                let known =
                    |label: &String| label.eq_ignore_ascii_case(typed.trim_start_matches("0x"));
                if typed.is_empty() || !keys.labels().iter().any(known) {
                    return Err(wrong());
                }
                keys.labels().join("\n").into_bytes()
            }
        };
        self.store_confirmation(&stored)?;
        Ok(Timestamp::now())
    }

    fn confirmation_file(&self) -> PathBuf {
        self.state_file(CONFIRMATION)
    }

    fn store_confirmation(&self, bytes: &[u8]) -> Result<()> {
        let path = self.confirmation_file();
        let unusable = |e: std::io::Error| {
            Error::failed("state", format!("{} can't be written", path.display()))
                .next_step("set `state_dir` to a folder that this user may write to")
                .caused_by(e)
        };
        std::fs::create_dir_all(self.state_dir()).map_err(unusable)?;
        let mut options = std::fs::File::options();
        let opened = options.create(true).write(true).truncate(true).mode(0o600).open(&path);
        opened.map_err(unusable)?.write_all(bytes).map_err(unusable)
    }
}
