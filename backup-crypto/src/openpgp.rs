//! Encryption as a transform.

use std::io::{Read, Write};

use backup_core::{Error, ReadAt, Result, Transform};
use pgp::composed::{MessageBuilder, RawSessionKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{
    PacketTrait, PublicKeyEncryptedSessionKey as ToKey, SymKeyEncryptedSessionKey as ToPassphrase,
};
use pgp::types::StringToKey;
use rand::rngs::OsRng;

use crate::ends::End;
use crate::keyring::Keyring;
use crate::recipient::EncryptTo;
use crate::{Passphrase, Recipient, STAGE, SecretKey, anywhere, bridge, open};

/// Bytes hashed to turn a passphrase into a key, in OpenPGP's one-byte notation: 65,011,712, the
/// most there is. It costs an attacker, and us once per part, about a tenth of a second.
const S2K_COUNT: u8 = 255;

const CIPHER: SymmetricKeyAlgorithm = SymmetricKeyAlgorithm::AES256;

/// Bytes in each chunk of a message whose length nobody knows beforehand; a power of two.
const CHUNK_BYTES: u32 = 1024 * 1024;

/// OpenPGP encryption that gpg 2.2 and later open with `gpg --decrypt`.
///
/// It writes AES-256 in the integrity-protected format every OpenPGP program reads (SEIPD version
/// 1), sealed to a passphrase, to public keys, or to all of them at once, each of which opens it
/// alone. It never compresses: that is done before, and better.
///
/// Reading opens what gpg wrote as well: compressed (zlib, zip, bzip2) or not, armored or binary,
/// signed or not. Signatures inside a message are not checked; what makes a backup authentic is
/// the [`Authenticator`](crate::Authenticator). A message without integrity protection is refused.
///
/// `decode` hands out plaintext before its integrity is known, as the trait says it may; `Ok`
/// comes only after the modification detection code at the end was right.
///
/// Messages as it writes them can also be read at any place. What comes out then was not checked
/// (the code at the end covers all of the message), and must be compared with a digest.
///
/// Memory: under 8 MiB in either direction, whatever the length.
///
/// ```
/// use backup_core::Transform;
/// use backup_crypto::{OpenPgp, Passphrase};
///
/// let openpgp = OpenPgp::new().with_passphrase(Passphrase::from_file_bytes(b"open sesame\n")?);
/// let mut sealed = Vec::new();
/// openpgp.encode(&mut &b"a backup"[..], &mut sealed)?;
///
/// let mut opened = Vec::new();
/// openpgp.decode(&mut &sealed[..], &mut opened)?;
/// assert_eq!(opened, b"a backup");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpenPgp {
    passphrases: Vec<Passphrase>,
    recipients: Vec<Recipient>,
    keyring: Keyring,
    s2k_count: u8,
}

impl Default for OpenPgp {
    fn default() -> Self {
        Self {
            passphrases: Vec::new(),
            recipients: Vec::new(),
            keyring: Keyring::default(),
            s2k_count: S2K_COUNT,
        }
    }
}

impl OpenPgp {
    /// Without any key: neither encrypts nor decrypts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encrypts with this passphrase, and tries it when decrypting.
    #[must_use]
    pub fn with_passphrase(mut self, passphrase: Passphrase) -> Self {
        self.passphrases.push(passphrase.clone());
        self.with_old_passphrase(passphrase)
    }

    /// Tries this passphrase when decrypting, and never encrypts with it.
    #[must_use]
    pub fn with_old_passphrase(mut self, passphrase: Passphrase) -> Self {
        self.keyring.passphrases.push(passphrase);
        self
    }

    /// Encrypts to this public key. Decrypting takes its secret half.
    #[must_use]
    pub fn with_recipient(mut self, recipient: Recipient) -> Self {
        self.recipients.push(recipient);
        self
    }

    /// Tries this secret key when decrypting.
    #[must_use]
    pub fn with_secret_key(mut self, key: SecretKey) -> Self {
        self.keyring.secret_keys.push(key);
        self
    }

    /// Whether anything is there to encrypt with.
    pub fn can_encrypt(&self) -> bool {
        !self.passphrases.is_empty() || !self.recipients.is_empty()
    }

    /// The public keys that will open what is encrypted, for the manifest.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// With a passphrase that is cheap to guess, for sweeps that open a message a thousand times.
    #[cfg(test)]
    pub(crate) fn cheap(mut self) -> Self {
        self.s2k_count = 0;
        self
    }

    fn seal(&self, input: impl Read, mut output: impl Write) -> pgp::errors::Result<()> {
        let mut message = MessageBuilder::from_reader("", input).seipd_v1(OsRng, CIPHER);
        message.partial_chunk_size(CHUNK_BYTES)?;
        self.seal_session_key(message.session_key(), &mut output)?;
        message.to_writer(OsRng, output)
    }

    /// Writes the session key, sealed to everybody. Public keys come first: gpg stops at the
    /// first passphrase it is not given, even when it has a secret key for what follows.
    fn seal_session_key(
        &self,
        key: &RawSessionKey,
        output: &mut impl Write,
    ) -> pgp::errors::Result<()> {
        for recipient in &self.recipients {
            match recipient.key() {
                EncryptTo::Primary(to) => ToKey::from_session_key_v3(OsRng, key, CIPHER, to),
                EncryptTo::Subkey(to) => ToKey::from_session_key_v3(OsRng, key, CIPHER, to),
            }?
            .to_writer_with_header(output)?;
        }
        for passphrase in &self.passphrases {
            let s2k = StringToKey::new_iterated(OsRng, HashAlgorithm::Sha256, self.s2k_count);
            ToPassphrase::encrypt_v4(&passphrase.as_password(), key, s2k, CIPHER)?
                .to_writer_with_header(output)?;
        }
        Ok(())
    }
}

impl Transform for OpenPgp {
    fn name(&self) -> &str {
        "openpgp"
    }

    fn extension(&self) -> &str {
        "gpg"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        if !self.can_encrypt() {
            return Err(Error::usage(
                STAGE,
                "there is neither a passphrase nor a public key to encrypt with",
            ));
        }
        let (mut input, mut output) = (End::new(input), End::new(output));
        let sealed = self.seal(&mut input, &mut output);
        match input.failure().or(output.failure()) {
            Some(failure) => Err(failure),
            None => sealed.map_err(|e| Error::failed(STAGE, "could not be encrypted").caused_by(e)),
        }
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        bridge::run(input, output, |inlet, outlet| open::open(inlet, outlet, &self.keyring))
    }

    fn decode_at(&self, input: Box<dyn ReadAt>) -> Result<Option<Box<dyn ReadAt>>> {
        anywhere::open_at(input, &self.keyring)
    }
}
