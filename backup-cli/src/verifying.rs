//! `verify`: every copy of a backup read back, and `--repair`.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::Context;
use backup_core::{
    CatalogEntry, ErrorKind, Inspector, Inventory, Level, ListedPart, PartRole, Patience, Query,
    RepairedFile, Result, Sink, UnrepairedFile, Verification, VerifiedCopy, VerifyReport, repair,
    verify_copies,
};
use backup_files::FilesCheck;
use backup_pg::{ArchiveCheck, RowKey};
use jiff::Timestamp;

use crate::files_restore::dialect_of;
use crate::keys::Keys;
use crate::{Deployment, TOOL};

/// Longest wait for the clock's next second, so that the proof after a repair is newer.
const NEXT_SECOND: Duration = Duration::from_millis(1_100);

/// How a backup is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How much is looked at.
    pub level: Level,
    /// Replace what is damaged by what another storage has whole, and verify again.
    pub repair: bool,
}

/// What a verification of a backup found and did.
#[derive(Debug, Default)]
pub struct Verified {
    /// Each copy as it is now.
    pub reports: Vec<VerifyReport>,
    /// The copies that were repaired, or were to be, as they were found.
    pub before: Vec<VerifyReport>,
    /// Files that were replaced.
    pub repaired: Vec<RepairedFile>,
    /// Files that could not be.
    pub unrepaired: Vec<UnrepairedFile>,
}

impl Deployment {
    /// Reads every copy of a backup, and stores a proof beside each. With
    /// [`VerifyOptions::repair`], what is damaged is replaced where another copy has it whole,
    /// and these copies are read again.
    ///
    /// # Errors
    /// When nothing can be opened at all, or when interrupted during a repair. What is wrong
    /// with a copy is in its report.
    pub async fn verify(
        &self,
        entry: &CatalogEntry,
        options: &VerifyOptions,
        context: &Context,
    ) -> Result<Verified> {
        let (mut storages, _) = self.readable_storages().await?;
        storages.retain(|one| entry.copies.iter().any(|copy| copy.storage == one.name()));
        let mark = self.marks().leave(&entry.folder(), &storages, "verify").await;
        let verified = self.verify_marked(entry, options, context).await;
        mark.end().await;
        verified
    }

    async fn verify_marked(
        &self,
        entry: &CatalogEntry,
        options: &VerifyOptions,
        context: &Context,
    ) -> Result<Verified> {
        let keys = self.keys().await?;
        let found = self.verify_once(entry, None, options.level, &keys, context).await?;
        let is_damaged = |copy: &VerifiedCopy| !copy.report.damage.is_empty();
        if !options.repair || !found.iter().any(is_damaged) {
            let reports = found.into_iter().map(|copy| copy.report).collect();
            return Ok(Verified { reports, ..Verified::default() });
        }
        let done = repair(&found, context).await?;
        let newest = found.iter().map(VerifiedCopy::started).max();
        let mut result =
            Verified { repaired: done.repaired, unrepaired: done.failed, ..Verified::default() };
        let again: Vec<String> =
            result.repaired.iter().map(|repaired| repaired.storage.clone()).collect();
        let mut reread = Vec::new();
        if !again.is_empty() {
            wait_for_next_second(newest).await;
            let read = self.verify_again(entry, &again, options.level, &keys, context).await;
            reread = read.or_else(|error| match error.kind() {
                ErrorKind::Interrupted => Err(error),
                _ => {
                    context.warn(&format!("what was repaired can't be verified again: {error}"));
                    Ok(Vec::new())
                }
            })?;
        }
        for copy in found {
            let now = reread.iter().position(|new| new.report.storage == copy.report.storage);
            match now {
                Some(_) => result.before.push(copy.report),
                None => result.reports.push(copy.report),
            }
        }
        result.reports.extend(reread.into_iter().map(|copy| copy.report));
        Ok(result)
    }

    /// Verifies the copies in `storages` by what lies there now.
    async fn verify_again(
        &self,
        entry: &CatalogEntry,
        storages: &[String],
        level: Level,
        keys: &Keys,
        context: &Context,
    ) -> Result<Vec<VerifiedCopy>> {
        let job = Some(entry.manifest.job.as_str());
        let query = Query { job, id: Some(entry.id), ..Query::default() };
        let catalog = context.cancel.guard(self.catalog(&query)).await?;
        let entry = catalog.find(&entry.id.to_string())?;
        self.verify_once(entry, Some(storages), level, keys, context).await
    }

    /// Verifies, in all storages or in these, and stores the proofs.
    async fn verify_once(
        &self,
        entry: &CatalogEntry,
        only: Option<&[String]>,
        level: Level,
        keys: &Keys,
        context: &Context,
    ) -> Result<Vec<VerifiedCopy>> {
        let authenticate = keys.authenticate();
        let how = Verification {
            level,
            decoders: &keys.decoders(),
            authenticate: authenticate.as_deref(),
            inspectors: &inspector,
            patience: Patience::default(),
        };
        let (mut storages, _) = self.readable_storages().await?;
        storages.retain(|storage| only.is_none_or(|only| only.iter().any(|n| n == storage.name())));
        let copies = verify_copies(entry, &storages, &how, context).await;
        for copy in &copies {
            if let Err(error) = copy.keep_proof(TOOL).await {
                let storage = &copy.report.storage;
                context.warn(&format!("the proof can't be stored in {storage}: {error}"));
            }
        }
        Ok(copies)
    }
}

/// Of two proofs in one second nobody could tell which is the newer.
async fn wait_for_next_second(since: Option<Timestamp>) {
    if since.is_some_and(|since| since.as_second() == Timestamp::now().as_second()) {
        tokio::time::sleep(NEXT_SECOND).await;
    }
}

/// Looks into the parts that have a structure. The digests of rows are made anew under the key
/// that was recorded, so that a drill can rely on them.
fn inspector(listed: ListedPart<'_>, recorded: Option<&Inventory>) -> Option<Box<dyn Inspector>> {
    match listed.part.role {
        PartRole::Database => {}
        PartRole::Files => {
            let check = FilesCheck::new(dialect_of(listed.manifest));
            return Some(Box::new(FilesInspector(check)));
        }
        _ => return None,
    }
    let key = recorded.and_then(|recorded| RowKey::of(recorded).ok().flatten());
    let check = key.map_or_else(ArchiveCheck::new, |key| ArchiveCheck::new().with_row_key(key));
    Some(Box::new(ArchiveInspector(check)))
}

struct ArchiveInspector(ArchiveCheck);

impl Inspector for ArchiveInspector {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.0.clone())
    }

    fn inventory(&self) -> Option<Inventory> {
        self.0.summary().map(|summary| summary.inventory())
    }
}

struct FilesInspector(FilesCheck);

impl Inspector for FilesInspector {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.0.clone())
    }

    fn inventory(&self) -> Option<Inventory> {
        Some(Inventory { files: Some(self.0.contents()?), ..Inventory::default() })
    }
}
