//! Size and SHA-256 of a stream.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many bytes a stream had, and their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Digest {
    /// The digest of a whole slice.
    pub fn of(data: &[u8]) -> Self {
        let mut digester = Digester::default();
        digester.update(data);
        digester.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, sha256 {}", self.bytes, self.sha256)
    }
}

/// Computes a [`Digest`] as bytes stream past.
#[derive(Clone, Default)]
pub struct Digester {
    bytes: u64,
    hash: Sha256,
}

impl Digester {
    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.hash.update(data);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        Digest { bytes: self.bytes, sha256: hex::encode(self.hash.finalize()) }
    }
}
