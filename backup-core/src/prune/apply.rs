//! A plan is carried out: all storages at the same time, each by itself.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::removal::{Folder, Removal};
use super::{Judged, PrunePlan, StoragePlan, Verdict};
use crate::backup::claim::Purpose;
use crate::pipeline::{Context, Limits, within};
use crate::{BackupId, Error, ErrorKind, Manifest, Result, Storage, Versioned, layout};

/// What a prune did.
#[derive(Debug, Default)]
pub struct PruneReport {
    /// In each storage.
    pub storages: Vec<StorageReport>,
}

/// What a prune did in one storage.
#[derive(Debug, Default)]
pub struct StorageReport {
    /// Its name.
    pub storage: String,
    /// Backups that are gone.
    pub deleted: Vec<PrunedBackup>,
    /// Backups that were to go and stay for now, and why.
    pub left: Vec<(BackupId, String)>,
    /// Folders that an earlier prune had left, and that are gone now.
    pub finished: Vec<BackupId>,
    /// Backups whose lock was extended, and until when.
    pub extended: Vec<(BackupId, Timestamp)>,
    /// What ended the work here.
    pub failed: Option<Error>,
}

/// A backup that is gone from one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunedBackup {
    /// Which one.
    pub id: BackupId,
    /// Stored bytes of its parts.
    pub bytes: u64,
    /// Bytes that the storage still keeps of it: versions that a lock holds.
    pub held_bytes: u64,
}

impl PruneReport {
    /// The first failure, if any.
    pub fn failure(&self) -> Option<&Error> {
        self.storages.iter().find_map(|storage| storage.failed.as_ref())
    }
}

/// Carries a plan out. What fails in one storage ends the work there and not in the others.
///
/// # Errors
/// Why the plan was refused; then nothing was changed.
pub async fn apply_prune(
    plan: &PrunePlan,
    storages: &[Arc<dyn Storage>],
    context: &Context,
) -> Result<PruneReport> {
    if let Some(refused) = &plan.refused {
        let again = Error::new(refused.kind(), refused.stage().to_owned(), refused.message());
        return Err(match refused.advice() {
            Some(advice) => again.next_step(advice),
            None => again,
        });
    }
    let works = plan.storages.iter().filter_map(|one| {
        let storage = storages.iter().find(|storage| storage.name() == one.storage)?;
        Some(Work { plan, here: one, storage, context }.run())
    });
    Ok(PruneReport { storages: join_all(works).await })
}

struct Work<'a> {
    plan: &'a PrunePlan,
    here: &'a StoragePlan,
    storage: &'a Arc<dyn Storage>,
    context: &'a Context,
}

impl Work<'_> {
    async fn run(self) -> StorageReport {
        let storage = self.here.storage.clone();
        let mut report = StorageReport { storage, ..StorageReport::default() };
        if self.here.problem.is_none()
            && let Err(error) = self.work(&mut report).await
        {
            report.failed = Some(error);
        }
        report
    }

    /// Protects what stays before anything goes.
    async fn work(&self, report: &mut StorageReport) -> Result<()> {
        for one in &self.here.backups {
            if let (Some(until), Some(versioned)) = (one.extend_lock, self.storage.versioned()) {
                self.go_on()?;
                self.extend(one, versioned, until).await?;
                report.extended.push((one.id, until));
            }
        }
        for id in &self.here.unfinished {
            self.go_on()?;
            match self.folder(*id, None).finish().await? {
                Removal::Done { .. } => report.finished.push(*id),
                Removal::Left(why) => report.left.push((*id, why)),
            }
        }
        for one in &self.here.backups {
            if matches!(one.verdict, Verdict::Delete(_)) {
                self.go_on()?;
                let name = self.storage.name();
                self.context.step(&format!("removing {} from {name}", one.id));
                self.remove(one, report).await?;
            } else {
                self.tidy(one).await;
            }
        }
        Ok(())
    }

    /// Between two folders nothing is half-done.
    fn go_on(&self) -> Result<()> {
        if self.context.cancel.is_cancelled() { Err(self.context.cancel.error()) } else { Ok(()) }
    }

    fn folder<'f>(&'f self, id: BackupId, manifest: Option<&'f Manifest>) -> Folder<'f> {
        Folder {
            storage: self.storage,
            id,
            path: id.folder(&self.plan.job),
            manifest,
            host: &self.plan.host,
            purpose: Purpose::prune(&self.plan.host),
            pin_carried: false,
            now: self.plan.now,
            context: self.context,
        }
    }

    async fn remove(&self, one: &Judged, report: &mut StorageReport) -> Result<()> {
        match self.folder(one.id, Some(&one.manifest)).remove().await {
            Ok(Removal::Done { held_bytes }) => {
                report.deleted.push(PrunedBackup { id: one.id, bytes: one.bytes(), held_bytes });
            }
            Ok(Removal::Left(why)) => report.left.push((one.id, why)),
            Err(error) => return Err(self.not_removed(one.id, error)),
        }
        Ok(())
    }

    fn not_removed(&self, id: BackupId, error: Error) -> Error {
        let name = self.storage.name();
        let message = format!("{id} can't be removed from {name}: {}", error.message());
        let advice = error.advice().unwrap_or("look whether the storage works");
        let next_step = format!(
            "{advice}; these credentials must be allowed to create and to delete. What was begun, \
             the next `marb-backup prune --apply` finishes"
        );
        Error::new(error.kind(), "prune", message).next_step(next_step).caused_by(error)
    }

    /// Removes what the dead left beside a backup that stays. It harms nothing, so failing to is
    /// no failure.
    async fn tidy(&self, one: &Judged) {
        let folder = self.folder(one.id, Some(&one.manifest));
        if one.half_pruned
            && let Err(error) = folder.heal().await
        {
            let name = self.storage.name();
            let key = format!("{}/{}", folder.path, layout::PRUNED);
            self.context.warn(&format!("{key} stays in storage {name}: {error}"));
        }
        for file in &one.dead_readers {
            let key = format!("{}/{}/{file}", folder.path, layout::READERS);
            if let Err(error) = self.storage.delete(&key).await {
                tracing::debug!(storage = self.storage.name(), "{key} stays: {error}");
            }
        }
    }

    /// Locks every file of a backup, the manifest last: by it the next prune tells whether that
    /// was done.
    async fn extend(&self, one: &Judged, kept: &dyn Versioned, until: Timestamp) -> Result<()> {
        let folder = one.id.folder(&self.plan.job);
        let manifest = &one.manifest;
        let parts = manifest.parts.iter().map(|part| part.file.as_str());
        let companions = manifest.companions.iter().map(|other| other.file.as_str());
        let small = [layout::SIGNATURE, layout::SHA256SUMS, layout::MANIFEST];
        for file in parts.chain(companions).chain(small) {
            let key = format!("{folder}/{file}");
            let locked = kept.lock_until(&key, None, until);
            match within(self.storage.name(), Limits::default().commit, locked).await {
                Err(gone) if gone.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}
