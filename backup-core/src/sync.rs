//! The verb `sync`: brings to a storage all that another one has and that belongs there.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::backup::{SWEEP_GRACE, sweep::sweep};
use crate::copy::{COPY_TIMEOUT, CopyReport, copy, is_lacking};
use crate::pipeline::{Context, Limits};
use crate::{BackupId, Catalog, CatalogEntry, Error, ErrorKind, Problem, Query, Result, Storage};

/// So many backups in a row that can't be copied end a `sync`: more than one backup is wrong.
const GIVE_UP_AFTER: usize = 3;

/// What does not belong into the target, of a catalog of both storages, when these failed to come.
pub type Unwanted<'a> = dyn Fn(&Catalog, &BTreeSet<BackupId>) -> BTreeSet<BackupId> + Sync + 'a;

/// What a `sync` did.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// Backups that `to` has now, whole.
    pub copied: Vec<(BackupId, CopyReport)>,
    /// Backups that `to` lacks and nobody wants there.
    pub unwanted: Vec<BackupId>,
    /// Backups that could not be copied, and why.
    pub failed: Vec<(BackupId, Error)>,
    /// What could not be read: whether it is missing is not known. Never silently left out.
    pub problems: Vec<Problem>,
}

/// Copies every backup of `from` that `to` lacks or has with missing parts, the oldest first.
///
/// `unwanted` says, of all that the two hold but for those that failed to come, what does not
/// belong into `to`: what its retention would remove again is not worth copying. A backup that
/// fails is reported, and the next one is tried; after three in a row it ends.
///
/// # Errors
/// When one of the storages can't be listed, or when stopped.
pub async fn sync(
    from: &Arc<dyn Storage>,
    to: &Arc<dyn Storage>,
    job: Option<&str>,
    unwanted: &Unwanted<'_>,
    context: &Context,
) -> Result<SyncReport> {
    let storages = [Arc::clone(from), Arc::clone(to)];
    let query = Query { job, ..Query::default() };
    let look = async { Ok(Catalog::query(&storages, &query).await) };
    let mut catalog = context.cancel.guard(look).await?;
    if let Some(unreachable) = catalog.unreachable.first().cloned() {
        let problem = catalog.problems.into_iter().find(|problem| problem.storage == unreachable);
        let silent = || Error::failed("sync", format!("storage {unreachable} can't be listed"));
        return Err(problem.map_or_else(silent, |problem| problem.error));
    }
    let problems = std::mem::take(&mut catalog.problems);
    let report = SyncReport { problems, ..SyncReport::default() };
    sweep_target(to, job, context).await;
    let mut bringing = Bringing { from, to, report, failed: BTreeSet::new(), in_a_row: 0, context };
    let mut lacking: Vec<&CatalogEntry> =
        catalog.backups.iter().filter(|e| is_lacking(e, from.name(), to.name())).collect();
    loop {
        // One that did not come stands for nothing: another may be wanted in its place.
        let in_vain = unwanted(&catalog, &bringing.failed);
        let wanted = lacking.extract_if(.., |entry| !in_vain.contains(&entry.id)).collect();
        if !bringing.bring(wanted).await? {
            break;
        }
    }
    bringing.report.unwanted = lacking.iter().map(|entry| entry.id).collect();
    Ok(bringing.report)
}

/// Backups on their way.
struct Bringing<'a> {
    from: &'a Arc<dyn Storage>,
    to: &'a Arc<dyn Storage>,
    report: SyncReport,
    failed: BTreeSet<BackupId>,
    in_a_row: usize,
    context: &'a Context,
}

impl Bringing<'_> {
    /// Copies these; tells whether some failed, and it makes sense to look for others.
    async fn bring(&mut self, wanted: Vec<&CatalogEntry>) -> Result<bool> {
        let before = self.failed.len();
        for entry in wanted {
            match copy(entry, self.from, self.to, false, self.context).await {
                Ok(copied) => {
                    self.in_a_row = 0;
                    self.report.copied.push((entry.id, copied));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => {
                    self.in_a_row += usize::from(!is_about_one_backup(&error));
                    self.report.failed.push((entry.id, error));
                    self.failed.insert(entry.id);
                    if self.in_a_row == GIVE_UP_AFTER {
                        self.context.warn("sync ends here: one backup after the other fails");
                        return Ok(false);
                    }
                }
            }
        }
        Ok(self.failed.len() > before)
    }
}

/// Removes what crashed copies left in the target: it may be no job's storage, so that no backup
/// ever does.
async fn sweep_target(to: &Arc<dyn Storage>, job: Option<&str>, context: &Context) {
    let now = Timestamp::now();
    let age = SignedDuration::try_from(COPY_TIMEOUT.saturating_add(SWEEP_GRACE));
    let Some(before) = age.ok().and_then(|age| now.checked_sub(age).ok()) else { return };
    let everything = [job.unwrap_or("").to_owned()];
    let swept = sweep(to, &everything, before, now, Limits::default(), context);
    if let Err(error) = swept.await {
        context.warn(&format!("storage {} could not be swept: {error}", to.name()));
    }
}

/// Whether a failure says nothing about the next backup.
fn is_about_one_backup(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Damaged | ErrorKind::Refused | ErrorKind::Locked | ErrorKind::NotFound
    )
}
