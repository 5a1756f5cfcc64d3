//! The verb `backup`: one run of a job, from the source to a listed backup.

pub(crate) mod claim;
mod folder;
mod legacy;
pub(crate) mod publish;
pub(crate) mod sweep;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::memory::InMemory;
use crate::pipeline::{self, Context, Flow, Limits, Policy, Stage};
use crate::restore_note::restore_note;
use crate::{
    Authenticate, BackupId, CONTENTS_FORMAT, Catalog, CatalogEntry, Contents, Digest, Error,
    MANIFEST_FORMAT, Manifest, Part, PartContents, PartRole, PostgresVersions, Query, Rekeyed,
    Result, Source, SourceIdentity, Storage, Transform, layout,
};
use folder::Folder;
pub use legacy::{LEGACY, LegacyFile, take_over};

/// How much older than a job's timeout a leftover must be before it is swept.
pub(crate) const SWEEP_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// So many of the newest backups tell whose the job's folder is; more than one, in case the
/// newest can't be read.
const BACKUPS_LOOKED_AT: usize = 3;

/// Everything one run of a job needs to know.
pub struct BackupPlan {
    /// The job: names the folder.
    pub job: String,
    /// What kind of backup: `logical`, `files` or `deployment`.
    pub kind: String,
    /// Name and version of the program.
    pub tool: String,
    /// Host that runs it.
    pub host: String,
    /// What is backed up.
    pub source: SourceIdentity,
    /// The application's version.
    pub app_version: Option<String>,
    /// Versions on the PostgreSQL side.
    pub postgres: Option<PostgresVersions>,
    /// What to store, in order.
    pub parts: Vec<PartPlan>,
    /// Compression, then encryption; the same for every part.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// Who can open it: [`PASSPHRASE_KEY`](crate::PASSPHRASE_KEY) labels and key fingerprints.
    pub keys: Vec<String>,
    /// Signs the manifest, where the job is encrypted.
    pub authenticate: Option<Arc<dyn Authenticate>>,
    /// Where to.
    pub storages: Vec<Arc<dyn Storage>>,
    /// How many storages must succeed.
    pub policy: Policy,
    /// How long one run may take, end to end; the rule for sweeping rests on it.
    pub timeout: Duration,
    /// How long a single step may take.
    pub limits: Limits,
    /// Take over a folder whose newest backup came from another source.
    pub adopt: bool,
    /// When the run started: becomes the backup's id.
    pub started: Timestamp,
    /// What one must know of this backup, a line each, beside what the sources tell.
    pub notes: Vec<String>,
    /// The older backup that this one takes the place of.
    pub rekeyed: Option<Rekeyed>,
}

impl BackupPlan {
    /// Whether its id is that of a time long ago: it holds what an older backup held.
    pub(crate) fn is_of_old_data(&self) -> bool {
        self.rekeyed.is_some() || self.kind == LEGACY
    }
}

/// One part to store.
pub struct PartPlan {
    /// Its file name before the transforms add their extensions.
    pub name: String,
    /// What it is for.
    pub role: PartRole,
    /// Where it comes from.
    pub source: Arc<dyn Source>,
    /// Expected plain bytes, for progress.
    pub estimated_bytes: Option<u64>,
}

/// What a run made.
#[derive(Debug)]
pub struct BackupReport {
    /// The manifest as stored.
    pub manifest: Manifest,
    /// What is inside.
    pub contents: Contents,
    /// Storages that have the backup.
    pub stored_in: Vec<String>,
    /// Wanted storages that don't, and why. With any, the run is incomplete.
    pub failed: Vec<(String, Error)>,
}

/// Runs a job once.
///
/// On `Err` nothing is listed: what was written is removed again, and what could not be
/// removed is told as a warning and swept by a later run.
///
/// # Errors
/// The first cause; [`ErrorKind::Refused`](crate::ErrorKind::Refused) when the folder belongs to another source.
pub async fn backup(plan: BackupPlan, context: &Context) -> Result<BackupReport> {
    layout::check_job_name(&plan.job)?;
    check_part_names(&plan)?;
    // A switch of its own: this run's timeout must not stop the caller's next one.
    let context = Context { cancel: context.cancel.child(), progress: context.progress.clone() };
    let mut running = pin!(run(&plan, &context));
    tokio::select! {
        biased;
        result = &mut running => return result,
        () = tokio::time::sleep(plan.timeout) => {}
    }
    let seconds = plan.timeout.as_secs();
    context.cancel.time_out(format!("the job's timeout of {seconds} s is over"));
    running.await
}

/// Refuses names that would leave the folder or overwrite another file in it.
fn check_part_names(plan: &BackupPlan) -> Result<()> {
    let contents = stored_name(plan, layout::CONTENTS);
    let reserved = [
        layout::MANIFEST,
        layout::SIGNATURE,
        layout::SHA256SUMS,
        layout::RESTORE_NOTE,
        layout::CLAIM,
        layout::PRUNED,
        layout::PIN,
        layout::READERS,
        layout::PROOFS,
        &contents,
    ];
    let mut taken: BTreeSet<String> = reserved.into_iter().map(str::to_owned).collect();
    for part in &plan.parts {
        let file = stored_name(plan, &part.name);
        layout::check_key(&file)?;
        if file.contains('/') || !taken.insert(file) {
            return Err(Error::usage("backup", format!("{:?} can't name a part", part.name))
                .next_step("give every part a plain file name of its own"));
        }
    }
    Ok(())
}

/// The file name of a part, with the extensions of the transforms.
fn stored_name(plan: &BackupPlan, part: &str) -> String {
    plan.transforms
        .iter()
        .fold(part.to_owned(), |name, transform| format!("{name}.{}", transform.extension()))
}

async fn run(plan: &BackupPlan, context: &Context) -> Result<BackupReport> {
    context.step("checking the storages");
    let query = Query { job: Some(&plan.job), limit: Some(BACKUPS_LOOKED_AT), ..Query::default() };
    let look = async { Ok(Catalog::query(&plan.storages, &query).await) };
    let catalog = context.cancel.guard(look).await?;
    refuse_foreign_folder(plan, &catalog, context)?;
    let newest = catalog.backups.last().map(|newest| newest.id);
    let sweep = sweep::sweep_leftovers(plan, newest, &catalog.unreachable, context);
    context.cancel.guard(sweep).await?;
    let used = catalog.unreachable.is_empty().then(BTreeSet::new);
    let claim = claim::claim(plan, used.as_ref(), context).await?;
    let id = claim.id;
    let mut folder = Folder::new(plan, claim);
    let written = write_everything(plan, id, &mut folder, context).await;
    folder.conclude(written, context).await
}

/// The job's folder belongs to one source: staging with production's configuration must not
/// mix its backups into production's, nor prune them.
///
/// A storage that can't be listed is told: a key that may only write must still back up.
fn refuse_foreign_folder(plan: &BackupPlan, catalog: &Catalog, context: &Context) -> Result<()> {
    if plan.adopt {
        return Ok(());
    }
    let ours = if plan.source.database.is_empty() { "these files" } else { "this database" };
    for problem in &catalog.problems {
        context.warn(&format!(
            "could not check in storage {} that job {:?} belongs to {ours}: {}",
            problem.storage, plan.job, problem.error
        ));
    }
    // Of what other scripts wrote nobody knows the source.
    let ours = |entry: &&CatalogEntry| entry.manifest.kind != LEGACY;
    let Some(newest) = catalog.backups.iter().rfind(ours) else { return Ok(()) };
    let theirs = &newest.manifest.source;
    if theirs.same_source(&plan.source) {
        return Ok(());
    }
    let describe = |source: &SourceIdentity| {
        let system = source.system_identifier.as_deref().unwrap_or("unknown");
        if source.database.is_empty() {
            return format!("files of {system} ({})", source.server);
        }
        format!("database {:?} of system {system} at {}", source.database, source.server)
    };
    Err(Error::refused(
        "safety check",
        format!(
            "job {:?} holds backups of {}, and this is {}",
            plan.job,
            describe(theirs),
            describe(&plan.source)
        ),
    )
    .next_step(if plan.source.database.is_empty() {
        "give this host's files a job name of their own; if it really replaces the old host, \
             say so once with --adopt"
    } else {
        "give this database a job name of its own; if it really replaces the old one \
             (a new cluster after an upgrade), say so once with --adopt"
    }))
}

/// Parts, contents, companions, manifest: in this order, the manifest last.
async fn write_everything(
    plan: &BackupPlan,
    id: BackupId,
    folder: &mut Folder<'_>,
    context: &Context,
) -> Result<(Manifest, Contents)> {
    let mut contents =
        Contents { format: CONTENTS_FORMAT, backup: id.to_string(), parts: Vec::new() };
    let mut manifest = blank_manifest(plan, id);
    write_parts(plan, folder, &mut manifest, &mut contents, context).await?;
    finish(plan, folder, &mut manifest, &contents, context).await?;
    Ok((manifest, contents))
}

/// Every part of the plan, noted in manifest and contents.
async fn write_parts(
    plan: &BackupPlan,
    folder: &mut Folder<'_>,
    manifest: &mut Manifest,
    contents: &mut Contents,
    context: &Context,
) -> Result<()> {
    for part in &plan.parts {
        let outcome = write_part(plan, part, folder, manifest, context).await?;
        contents.parts.push(PartContents {
            name: part.name.clone(),
            bytes: outcome.read.bytes,
            sha256: outcome.read.sha256,
            inventory: outcome.findings.inventory,
            frames: outcome.frames,
        });
    }
    Ok(())
}

/// Contents and companions behind the parts, then the manifest.
async fn finish(
    plan: &BackupPlan,
    folder: &mut Folder<'_>,
    manifest: &mut Manifest,
    contents: &Contents,
    context: &Context,
) -> Result<()> {
    let described = PartPlan {
        name: layout::CONTENTS.to_owned(),
        role: PartRole::Contents,
        source: Arc::new(InMemory::new("contents", contents.to_stored_json()?)),
        estimated_bytes: None,
    };
    write_part(plan, &described, folder, manifest, context).await?;

    manifest.finished = match &plan.rekeyed {
        // The data is as old as it was.
        Some(rekeyed) => rekeyed.finished,
        // Of old files nobody knows when they were finished: their time stands for both.
        None if manifest.kind == LEGACY => manifest.finished,
        None => Timestamp::now().max(manifest.started),
    };
    let note = restore_note(manifest).into_bytes();
    folder.write_companion(layout::RESTORE_NOTE, note, manifest, context).await?;
    let json = manifest.to_json()?;
    let signature = plan.authenticate.as_ref().map(|ours| ours.sign(&json)).transpose()?;
    let sums = checksum_list(manifest, &json, signature.as_deref());
    if let Some(signature) = signature {
        folder.write_small(layout::SIGNATURE, signature, context).await?;
    }
    folder.write_small(layout::SHA256SUMS, sums, context).await?;
    folder.publish(manifest, json, context).await
}

fn blank_manifest(plan: &BackupPlan, id: BackupId) -> Manifest {
    Manifest {
        format: MANIFEST_FORMAT,
        id: id.to_string(),
        job: plan.job.clone(),
        kind: plan.kind.clone(),
        started: plan.started,
        finished: plan.started,
        tool: plan.tool.clone(),
        host: plan.host.clone(),
        source: plan.source.clone(),
        app_version: plan.app_version.clone(),
        postgres: plan.postgres.clone(),
        parts: Vec::new(),
        companions: Vec::new(),
        notes: plan.notes.clone(),
        rekeyed: plan.rekeyed.clone(),
    }
}

/// Streams one part into every storage that still takes part.
async fn write_part(
    plan: &BackupPlan,
    part: &PartPlan,
    folder: &mut Folder<'_>,
    manifest: &mut Manifest,
    context: &Context,
) -> Result<pipeline::Outcome> {
    let file = stored_name(plan, &part.name);
    let flow = Flow {
        part: part.name.clone(),
        estimated_bytes: part.estimated_bytes,
        source: Arc::clone(&part.source),
        stages: plan.transforms.iter().cloned().map(Stage::encode).collect(),
        sinks: folder.sinks(),
        key: folder.key(&file),
        policy: folder.policy_for_the_rest(),
        expected: None,
        limits: plan.limits,
    };
    let mut outcome = pipeline::run(flow, context).await?;
    folder.note_written(std::mem::take(&mut outcome.sinks), outcome.written.bytes, context)?;
    manifest.parts.push(Part {
        file,
        name: part.name.clone(),
        role: part.role,
        transforms: plan.transforms.iter().map(|t| t.name().to_owned()).collect(),
        bytes: outcome.written.bytes,
        sha256: outcome.written.sha256.clone(),
        keys: plan.keys.clone(),
    });
    manifest.notes.extend(outcome.findings.notes.iter().cloned());
    if let (Some(postgres), Some(version)) =
        (&mut manifest.postgres, &outcome.findings.archive_version)
    {
        postgres.archive = Some(version.clone());
    }
    Ok(outcome)
}

/// What `sha256sum -c` reads: every file of the backup but itself. Follows from the manifest,
/// so that each of the two shows damage of the other.
pub(crate) fn checksum_list(manifest: &Manifest, json: &[u8], signature: Option<&[u8]>) -> Vec<u8> {
    let parts = manifest.parts.iter().map(|p| (p.sha256.clone(), &*p.file));
    let companions = manifest.companions.iter().map(|c| (c.sha256.clone(), &*c.file));
    let signature = signature.map(|bytes| (Digest::of(bytes).sha256, layout::SIGNATURE));
    let last = signature.into_iter().chain([(Digest::of(json).sha256, layout::MANIFEST)]);
    let all = parts.chain(companions).chain(last);
    all.map(|(sha256, file)| format!("{sha256}  {file}\n")).collect::<String>().into_bytes()
}
