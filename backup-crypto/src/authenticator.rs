//! Who vouches for a manifest: a passphrase or a signing key.
//!
//! Encryption to a public key proves nothing about the author, since everybody has the public
//! key. Whoever restores runs the SQL of the backup as superuser, so the manifest, which holds the
//! digest of every part, is authenticated.

use std::time::SystemTime;

use backup_core::{Authenticate, Error, ErrorKind, Result};
use pgp::composed::{
    ArmorOptions, Deserializable, DetachedSignature, PublicOrSecret, SignedPublicKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use rand::rngs::OsRng;

use crate::certificate::{AnyKey, Use, fingerprint, key_id, read_keys, select, signers};
use crate::{Passphrase, SecretKey, hmac_seal};

pub(crate) const STAGE: &str = "manifest signature";

/// The longest `manifest.json.sig` that is looked at, in bytes.
const MAX_SIGNATURE_BYTES: usize = 64 * 1024;

/// How far another host's clock may be ahead, in seconds.
const CLOCK_SKEW_SECONDS: u32 = 24 * 60 * 60;

/// Signs manifests, and tells authentic ones from forged.
///
/// ```
/// use backup_crypto::{Authentic, Authenticator, Passphrase};
///
/// let passphrase = Passphrase::from_file_bytes(b"open sesame\n")?;
/// let authenticator = Authenticator::by_passphrase(passphrase);
/// let signature = authenticator.sign(b"{\"format\": 1}")?;
/// assert_eq!(authenticator.verify(b"{\"format\": 1}", &signature)?, Authentic::ByPassphrase);
/// assert!(authenticator.verify(b"{\"format\": 2}", &signature).is_err());
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    method: Option<Method>,
    passphrases: Vec<Passphrase>,
    signers: Vec<Signer>,
}

#[derive(Debug, Clone)]
enum Method {
    Hmac(Passphrase),
    OpenPgp(Box<SecretKey>),
}

/// A public key whose signatures on manifests are trusted.
#[derive(Debug, Clone)]
pub struct Signer(SignedPublicKey);

/// Why a manifest is authentic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authentic {
    /// Somebody who knows the passphrase wrote it.
    ByPassphrase,
    /// The holder of this certificate signed it.
    BySigner {
        /// Fingerprint of the certificate, as gpg prints it.
        fingerprint: String,
    },
}

impl Authenticator {
    /// Signs nothing and trusts nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Signs with an HMAC under this passphrase, and trusts it.
    pub fn by_passphrase(passphrase: Passphrase) -> Self {
        let method = Some(Method::Hmac(passphrase.clone()));
        Self { method, ..Self::default() }.trusting_passphrase(passphrase)
    }

    /// Signs with this OpenPGP key, and trusts it: `gpg --verify manifest.json.sig manifest.json`
    /// tells the same.
    pub fn by_key(key: SecretKey) -> Self {
        let signer = Signer(key.certificate());
        Self { method: Some(Method::OpenPgp(Box::new(key))), ..Self::default() }
            .trusting_signer(signer)
    }

    /// Trusts manifests authenticated with this passphrase too.
    #[must_use]
    pub fn trusting_passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrases.push(passphrase);
        self
    }

    /// Trusts manifests signed by this key too.
    #[must_use]
    pub fn trusting_signer(mut self, signer: Signer) -> Self {
        self.signers.push(signer);
        self
    }

    /// Whether [`sign`](Self::sign) has something to sign with.
    pub fn can_sign(&self) -> bool {
        self.method.is_some()
    }

    /// The content of `manifest.json.sig` for these bytes of `manifest.json`: an armored OpenPGP
    /// signature, or a JSON document with `"method": "hmac-sha256-argon2id"`.
    ///
    /// # Errors
    /// A usage error without a passphrase or key to sign with, or with a key that may not sign;
    /// [`ErrorKind::Unchecked`] when the key can't be unlocked.
    pub fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        match &self.method {
            Some(Method::Hmac(passphrase)) => hmac_seal::seal(passphrase, manifest),
            Some(Method::OpenPgp(key)) => key.sign_with(|key, password| {
                let (hash, key) = (key.hash_alg(), Box::new(key));
                DetachedSignature::sign_binary_data(OsRng, &key, password, hash, manifest)?
                    .to_armored_bytes(ArmorOptions::default())
            }),
            None => {
                Err(Error::usage(STAGE, "there is neither a passphrase nor a key to sign with"))
            }
        }
    }

    /// Whether `signature`, the content of `manifest.json.sig`, vouches for exactly these bytes
    /// of `manifest.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the manifest was changed, or the signature is malformed;
    /// [`ErrorKind::Unchecked`] when the passphrase or the public key to tell is not at hand.
    pub fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<Authentic> {
        if signature.len() > MAX_SIGNATURE_BYTES {
            return Err(refused("the signature is longer than any signature"));
        }
        if signature.trim_ascii_start().starts_with(b"{") {
            hmac_seal::verify(&self.passphrases, manifest, signature)?;
            return Ok(Authentic::ByPassphrase);
        }
        let (signature, _) = DetachedSignature::from_reader_single(signature)
            .map_err(|e| refused("the manifest's signature is malformed").caused_by(e))?;
        self.verify_openpgp(manifest, &signature.signature)
    }

    fn verify_openpgp(&self, manifest: &[u8], signature: &Signature) -> Result<Authentic> {
        let now = SystemTime::now();
        let created = acceptable(signature, now)?;
        for Signer(certificate) in &self.signers {
            if !names(signature, certificate) {
                continue;
            }
            let keys = signers(certificate, created, now)
                .map_err(|e| refused("the key that signed it can't be trusted").caused_by(e))?;
            let good = keys.iter().any(|key| match key {
                AnyKey::Primary(key) => signature.verify(key, manifest).is_ok(),
                AnyKey::Subkey(key) => signature.verify(key, manifest).is_ok(),
            });
            let fingerprint = fingerprint(&certificate.primary_key);
            return if good {
                Ok(Authentic::BySigner { fingerprint })
            } else {
                Err(refused(&format!(
                    "the manifest is not the one that the key {fingerprint} signed"
                )))
            };
        }
        let ids: Vec<String> =
            signature.issuer_key_id().iter().map(|id| id.to_string().to_uppercase()).collect();
        let message = format!(
            "the key {} signed the manifest, and is not among the trusted ones",
            ids.join(", ")
        );
        Err(Error::new(ErrorKind::Unchecked, STAGE, message).next_step(
            "if you trust that key, give its public half; if you do not know it, do not restore",
        ))
    }
}

impl Authenticate for Authenticator {
    fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        self.sign(manifest)
    }

    fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<()> {
        self.verify(manifest, signature).map(|_| ())
    }
}

impl Signer {
    /// Reads a public key file; every certificate in it is trusted. Of a secret key, the public
    /// half is taken.
    ///
    /// # Errors
    /// A usage error when the file holds no key.
    pub fn parse(content: &[u8]) -> Result<Vec<Self>> {
        let keys = read_keys(content)?.into_iter();
        Ok(keys
            .map(|key| match key {
                PublicOrSecret::Public(certificate) => Self(certificate),
                PublicOrSecret::Secret(key) => Self(key.to_public_key()),
            })
            .collect())
    }

    /// Fingerprint of the certificate, as gpg prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0.primary_key)
    }

    /// From when on its signatures are refused: those made before stay good. `None` without an
    /// expiry date.
    ///
    /// # Errors
    /// A usage error when it is revoked or not meant for signing: none of its signatures counts.
    pub fn expires(&self) -> Result<Option<SystemTime>> {
        select(&self.0, Use::Sign, SystemTime::now()).map(|usable| usable.expires)
    }
}

/// When the signature was made, if it is of a kind that counts.
fn acceptable(signature: &Signature, now: SystemTime) -> Result<SystemTime> {
    if signature.typ() != Some(SignatureType::Binary) {
        return Err(refused("the signature is not one over a file"));
    }
    let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
    if !signature.hash_alg().is_some_and(|hash| strong.contains(&hash)) {
        return Err(refused("the signature uses a hash that can be forged"));
    }
    let created = signature.created().ok_or_else(|| refused("the signature has no date"))?;
    let lifetime = signature.signature_expiration_time().map_or(0, |d| d.as_secs());
    let age = now.duration_since(SystemTime::from(created));
    match age {
        Err(ahead) if ahead.duration().as_secs() > u64::from(CLOCK_SKEW_SECONDS) => {
            Err(refused("the signature is dated in the future"))
        }
        Ok(age) if lifetime > 0 && age.as_secs() >= u64::from(lifetime) => {
            Err(refused("the signature has expired"))
        }
        _ => Ok(SystemTime::from(created)),
    }
}

/// Whether the signature says that a key of this certificate made it.
fn names(signature: &Signature, certificate: &SignedPublicKey) -> bool {
    let subkeys = certificate.public_subkeys.iter().map(|subkey| key_id(&subkey.key));
    let ids: Vec<String> = [key_id(&certificate.primary_key)].into_iter().chain(subkeys).collect();
    signature.issuer_key_id().iter().any(|id| ids.contains(&id.to_string().to_uppercase()))
        || signature.issuer_fingerprint().iter().any(|fp| {
            let fp = fp.to_string().to_uppercase();
            ids.iter().any(|id| fp.ends_with(id.as_str()))
        })
}

fn refused(message: &str) -> Error {
    Error::refused(STAGE, message).next_step("do not restore from this copy; look for another")
}
