//! Bringing backups from one storage to another: `copy`, `sync`.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    BackupId, Catalog, CopyReport, Problem, Query, Result, Storage, SyncReport, expired_on_arrival,
    layout,
};
use jiff::Timestamp;

use crate::Deployment;
use crate::config::RetentionConfig;

impl Deployment {
    /// Brings the backup `wanted` (an id, or `latest`) to the storage `to`, from its copy in
    /// `from`. With `check`, files that are there already are read, and copied anew when damaged.
    ///
    /// # Errors
    /// As [`backup_core::copy`](fn@backup_core::copy), and when there is no such backup.
    pub async fn copy(
        &self,
        wanted: &str,
        job: Option<&str>,
        [from, to]: [&str; 2],
        check: bool,
        context: &Context,
    ) -> Result<(BackupId, CopyReport)> {
        let source = self.storage(from, None).await?;
        let query = Query::for_backup(job, wanted)?;
        let look = async { Ok(Catalog::query(&[Arc::clone(&source)], &query).await) };
        let catalog = context.cancel.guard(look).await?;
        let entry = catalog.find(wanted)?;
        let target = self.storage(to, Some(&entry.manifest.job)).await?;
        let report = backup_core::copy(entry, &source, &target, check, context).await?;
        Ok((entry.id, report))
    }

    /// Copies every backup of `from` that `to` lacks, of one job or of all, but for those that
    /// the job's retention would remove there again.
    ///
    /// # Errors
    /// As [`backup_core::sync`](fn@backup_core::sync). A backup that can't be copied is in the
    /// report.
    pub async fn sync(
        &self,
        job: Option<&str>,
        [from, to]: [&str; 2],
        context: &Context,
    ) -> Result<SyncReport> {
        let source = self.storage(from, None).await?;
        let jobs = match job {
            Some(job) => vec![job.to_owned()],
            None => context.cancel.guard(jobs_in(source.as_ref())).await?,
        };
        let mut report = SyncReport::default();
        for job in &jobs {
            let target = self.storage(to, Some(job)).await?;
            // What a prune of the target would remove again is not brought. It removes nothing
            // from storages that the job does not name, nor by itself without a retention.
            let config = self.config().job.get(job);
            let retention = config.filter(|config| config.storages.iter().any(|name| name == to));
            let policy = retention.and_then(|config| config.retention.as_ref());
            let policy = policy.map(RetentionConfig::policy).transpose()?;
            let all = match &policy {
                Some(_) => self.all_copies(job, [from, to], context).await?,
                None => Catalog::default(),
            };
            let unwanted = |_: &Catalog, failed: &BTreeSet<BackupId>| match &policy {
                Some(policy) => {
                    expired_on_arrival(&all, [from, to], failed, policy, Timestamp::now())
                }
                None => BTreeSet::new(),
            };
            let one = backup_core::sync(&source, &target, Some(job), &unwanted, context).await?;
            report.copied.extend(one.copied);
            report.unwanted.extend(one.unwanted);
            report.failed.extend(one.failed);
            report.problems.extend(one.problems);
        }
        Ok(report)
    }
}

impl Deployment {
    /// What tells what a prune of the target would remove there again. Asks all storages, as a
    /// prune does: pins and drills of a third copy count.
    ///
    /// # Errors
    /// When one of the two can't be listed: then too much would be wanted.
    async fn all_copies(
        &self,
        job: &str,
        between: [&str; 2],
        context: &Context,
    ) -> Result<Catalog> {
        let query = Query { job: Some(job), ..Query::default() };
        let mut catalog = context.cancel.guard(self.catalog(&query)).await?;
        let is_concerned = |problem: &Problem| between.contains(&&*problem.storage);
        let is_silent =
            |one: &Problem| is_concerned(one) && catalog.unreachable.contains(&one.storage);
        if let Some(silent) = catalog.problems.iter().position(is_silent) {
            return Err(catalog.problems.swap_remove(silent).error);
        }
        // What else is wrong with these two `sync` tells itself.
        let others = catalog.problems.iter().filter(|one| !is_concerned(one));
        for problem in others {
            context.warn(&format!(
                "pins and drills in {} don't count for what is wanted in {}: {}",
                problem.storage, between[1], problem.error
            ));
        }
        Ok(catalog)
    }
}

/// The jobs that have a folder in a storage.
async fn jobs_in(storage: &dyn Storage) -> Result<Vec<String>> {
    let mut folders = storage.folders("").await?;
    folders.retain(|folder| layout::check_job_name(folder).is_ok());
    Ok(folders)
}
