//! The verb `verify`: reads a copy back, all of it, and says what was found.
//!
//! ```text
//! verify_copies(entry, storages) ── each copy by itself, then what is damaged where   copies.rs
//!   ├─ verify, verify_checksums     one copy                                          here
//!   └─ locate                       which bytes, and who has them whole               damage.rs
//! VerifiedCopy::keep_proof                                                            proof.rs
//! repair(copies)                    a good copy's files over the damaged ones         repair.rs
//! ```

mod checks;
mod compare;
pub(crate) mod copies;
mod damage;
pub(crate) mod locate;
mod proof;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pipeline::Context;
use crate::read::{BackupReader, Origin};
use crate::{Authenticate, Error, ErrorKind, Inventory, Manifest, Part, Result, Sink};
use checks::Checking;
pub use copies::{Verification, VerifiedCopy, verify_copies};
pub use damage::{Damage, Place};
pub use proof::{PROOF_FORMAT, Proof, store_proof};

/// What [`Check::what`] calls the check of who wrote the manifest.
pub(crate) const SIGNATURE_CHECK: &str = "signature";

/// How much a verification looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The stored bytes against the manifest's digests. Needs no key; whether the manifest
    /// itself is proven is in [`VerifyReport::origin`].
    Checksums,
    /// Everything decrypted, decompressed and read to its end, rows counted.
    #[default]
    Content,
}

/// Looks at the plain bytes of one part: walks an archive, say.
pub trait Inspector: Send + Sync {
    /// Where the plain bytes go; commits only when they are whole.
    fn sink(&self) -> Arc<dyn Sink>;

    /// What it found, after its sink was committed.
    fn inventory(&self) -> Option<Inventory>;
}

/// A part of a backup, and the manifest that lists it.
#[derive(Debug, Clone, Copy)]
pub struct ListedPart<'a> {
    /// The backup's manifest.
    pub manifest: &'a Manifest,
    /// One of its parts.
    pub part: &'a Part,
}

/// Makes an inspector for a part, where one exists. It is told what the backup recorded about
/// the part, where that is known.
pub type Inspectors<'a> =
    &'a (dyn Fn(ListedPart<'_>, Option<&Inventory>) -> Option<Box<dyn Inspector>> + Sync);

/// What a verification found about one copy of a backup.
#[derive(Debug)]
pub struct VerifyReport {
    /// The storage that was read.
    pub storage: String,
    /// How much was looked at.
    pub level: Level,
    /// What is known of who wrote it; `None` when it is forged, or could not be looked at.
    pub origin: Option<Origin>,
    /// What was checked, in order, and how it went.
    pub checks: Vec<Check>,
    /// The damaged files, as far as they can be told. Filled in by [`verify_copies`].
    pub damage: Vec<Damage>,
}

/// One thing that was checked.
#[derive(Debug)]
pub struct Check {
    /// A file of the backup, or `signature`.
    pub what: String,
    /// Bytes read (plain ones, of a part at [`Level::Content`]), or what is wrong.
    pub result: Result<u64>,
    /// What is known of the file's stored bytes.
    pub(crate) stored: Stored,
    /// How many of them had been read when decoding them failed.
    pub(crate) decoded: Option<u64>,
}

/// What is known of a file's stored bytes, whether or not they can be decoded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Unknown,
    /// They are those of the manifest.
    Whole,
    Wrong,
}

impl VerifyReport {
    /// The worst thing that was found: damage before "could not check" before anything else.
    pub fn worst(&self) -> Option<&Error> {
        let rank = |kind: ErrorKind| match kind {
            ErrorKind::Interrupted => 0,
            ErrorKind::Damaged => 1,
            ErrorKind::Refused => 2,
            ErrorKind::Unchecked => 3,
            _ => 4,
        };
        let errors = self.checks.iter().filter_map(|check| check.result.as_ref().err());
        errors.min_by_key(|error| rank(error.kind()))
    }

    /// What is known of a file's stored bytes.
    pub(crate) fn stored(&self, file: &str) -> Stored {
        let check = self.checks.iter().find(|check| check.what == file);
        check.map_or(Stored::Unknown, |check| check.stored)
    }
}

impl Check {
    fn new(what: &str, result: Result<u64>, stored: Stored) -> Self {
        let result = result.map_err(could_not_check);
        Self { what: what.to_owned(), result, stored, decoded: None }
    }

    /// A comparison of a file's stored bytes with their digest.
    pub(crate) fn of_stored(file: &str, result: Result<u64>) -> Self {
        let stored = match &result {
            Ok(_) => Stored::Whole,
            Err(error) if error.kind() == ErrorKind::Damaged => Stored::Wrong,
            Err(_) => Stored::Unknown,
        };
        Self::new(file, result, stored)
    }
}

/// Whatever kept a check from its end, nothing is known then.
fn could_not_check(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::Refused | ErrorKind::Interrupted => error,
        _ => error.with_kind(ErrorKind::Unchecked),
    }
}

/// Reads everything of one copy: signature, companions, and each part through all its inverses.
/// Goes on after damage, so that all of it is named.
pub async fn verify(
    reader: &BackupReader,
    authenticate: Option<&dyn Authenticate>,
    inspectors: Inspectors<'_>,
    context: &Context,
) -> VerifyReport {
    Checking { reader, authenticate, context }.content(inspectors).await
}

/// Compares all stored bytes of one copy with the manifest's digests, without a key.
///
/// A signature is checked where something at hand can; else [`VerifyReport::origin`] says that
/// nothing proves the manifest itself, and that is no failure here.
pub async fn verify_checksums(
    reader: &BackupReader,
    authenticate: Option<&dyn Authenticate>,
    context: &Context,
) -> VerifyReport {
    Checking { reader, authenticate, context }.checksums().await
}
