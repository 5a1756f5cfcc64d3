//! Keys that are about to expire, have expired or were revoked: told before it hurts.

use std::time::{Duration, SystemTime};

use backup_core::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::Deployment;
use crate::keys::Keys;

/// So long before a key expires it is told.
const WARNED_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wrong, or soon will be, with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyWarning {
    /// What is wrong, with the key's fingerprint.
    pub message: String,
    /// What to do.
    pub fix: String,
    /// What the manifest of a backup made with it tells: fingerprints, no names.
    pub note: Option<String>,
}

impl Deployment {
    /// The configured keys that are about to expire, have expired or were revoked. Backups are
    /// made all the same: one to an old key is better than none.
    ///
    /// # Errors
    /// When the keys can't be read.
    pub async fn key_warnings(&self) -> Result<Vec<KeyWarning>> {
        Ok(self.keys().await?.warnings(SystemTime::now()))
    }
}

impl Keys {
    /// What is to be said of them at `now`.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<KeyWarning> {
        let mut warnings: Vec<KeyWarning> = self.revoked.iter().map(|key| revoked(key)).collect();
        for recipient in &self.recipients {
            let key = recipient.fingerprint();
            let Some((when, over)) = ending(recipient.expires(), now) else { continue };
            let message = match over {
                true => format!("the recipient {key} {when}; backups are still encrypted to it"),
                false => format!("the recipient {key} {when}"),
            };
            let note = over.then(|| format!("encrypted to the key {key}, which {when}"));
            warnings.push(KeyWarning { message, fix: extend(&key, "recipients"), note });
        }
        if let Some(signing) = &self.signing_key
            && let Ok(expires) = signing.signing_expires()
            && let Some((when, over)) = ending(expires, now)
        {
            let key = signing.fingerprint();
            let then = if over { "are" } else { "will then be" };
            let message = format!(
                "the signing key {key} {when}; what it signs later is refused by restores until \
                 its date is extended, and backups {then} signed with it all the same"
            );
            let note = over.then(|| format!("signed with the key {key}, which {when}"));
            warnings.push(KeyWarning { message, fix: extend(&key, "signing_key"), note });
        }
        for signer in &self.trusted_signers {
            let key = signer.fingerprint();
            let told = match signer.expires() {
                Err(error) => {
                    Some(format!("the trusted signer can't be relied on: {}", error.message()))
                }
                Ok(expires) => ending(expires, now).map(|(when, _)| {
                    format!("the trusted signer {key} {when}; what it signs later is refused")
                }),
            };
            if let Some(message) = told {
                warnings.push(KeyWarning {
                    message,
                    fix: extend(&key, "trusted_signers"),
                    note: None,
                });
            }
        }
        warnings
    }
}

fn revoked(key: &str) -> KeyWarning {
    KeyWarning {
        message: format!("the recipient {key} is revoked; nothing is encrypted to it"),
        fix: "put the key that replaced it under `recipients`, then `marb-backup rekey --all` \
              makes older backups readable for it"
            .to_owned(),
        note: Some(format!("not encrypted to the key {key}, which is revoked")),
    }
}

fn extend(key: &str, config_key: &str) -> String {
    format!(
        "`gpg --quick-set-expire {key} 2y`, for its subkeys `gpg --quick-set-expire {key} 2y '*'`, \
         export it again to the file under `{config_key}`; or use another key"
    )
}

/// "expires on 2026-12-01, in 12 days", and whether that is over; `None` while it is far.
fn ending(expires: Option<SystemTime>, now: SystemTime) -> Option<(String, bool)> {
    let end = expires?;
    let date = Timestamp::try_from(end).map(|end| end.to_zoned(TimeZone::UTC).date().to_string());
    let date = date.unwrap_or_else(|_| "a date far away".to_owned());
    match end.duration_since(now) {
        Ok(left) if !left.is_zero() => (left <= WARNED_BEFORE).then(|| {
            (format!("expires on {date}, in {} days", left.as_secs() / DAY.as_secs()), false)
        }),
        _ => Some((format!("expired on {date}"), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_thirty_days_before_and_ever_after() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + DAY * u32::try_from(days).unwrap();
        let told = |end: u64, now: u64| ending(Some(at(end)), at(now));
        assert_eq!(ending(None, at(5)), None);
        assert_eq!(told(100, 69), None);
        assert_eq!(told(100, 70), Some(("expires on 1970-04-11, in 30 days".to_owned(), false)));
        assert_eq!(told(100, 99), Some(("expires on 1970-04-11, in 1 days".to_owned(), false)));
        assert_eq!(told(100, 100), Some(("expired on 1970-04-11".to_owned(), true)));
        assert_eq!(told(100, 5000), Some(("expired on 1970-04-11".to_owned(), true)));
    }
}
