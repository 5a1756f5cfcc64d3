//! The verb `rekey`: an older backup encrypted anew, under the keys of today.
//!
//! ```text
//! rekey(RekeyPlan)
//!   ├─ backup       the decoded parts of the old one as sources: a new backup beside it  decoded.rs
//!   ├─ copy         to storages that the new one did not reach
//!   ├─ verify       each new copy, opened with the keys of today
//!   └─ remove       the old copy there, its manifest first                               remove.rs
//! ```
//!
//! At every moment the old or the new backup is whole and listed in each storage that had the
//! old one. A run that was killed is taken up by the next: the new manifest names the old id.
//! docs/decisions/rekey.md says why the new one gets an id of its own.

mod decoded;
mod remove;

use std::sync::Arc;

use jiff::Timestamp;

use crate::pin::hold_pinned;
use crate::pipeline::{Context, Limits, Policy};
use crate::{
    Authenticate, BackupId, BackupPlan, BackupReader, COPY_TIMEOUT, Catalog, CatalogEntry,
    Contents, Decoders, Error, ErrorKind, Manifest, Origin, PartPlan, PartRole, Patience, Query,
    Rekeyed, Result, Storage, Transform, backup, copy, verify,
};
use decoded::DecodedPart;
pub use remove::{OldCopy, clear_remains};

/// What encrypting one backup anew needs to know.
pub struct RekeyPlan<'a> {
    /// The old backup.
    pub entry: &'a CatalogEntry,
    /// What an earlier run made of it, where one did: see [`successor`].
    pub successor: Option<&'a CatalogEntry>,
    /// The storages that may have it.
    pub storages: &'a [Arc<dyn Storage>],
    /// What opens the old one.
    pub decoders: Decoders,
    /// What opens the new one: with the keys of today alone.
    pub reading_back: Decoders,
    /// What tells that the old one is ours.
    pub trusted: Option<&'a dyn Authenticate>,
    /// Compression, then encryption.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// Who can open the new one.
    pub keys: Vec<String>,
    /// Signs the new one.
    pub sign: Option<Arc<dyn Authenticate>>,
    /// Goes on though nothing proves who wrote the old one, or nothing signs the new one.
    pub accept_unsigned: bool,
    /// Name and version of the program.
    pub tool: String,
    /// Host that runs it.
    pub host: String,
    /// How long a single step may take.
    pub limits: Limits,
    /// How long a broken download is tried again.
    pub patience: Patience,
}

/// What became of a backup.
#[derive(Debug)]
pub struct RekeyReport {
    /// The id of the new one.
    pub id: BackupId,
    /// Whether it was made now; an earlier run had made it otherwise.
    pub created: bool,
    /// What became of the old copy in each storage that had one.
    pub copies: Vec<(String, Result<OldCopy>)>,
}

impl RekeyReport {
    /// Whether the new one is in every storage and the old one in none.
    pub fn is_complete(&self) -> bool {
        self.copies.iter().all(|(_, old)| matches!(old, Ok(OldCopy::Removed)))
    }
}

/// The backup that an earlier `rekey` made of `entry`.
pub fn successor<'a>(catalog: &'a Catalog, entry: &CatalogEntry) -> Option<&'a CatalogEntry> {
    let id = entry.id.to_string();
    let made_of_it = |other: &&CatalogEntry| {
        other.manifest.job == entry.manifest.job
            && other.manifest.rekeyed.as_ref().is_some_and(|rekeyed| rekeyed.from == id)
    };
    catalog.backups.iter().rev().find(made_of_it)
}

/// Encrypts one backup anew: writes a new one beside it, reads that back to its end, and removes
/// the old one where the new one is whole.
///
/// Streams; nothing plain is written anywhere. The plain bytes of each part are checked against
/// the old backup's contents on the way, and once more when the new one is read back.
///
/// # Errors
/// [`ErrorKind::Unchecked`] when a key is missing, [`ErrorKind::Refused`] when the old manifest
/// is not ours or the new one would not be signed, [`ErrorKind::Damaged`] when the old one is:
/// then the old one is as it was, and no new one is listed. What happened to single copies
/// later is in the report.
pub async fn rekey(plan: &RekeyPlan<'_>, context: &Context) -> Result<RekeyReport> {
    let reader = BackupReader::best(plan.entry, plan.storages, plan.decoders.clone())?;
    let reader = reader.telling(context).with_patience(plan.patience);
    // With a wrong key the contents can't be opened: "could not check" comes before "forged".
    let contents = context.cancel.guard(reader.contents(context)).await?;
    context.cancel.guard(refuse_foreign(plan, &reader)).await?;
    let (id, created) = match plan.successor {
        Some(entry) => (entry.id, false),
        None => (write_anew(plan, &reader, &contents, context).await?, true),
    };
    let mut copies = Vec::new();
    for storage in storages_of(plan.entry, reader.manifest_json(), plan.storages) {
        let done = replace_copy(plan, &contents, id, &storage, context).await;
        if let Err(error) = &done
            && error.kind() == ErrorKind::Interrupted
        {
            return Err(Error::new(ErrorKind::Interrupted, "rekey", error.message()).next_step(
                format!("run it again: it goes on with {id}, which is listed beside the old one"),
            ));
        }
        copies.push((storage.name().to_owned(), done));
    }
    Ok(RekeyReport { id, created, copies })
}

/// What is signed anew must have been ours before: a forged backup must not become a real one.
async fn refuse_foreign(plan: &RekeyPlan<'_>, reader: &BackupReader) -> Result<()> {
    match reader.origin(plan.trusted).await? {
        Origin::Proven => {}
        Origin::Unsigned if plan.accept_unsigned => {}
        unproven => return Err(unproven.error()),
    }
    if plan.sign.is_none() && !plan.accept_unsigned {
        return Err(Error::refused(
            "rekey",
            "nothing would prove later that the new backup is ours",
        )
        .next_step(
            "set `passphrase` or `signing_key` under [encryption], or say --accept-unsigned",
        ));
    }
    Ok(())
}

/// The storages that have a backup with this very manifest. What another has under the same id
/// may be another backup: it is not touched.
fn storages_of(
    entry: &CatalogEntry,
    manifest_json: &[u8],
    storages: &[Arc<dyn Storage>],
) -> Vec<Arc<dyn Storage>> {
    let has = |storage: &&Arc<dyn Storage>| {
        let mut copies = entry.copies.iter();
        copies.any(|c| c.storage == storage.name() && c.manifest_json == manifest_json)
    };
    storages.iter().filter(has).cloned().collect()
}

/// The new backup, in every storage that has the old one and takes it; its id.
async fn write_anew(
    plan: &RekeyPlan<'_>,
    reader: &BackupReader,
    contents: &Contents,
    context: &Context,
) -> Result<BackupId> {
    let old = reader.manifest();
    let parts = decoded_parts(reader, contents, context)?;
    let report = backup(
        BackupPlan {
            job: old.job.clone(),
            kind: old.kind.clone(),
            tool: old.tool.clone(),
            host: old.host.clone(),
            source: old.source.clone(),
            app_version: old.app_version.clone(),
            postgres: old.postgres.clone(),
            parts,
            transforms: plan.transforms.clone(),
            keys: plan.keys.clone(),
            authenticate: plan.sign.clone(),
            storages: storages_of(plan.entry, reader.manifest_json(), plan.storages),
            // Where it fails, the old copy stays, and the next run goes on.
            policy: Policy::AtLeast(1),
            timeout: COPY_TIMEOUT,
            limits: plan.limits,
            // The folder is the old backup's, whoever made the newest.
            adopt: true,
            started: old.started,
            notes: old.notes.clone(),
            rekeyed: Some(rekeyed(plan, old)),
        },
        context,
    );
    report.await?.manifest.backup_id()
}

fn rekeyed(plan: &RekeyPlan<'_>, old: &Manifest) -> Rekeyed {
    Rekeyed {
        from: old.id.clone(),
        finished: old.finished,
        at: Timestamp::now(),
        tool: plan.tool.clone(),
        host: plan.host.clone(),
    }
}

/// Every part but the contents, which are written anew.
fn decoded_parts(
    reader: &BackupReader,
    contents: &Contents,
    context: &Context,
) -> Result<Vec<PartPlan>> {
    let contents = Arc::new(contents.clone());
    let parts = reader.manifest().parts.iter().filter(|part| part.role != PartRole::Contents);
    parts
        .map(|part| {
            let plain = contents.part(&part.name).ok_or_else(|| {
                Error::damaged("contents", format!("tell nothing of {}", part.name))
                    .next_step("leave this backup as it is, and restore it for a try")
            })?;
            Ok(PartPlan {
                name: part.name.clone(),
                role: part.role,
                estimated_bytes: Some(plain.bytes),
                source: Arc::new(DecodedPart {
                    reader: reader.clone(),
                    part: part.clone(),
                    contents: Arc::clone(&contents),
                    context: context.without_progress(),
                }),
            })
        })
        .collect()
}

/// Makes sure that `storage` has the new backup, whole, and removes the old one from it.
async fn replace_copy(
    plan: &RekeyPlan<'_>,
    old: &Contents,
    id: BackupId,
    storage: &Arc<dyn Storage>,
    context: &Context,
) -> Result<OldCopy> {
    let entry = find_new(plan, id, context).await?;
    let is_there = |entry: &CatalogEntry| {
        entry
            .copies
            .iter()
            .any(|copy| copy.storage == storage.name() && copy.damaged_parts.is_empty())
    };
    let entry = if is_there(&entry) {
        entry
    } else {
        let from =
            storages_of(&entry, &entry.manifest_json, plan.storages).into_iter().find(|other| {
                entry.copies.iter().any(|c| c.storage == other.name() && c.damaged_parts.is_empty())
            });
        let from = from.ok_or_else(|| {
            Error::damaged("rekey", format!("no storage has all of the new backup {id}"))
                .next_step("remove the new one, then run it again")
        })?;
        copy(&entry, &from, storage, false, context).await?;
        find_new(plan, id, context).await?
    };
    context.step(&format!("reading back {id} in {}", storage.name()));
    let reader = BackupReader::new(&entry, Arc::clone(storage), plan.reading_back.clone())
        .with_patience(plan.patience);
    let trusted = plan.sign.as_deref().or(plan.trusted);
    let mut report = verify(&reader, trusted, &|_, _| None, context).await;
    // Unsigned was accepted before.
    let bad = report.checks.drain(..).find_map(|check| {
        let accepted = plan.accept_unsigned && report.origin == Some(Origin::Unsigned);
        match check.result {
            Err(error) if !(accepted && check.what == crate::verify::SIGNATURE_CHECK) => {
                Some(error)
            }
            _ => None,
        }
    });
    if let Some(error) = bad {
        return Err(error);
    }
    refuse_difference(old, &reader.contents(context).await?)?;
    let pin = remove::carry_pin(plan.entry, id, storage, plan.limits);
    let pin_carried = context.cancel.guard(pin).await?;
    if pin_carried {
        hold_pinned(&id.to_string(), &entry.folder(), storage, context).await;
    }
    remove::remove(plan, storage, pin_carried, context).await
}

/// The new backup as the storages list it now.
async fn find_new(plan: &RekeyPlan<'_>, id: BackupId, context: &Context) -> Result<CatalogEntry> {
    let job = Some(plan.entry.manifest.job.as_str());
    let query = Query { job, id: Some(id), ..Query::default() };
    let look = async { Ok(Catalog::query(plan.storages, &query).await) };
    let catalog = context.cancel.guard(look).await?;
    catalog.find(&id.to_string())?;
    let found = catalog.backups.into_iter().find(|entry| entry.id == id);
    found.ok_or_else(|| Error::failed("rekey", format!("{id} is not listed any more")))
}

/// Nothing is removed for a backup that holds something else.
fn refuse_difference(old: &Contents, new: &Contents) -> Result<()> {
    let same = old.parts.len() == new.parts.len()
        && old.parts.iter().all(|part| {
            let theirs = new.part(&part.name);
            theirs.is_some_and(|new| new.sha256 == part.sha256 && new.bytes == part.bytes)
        });
    if same {
        return Ok(());
    }
    let message = format!("{} does not hold what {} does", new.backup, old.backup);
    Err(Error::damaged("rekey", message)
        .next_step("verify both; remove the newer folder if it is wrong, then run it again"))
}
