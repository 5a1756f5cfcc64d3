//! Digests of a table's rows that do not depend on their order: a keyed hash of each row,
//! summed up. docs/decisions/row-digests.md says why this is enough, and why it is no XOR.

use std::fmt;

use backup_core::{Error, Inventory, Result};
use highway::{HighwayHash, HighwayHasher, Key};
use rand::RngCore as _;

use super::fields::STAGE;

/// How digests made here are called in the contents.
pub(crate) const ALGORITHM: &str = "highwayhash-256, sum mod 2^256";

/// The key of a dump's row digests. As secret as the data, and never the same for two dumps.
#[derive(Clone)]
pub struct RowKey([u64; 4]);

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowKey(..)")
    }
}

impl RowKey {
    /// A new one.
    pub fn random() -> Self {
        let mut random = rand::rngs::OsRng;
        Self([random.next_u64(), random.next_u64(), random.next_u64(), random.next_u64()])
    }

    /// The key that the digests of `inventory` were made with; `None` when it has none.
    ///
    /// # Errors
    /// `Damaged` when it is no key, `Unchecked` for an algorithm of a newer version.
    pub fn of(inventory: &Inventory) -> Result<Option<Self>> {
        let Some(digests) = &inventory.row_digests else { return Ok(None) };
        if digests.algorithm != ALGORITHM {
            let message = format!("the rows' digests are of the kind {:?}", digests.algorithm);
            return Err(Error::new(backup_core::ErrorKind::Unchecked, STAGE, message)
                .next_step("use a newer marb-backup"));
        }
        let mut bytes = [[0; 8]; 4];
        hex::decode_to_slice(&digests.key, bytes.as_flattened_mut()).map_err(|e| {
            Error::damaged(STAGE, "the key of the rows' digests is none").caused_by(e)
        })?;
        Ok(Some(Self(bytes.map(u64::from_be_bytes))))
    }

    /// As it stands in the contents.
    pub(crate) fn to_hex(&self) -> String {
        hex::encode(self.0.map(u64::to_be_bytes).as_flattened())
    }

    fn hasher(&self) -> HighwayHasher {
        HighwayHasher::new(Key(self.0))
    }
}

/// A sum modulo 2^256 of hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HashSum([u64; 4]);

impl HashSum {
    #[inline]
    pub fn add(&mut self, hash: [u64; 4]) {
        let mut carry = false;
        for (limb, more) in self.0.iter_mut().zip(hash) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
    }

    /// Takes one hash out again: adds its complement and one.
    fn subtract(&mut self, hash: [u64; 4]) {
        self.add(hash.map(|limb| !limb));
        self.add([1, 0, 0, 0]);
    }

    pub fn to_hex(self) -> String {
        let mut limbs = self.0;
        limbs.reverse();
        hex::encode(limbs.map(u64::to_be_bytes).as_flattened())
    }
}

/// Hashes the lines of COPY text as it flows past, each row on its own and none of them kept.
pub(super) struct RowDigest {
    /// A hasher that has the key and has seen nothing.
    blank: HighwayHasher,
    /// The line that the pieces so far left unfinished.
    open: Option<HighwayHasher>,
    sum: HashSum,
}

impl RowDigest {
    pub fn new(key: &RowKey) -> Self {
        Self { blank: key.hasher(), open: None, sum: HashSum::default() }
    }

    /// Takes the next bytes; returns how many lines ended in them.
    #[inline]
    pub fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut lines = 0;
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let mut line = self.open.take().unwrap_or_else(|| self.blank.clone());
            line.append(&bytes[..end]);
            self.sum.add(line.finalize256());
            bytes = &bytes[end + 1..];
            lines += 1;
        }
        if !bytes.is_empty() {
            self.open.get_or_insert_with(|| self.blank.clone()).append(bytes);
        }
        lines
    }

    /// The sum over the rows alone, when the text ended with the line `\.` and `closing` - 1
    /// empty ones: they were taken for rows until then.
    pub fn finish(mut self, closing: u64) -> HashSum {
        let hash = |line: &[u8]| {
            let mut hasher = self.blank.clone();
            hasher.append(line);
            hasher.finalize256()
        };
        let (terminator, empty) = (hash(b"\\."), hash(b""));
        self.sum.subtract(terminator);
        for _ in 1..closing {
            self.sum.subtract(empty);
        }
        self.sum
    }
}

/// Hashes one large object, its id in front.
pub(super) struct ObjectDigest(HighwayHasher);

impl ObjectDigest {
    pub fn new(key: &RowKey, oid: i64) -> Self {
        let mut hasher = key.hasher();
        hasher.append(&oid.to_be_bytes());
        Self(hasher)
    }

    #[inline]
    pub fn take(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }

    pub fn finish(self) -> [u64; 4] {
        self.0.finalize256()
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
