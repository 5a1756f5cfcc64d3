//! A public key that backups are encrypted to.

use std::time::SystemTime;

use backup_core::{Error, Result};
use pgp::composed::{PublicOrSecret, SignedPublicKey};
use pgp::packet::{PublicKey, PublicSubkey};

use crate::certificate::{AnyKey, Usable, Use, fingerprint, key_id, read_keys, select};

/// Somebody who will be able to open what is encrypted: a certificate, and in it the key that is
/// valid for encryption today.
///
/// Only the public half is needed, so the host that writes backups need not be able to read them.
#[derive(Debug, Clone)]
pub struct Recipient {
    certificate: SignedPublicKey,
    usable: Usable,
}

impl Recipient {
    /// Reads a public key file, `gpg --export` with or without `--armor`. Every certificate in it
    /// becomes a recipient, in the order of the file.
    ///
    /// # Errors
    /// A usage error when the file holds no key, a secret one, or one that is revoked, expired or
    /// not meant for encryption; the error names the key.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>> {
        read_keys(content)?
            .into_iter()
            .map(|key| match key {
                PublicOrSecret::Public(certificate) => Self::of(certificate),
                PublicOrSecret::Secret(key) => {
                    let name = fingerprint(&key.primary_key);
                    Err(Error::usage("openpgp key", format!("{name} is a secret key")).next_step(
                        format!("export the public one with `gpg --armor --export {name}`"),
                    ))
                }
            })
            .collect()
    }

    fn of(certificate: SignedPublicKey) -> Result<Self> {
        let usable = select(&certificate, Use::Encrypt, SystemTime::now())?;
        Ok(Self { certificate, usable })
    }

    /// Fingerprint of the certificate, as gpg prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate.primary_key)
    }

    /// Id of the key that opens what is encrypted to this recipient, as `gpg --list-packets`
    /// shows it: 16 capital hex digits. Often a subkey's.
    pub fn key_id(&self) -> String {
        key_id(self.usable.key.details())
    }

    /// The first user id, `Backup <backup@example.org>`.
    pub fn user_id(&self) -> Option<String> {
        let user = self.certificate.details.users.first()?;
        Some(String::from_utf8_lossy(user.id.id()).into_owned())
    }

    /// From when on nothing can be encrypted to this recipient any more; what was, stays
    /// readable. `None` for a key without an expiry date.
    pub fn expires(&self) -> Option<SystemTime> {
        self.usable.expires
    }

    pub(crate) fn key(&self) -> EncryptTo<'_> {
        match &self.usable.key {
            AnyKey::Primary(key) => EncryptTo::Primary(key),
            AnyKey::Subkey(key) => EncryptTo::Subkey(key),
        }
    }
}

/// The key itself, in the two shapes the library has for it.
pub(crate) enum EncryptTo<'a> {
    Primary(&'a PublicKey),
    Subkey(&'a PublicSubkey),
}
