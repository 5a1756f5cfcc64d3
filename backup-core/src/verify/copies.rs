//! Every copy of a backup, each judged by its own files; then together: whose manifest can be
//! relied on, and who has whole what is damaged elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Check, Inspectors, Level, Stored, VerifyReport, locate, proof, verify, verify_checksums,
};
use crate::layout::{MANIFEST, SHA256SUMS};
use crate::pipeline::Context;
use crate::read::{BackupReader, Origin};
use crate::{Authenticate, CatalogEntry, Decoders, Error, Patience, Result, Storage, read_small};

/// How copies are verified.
pub struct Verification<'a> {
    /// How much is looked at.
    pub level: Level,
    /// What can be decoded here.
    pub decoders: &'a Decoders,
    /// What tells our manifests from forged ones.
    pub authenticate: Option<&'a dyn Authenticate>,
    /// What looks into the parts.
    pub inspectors: Inspectors<'a>,
    /// How long a broken download is tried again.
    pub patience: Patience,
}

impl Verification<'_> {
    async fn read(&self, reader: &BackupReader, context: &Context) -> VerifyReport {
        match self.level {
            Level::Content => verify(reader, self.authenticate, self.inspectors, context).await,
            Level::Checksums => verify_checksums(reader, self.authenticate, context).await,
        }
    }
}

/// A copy that was read, and what was found.
pub struct VerifiedCopy {
    /// What was found.
    pub report: VerifyReport,
    pub(crate) reader: BackupReader,
    /// The bytes of its `manifest.json`, when it was read by another copy's because they can't
    /// be relied on.
    pub(crate) wrong_manifest: Option<Vec<u8>>,
    started: Timestamp,
}

impl VerifiedCopy {
    /// Stores the record of this verification beside the copy. See [`Proof`](crate::Proof).
    ///
    /// # Errors
    /// When it can't be stored; the verification's result stands.
    pub async fn keep_proof(&self, tool: &str) -> Result<()> {
        proof::store_proof(&self.reader, &self.report, self.started, tool).await
    }

    /// When it was begun.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Whether a key proves its manifest, or nothing contradicts it: its list of checksums fits.
    pub(crate) fn is_vouched_for(&self) -> bool {
        match self.report.origin {
            Some(Origin::Proven) => true,
            Some(Origin::Unsigned | Origin::NoKey) => {
                self.report.stored(SHA256SUMS) == Stored::Whole
            }
            None => false,
        }
    }

    /// Whether its own files say that its manifest is not what was written.
    fn contradicts_itself(&self) -> bool {
        self.report.origin != Some(Origin::Proven)
            && self.report.stored(SHA256SUMS) == Stored::Wrong
    }
}

/// Verifies the copy of `entry` in each of the `storages` that list it, one after the other,
/// and tells of what is damaged where, and who has it whole.
///
/// A copy whose manifest can't be relied on is read by that of another one that can, where
/// there is one and the copy's own signature or list of checksums speaks for it: also one that
/// is listed, but whose manifest is no manifest any more.
pub async fn verify_copies(
    entry: &CatalogEntry,
    storages: &[Arc<dyn Storage>],
    how: &Verification<'_>,
    context: &Context,
) -> Vec<VerifiedCopy> {
    let mut copies = Vec::new();
    for storage in storages {
        if entry.copies.iter().any(|copy| copy.storage == storage.name()) {
            let reader = BackupReader::new(entry, Arc::clone(storage), how.decoders.clone());
            copies.push(read_copy(reader.with_patience(how.patience), None, how, context).await);
        }
    }
    if let Some(trusted) = reference(&copies).map(|copy| copy.reader.clone()) {
        read_by(&trusted, &mut copies, how, context).await;
        let unread = storages.iter().filter(|s| entry.unknown_in.iter().any(|n| n == s.name()));
        for storage in unread {
            let reader = trusted.only_from(storage);
            let json = context.cancel.guard(read_manifest(&reader)).await;
            // One that can't be read even now is the catalog's to tell; so is another backup's.
            let Ok(json) = json else { continue };
            let wrong = (json != trusted.manifest_json()).then_some(json);
            if wrong.is_some() && !belongs_here(&reader, how, context).await {
                continue;
            }
            copies.push(read_copy(reader, wrong, how, context).await);
        }
    }
    for index in 0..copies.len() {
        copies[index].report.damage = locate::locate(&copies, index, context).await;
    }
    copies
}

async fn belongs_here(reader: &BackupReader, how: &Verification<'_>, context: &Context) -> bool {
    let look = async { Ok(reader.belongs_here(how.authenticate).await) };
    context.cancel.guard(look).await.unwrap_or(false)
}

async fn read_manifest(reader: &BackupReader) -> Result<Vec<u8>> {
    read_small(&reader.object(MANIFEST)).await
}

/// Reads the copies that contradict themselves once more, by a manifest that can be relied on.
async fn read_by(
    trusted: &BackupReader,
    copies: &mut [VerifiedCopy],
    how: &Verification<'_>,
    context: &Context,
) {
    for copy in copies {
        let own = copy.reader.manifest_json();
        if !copy.contradicts_itself() || own == trusted.manifest_json() {
            continue;
        }
        let reader = trusted.only_from(copy.reader.storage());
        // What may be another backup is not measured by this one.
        if belongs_here(&reader, how, context).await {
            let wrong = Some(own.to_vec());
            *copy = read_copy(reader, wrong, how, context).await;
        }
    }
}

async fn read_copy(
    reader: BackupReader,
    wrong_manifest: Option<Vec<u8>>,
    how: &Verification<'_>,
    context: &Context,
) -> VerifiedCopy {
    let started = Timestamp::now();
    let mut report = how.read(&reader, context).await;
    if wrong_manifest.is_some() {
        let message = format!("{} is not the one that was written", reader.key(MANIFEST));
        let stage = format!("storage {}", reader.storage().name());
        let error = Error::damaged(stage, message).next_step("read the copy in another storage");
        report.checks.insert(0, Check::of_stored(MANIFEST, Err(error)));
    }
    VerifiedCopy { report, reader, wrong_manifest, started }
}

/// The copy whose manifest the others may be measured by: one that a key proves, else one that
/// nothing contradicts. None when there are two different ones of the kind.
fn reference(copies: &[VerifiedCopy]) -> Option<&VerifiedCopy> {
    let proven = |copy: &&VerifiedCopy| copy.report.origin == Some(Origin::Proven);
    let proven: Vec<_> = copies.iter().filter(proven).collect();
    let good = match proven.is_empty() {
        true => copies.iter().filter(|copy| copy.is_vouched_for()).collect(),
        false => proven,
    };
    let different: BTreeSet<_> = good.iter().map(|copy| copy.reader.manifest_json()).collect();
    good.first().copied().filter(|_| different.len() == 1)
}
