//! Which old files are in a backup already, and where.
//!
//! Whoever reads "is backup X already" deletes the original: a copy that is damaged does not count.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{BackupId, Catalog, Error, ErrorKind, Proven, Query, Result, Storage};

use crate::Deployment;

/// A stored file.
struct Held {
    sha256: String,
    id: BackupId,
    storage: String,
    /// Nothing speaks against it.
    whole: bool,
}

/// What the storages hold of a job.
pub(super) struct HeldFiles {
    target: String,
    files: Vec<Held>,
    /// The ids that are used in any storage; `None` when not all could be asked.
    used: Option<BTreeSet<BackupId>>,
}

impl HeldFiles {
    /// Asks the storage to be filled, which must answer, and all others, which should.
    pub(super) async fn look(
        deployment: &Deployment,
        target: &Arc<dyn Storage>,
        job: &str,
        context: &Context,
    ) -> Result<Self> {
        let query = Query { job: Some(job), ..Query::default() };
        let look = async { Ok(Catalog::query(&[Arc::clone(target)], &query).await) };
        let here = context.cancel.guard(look).await?;
        if let Some(problem) = here.problems.into_iter().next() {
            return Err(problem.error);
        }
        let (mut others, mut problems) = deployment.readable_storages().await?;
        others.retain(|storage| storage.name() != target.name());
        let look = async { Ok(Catalog::query(&others, &query).await) };
        let elsewhere = context.cancel.guard(look).await?;
        problems.extend(elsewhere.problems);
        for problem in &problems {
            let (storage, error) = (&problem.storage, &problem.error);
            context.warn(&format!("not known whether a file is in {storage} already: {error}"));
        }
        let entries = || here.backups.iter().chain(&elsewhere.backups);
        let files = entries().flat_map(|entry| {
            entry.copies.iter().flat_map(move |copy| {
                let failed = Proven::by(&copy.proofs).verified.is_some_and(|last| !last.passed);
                copy.manifest.parts.iter().map(move |part| Held {
                    sha256: part.sha256.clone(),
                    id: entry.id,
                    storage: copy.storage.clone(),
                    whole: !failed && !copy.damaged_parts.contains(&part.file),
                })
            })
        });
        let used = problems.is_empty().then(|| entries().map(|entry| entry.id).collect());
        Ok(Self { target: target.name().to_owned(), files: files.collect(), used })
    }

    /// The ids that no other backup may take; `None` when they are not known.
    pub(super) fn used(&self) -> Option<&BTreeSet<BackupId>> {
        self.used.as_ref()
    }

    /// The backup in the storage to be filled that holds these bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when the one that should is not whole; [`ErrorKind::Incomplete`]
    /// when it is whole in another storage alone.
    pub(super) fn find(&self, sha256: &str) -> Result<Option<BackupId>> {
        let held = || self.files.iter().filter(|held| held.sha256 == sha256);
        let here = || held().filter(|held| held.storage == self.target);
        if let Some(whole) = here().find(|held| held.whole) {
            return Ok(Some(whole.id));
        }
        if let Some(elsewhere) = held().find(|held| held.whole)
            && here().next().is_none()
        {
            let (id, from, to) = (elsewhere.id, &elsewhere.storage, &self.target);
            let message = format!("it is backup {id} in storage {from}, and not in {to}");
            return Err(Error::new(ErrorKind::Incomplete, "file", message)
                .next_step(format!("marb-backup copy {id} --from {from} --to {to}")));
        }
        let Some(damaged) = here().chain(held()).next() else { return Ok(None) };
        let (id, storage) = (damaged.id, &damaged.storage);
        let message = format!("it should be in backup {id}, which is damaged in {storage}");
        Err(Error::damaged("file", message).next_step(format!(
            "keep this file; `marb-backup verify {id} --repair`, or remove that backup, then \
             adopt again"
        )))
    }

    /// A file that was just taken over.
    pub(super) fn add(&mut self, sha256: String, id: BackupId) {
        self.files.push(Held { sha256, id, storage: self.target.clone(), whole: true });
    }
}
