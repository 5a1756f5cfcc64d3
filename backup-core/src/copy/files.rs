//! The files of a backup on their way from one storage to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{CopyReport, Copying, NotPublished};
use crate::backup::checksum_list;
use crate::backup::claim::Hold;
use crate::pipeline::{self, Flow, within};
use crate::{
    Creation, Digest, Discard, Error, ErrorKind, InMemory, Result, Source, Storage, StoredObject,
    layout, read_small,
};

/// Everything but the manifest.
pub(super) struct Files<'a, 'b> {
    copying: &'b Copying<'a>,
    pub(super) report: CopyReport,
    /// Whether the source's copy is pinned.
    pub(super) pinned: bool,
}

impl<'a, 'b> Files<'a, 'b> {
    pub(super) fn new(copying: &'b Copying<'a>) -> Self {
        Self { copying, report: CopyReport::default(), pinned: false }
    }

    /// Brings what is missing, and looks once more whether all of it is there. `held` says
    /// whether nobody else may be at work in the folder.
    pub(super) async fn bring_all(&mut self, held: bool) -> Result<()> {
        let cancel = self.copying.context.cancel.clone();
        let there = cancel.guard(self.sizes()).await?;
        if held && there.contains_key(layout::PRUNED) {
            // Somebody began to remove it, and now it is to be there: without this, a later
            // loss of the manifest would make all of it free to go.
            let key = self.copying.key(layout::PRUNED);
            cancel.guard(self.copying.to.delete(&key)).await?;
        }
        let (parts, small) = cancel.guard(self.wanted()).await?;
        for (file, digest) in &parts {
            self.bring(file, digest, &there, None).await?;
        }
        for (file, body) in &small {
            self.bring(file, &Digest::of(body), &there, Some(body.clone())).await?;
        }
        cancel.guard(self.bring_pin()).await?;
        let there = cancel.guard(self.sizes()).await?;
        let small = small.iter().map(|(file, body)| (file, body.len() as u64));
        for (file, bytes) in parts.iter().map(|(file, digest)| (file, digest.bytes)).chain(small) {
            if there.get(file) != Some(&bytes) {
                let message = format!("{file} was copied, and now it is not there as it should be");
                return Err(Error::damaged(format!("storage {}", self.copying.to.name()), message)
                    .next_step("somebody else writes into this storage, or it loses data"));
            }
        }
        Ok(())
    }

    /// What is pinned stays pinned: its source may be lost, and its copy must not expire then.
    async fn bring_pin(&mut self) -> Result<()> {
        let Copying { from, to, limits, .. } = self.copying;
        let key = self.copying.key(layout::PIN);
        let Some(pin) = read_if_there(from, &key).await? else { return Ok(()) };
        self.pinned = true;
        // Removed again with the rest; one that was there already does as well.
        let created = within(to.name(), limits.commit, to.create_new(&key, Bytes::from(pin)));
        if created.await? == Creation::Created {
            self.report.copied.push(layout::PIN.to_owned());
        }
        Ok(())
    }

    /// What must be there, in the order of a backup: files with a digest in the manifest, and
    /// the small ones whose bytes follow from what `from` has.
    async fn wanted(&self) -> Result<(Vec<(String, Digest)>, Vec<(String, Bytes)>)> {
        let Copying { from, manifest, manifest_json, .. } = self.copying;
        let parts = manifest.parts.iter().map(|part| (part.file.clone(), part.digest()));
        let companions = manifest.companions.iter().map(|other| {
            (other.file.clone(), Digest { bytes: other.bytes, sha256: other.sha256.clone() })
        });
        let signature = read_if_there(from, &self.copying.key(layout::SIGNATURE)).await?;
        // The list tells whether manifest and signature are still those that were written.
        let sums = checksum_list(manifest, manifest_json, signature.as_deref());
        let key = self.copying.key(layout::SHA256SUMS);
        read_small(&StoredObject::checked(Arc::clone(from), key, Digest::of(&sums))).await?;
        let signature = signature.map(|bytes| (layout::SIGNATURE, bytes));
        let small = signature.into_iter().chain([(layout::SHA256SUMS, sums)]);
        let small = small.map(|(file, bytes)| (file.to_owned(), Bytes::from(bytes)));
        Ok((parts.chain(companions).collect(), small.collect()))
    }

    /// The sizes of the files that `to` has in the folder.
    async fn sizes(&self) -> Result<BTreeMap<String, u64>> {
        let Copying { to, folder, limits, .. } = self.copying;
        let objects = within(to.name(), limits.commit, to.list(folder)).await?;
        let name =
            |key: &str| key.strip_prefix(folder.as_str())?.strip_prefix('/').map(str::to_owned);
        Ok(objects.iter().filter_map(|object| Some((name(&object.key)?, object.bytes))).collect())
    }

    /// Brings one file, unless it is there; `body` where its bytes are at hand.
    async fn bring(
        &mut self,
        file: &str,
        digest: &Digest,
        there: &BTreeMap<String, u64>,
        body: Option<Bytes>,
    ) -> Result<()> {
        let Copying { from, to, check, .. } = self.copying;
        let key = self.copying.key(file);
        // Small files are always compared: it costs as much as to write them.
        let compare = *check || body.is_some();
        if there.get(file) == Some(&digest.bytes)
            && (!compare || self.is_whole(file, digest).await?)
        {
            self.report.kept.push(file.to_owned());
            return Ok(());
        }
        let source: Arc<dyn Source> = match body {
            Some(body) => Arc::new(InMemory::new(file, body)),
            None => Arc::new(StoredObject::checked(Arc::clone(from), &key, digest.clone())),
        };
        let flow = Flow {
            estimated_bytes: Some(digest.bytes),
            key,
            expected: Some(digest.clone()),
            limits: self.copying.limits,
            ..Flow::new(file, source, Arc::clone(to) as _)
        };
        // Noted before: a commit that fails may yet have left something.
        self.report.copied.push(file.to_owned());
        let outcome = pipeline::run(flow, self.copying.context).await?;
        self.report.bytes += outcome.written.bytes;
        outcome.sinks.into_iter().next().map_or(Ok(()), |sink| sink.map(drop))
    }

    /// Whether what `to` has under this name has this digest.
    async fn is_whole(&self, file: &str, digest: &Digest) -> Result<bool> {
        let object = StoredObject::checked(
            Arc::clone(self.copying.to),
            self.copying.key(file),
            digest.clone(),
        );
        let flow = Flow::new(file, Arc::new(object), Arc::new(Discard));
        match pipeline::run(flow, &self.copying.context.without_progress()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes what was copied, where it is certain that no backup needs it: the folder is still
    /// held, no manifest was sent that may yet be there, and none is listed.
    pub(super) async fn remove_again(&self, failure: &NotPublished, hold: &Hold) {
        let Copying { to, context, limits, folder, .. } = self.copying;
        let name = to.name();
        let stays = |why: &str| {
            context.warn(&format!(
                "what was copied stays in storage {name} under {folder} ({why}); unless it is \
                 listed, a later run sweeps it"
            ));
        };
        if matches!(failure, NotPublished::Unknown(_)) || !to.excludes() {
            return stays("another may need it");
        }
        match hold.is_ours().await {
            Ok(true) => {}
            Ok(false) => return stays("another works in it"),
            Err(error) => return stays(&error.to_string()),
        }
        match read_if_there(to, &self.copying.key(layout::MANIFEST)).await {
            Ok(None) => {}
            Ok(Some(_)) => return stays("it is listed"),
            Err(error) => return stays(&error.to_string()),
        }
        // The last file that was copied first, which is the checksum list: what is left must
        // not look complete.
        for file in self.report.copied.iter().rev() {
            let key = self.copying.key(file);
            if let Err(error) = within(name, limits.sink_stall, to.delete(&key)).await {
                return stays(&error.to_string());
            }
        }
    }
}

/// A small object; `None` when there is none.
pub(crate) async fn read_if_there(
    storage: &Arc<dyn Storage>,
    key: &str,
) -> Result<Option<Vec<u8>>> {
    match read_small(&StoredObject::unchecked(Arc::clone(storage), key)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
