//! A secret key: opens backups, signs manifests.

use std::fmt;
use std::time::SystemTime;

use backup_core::{Error, ErrorKind, Result};
use pgp::composed::{PublicOrSecret, SignedPublicKey, SignedSecretKey};

use pgp::types::{
    DecryptionKey, EskType, KeyDetails, Password, PkeskBytes, SecretParams, SigningKey,
};
use pgp::{composed::PlainSessionKey, packet};

use crate::Passphrase;
use crate::certificate::{AnyKey, Use, fingerprint, key_id, read_keys, select};

/// A secret key with its subkeys, possibly locked by a passphrase of its own.
#[derive(Clone)]
pub struct SecretKey {
    key: SignedSecretKey,
    passphrases: Vec<Passphrase>,
}

/// What came of trying a secret key on a session key packet.
pub(crate) enum Attempt {
    /// Session keys that it may have been.
    Opened(PlainSessionKey),
    /// The packet is not for this key, or holds rubbish.
    Failed,
    /// The key is the right one, and no passphrase at hand unlocks it.
    Locked,
}

impl SecretKey {
    /// Reads a secret key file, `gpg --export-secret-keys` with or without `--armor`; also one of
    /// `--export-secret-subkeys`, where the primary key is missing. Public keys in the same file
    /// are passed over.
    ///
    /// # Errors
    /// A usage error when the file holds no secret key.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>> {
        let keys: Vec<Self> = read_keys(content)?
            .into_iter()
            .filter_map(|key| match key {
                PublicOrSecret::Secret(key) => Some(Self { key, passphrases: Vec::new() }),
                PublicOrSecret::Public(_) => None,
            })
            .collect();
        if keys.is_empty() {
            return Err(Error::usage("openpgp key", "the file holds public keys only")
                .next_step("export the secret one with `gpg --armor --export-secret-keys KEY`"));
        }
        Ok(keys)
    }

    /// Adds a passphrase to try where the key is locked.
    #[must_use]
    pub fn unlocked_with(mut self, passphrase: Passphrase) -> Self {
        self.passphrases.push(passphrase);
        self
    }

    /// Fingerprint of the primary key, as gpg prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key.primary_key)
    }

    /// Ids of the primary key and of the subkeys, 16 capital hex digits each.
    pub fn key_ids(&self) -> Vec<String> {
        let subkeys = self.key.secret_subkeys.iter().map(|subkey| key_id(&subkey.key));
        [key_id(&self.key.primary_key)].into_iter().chain(subkeys).collect()
    }

    /// When the key that signs expires, or did. `None` for one without an expiry date.
    ///
    /// Signatures that are made later are refused by everybody whose copy of the public key
    /// says so, until they get one with a later date.
    ///
    /// # Errors
    /// A usage error when it is revoked or not meant for signing.
    pub fn signing_expires(&self) -> Result<Option<SystemTime>> {
        select(&self.certificate(), Use::Sign, SystemTime::now()).map(|usable| usable.expires)
    }

    pub(crate) fn certificate(&self) -> SignedPublicKey {
        self.key.to_public_key()
    }

    /// Tries every key in here that the packet may be for.
    pub(crate) fn open(
        &self,
        packet: &packet::PublicKeyEncryptedSessionKey,
        kind: EskType,
    ) -> Vec<Attempt> {
        let Ok(values) = packet.values() else { return Vec::new() };
        let mut attempts = Vec::new();
        let primary = &self.key.primary_key;
        if packet.match_identity(primary.public_key()) {
            attempts.push(self.attempt(primary, primary.secret_params(), values, kind));
        }
        for subkey in &self.key.secret_subkeys {
            if packet.match_identity(subkey.key.public_key()) {
                let key = &subkey.key;
                attempts.push(self.attempt(key, key.secret_params(), values, kind));
            }
        }
        attempts
    }

    fn attempt(
        &self,
        key: &dyn DecryptionKey,
        secret: &SecretParams,
        values: &PkeskBytes,
        kind: EskType,
    ) -> Attempt {
        for password in self.passwords(secret) {
            match key.decrypt(&password, values, kind) {
                Ok(Ok(session_key)) => return Attempt::Opened(session_key),
                Ok(Err(_)) => return Attempt::Failed,
                Err(_) => {}
            }
        }
        if secret.is_encrypted() { Attempt::Locked } else { Attempt::Failed }
    }

    fn passwords(&self, secret: &SecretParams) -> Vec<Password> {
        if secret.is_encrypted() {
            self.passphrases.iter().map(Passphrase::as_password).collect()
        } else {
            vec![Password::empty()]
        }
    }

    /// Calls `sign` with the key that is valid for signing today and a password that unlocks it.
    pub(crate) fn sign_with<T>(
        &self,
        sign: impl Fn(&dyn SigningKey, &Password) -> pgp::errors::Result<T>,
    ) -> Result<T> {
        let usable = select(&self.certificate(), Use::Sign, SystemTime::now())?;
        let (key, secret) = self.secret_half(&usable.key).ok_or_else(|| {
            let id = key_id(usable.key.details());
            Error::usage(
                "openpgp key",
                format!("the secret half of the signing key {id} is missing"),
            )
        })?;
        let mut last = None;
        for password in self.passwords(secret) {
            match sign(key, &password) {
                Ok(signed) => return Ok(signed),
                Err(error) => last = Some(error),
            }
        }
        let name = self.fingerprint();
        let failed = Error::new(
            ErrorKind::Unchecked,
            "openpgp key",
            format!("the secret key {name} could not sign; is its passphrase right?"),
        );
        Err(match last {
            Some(error) => failed.caused_by(error),
            None => failed.next_step("the key is locked: give its passphrase"),
        })
    }

    fn secret_half(&self, public: &AnyKey) -> Option<(&dyn SigningKey, &SecretParams)> {
        match public {
            AnyKey::Primary(_) => {
                let key = &self.key.primary_key;
                Some((key, key.secret_params()))
            }
            AnyKey::Subkey(public) => {
                let found = |s: &&pgp::composed::SignedSecretSubKey| {
                    s.key.fingerprint() == public.fingerprint()
                };
                let subkey = self.key.secret_subkeys.iter().find(found)?;
                Some((&subkey.key, subkey.key.secret_params()))
            }
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.fingerprint()).finish()
    }
}
