//! Reading a backup back: which copy, which inverses, and whose it is.

use std::sync::Arc;

use crate::backup::checksum_list;
use crate::layout::{MANIFEST, RESTORE_NOTE, SHA256SUMS, SIGNATURE};
use crate::pipeline::{self, Context, Flow, Stage};
use crate::{
    Authenticate, CatalogEntry, Collect, Contents, Digest, Discard, Error, ErrorKind, Manifest,
    Part, PartRole, Result, Sink, Storage, StoredObject, Transform, read_small,
};

/// The transforms that can be undone here, by the names that manifests record.
#[derive(Clone, Default)]
pub struct Decoders {
    known: Vec<Arc<dyn Transform>>,
    missing: Vec<(String, String)>,
}

impl Decoders {
    /// Adds a transform.
    #[must_use]
    pub fn with(mut self, transform: Arc<dyn Transform>) -> Self {
        self.known.push(transform);
        self
    }

    /// Says why the transform `name` can't be undone here, and what to do.
    #[must_use]
    pub fn without(mut self, name: impl Into<String>, next_step: impl Into<String>) -> Self {
        self.missing.push((name.into(), next_step.into()));
        self
    }

    /// The transform with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Unchecked`] when it is not at hand.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Transform>> {
        if let Some(transform) = self.known.iter().find(|t| t.name() == name) {
            return Ok(Arc::clone(transform));
        }
        let advice = self.missing.iter().find(|(missing, _)| missing == name);
        let error = Error::new(
            ErrorKind::Unchecked,
            name.to_owned(),
            format!("{name} can't be undone here, so the data can't be read"),
        );
        Err(match advice {
            Some((_, next_step)) => error.next_step(next_step.clone()),
            None => error.next_step("use a marb-backup that knows it, or the backup's RESTORE.md"),
        })
    }

    /// The inverses of a part's transforms, in the order of reading.
    fn stages(&self, part: &Part) -> Result<Vec<Stage>> {
        part.transforms.iter().rev().map(|name| self.get(name).map(Stage::decode)).collect()
    }
}

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

/// One copy of a backup, opened for reading.
#[derive(Clone)]
pub struct BackupReader {
    folder: String,
    manifest: Manifest,
    manifest_json: Vec<u8>,
    storage: Arc<dyn Storage>,
    decoders: Decoders,
}

impl BackupReader {
    /// Reads the copy of `entry` in `storage`, by the manifest that lies there.
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
            storage,
            decoders,
        }
    }

    /// Reads the best copy of `entry`: the first storage in which all parts have their size.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when no storage has all parts.
    pub fn best(
        entry: &CatalogEntry,
        storages: &[Arc<dyn Storage>],
        decoders: Decoders,
    ) -> Result<Self> {
        let whole = entry.copies.iter().filter(|copy| copy.damaged_parts.is_empty());
        for copy in whole {
            if let Some(storage) = storages.iter().find(|s| s.name() == copy.storage) {
                return Ok(Self::new(entry, Arc::clone(storage), decoders));
            }
        }
        let damage: Vec<String> = entry
            .copies
            .iter()
            .map(|copy| format!("{} in storage {}", copy.damaged_parts.join(", "), copy.storage))
            .collect();
        Err(Error::damaged("catalog", format!("backup {} misses {}", entry.id, damage.join("; ")))
            .next_step("use an older backup; `marb-backup verify` tells what is left of this one"))
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The storage that is read.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The key of one of the backup's files.
    pub fn key(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    /// What is known of who wrote the backup.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the manifest is forged or altered; others when the signature
    /// can't be read.
    pub async fn origin(&self, authenticate: Option<&dyn Authenticate>) -> Result<Origin> {
        let signature = match read_small(&self.object(SIGNATURE)).await {
            Ok(signature) => signature,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Origin::Unsigned),
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

    /// Checks the unencrypted companions against their digests in the manifest, and the
    /// manifest against `SHA256SUMS`.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when one of them is not as it was written.
    pub async fn check_companions(&self) -> Result<()> {
        for companion in &self.manifest.companions {
            let expected = Digest { bytes: companion.bytes, sha256: companion.sha256.clone() };
            let storage = Arc::clone(&self.storage);
            read_small(&StoredObject::checked(storage, self.key(&companion.file), expected))
                .await?;
        }
        let has_note = self.manifest.companions.iter().any(|c| c.file == RESTORE_NOTE);
        if !has_note {
            return Err(Error::damaged("manifest", "names no RESTORE.md"));
        }
        self.check_checksum_list().await
    }

    /// Without a signature nothing else would show a changed byte in the manifest itself.
    async fn check_checksum_list(&self) -> Result<()> {
        let signature = match read_small(&self.object(SIGNATURE)).await {
            Ok(signature) => Some(signature),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let expected = checksum_list(&self.manifest, &self.manifest_json, signature.as_deref());
        let expected = Digest::of(&expected);
        let (storage, key) = (Arc::clone(&self.storage), self.key(SHA256SUMS));
        let list = StoredObject::checked(storage, key, expected);
        read_small(&list).await.map(drop).map_err(|error| match error.kind() {
            ErrorKind::Damaged => Error::damaged(
                "manifest",
                format!(
                    "SHA256SUMS does not fit {MANIFEST} and {SIGNATURE}: one of them was altered"
                ),
            )
            .caused_by(error)
            .next_step("restore from another storage's copy or an older backup"),
            _ => error,
        })
    }

    fn object(&self, file: &str) -> StoredObject {
        StoredObject::unchecked(Arc::clone(&self.storage), self.key(file))
    }

    /// Reads a part's stored bytes, without decoding them.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] when they are not those that were written.
    pub async fn check_stored(&self, part: &Part, context: &Context) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        let object = StoredObject::checked(storage, self.key(&part.file), part.digest());
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
        let object =
            StoredObject::checked(Arc::clone(&self.storage), self.key(&part.file), part.digest());
        let plain = contents.and_then(|contents| contents.part(&part.name));
        Ok(Flow {
            estimated_bytes: Some(part.bytes),
            stages: self.decoders.stages(part)?,
            expected: plain.map(|p| Digest { bytes: p.bytes, sha256: p.sha256.clone() }),
            ..Flow::new(part.name.clone(), Arc::new(object), sink)
        })
    }

    /// Decodes a small part into memory.
    ///
    /// # Errors
    /// When it is damaged or can't be opened.
    pub async fn read_part(
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
