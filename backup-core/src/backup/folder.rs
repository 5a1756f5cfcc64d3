//! A backup's folder in every storage of its job, while it is being written.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::BackupPlan;
use crate::layout::{self, BackupId};
use crate::memory::InMemory;
use crate::pipeline::{self, Context, Flow, Policy};
use crate::{
    Committed, Companion, Creation, Error, Manifest, ObjectInfo, Result, Sink, Storage,
};

/// The storages that still take part, and those that failed on the way.
pub(super) struct Folder<'a> {
    plan: &'a BackupPlan,
    path: String,
    alive: Vec<Arc<dyn Storage>>,
    failed: Vec<(String, Error)>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(plan: &'a BackupPlan, id: BackupId) -> Self {
        let (path, alive) = (id.folder(&plan.job), plan.storages.clone());
        Self { plan, path, alive, failed: Vec::new() }
    }

    pub(super) fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.path)
    }

    pub(super) fn sinks(&self) -> Vec<Arc<dyn Sink>> {
        self.alive.iter().map(|storage| Arc::clone(storage) as Arc<dyn Sink>).collect()
    }

    /// The job's policy, over the storages that are left.
    pub(super) fn policy_for_the_rest(&self) -> Policy {
        Policy::AtLeast(self.plan.policy.required(self.plan.storages.len()))
    }

    /// Takes out the storages that failed this part; the policy was still met.
    pub(super) fn note_failures(&mut self, results: Vec<Result<Committed>>, context: &Context) {
        let storages = std::mem::take(&mut self.alive);
        for (storage, result) in storages.into_iter().zip(results) {
            match result {
                Ok(_) => self.alive.push(storage),
                Err(error) => {
                    context.warn(&format!("storage {} failed: {error}", storage.name()));
                    self.failed.push((storage.name().to_owned(), error));
                }
            }
        }
    }

    /// Writes an unencrypted companion and records it in the manifest.
    pub(super) async fn write_companion(
        &mut self,
        file: &str,
        body: Vec<u8>,
        manifest: &mut Manifest,
        context: &Context,
    ) -> Result<()> {
        let digest = self.write_small(file, body, context).await?;
        manifest.companions.push(Companion {
            file: file.to_owned(),
            bytes: digest.bytes,
            sha256: digest.sha256,
        });
        Ok(())
    }

    async fn write_small(
        &mut self,
        file: &str,
        body: Vec<u8>,
        context: &Context,
    ) -> Result<crate::Digest> {
        let flow = Flow {
            part: file.to_owned(),
            estimated_bytes: None,
            source: Arc::new(InMemory::new(file, body)),
            stages: Vec::new(),
            sinks: self.sinks(),
            key: self.key(file),
            policy: self.policy_for_the_rest(),
            expected: None,
            limits: self.plan.limits,
        };
        let mut outcome = pipeline::run(flow, context).await?;
        self.note_failures(std::mem::take(&mut outcome.sinks), context);
        Ok(outcome.written)
    }

    /// Makes the backup exist: looks once more that every part is there, then writes the
    /// manifest, which nobody may have written before.
    ///
    /// Before the first manifest a failure undoes the run. After it, a storage that fails is
    /// reported as missing: the backup is listed, and a later copy repairs it.
    pub(super) async fn publish(
        &mut self,
        manifest: &Manifest,
        json: Vec<u8>,
        signature: Option<Vec<u8>>,
        context: &Context,
    ) -> Result<()> {
        if let Some(signature) = signature {
            self.write_small(layout::SIGNATURE, signature, context).await?;
        }
        let checks = self.check_parts(manifest).await;
        self.note_failures(checks, context);
        let required = self.plan.policy.required(self.plan.storages.len());
        if self.alive.len() < required {
            return Err(self.take_last_failure());
        }
        // From here on the run can't be cancelled any more: it takes as long as one small object.
        if context.cancel.is_cancelled() {
            return Err(context.cancel.error());
        }
        let mut results = Vec::new();
        for storage in &self.alive {
            results.push(self.write_manifest(storage.as_ref(), &json).await);
        }
        let published = results.iter().filter(|result| result.is_ok()).count();
        self.note_failures(results, context);
        if published == 0 {
            return Err(self.take_last_failure());
        }
        Ok(())
    }

    async fn check_parts(&self, manifest: &Manifest) -> Vec<Result<Committed>> {
        let mut results = Vec::new();
        for storage in &self.alive {
            results.push(self.check_parts_in(storage.as_ref(), manifest).await);
        }
        results
    }

    async fn check_parts_in(&self, storage: &dyn Storage, manifest: &Manifest) -> Result<Committed> {
        for part in &manifest.parts {
            let found = storage.stat(&self.key(&part.file)).await?;
            let bytes = found.map(|object| object.bytes);
            if bytes != Some(part.bytes) {
                return Err(Error::damaged(
                    format!("storage {}", storage.name()),
                    format!(
                        "{} was committed with {} bytes, and now {} are there",
                        part.file,
                        part.bytes,
                        bytes.map_or("none".to_owned(), |n| n.to_string())
                    ),
                )
                .next_step("somebody else writes into this storage, or it loses data: find out"));
            }
        }
        Ok(Committed::default())
    }

    async fn write_manifest(&self, storage: &dyn Storage, json: &[u8]) -> Result<Committed> {
        let key = self.key(layout::MANIFEST);
        let written = storage.create_new(&key, Bytes::copy_from_slice(json));
        match pipeline::within(storage.name(), self.plan.limits.commit, written).await? {
            Creation::Created => Ok(Committed { bytes: json.len() as u64, version: None }),
            Creation::Taken => Err(Error::failed(
                format!("storage {}", storage.name()),
                format!("{key} is there already: another run uses the same id"),
            )
            .next_step("run the backup again; it takes another id")),
        }
    }

    fn take_last_failure(&mut self) -> Error {
        let nothing = || Error::failed("backup", "no storage is left");
        self.failed.pop().map_or_else(nothing, |(_, error)| error)
    }

    /// Removes the claims: the backup is listed now.
    pub(super) async fn release_claims(&self, context: &Context) {
        for storage in &self.alive {
            if let Err(error) = storage.delete(&self.key(layout::CLAIM)).await {
                context.warn(&format!("a claim stays in {}: {error}", storage.name()));
            }
        }
    }

    /// Names of the storages that have the backup, and what happened to the others.
    pub(super) fn verdict(self) -> (Vec<String>, Vec<(String, Error)>) {
        let stored = self.alive.iter().map(|storage| storage.name().to_owned()).collect();
        (stored, self.failed)
    }

    /// Removes everything this run wrote, in every storage of the job.
    pub(super) async fn discard(&self, context: &Context) {
        for storage in &self.plan.storages {
            if let Err(error) = remove_folder(storage.as_ref(), &self.path).await {
                context.warn(&format!(
                    "what this run wrote stays in storage {} under {} ({error}); it is not \
                     listed, and a later run sweeps it",
                    storage.name(),
                    self.path
                ));
            }
        }
    }
}

/// Deletes a folder, its manifest first, so that nothing is ever half-listed.
async fn remove_folder(storage: &dyn Storage, path: &str) -> Result<()> {
    let manifest = format!("{path}/{}", layout::MANIFEST);
    storage.delete(&manifest).await?;
    for object in storage.list(path).await? {
        storage.delete(&object.key).await?;
    }
    Ok(())
}

/// Removes the folders of runs that crashed before `before`, and leftovers of that age.
///
/// Touches only what is unlisted and so old that its run must have ended: a run ends within
/// its job's timeout.
pub(super) async fn sweep(storage: &dyn Storage, job: &str, before: Timestamp) -> Result<()> {
    storage.sweep(job, before).await?;
    let objects = storage.list(job).await?;
    let folder_of = |object: &ObjectInfo| {
        layout::parse_key(&object.key).map(|(job, id, name)| (id.folder(job), id, name == layout::MANIFEST))
    };
    let listed: BTreeSet<String> =
        objects.iter().filter_map(folder_of).filter(|(.., is)| *is).map(|(f, ..)| f).collect();
    for object in &objects {
        let Some((folder, id, _)) = folder_of(object) else { continue };
        if !listed.contains(&folder) && id.started() < before && object.modified < before {
            storage.delete(&object.key).await?;
        }
    }
    Ok(())
}
