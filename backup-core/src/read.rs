//! Reading a backup back: which copy, which inverses, and whose it is.

use std::sync::Arc;

use crate::backup::checksum_list;
use crate::copies::Copies;
use crate::download::Patience;
use crate::layout::{MANIFEST, SHA256SUMS, SIGNATURE};
use crate::object::advice_after_damage;
use crate::pipeline::{self, Context, Flow};
use crate::{
    Authenticate, CatalogEntry, Collect, Companion, Contents, Decoders, Digest, Discard, Error,
    ErrorKind, Manifest, Part, PartRole, ReaderMark, ReaderMarks, Result, Sink, Storage,
    StoredObject, read_small,
};

/// What is known of who wrote a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A key of ours signed it.
    Proven,
    /// Nobody signed it.
    Unsigned,
    /// It is signed, and no key at hand can tell by whom.
    NoKey,
}

impl Origin {
    /// The refusal of a backup whose origin isn't proven.
    pub fn error(self) -> Error {
        match self {
            Origin::NoKey => Error::new(
                ErrorKind::Unchecked,
                "manifest",
                "without its key it can't be told who wrote this backup",
            )
            .next_step("configure the passphrase, or the signer's public key as `trusted_signers`"),
            Origin::Proven | Origin::Unsigned => {
                Error::refused("manifest", "the backup is not signed: nothing proves who wrote it")
                    .next_step(
                        "if you know who did, --accept-unsigned goes on; a restore runs its SQL",
                    )
            }
        }
    }
}

/// A backup, opened for reading: one copy of it, or the best with the others to fall back on.
#[derive(Clone)]
pub struct BackupReader {
    folder: String,
    manifest: Manifest,
    manifest_json: Vec<u8>,
    pub(crate) copies: Copies,
    pub(crate) decoders: Decoders,
    patience: Patience,
    pub(crate) context: Option<Context>,
    /// Keeps the copies from being pruned as long as any clone of this reads them.
    _mark: Option<Arc<ReaderMark>>,
}

impl BackupReader {
    /// Reads the copy of `entry` in `storage` and no other, by the manifest that lies there.
    pub fn new(entry: &CatalogEntry, storage: Arc<dyn Storage>, decoders: Decoders) -> Self {
        let copy = entry.copies.iter().find(|copy| copy.storage == storage.name());
        let (manifest, json) = match copy {
            Some(copy) => (&copy.manifest, &copy.manifest_json),
            None => (&entry.manifest, &entry.manifest_json),
        };
        Self {
            folder: entry.folder(),
            manifest: manifest.clone(),
            manifest_json: json.clone(),
            copies: Copies::new(storage, Vec::new()),
            decoders,
            patience: Patience::default(),
            context: None,
            _mark: None,
        }
    }

    /// Reads the best copy of `entry`: that of the first of the `storages` in which all parts
    /// have their size.
    ///
    /// When that storage fails, also in the middle of a part, the next one goes on at the same
    /// byte. Where no copy has all parts, each is read from a storage that has it. Only copies
    /// with the very same manifest count, and each part's digest is checked over all that was
    /// read of it, wherever it came from.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when some part is nowhere.
    pub fn best(
        entry: &CatalogEntry,
        storages: &[Arc<dyn Storage>],
        decoders: Decoders,
    ) -> Result<Self> {
        let Some(copies) = Copies::pieced(entry, storages) else {
            return Err(no_whole_copy(entry));
        };
        let reader = Self::new(entry, Arc::clone(copies.current()), decoders);
        Ok(Self { copies, ..reader })
    }

    /// Tells `context` when a storage fails and another one goes on. Without it only `tracing`
    /// hears of it.
    #[must_use]
    pub fn telling(mut self, context: &Context) -> Self {
        self.context = Some(context.without_progress());
        self
    }

    /// Marks every copy that this may read as being read, as long as any clone of it is there:
    /// see [`ReaderMarks`].
    #[must_use]
    pub async fn marked(mut self, marks: &ReaderMarks, reader: &str) -> Self {
        self._mark = Some(Arc::new(marks.leave(&self.folder, self.copies.all(), reader).await));
        self
    }

    /// Tries broken downloads again as long as `patience` says.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The storage that is read now.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        self.copies.current()
    }

    /// The key of one of the backup's files.
    pub fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    /// What is known of who wrote the backup.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the manifest is forged or altered, [`ErrorKind::Damaged`] when
    /// it is not signed and `SHA256SUMS` names another one; others when the signature can't be
    /// read.
    pub async fn origin(&self, authenticate: Option<&dyn Authenticate>) -> Result<Origin> {
        let mut outcomes = Vec::new();
        // A signature that was damaged or removed in one storage proves as much in another.
        for storage in self.copies.all() {
            let outcome = self.origin_by(storage, authenticate).await;
            if matches!(outcome, Ok(Origin::Proven)) {
                return outcome;
            }
            outcomes.push(outcome);
        }
        let rank = |outcome: &Result<Origin>| match outcome {
            Err(error) if error.kind() == ErrorKind::Refused => 0,
            Ok(Origin::NoKey) => 1,
            Ok(_) => 2,
            Err(_) => 3,
        };
        outcomes.sort_by_key(rank);
        outcomes.into_iter().next().unwrap_or(Ok(Origin::Unsigned))
    }

    async fn origin_by(
        &self,
        storage: &Arc<dyn Storage>,
        authenticate: Option<&dyn Authenticate>,
    ) -> Result<Origin> {
        let signature = match read_small(&self.object_in(storage, SIGNATURE)).await {
            Ok(signature) => signature,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let ours = Digest::of(&self.manifest_json).sha256;
                return match self.listed_manifest(storage).await? {
                    Some(listed) if listed != ours => Err(altered_manifest()),
                    _ => Ok(Origin::Unsigned),
                };
            }
            Err(error) => return Err(error),
        };
        match authenticate.map(|known| known.verify(&self.manifest_json, &signature)) {
            Some(Ok(())) => Ok(Origin::Proven),
            Some(Err(error)) if error.kind() != ErrorKind::Unchecked => Err(error),
            Some(Err(_)) | None => Ok(Origin::NoKey),
        }
    }

    /// Whether the signature is as it should be: right, or absent where nothing here could
    /// have made one.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the manifest is forged, altered, or should be signed and
    /// isn't; [`ErrorKind::Unchecked`] when nothing at hand can tell.
    pub async fn authenticate(&self, authenticate: Option<&dyn Authenticate>) -> Result<()> {
        match self.origin(authenticate).await? {
            Origin::Proven => Ok(()),
            Origin::Unsigned if authenticate.is_none() => Ok(()),
            unproven => Err(unproven.error()),
        }
    }

    /// Checks one unencrypted companion against its digest in the manifest.
    pub(crate) async fn check_companion(&self, companion: &Companion) -> Result<()> {
        let expected = Digest { bytes: companion.bytes, sha256: companion.sha256.clone() };
        read_small(&self.checked(&companion.file, expected)).await.map(drop)
    }

    /// Checks manifest and signature against `SHA256SUMS`.
    ///
    /// Without a signature nothing else would show a changed byte in the manifest itself.
    pub(crate) async fn check_checksum_list(&self) -> Result<()> {
        let signature = match read_small(&self.object_in(self.storage(), SIGNATURE)).await {
            Ok(signature) => Some(signature),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let expected = checksum_list(&self.manifest, &self.manifest_json, signature.as_deref());
        let expected = Digest::of(&expected);
        let list = self.checked(SHA256SUMS, expected);
        read_small(&list).await.map(drop).map_err(|error| match error.kind() {
            ErrorKind::Damaged => altered_manifest().caused_by(error),
            _ => error,
        })
    }

    /// The manifest's digest as the list of checksums names it; `None` where it doesn't.
    async fn listed_manifest(&self, storage: &Arc<dyn Storage>) -> Result<Option<String>> {
        let list = match read_small(&self.object_in(storage, SHA256SUMS)).await {
            Ok(list) => String::from_utf8_lossy(&list).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut named = list.lines().filter_map(|line| line.split_once("  "));
        Ok(named.find(|(_, file)| *file == MANIFEST).map(|(sha256, _)| sha256.to_owned()))
    }

    /// Whether what lies beside this manifest's place in the storage that is read now speaks for
    /// it: a signature that proves it, or a list of checksums that names it.
    pub(crate) async fn belongs_here(&self, authenticate: Option<&dyn Authenticate>) -> bool {
        if matches!(self.origin_by(self.storage(), authenticate).await, Ok(Origin::Proven)) {
            return true;
        }
        let listed = self.listed_manifest(self.storage()).await;
        listed.is_ok_and(|sha256| sha256 == Some(Digest::of(&self.manifest_json).sha256))
    }

    /// An object of the copy that is read now, of which nothing is known.
    pub(crate) fn object(&self, file: &str) -> StoredObject {
        self.object_in(self.storage(), file)
    }

    fn object_in(&self, storage: &Arc<dyn Storage>, file: &str) -> StoredObject {
        StoredObject::unchecked(Arc::clone(storage), self.key(file)).with_patience(self.patience)
    }

    /// One of the files that are the same in every copy.
    pub(crate) fn checked(&self, file: &str, expected: Digest) -> StoredObject {
        StoredObject::in_copies(self.copies.clone(), self.key(file), Some(expected))
            .with_patience(self.patience)
            .telling(self.context.clone())
    }

    /// The digest that the manifest records for a part or a companion.
    pub(crate) fn recorded(&self, file: &str) -> Option<Digest> {
        let companion = self.manifest.companions.iter().find(|companion| companion.file == file);
        let companion =
            companion.map(|found| Digest { bytes: found.bytes, sha256: found.sha256.clone() });
        companion.or_else(|| Some(self.manifest.parts.iter().find(|p| p.file == file)?.digest()))
    }

    /// The manifest as it is stored.
    pub(crate) fn manifest_json(&self) -> &[u8] {
        &self.manifest_json
    }

    /// The same backup, read from this storage only.
    pub(crate) fn only_from(&self, storage: &Arc<dyn Storage>) -> Self {
        Self { copies: Copies::new(Arc::clone(storage), Vec::new()), ..self.clone() }
    }

    /// After a failure of [`BackupReader::flow`]: names the other copies of damaged data. What
    /// was read is damaged; they may be whole.
    #[must_use]
    pub fn advise(&self, error: Error) -> Error {
        let read = [self.storage().name().to_owned()];
        if error.kind() != ErrorKind::Damaged || self.copies.all().count() == 1 {
            return error;
        }
        error.next_step(advice_after_damage(&self.copies, &read))
    }

    /// Reads a part's stored bytes, without decoding them.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when they are not those that were written.
    pub async fn check_stored(&self, part: &Part, context: &Context) -> Result<()> {
        let object = self.checked(&part.file, part.digest());
        let flow = Flow::new(part.name.clone(), Arc::new(object), Arc::new(Discard));
        pipeline::run(flow, context).await.map(drop)
    }

    /// A flow that decodes a part into `sink`. It commits only when the stored bytes have the
    /// recorded digest and, where `contents` tells it, the plain bytes too.
    ///
    /// # Errors
    /// [`ErrorKind::Unchecked`] when a transform can't be undone here.
    pub fn flow(
        &self,
        part: &Part,
        contents: Option<&Contents>,
        sink: Arc<dyn Sink>,
    ) -> Result<Flow> {
        let object = self.checked(&part.file, part.digest());
        let plain = contents.and_then(|contents| contents.part(&part.name));
        Ok(Flow {
            estimated_bytes: Some(part.bytes),
            stages: self.decoders.stages(part)?,
            expected: plain.map(|p| Digest { bytes: p.bytes, sha256: p.sha256.clone() }),
            ..Flow::new(part.name.clone(), Arc::new(object), sink)
        })
    }

    /// Decodes a small part into memory. Where one copy of it is damaged, the others are tried.
    ///
    /// # Errors
    /// When it is damaged everywhere or can't be opened.
    pub async fn read_part(
        &self,
        part: &Part,
        contents: Option<&Contents>,
        context: &Context,
    ) -> Result<Vec<u8>> {
        let mut damage = match self.read_part_once(part, contents, context).await {
            Err(error) if error.kind() == ErrorKind::Damaged => error,
            other => return other,
        };
        // Of the copies one was read; which, is known by now.
        for storage in self.copies.all().skip(1) {
            context.warn(&format!("{damage}; trying the copy in storage {}", storage.name()));
            let there = self.only_from(storage);
            match there.read_part_once(part, contents, context).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    damage = if error.kind() == ErrorKind::Damaged { error } else { damage }
                }
            }
        }
        Err(damage)
    }

    async fn read_part_once(
        &self,
        part: &Part,
        contents: Option<&Contents>,
        context: &Context,
    ) -> Result<Vec<u8>> {
        let collect = Collect::default();
        let flow = self.flow(part, contents, Arc::new(collect.clone()))?;
        pipeline::run(flow, context).await?;
        collect.take().ok_or_else(|| Error::failed("pipeline", "a committed part left no bytes"))
    }

    /// What is inside the backup.
    ///
    /// # Errors
    /// When the part that tells is missing, damaged, or can't be opened.
    pub async fn contents(&self, context: &Context) -> Result<Contents> {
        let part = self
            .manifest
            .part(PartRole::Contents)
            .ok_or_else(|| Error::damaged("manifest", "names no part that tells the contents"))?;
        let contents = Contents::from_json(&self.read_part(part, None, context).await?)?;
        if contents.backup != self.manifest.id {
            return Err(Error::damaged(
                "contents",
                format!("belong to backup {}, not to {}", contents.backup, self.manifest.id),
            ));
        }
        Ok(contents)
    }
}

fn altered_manifest() -> Error {
    let message =
        format!("SHA256SUMS does not fit {MANIFEST} and {SIGNATURE}: one of them was altered");
    Error::damaged("manifest", message)
        .next_step("restore from another storage's copy or an older backup")
}

fn no_whole_copy(entry: &CatalogEntry) -> Error {
    let damage = entry
        .copies
        .iter()
        .map(|copy| format!("{} in storage {}", copy.damaged_parts.join(", "), copy.storage));
    let damage = damage.collect::<Vec<_>>().join("; ");
    Error::damaged("catalog", format!("backup {} misses {damage}", entry.id))
        .next_step("use an older backup; `marb-backup verify` tells what is left of this one")
}
