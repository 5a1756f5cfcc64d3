//! Taking over a file that other scripts wrote: it becomes the part of a backup, byte for byte.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::claim;
use super::folder::Folder;
use super::{BackupPlan, BackupReport, blank_manifest, check_part_names, finish, write_parts};
use crate::pipeline::{self, Context, Flow};
use crate::{
    BackupId, CONTENTS_FORMAT, Contents, Digest, Error, Manifest, Part, PartContents, PartRole,
    Result, Source, layout,
};

/// [`Manifest::kind`] of what other scripts wrote.
pub const LEGACY: &str = "legacy";

/// A file that other scripts wrote, read to its end and found whole.
pub struct LegacyFile {
    /// Its name, under which it is stored.
    pub file: String,
    /// What it is for.
    pub role: PartRole,
    /// What was done to the plain bytes, in the order of it: `["openpgp", "gzip"]`.
    pub transforms: Vec<String>,
    /// Who can open it, as in [`Part::keys`].
    pub keys: Vec<String>,
    /// The file itself.
    pub source: Arc<dyn Source>,
    /// Its bytes as they are.
    pub stored: Digest,
    /// What lies under the transforms.
    pub plain: PartContents,
    /// What one must know, a line each.
    pub notes: Vec<String>,
}

/// Makes a backup of one old file, with the time of `plan` as its id. The file comes first, then
/// the other parts of the plan, through its transforms.
///
/// `used` are ids that the job's backups in other storages have: the new one gets none of them.
/// `None`: they are not known, and the id gets random letters.
///
/// Nothing is swept, and whose the folder is is not asked. On `Err` nothing is listed.
///
/// # Errors
/// The first cause; [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when the file is another one
/// by now.
pub async fn take_over(
    plan: BackupPlan,
    file: &LegacyFile,
    used: Option<&BTreeSet<BackupId>>,
    context: &Context,
) -> Result<BackupReport> {
    layout::check_job_name(&plan.job)?;
    layout::check_key(&file.file)?;
    check_part_names(&plan)?;
    let reserved = [layout::MANIFEST, layout::SIGNATURE, layout::SHA256SUMS, layout::RESTORE_NOTE];
    if file.file.contains('/') || reserved.contains(&file.file.as_str()) {
        return Err(Error::usage("adopt", format!("{:?} can't name a part", file.file)));
    }
    let claim = claim(&plan, used, context).await?;
    let id = claim.id;
    let mut folder = Folder::new(&plan, claim);
    let written = write(&plan, file, id, &mut folder, context).await;
    folder.conclude(written, context).await
}

async fn write(
    plan: &BackupPlan,
    file: &LegacyFile,
    id: BackupId,
    folder: &mut Folder<'_>,
    context: &Context,
) -> Result<(Manifest, Contents)> {
    let flow = Flow {
        estimated_bytes: Some(file.stored.bytes),
        sinks: folder.sinks(),
        key: folder.key(&file.file),
        policy: folder.policy_for_the_rest(),
        expected: Some(file.stored.clone()),
        limits: plan.limits,
        part: file.file.clone(),
        source: Arc::clone(&file.source),
        stages: Vec::new(),
    };
    let mut outcome = pipeline::run(flow, context).await?;
    folder.note_written(std::mem::take(&mut outcome.sinks), outcome.written.bytes, context)?;
    let mut manifest = blank_manifest(plan, id);
    manifest.notes.extend(file.notes.iter().cloned());
    manifest.parts.push(Part {
        file: file.file.clone(),
        name: file.plain.name.clone(),
        role: file.role,
        transforms: file.transforms.clone(),
        bytes: outcome.written.bytes,
        sha256: outcome.written.sha256,
        keys: file.keys.clone(),
    });
    let mut contents = Contents {
        format: CONTENTS_FORMAT,
        backup: id.to_string(),
        parts: vec![file.plain.clone()],
    };
    write_parts(plan, folder, &mut manifest, &mut contents, context).await?;
    finish(plan, folder, &mut manifest, &contents, context).await?;
    Ok((manifest, contents))
}
