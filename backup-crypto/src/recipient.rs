//! A public key that backups are encrypted to.

use std::time::SystemTime;

use backup_core::{Error, Result};
use pgp::composed::{PublicOrSecret, SignedPublicKey};
use pgp::packet::{PublicKey, PublicSubkey};

use crate::certificate::{AnyKey, Usable, Use, fingerprint, is_revoked, key_id, read_keys, select};

/// Somebody who will be able to open what is encrypted: a certificate, and in it the key that is
/// valid for encryption today.
///
/// Only the public half is needed, so the host that writes backups need not be able to read them.
#[derive(Debug, Clone)]
pub struct Recipient {
    certificate: SignedPublicKey,
    usable: Usable,
}

/// A certificate of a public key file.
#[derive(Debug, Clone)]
pub enum Certificate {
    /// It can be encrypted to, though perhaps it has expired: [`Recipient::is_expired`].
    Usable(Box<Recipient>),
    /// Its owner has revoked it: nothing may be encrypted to it.
    Revoked {
        /// Its fingerprint, as gpg prints it.
        fingerprint: String,
    },
}

impl Certificate {
    /// Reads a public key file, `gpg --export` with or without `--armor`: every certificate in
    /// it, in the order of the file.
    ///
    /// # Errors
    /// A usage error when the file holds no key, a secret one, or one that is not meant for
    /// encryption; the error names the key.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>> {
        let now = SystemTime::now();
        let public = public_keys(content)?.into_iter();
        public
            .map(|certificate| {
                if is_revoked(&certificate, Use::Encrypt, now) {
                    let fingerprint = fingerprint(&certificate.primary_key);
                    return Ok(Self::Revoked { fingerprint });
                }
                Recipient::of(certificate).map(Box::new).map(Self::Usable)
            })
            .collect()
    }
}

fn public_keys(content: &[u8]) -> Result<Vec<SignedPublicKey>> {
    read_keys(content)?
        .into_iter()
        .map(|key| match key {
            PublicOrSecret::Public(certificate) => Ok(certificate),
            PublicOrSecret::Secret(key) => {
                let name = fingerprint(&key.primary_key);
                Err(Error::usage("openpgp key", format!("{name} is a secret key"))
                    .next_step(format!("export the public one with `gpg --armor --export {name}`")))
            }
        })
        .collect()
}

impl Recipient {
    /// Reads a public key file, as [`Certificate::parse`] does, in which none is revoked.
    ///
    /// # Errors
    /// As [`Certificate::parse`], and when one is revoked.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>> {
        public_keys(content)?.into_iter().map(Self::of).collect()
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

    /// When it expires, or did: gpg encrypts nothing to it from then on. What was encrypted
    /// stays readable. `None` for a key without an expiry date.
    pub fn expires(&self) -> Option<SystemTime> {
        self.usable.expires
    }

    /// Whether it has expired at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires().is_some_and(|end| end <= now)
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
