//! Finds the session key of a message among everything at hand.

use backup_core::{Error, ErrorKind};
use pgp::composed::{PlainSessionKey, decrypt_session_key_with_password};
use pgp::packet::{PublicKeyEncryptedSessionKey, SymKeyEncryptedSessionKey};
use pgp::types::{EskType, PkeskVersion, StringToKey};

use crate::secret_key::Attempt;
use crate::{Passphrase, STAGE, SecretKey};

/// The most memory that a message may ask for to turn a passphrase into a key, as the power of
/// two of its KiB: 1 GiB.
const MAX_ARGON2_MEMORY_LOG: u8 = 20;

/// A packet that holds the session key, sealed to somebody.
pub(crate) enum Sealed {
    ToKey(PublicKeyEncryptedSessionKey),
    ToPassphrase(SymKeyEncryptedSessionKey),
}

/// Everything that may open a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring {
    pub(crate) passphrases: Vec<Passphrase>,
    pub(crate) secret_keys: Vec<SecretKey>,
}

/// What was tried in vain.
#[derive(Default)]
struct Search {
    locked: Vec<String>,
    passphrases_tried: bool,
}

impl Keyring {
    /// The first session key that `fits`.
    ///
    /// The fitting matters: a packet sealed to a passphrase has no checksum, so that a wrong
    /// passphrase gives a wrong session key (always with gpg's, once in a hundred times with
    /// others), and with several at hand the right one may come later.
    pub(crate) fn find(
        &self,
        sealed: &[Sealed],
        fits: impl Fn(&PlainSessionKey) -> bool,
    ) -> Result<PlainSessionKey, Error> {
        let mut search = Search::default();
        for packet in sealed {
            let Sealed::ToKey(packet) = packet else { continue };
            if let Some(key) = self.by_secret_key(packet, &fits, &mut search) {
                return Ok(key);
            }
        }
        for packet in sealed {
            let Sealed::ToPassphrase(packet) = packet else { continue };
            if let Some(key) = self.by_passphrase(packet, &fits, &mut search) {
                return Ok(key);
            }
        }
        Err(search.in_vain(sealed))
    }

    fn by_secret_key(
        &self,
        packet: &PublicKeyEncryptedSessionKey,
        fits: &impl Fn(&PlainSessionKey) -> bool,
        search: &mut Search,
    ) -> Option<PlainSessionKey> {
        let kind = match packet.version() {
            PkeskVersion::V3 => EskType::V3_4,
            PkeskVersion::V6 => EskType::V6,
            PkeskVersion::Other(_) => return None,
        };
        for key in &self.secret_keys {
            for attempt in key.open(packet, kind) {
                match attempt {
                    Attempt::Opened(session_key) if fits(&session_key) => return Some(session_key),
                    Attempt::Locked => search.locked.push(key.fingerprint()),
                    Attempt::Opened(_) | Attempt::Failed => {}
                }
            }
        }
        None
    }

    fn by_passphrase(
        &self,
        packet: &SymKeyEncryptedSessionKey,
        fits: &impl Fn(&PlainSessionKey) -> bool,
        search: &mut Search,
    ) -> Option<PlainSessionKey> {
        let affordable = match packet.s2k() {
            Some(StringToKey::Argon2 { m_enc, .. }) => *m_enc <= MAX_ARGON2_MEMORY_LOG,
            Some(_) => true,
            None => false,
        };
        if !affordable || !packet.is_supported() {
            return None;
        }
        for passphrase in &self.passphrases {
            search.passphrases_tried = true;
            match decrypt_session_key_with_password(packet, &passphrase.as_password()) {
                Ok(session_key) if fits(&session_key) => return Some(session_key),
                Ok(_) | Err(_) => {}
            }
        }
        None
    }
}

impl Search {
    fn in_vain(self, sealed: &[Sealed]) -> Error {
        let to_passphrase = sealed.iter().any(|s| matches!(s, Sealed::ToPassphrase(_)));
        let ids: Vec<String> = sealed
            .iter()
            .filter_map(|packet| match packet {
                Sealed::ToKey(packet) => Some(recipient(packet)),
                Sealed::ToPassphrase(_) => None,
            })
            .collect();
        let mut reasons = Vec::new();
        if !self.locked.is_empty() {
            let keys = self.locked.join(", ");
            reasons.push(format!(
                "the secret key {keys} is locked, and no passphrase at hand unlocks it"
            ));
        } else if !ids.is_empty() {
            let ids = ids.join(", ");
            reasons.push(format!(
                "it was encrypted to the key {ids}, whose secret half is not at hand"
            ));
        }
        if to_passphrase {
            reasons.push(String::from(if self.passphrases_tried {
                "the passphrase is wrong"
            } else {
                "it was encrypted with a passphrase, and none is at hand"
            }));
        }
        if sealed.is_empty() {
            reasons.push(String::from("it does not say with which key it was encrypted"));
        }
        Error::new(ErrorKind::Unchecked, STAGE, format!("could not be opened: {}", reasons.join("; ")))
            .next_step("give the passphrase or the secret key that belongs to it; if they are right, the first bytes are damaged")
    }
}

fn recipient(packet: &PublicKeyEncryptedSessionKey) -> String {
    if let Ok(id) = packet.id() {
        if id.is_wildcard() {
            return String::from("(of a hidden recipient)");
        }
        return id.to_string().to_uppercase();
    }
    match packet.fingerprint() {
        Ok(Some(fingerprint)) => fingerprint.to_string().to_uppercase(),
        _ => String::from("(of a hidden recipient)"),
    }
}
