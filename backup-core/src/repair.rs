//! `verify --repair`: a good copy's files over the damaged ones of another.
//!
//! A damaged file is replaced as a whole, only when the good one was read to its end, had its
//! digest and was written; until then it stays as it was. So a crash at any moment, and two
//! repairs at once, leave nothing worse than before. The manifest comes last.

use std::sync::Arc;

use crate::layout::{MANIFEST, SHA256SUMS, SIGNATURE};
use crate::pipeline::{self, Context, Flow};
use crate::verify::locate::{GoodFile, good_files};
use crate::verify::{Damage, VerifiedCopy};
use crate::{Error, ErrorKind, Result, read_small};

/// What a repair did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Files that are as they were written again.
    pub repaired: Vec<RepairedFile>,
    /// Files that are still damaged, and why.
    pub failed: Vec<UnrepairedFile>,
}

/// A file that was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedFile {
    /// The storage that had it damaged.
    pub storage: String,
    /// The file.
    pub file: String,
    /// The storage that had it whole; `manifest.json` where it follows from that, `another
    /// repair` where that was quicker.
    pub from: String,
    /// Its size.
    pub bytes: u64,
}

/// A file that could not be.
#[derive(Debug)]
pub struct UnrepairedFile {
    /// The storage that has it damaged.
    pub storage: String,
    /// The file.
    pub file: String,
    /// Why.
    pub error: Error,
}

/// Replaces what [`verify_copies`](crate::verify_copies) found damaged, from a copy that it
/// found whole in the same run and whose manifest is the same.
///
/// A copy whose `manifest.json` is damaged is repaired only where its own signature or list of
/// checksums speaks for the good one: what may be another backup is never touched. Needs no key.
///
/// Verify again afterwards.
///
/// # Errors
/// [`ErrorKind::Interrupted`]; the file that was being written stays as it was. What can't be
/// repaired is in the report.
pub async fn repair(copies: &[VerifiedCopy], context: &Context) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    for index in 0..copies.len() {
        let copy = Damaged { copies, index, context };
        let storage = &copies[index].report.storage;
        let mut damage: Vec<&Damage> = copies[index].report.damage.iter().collect();
        damage.sort_by_key(|damage| rank(&damage.file));
        let failed_before = report.failed.len();
        for Damage { file, .. } in damage {
            let rest_is_whole = report.failed.len() == failed_before;
            let (storage, file) = (storage.clone(), file.clone());
            match copy.mend(&file, rest_is_whole).await {
                Ok((from, bytes)) => {
                    report.repaired.push(RepairedFile { storage, file, from, bytes });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => report.failed.push(UnrepairedFile { storage, file, error }),
            }
        }
    }
    Ok(report)
}

/// The order of a backup.
fn rank(file: &str) -> u8 {
    match file {
        SIGNATURE => 1,
        SHA256SUMS => 2,
        MANIFEST => 3,
        _ => 0,
    }
}

/// A copy that needs something.
struct Damaged<'a> {
    copies: &'a [VerifiedCopy],
    index: usize,
    context: &'a Context,
}

impl Damaged<'_> {
    fn copy(&self) -> &VerifiedCopy {
        &self.copies[self.index]
    }

    fn storage(&self) -> &str {
        &self.copy().report.storage
    }

    /// Replaces one file; says where from, and its size.
    async fn mend(&self, file: &str, rest_is_whole: bool) -> Result<(String, u64)> {
        let cancel = &self.context.cancel;
        let current = cancel.guard(self.manifest_there()).await?;
        if file == MANIFEST {
            if current == self.copy().reader.manifest_json() {
                return Ok(("another repair".to_owned(), 0));
            }
            self.refuse_doubtful_manifest(&current, rest_is_whole)?;
        }
        let look = async { Ok(good_files(self.copies, self.index, file).await) };
        let mut last = self.nowhere(file);
        for good in cancel.guard(look).await? {
            match self.replace(file, &good).await {
                Ok(bytes) => return Ok((good.from, bytes)),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => last = self.stays(file, error),
            }
        }
        Err(last)
    }

    async fn replace(&self, file: &str, good: &GoodFile) -> Result<u64> {
        let reader = &self.copy().reader;
        let storage = Arc::clone(reader.storage());
        let flow = Flow {
            estimated_bytes: Some(good.digest.bytes),
            key: reader.key(file),
            // Nothing is committed over the damaged file but these bytes.
            expected: Some(good.digest.clone()),
            ..Flow::new(file, Arc::clone(&good.source), storage as _)
        };
        pipeline::run(flow, self.context).await.map(|done| done.written.bytes)
    }

    /// The manifest that is there now. Without one there is no backup to repair: somebody
    /// removed it meanwhile.
    async fn manifest_there(&self) -> Result<Vec<u8>> {
        let gone = |error: Error| match error.kind() {
            ErrorKind::NotFound => {
                let message = format!("the backup was removed from storage {}", self.storage());
                Error::new(ErrorKind::NotFound, "repair", message)
                    .next_step("`marb-backup copy` brings it back, if it should be there")
            }
            _ => error,
        };
        read_small(&self.copy().reader.object(MANIFEST)).await.map_err(gone)
    }

    fn refuse_doubtful_manifest(&self, current: &[u8], rest_is_whole: bool) -> Result<()> {
        let refused = |why: &str| {
            let message = format!("{MANIFEST} in storage {} stays as it is: {why}", self.storage());
            Err(Error::refused("repair", message).next_step(
                "verify both copies; remove the folder that is wrong, then `marb-backup copy`",
            ))
        };
        let copy = self.copy();
        if copy.wrong_manifest.as_deref() != Some(current) {
            return refused("somebody else wrote it meanwhile");
        }
        if !rest_is_whole {
            return refused("other files of this copy are still damaged");
        }
        Ok(())
    }

    fn nowhere(&self, file: &str) -> Error {
        let message =
            format!("{file} in storage {} stays damaged: no storage has it whole", self.storage());
        Error::damaged("repair", message)
            .next_step("use an older backup; take a new one, and verify it")
    }

    fn stays(&self, file: &str, error: Error) -> Error {
        let message = format!("{file} in storage {} stays damaged: {error}", self.storage());
        let more = error.advice().map(|advice| format!(" ({advice})")).unwrap_or_default();
        Error::new(error.kind(), "repair", message)
            .next_step(format!(
                "repair it with credentials that may replace objects there; a bucket that keeps \
                 objects unchanged must keep versions{more}"
            ))
            .caused_by(error)
    }
}
