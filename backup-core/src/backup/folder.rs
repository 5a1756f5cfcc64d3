//! A backup's folder in every storage of its job, while it is being written.

use std::sync::Arc;

use futures_util::future::join_all;

use super::claim::{self, Claim};
use super::publish::{Written, create_manifest};
use super::{BackupPlan, BackupReport};
use crate::layout;
use crate::memory::InMemory;
use crate::pipeline::{self, Context, Flow, Policy, within};
use crate::{Committed, Companion, Contents, Error, Manifest, Result, Sink, Storage};

/// The storages that still take part, and those that failed on the way.
pub(super) struct Folder<'a> {
    plan: &'a BackupPlan,
    path: String,
    /// Where this folder is ours, and may be removed.
    held: Vec<Arc<dyn Storage>>,
    alive: Vec<Arc<dyn Storage>>,
    failed: Vec<(String, Error)>,
    /// Names of storages where the manifest may be: it was sent, and no answer told.
    perhaps_listed: Vec<String>,
}

impl<'a> Folder<'a> {
    pub(super) fn new(plan: &'a BackupPlan, claim: Claim<'a>) -> Self {
        let (path, held) = (claim.id.folder(&plan.job), claim.held());
        Self {
            plan,
            path,
            alive: held.clone(),
            held,
            failed: claim.failed,
            perhaps_listed: Vec::new(),
        }
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

    /// As [`Folder::note_failures`]; a storage that says it has another number of bytes than were
    /// sent failed, too; fails when not enough are left.
    pub(super) fn note_written(
        &mut self,
        results: Vec<Result<Committed>>,
        bytes: u64,
        context: &Context,
    ) -> Result<()> {
        let check = |committed: Committed| match committed.bytes == bytes {
            true => Ok(committed),
            false => Err(Error::damaged(
                "storage",
                format!("{} bytes were committed, not the {bytes} sent", committed.bytes),
            )),
        };
        let results = results.into_iter().map(|result| result.and_then(check)).collect();
        self.note_failures(results, context);
        self.require_enough()
    }

    fn require_enough(&mut self) -> Result<()> {
        let enough = self.alive.len() >= self.plan.policy.required(self.plan.storages.len());
        if enough { Ok(()) } else { Err(self.take_last_failure()) }
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
        self.note_written(std::mem::take(&mut outcome.sinks), outcome.written.bytes, context)?;
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
        let checks = self
            .alive
            .iter()
            .map(|storage| self.check_parts_in(storage.as_ref(), manifest, context));
        let checks = join_all(checks).await;
        self.note_failures(checks, context);
        self.require_enough()?;
        // From here on the run can't be cancelled any more: it takes as long as one small object.
        if context.cancel.is_cancelled() {
            return Err(context.cancel.error());
        }
        let (key, limit) = (self.key(layout::MANIFEST), self.plan.limits.commit);
        let manifests =
            self.alive.iter().map(|storage| create_manifest(storage, &key, &json, limit));
        let mut results = Vec::new();
        for (storage, written) in self.alive.iter().zip(join_all(manifests).await) {
            results.push(match written {
                Ok(Written::Ours) => Ok(Committed::default()),
                Ok(Written::Foreign) => {
                    // Whoever wrote it, the folder isn't ours to remove.
                    self.held.retain(|held| held.name() != storage.name());
                    Err(self.id_is_used(storage.as_ref()))
                }
                Err(error) => {
                    self.perhaps_listed.push(storage.name().to_owned());
                    Err(error)
                }
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

    /// A storage that can't be looked into is told and trusted: it said that each part is
    /// durable, and a key that may only write must still back up.
    async fn check_parts_in(
        &self,
        storage: &dyn Storage,
        manifest: &Manifest,
        context: &Context,
    ) -> Result<Committed> {
        let parts = manifest.parts.iter().map(|part| (&part.file, part.bytes));
        let companions = manifest.companions.iter().map(|other| (&other.file, other.bytes));
        for (file, bytes) in parts.chain(companions) {
            let key = self.key(file);
            let stat = within(storage.name(), self.plan.limits.sink_stall, storage.stat(&key));
            let found = match stat.await {
                Ok(found) => found.map(|object| object.bytes),
                Err(error) => {
                    context.warn(&format!(
                        "could not check in storage {} that every part is there: {error}",
                        storage.name()
                    ));
                    break;
                }
            };
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

    fn take_last_failure(&mut self) -> Error {
        let nothing = || Error::failed("backup", "no storage is left");
        self.failed.pop().map_or_else(nothing, |(_, error)| error)
    }

    /// Ends the run: the backup is listed and its claims go, or everything that was written does.
    pub(super) async fn conclude(
        self,
        written: Result<(Manifest, Contents)>,
        context: &Context,
    ) -> Result<BackupReport> {
        match written {
            Ok((manifest, contents)) => {
                self.release_claims(context).await;
                let stored_in =
                    self.alive.iter().map(|storage| storage.name().to_owned()).collect();
                Ok(BackupReport { manifest, contents, stored_in, failed: self.failed })
            }
            Err(cause) => {
                self.discard(context).await;
                Err(cause)
            }
        }
    }

    /// Removes the claims: the backup is listed now.
    async fn release_claims(&self, context: &Context) {
        let (key, limit) = (self.key(layout::CLAIM), self.plan.limits.sink_stall);
        let release = |storage: &'_ Arc<dyn Storage>| {
            let (storage, key) = (Arc::clone(storage), key.clone());
            async move { claim::release(storage.as_ref(), &key, limit, context).await }
        };
        join_all(self.alive.iter().map(release)).await;
    }

    /// Removes everything this run wrote.
    async fn discard(&self, context: &Context) {
        let removals = self.held.iter().map(|storage| async move {
            if let Err(error) = self.remove_from(storage.as_ref()).await {
                let name = storage.name();
                let fate = match self.perhaps_listed.iter().any(|unsure| unsure == name) {
                    false => "it is not listed, and a later run sweeps it",
                    true => {
                        "whether its manifest was stored is not known: `marb-backup list` shows \
                         whether it is a backup; if not, a later run sweeps it"
                    }
                };
                let place = format!("storage {name} under {}", self.path);
                context.warn(&format!("what this run wrote stays in {place} ({error}); {fate}"));
            }
        });
        join_all(removals).await;
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
