//! The content of `manifest.json.sig` when a passphrase vouches for the manifest: an HMAC under a
//! key derived from it, as a small JSON document.

use argon2::{Algorithm, Argon2, Params, Version};
use backup_core::{Error, ErrorKind, Result};
use hmac::{Hmac, Mac};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::Passphrase;

/// The format this version writes and reads. None came before it: a 0 is a bit that flipped.
const FORMAT: u32 = 1;

/// HMAC-SHA256 under a key that Argon2id made of the passphrase.
const METHOD: &str = "hmac-sha256-argon2id";

/// Memory to derive the key, in KiB: the first choice of OWASP's password storage guide.
const MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes in it.
const LANES: u32 = 1;

/// What a document may ask a reader for, beyond which it is refused: a forged one must not
/// exhaust the machine. Below what we write nothing is accepted either.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 8;

const SALT_BYTES: usize = 16;
const MAX_SALT_BYTES: usize = 64;
const KEY_BYTES: usize = 32;

const STAGE: &str = crate::authenticator::STAGE;

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u32,
    method: String,
    /// Argon2's memory cost m.
    memory_kib: u32,
    /// Argon2's time cost t.
    passes: u32,
    /// Argon2's parallelism p.
    lanes: u32,
    /// Argon2's salt, in hex.
    salt: String,
    /// HMAC-SHA256 of the manifest's bytes, in hex.
    mac: String,
}

/// Makes the document for `manifest`, with a salt of its own.
pub(crate) fn seal(passphrase: &Passphrase, manifest: &[u8]) -> Result<Vec<u8>> {
    let mut salt = [0; SALT_BYTES];
    OsRng.fill_bytes(&mut salt);
    let mut document = Document {
        format: FORMAT,
        method: METHOD.into(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: hex::encode(salt),
        mac: String::new(),
    };
    let mac = document.keyed(passphrase, manifest)?.finalize().into_bytes();
    document.mac = hex::encode(mac);
    let mut json = serde_json::to_vec_pretty(&document)
        .map_err(|e| Error::failed(STAGE, "could not be written as JSON").caused_by(e))?;
    json.push(b'\n');
    Ok(json)
}

/// Whether one of the passphrases made `document` for `manifest`.
pub(crate) fn verify(passphrases: &[Passphrase], manifest: &[u8], document: &[u8]) -> Result<()> {
    let document = Document::read(document)?;
    if passphrases.is_empty() {
        return Err(Error::new(
            ErrorKind::Unchecked,
            STAGE,
            "a passphrase vouches for the manifest, and none is at hand",
        )
        .next_step("give the passphrase that the backup was made with"));
    }
    let mac = hex::decode(&document.mac).map_err(|_| malformed("its mac is not in hex"))?;
    for passphrase in passphrases {
        // Compares in constant time.
        if document.keyed(passphrase, manifest)?.verify_slice(&mac).is_ok() {
            return Ok(());
        }
    }
    Err(Error::refused(STAGE, "the manifest is not the one that was written with this passphrase")
        .next_step("either the passphrase is another one, or somebody changed the manifest: do not restore from it"))
}

impl Document {
    fn read(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            method: String,
        }
        let no_document = |e: serde_json::Error| malformed("it is no such document").caused_by(e);
        let head: Head = serde_json::from_slice(json).map_err(no_document)?;
        if head.format != FORMAT || head.method != METHOD {
            let Head { format, method } = head;
            let what =
                format!("it has format {format} and method {method:?}, unknown to this version");
            return Err(
                Error::new(ErrorKind::Unchecked, STAGE, what).next_step("use a newer marb-backup")
            );
        }
        let document: Self = serde_json::from_slice(json).map_err(no_document)?;
        let bounds = (MEMORY_KIB..=MAX_MEMORY_KIB).contains(&document.memory_kib)
            && (PASSES..=MAX_PASSES).contains(&document.passes)
            && (LANES..=MAX_LANES).contains(&document.lanes);
        if bounds { Ok(document) } else { Err(malformed("its costs are out of bounds")) }
    }

    /// The HMAC over `manifest`, under the derived key.
    fn keyed(&self, passphrase: &Passphrase, manifest: &[u8]) -> Result<Hmac<Sha256>> {
        let salt = hex::decode(&self.salt).unwrap_or_default();
        if !(SALT_BYTES..=MAX_SALT_BYTES).contains(&salt.len()) {
            return Err(malformed("its salt is malformed"));
        }
        let failed =
            |e: argon2::Error| Error::failed(STAGE, format!("no key could be derived: {e}"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES))
            .map_err(failed)?;
        let mut key = [0; KEY_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.bytes(), &salt, &mut key)
            .map_err(failed)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key)
            .map_err(|e| Error::failed(STAGE, "no key could be derived").caused_by(e))?;
        mac.update(manifest);
        Ok(mac)
    }
}

fn malformed(why: &str) -> Error {
    Error::refused(STAGE, format!("the manifest's signature is malformed: {why}"))
        .next_step("do not restore from this copy; look for another")
}
