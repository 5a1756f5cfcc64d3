//! A backup's folder in every storage of its job, while it is being written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::BackupPlan;
use super::claim::{self, Claim};
use crate::layout;
use crate::memory::InMemory;
use crate::pipeline::{self, Context, Flow, Policy, within};
use crate::{
    BackupId, Committed, Companion, Creation, Error, Manifest, ObjectInfo, Result, Sink, Storage,
    StoredObject, read_small,
};

/// The storages that still take part, and those that failed on the way.
pub(super) struct Folder<'a> {
    plan: &'a BackupPlan,
    path: String,
    /// Where this folder is ours, and may be removed.
    held: Vec<Arc<dyn Storage>>,
    alive: Vec<Arc<dyn Storage>>,
    failed: Vec<(String, Error)>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(plan: &'a BackupPlan, claim: Claim<'a>) -> Self {
        let (path, alive) = (claim.id.folder(&plan.job), claim.held.clone());
        Self { plan, path, held: claim.held, alive, failed: claim.failed }
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

    /// Writes a small object as it is.
    pub(super) async fn write_small(
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
        // Too small to be worth a line of progress.
        let quiet = Context { cancel: context.cancel.clone(), ..Context::default() };
        let mut outcome = pipeline::run(flow, &quiet).await?;
        self.note_failures(std::mem::take(&mut outcome.sinks), context);
        Ok(outcome.written)
    }

    /// Makes the backup exist: looks once more that every file is there, then writes the
    /// manifest, which nobody may have written before.
    ///
    /// Before the first manifest a failure undoes the run. After it, a storage that fails is
    /// reported as missing: the backup is listed, and a later copy repairs it.
    pub(super) async fn publish(
        &mut self,
        manifest: &Manifest,
        json: Vec<u8>,
        context: &Context,
    ) -> Result<()> {
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
        for storage in self.alive.clone() {
            results.push(match self.write_manifest(&storage, &json).await {
                Ok(Written::Ours) => Ok(Committed::default()),
                Ok(Written::Foreign) => {
                    // Whoever wrote it, the folder isn't ours to remove.
                    self.held.retain(|held| held.name() != storage.name());
                    Err(self.id_is_used(storage.as_ref()))
                }
                Err(error) => Err(error),
            });
        }
        let published = results.iter().filter(|result| result.is_ok()).count();
        self.note_failures(results, context);
        if published == 0 {
            return Err(self.take_last_failure());
        }
        Ok(())
    }

    fn id_is_used(&self, storage: &dyn Storage) -> Error {
        Error::failed(
            format!("storage {}", storage.name()),
            format!(
                "{} is there already: another run uses the same id",
                self.key(layout::MANIFEST)
            ),
        )
        .next_step("run the backup again; it takes another id")
    }

    async fn check_parts(&self, manifest: &Manifest) -> Vec<Result<Committed>> {
        let mut results = Vec::new();
        for storage in &self.alive {
            results.push(self.check_parts_in(storage.as_ref(), manifest).await);
        }
        results
    }

    async fn check_parts_in(
        &self,
        storage: &dyn Storage,
        manifest: &Manifest,
    ) -> Result<Committed> {
        let parts = manifest.parts.iter().map(|part| (&part.file, part.bytes));
        let companions = manifest.companions.iter().map(|other| (&other.file, other.bytes));
        for (file, bytes) in parts.chain(companions) {
            let key = self.key(file);
            let stat = within(storage.name(), self.plan.limits.sink_stall, storage.stat(&key));
            let found = stat.await?.map(|object| object.bytes);
            if found != Some(bytes) {
                let found = found.map_or("none".to_owned(), |n| n.to_string());
                return Err(Error::damaged(
                    format!("storage {}", storage.name()),
                    format!("{file} was committed with {bytes} bytes, and now {found} are there"),
                )
                .next_step("somebody else writes into this storage, or it loses data: find out"));
            }
        }
        Ok(Committed::default())
    }

    /// An answer that got lost, or that a retry inside the storage turned into "taken", is
    /// settled by looking.
    async fn write_manifest(&self, storage: &Arc<dyn Storage>, json: &[u8]) -> Result<Written> {
        let (name, limit) = (storage.name(), self.plan.limits.commit);
        let key = self.key(layout::MANIFEST);
        let created = storage.create_new(&key, Bytes::copy_from_slice(json));
        let answer = within(name, limit, created).await;
        if matches!(answer, Ok(Creation::Created)) {
            return Ok(Written::Ours);
        }
        let stored = StoredObject::unchecked(Arc::clone(storage), key);
        match (answer, within(name, limit, read_small(&stored)).await) {
            (_, Ok(found)) if found == json => Ok(Written::Ours),
            (Ok(_), _) => Ok(Written::Foreign),
            (Err(error), _) => Err(error),
        }
    }

    fn take_last_failure(&mut self) -> Error {
        let nothing = || Error::failed("backup", "no storage is left");
        self.failed.pop().map_or_else(nothing, |(_, error)| error)
    }

    /// Removes the claims: the backup is listed now.
    pub(super) async fn release_claims(&self, context: &Context) {
        for storage in &self.alive {
            claim::release(self.plan, storage.as_ref(), &self.key(layout::CLAIM), context).await;
        }
    }

    /// Names of the storages that have the backup, and what happened to the others.
    pub(super) fn verdict(self) -> (Vec<String>, Vec<(String, Error)>) {
        let stored = self.alive.iter().map(|storage| storage.name().to_owned()).collect();
        (stored, self.failed)
    }

    /// Removes everything this run wrote.
    pub(super) async fn discard(&self, context: &Context) {
        for storage in &self.held {
            if let Err(error) = self.remove_from(storage.as_ref()).await {
                context.warn(&format!(
                    "what this run wrote stays in storage {} under {} ({error}); it is not \
                     listed, and a later run sweeps it",
                    storage.name(),
                    self.path
                ));
            }
        }
    }

    /// The manifest goes first, so that nothing is ever half-listed, and then the checksum
    /// list, so that what is left never looks complete; the claim goes last, so that no other
    /// run takes the id while its files are being deleted.
    async fn remove_from(&self, storage: &dyn Storage) -> Result<()> {
        let (name, limit) = (storage.name(), self.plan.limits.sink_stall);
        let claim = self.key(layout::CLAIM);
        for file in [layout::MANIFEST, layout::SHA256SUMS] {
            within(name, limit, storage.delete(&self.key(file))).await?;
        }
        let objects = within(name, limit, storage.list(&self.path)).await?;
        for object in objects.iter().filter(|object| object.key != claim) {
            within(name, limit, storage.delete(&object.key)).await?;
        }
        within(name, limit, storage.delete(&claim)).await
    }
}

/// Whose manifest is there now.
enum Written {
    Ours,
    Foreign,
}

/// Removes the folders of runs that crashed before `before`, and leftovers of that age.
///
/// Touches only what is unlisted and so old that its run must have ended: a run ends within
/// its job's timeout, of which its claim knows best. Each folder it removes is told. A folder
/// that lacks nothing but its manifest stays: its data can be restored by hand.
pub(super) async fn sweep(
    plan: &BackupPlan,
    storage: &Arc<dyn Storage>,
    before: Timestamp,
    context: &Context,
) -> Result<()> {
    storage.sweep(&plan.job, before).await?;
    let objects = storage.list(&plan.job).await?;
    let mut folders: BTreeMap<(BackupId, &str), BTreeMap<&str, &ObjectInfo>> = BTreeMap::new();
    for object in &objects {
        if let Some((job, id, name)) = layout::parse_key(&object.key) {
            folders.entry((id, job)).or_default().insert(name, object);
        }
    }
    for ((id, job), files) in folders {
        let old: Vec<_> = files.values().filter(|object| object.modified < before).collect();
        if files.contains_key(layout::MANIFEST) || id.started() >= before || old.is_empty() {
            continue;
        }
        let folder = id.folder(job);
        if files.contains_key(layout::SHA256SUMS) {
            context.warn(&format!(
                "{folder} in storage {} looks complete but its manifest is missing; restore it \
                 by hand with its {} or remove it",
                storage.name(),
                layout::RESTORE_NOTE
            ));
            continue;
        }
        let claimed = files.contains_key(layout::CLAIM)
            && claim::may_be_running(storage, &folder, plan.started).await;
        // A listing may lag behind: what is listed by now is nobody's to sweep.
        let manifest = format!("{folder}/{}", layout::MANIFEST);
        if claimed || storage.stat(&manifest).await?.is_some() {
            continue;
        }
        for object in old {
            storage.delete(&object.key).await?;
        }
        let name = storage.name();
        context.warn(&format!("storage {name}: removed what a crashed run left: {folder}"));
    }
    Ok(())
}
