//! The configured keys: what encrypts, what opens, what signs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Authenticate, Decoders, Error, ErrorKind, PASSPHRASE_KEY, Result};
use backup_crypto::{
    Authenticator, Certificate, OpenPgp, Passphrase, Recipient, SecretKey, Signer,
};
use secrecy::{ExposeSecret, SecretString};

use crate::config::Value;
use crate::{Deployment, wiring};

/// Largest key file, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4 << 20;

/// Everything that `[encryption]` names, read.
pub(crate) struct Keys {
    passphrase: Option<Passphrase>,
    passphrase_text: Option<SecretString>,
    pub(crate) recipients: Vec<Recipient>,
    /// Fingerprints of those that their owners revoked: nothing is encrypted to them.
    pub(crate) revoked: Vec<String>,
    /// They open and vouch for old backups, and encrypt nothing.
    old_passphrases: Vec<Passphrase>,
    secret_keys: Vec<SecretKey>,
    pub(crate) signing_key: Option<SecretKey>,
    pub(crate) trusted_signers: Vec<Signer>,
}

impl Deployment {
    /// Reads the configured keys.
    pub(crate) async fn keys(&self) -> Result<Keys> {
        let config = &self.config().encryption;
        let passphrase_text = self.fetch(config.passphrase.as_ref(), "passphrase").await?;
        let unlock = self.fetch(config.secret_key_passphrase.as_ref(), "secret key").await?;
        let unlock = unlock.as_ref().map(passphrase).transpose()?;
        let readable = |paths: &[PathBuf]| -> Vec<PathBuf> {
            paths.iter().map(|path| self.environment().credential(path)).collect()
        };
        let signing_key = readable(config.signing_key.as_slice());
        let signing = read_secret_keys(&signing_key, unlock.as_ref())?;
        let (recipients, revoked) = read_recipients(&config.recipients)?;
        Ok(Keys {
            passphrase: passphrase_text.as_ref().map(passphrase).transpose()?,
            passphrase_text,
            recipients,
            revoked,
            old_passphrases: Vec::new(),
            secret_keys: read_secret_keys(&readable(&config.secret_keys), unlock.as_ref())?,
            signing_key: signing.into_iter().next(),
            trusted_signers: read_signers(&config.trusted_signers)?,
        })
    }

    async fn fetch(
        &self,
        value: Option<&Value>,
        what: &'static str,
    ) -> Result<Option<SecretString>> {
        match value {
            Some(value) => value.fetch(what, self.environment()).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Keys {
    /// What encrypts a backup.
    pub(crate) fn encryption(&self) -> Result<OpenPgp> {
        let openpgp =
            self.recipients.iter().cloned().fold(self.by_passphrase(), OpenPgp::with_recipient);
        if openpgp.can_encrypt() {
            return Ok(openpgp);
        }
        if !self.revoked.is_empty() {
            let keys = self.revoked.join(", ");
            let message = format!("there is no key to encrypt with: revoked is {keys}");
            return Err(Error::usage("encryption", message)
                .next_step("put the key that replaced it under `recipients` of [encryption]"));
        }
        Err(Error::usage("encryption", "there is no key to encrypt with")
            .next_step("set `passphrase` or `recipients` under [encryption]"))
    }

    /// What signs manifests, encrypted or not.
    pub(crate) fn signer(&self) -> Option<Arc<dyn Authenticate>> {
        self.authenticator().filter(Authenticator::can_sign).map(|known| Arc::new(known) as _)
    }

    /// Whether nothing at all is configured.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels().is_empty() && self.secret_keys.is_empty() && self.authenticator().is_none()
    }

    /// With a passphrase of former days, for `rekey`.
    pub(crate) fn with_old_passphrase(mut self, text: &SecretString) -> Result<Self> {
        self.old_passphrases.push(passphrase(text)?);
        Ok(self)
    }

    /// The inverses of all transforms, OpenPGP's with every key there is.
    pub(crate) fn decoders(&self) -> Decoders {
        let openpgp = self
            .old_passphrases
            .iter()
            .cloned()
            .fold(self.by_passphrase(), OpenPgp::with_passphrase);
        let openpgp = self.secret_keys.iter().cloned().fold(openpgp, OpenPgp::with_secret_key);
        let decoders = Decoders::default().with(Arc::new(openpgp));
        wiring::codecs().into_iter().fold(decoders, Decoders::with)
    }

    /// What tells our manifests from forged ones; `None` without any key for it.
    pub(crate) fn authenticate(&self) -> Option<Arc<dyn Authenticate>> {
        self.authenticator().map(|known| Arc::new(known) as _)
    }

    /// A signing key goes before the passphrase: `gpg --verify` can check what it signed.
    fn authenticator(&self) -> Option<Authenticator> {
        let authenticator = match (&self.signing_key, &self.passphrase) {
            (Some(key), Some(passphrase)) => {
                Authenticator::by_key(key.clone()).trusting_passphrase(passphrase.clone())
            }
            (Some(key), None) => Authenticator::by_key(key.clone()),
            (None, Some(passphrase)) => Authenticator::by_passphrase(passphrase.clone()),
            (None, None) if self.trusted_signers.is_empty() && self.old_passphrases.is_empty() => {
                return None;
            }
            (None, None) => Authenticator::new(),
        };
        let old = self.old_passphrases.iter().cloned();
        let authenticator = old.fold(authenticator, Authenticator::trusting_passphrase);
        let signers = self.trusted_signers.iter().cloned();
        Some(signers.fold(authenticator, Authenticator::trusting_signer))
    }

    fn by_passphrase(&self) -> OpenPgp {
        self.passphrase.iter().cloned().fold(OpenPgp::new(), OpenPgp::with_passphrase)
    }

    /// The passphrase alone as a transform.
    pub(crate) fn passphrase_transform(&self) -> Option<OpenPgp> {
        self.passphrase.as_ref().map(|_| self.by_passphrase())
    }

    /// Whether this is the passphrase in use.
    pub(crate) fn is_passphrase(&self, typed: &SecretString) -> bool {
        let ours = self.passphrase_text.as_ref();
        ours.is_some_and(|ours| ours.expose_secret() == typed.expose_secret())
    }

    /// The keys that open backups, for people: never themselves.
    pub(crate) fn descriptions(&self) -> Vec<String> {
        let passphrase = self.passphrase.iter().map(|_| "the passphrase".to_owned());
        let private = self.recipients.iter().map(|recipient| {
            let user = recipient.user_id().map(|user| format!(" ({user})")).unwrap_or_default();
            format!("the private key {}{user}", recipient.fingerprint())
        });
        let all: Vec<String> = passphrase.chain(private).collect();
        match all.len() {
            0 | 1 => all,
            _ => all.into_iter().map(|one| format!("{one}; any one of them does")).collect(),
        }
    }

    /// The public keys that prove whose a backup is, for people.
    pub(crate) fn signers(&self) -> Vec<String> {
        let own = self.signing_key.iter().map(SecretKey::fingerprint);
        let all = own.chain(self.trusted_signers.iter().map(Signer::fingerprint));
        all.map(|key| format!("the public key {key}, as `trusted_signers`")).collect()
    }

    /// Who can open what is encrypted, as manifests record it.
    pub(crate) fn labels(&self) -> Vec<String> {
        let passphrase = self.passphrase.iter().map(|_| PASSPHRASE_KEY.to_owned());
        passphrase.chain(self.recipients.iter().map(Recipient::fingerprint)).collect()
    }
}

fn passphrase(text: &SecretString) -> Result<Passphrase> {
    Passphrase::from_file_bytes(text.expose_secret().as_bytes())
}

/// The recipients, and the fingerprints of those that were revoked.
fn read_recipients(paths: &[PathBuf]) -> Result<(Vec<Recipient>, Vec<String>)> {
    let (mut recipients, mut revoked) = (Vec::new(), Vec::new());
    for path in paths {
        for read in Certificate::parse(&read_key_file(path)?).map_err(|e| named(path, e))? {
            match read {
                Certificate::Usable(recipient) => recipients.push(*recipient),
                Certificate::Revoked { fingerprint } => revoked.push(fingerprint),
            }
        }
    }
    Ok((recipients, revoked))
}

fn read_signers(paths: &[PathBuf]) -> Result<Vec<Signer>> {
    let mut signers = Vec::new();
    for path in paths {
        signers.extend(Signer::parse(&read_key_file(path)?).map_err(|e| named(path, e))?);
    }
    Ok(signers)
}

fn read_secret_keys(paths: &[PathBuf], unlock: Option<&Passphrase>) -> Result<Vec<SecretKey>> {
    let mut keys = Vec::new();
    for path in paths {
        for key in SecretKey::parse(&read_key_file(path)?).map_err(|e| named(path, e))? {
            keys.push(match unlock {
                Some(passphrase) => key.unlocked_with(passphrase.clone()),
                None => key,
            });
        }
    }
    Ok(keys)
}

fn read_key_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let unreadable = |e: std::io::Error| {
        Error::usage("encryption", format!("the key file {} can't be read", path.display()))
            .next_step("correct its path, or let this user read it")
            .caused_by(e)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn named(path: &Path, error: Error) -> Error {
    let advice = error.advice().map(str::to_owned);
    let message = format!("{}: {}", path.display(), error.message());
    let named = Error::usage("encryption", message).caused_by(error);
    match advice {
        Some(advice) => named.next_step(advice),
        None => named,
    }
}

impl Deployment {
    /// Reads keys and opens nothing else: what `config check` needs.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn check(&self) -> Result<()> {
        let keys = self.keys().await?;
        for (name, job) in &self.config().job {
            if job.encrypt {
                keys.encryption()?;
            }
            crate::wiring::compression(&job.compression)?;
            self.storages(Some(name)).await?;
            let Some(postgres) = &job.postgres else { continue };
            self.connection(&postgres.url, "database").await.map_err(|error| {
                let advice =
                    error.advice().unwrap_or("correct the job's `postgres.url`").to_owned();
                Error::new(ErrorKind::Usage, "config", format!("job {name:?}: {}", error.message()))
                    .next_step(advice)
                    .caused_by(error)
            })?;
        }
        Ok(())
    }
}
