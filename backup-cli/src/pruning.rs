//! `prune`, `pin`, `unpin`: what is kept, and what goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    Catalog, CatalogEntry, Error, ErrorKind, Foreign, PIN_FORMAT, Pin, Pinned, PrunePlan,
    PruneReport, PruneRules, Query, Result, Storage, apply_prune, pin, plan_prune, read_pin, unpin,
};
use jiff::Timestamp;

use crate::lock::JobLock;
use crate::{Deployment, TOOL, wiring};

/// Longest reason of a pin, in characters.
const MAX_REASON: usize = 1000;

/// How a job is pruned.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// Remove it, and don't only tell.
    pub apply: bool,
    /// At most so many backups, in place of what the job says.
    pub max_delete: Option<usize>,
    /// What becomes of backups of another source than the newest one's.
    pub foreign: Foreign,
}

/// What a prune of a job would do, and did.
#[derive(Debug)]
pub struct Pruned {
    /// What was decided of each backup; also why nothing may be done.
    pub plan: PrunePlan,
    /// What was done; `None` when it was not to be, or was refused.
    pub report: Option<PruneReport>,
}

impl Pruned {
    /// What it comes to: `None` when all is as it should be. A job of which no storage could be
    /// read is [`ErrorKind::Unchecked`], one of which some could not be pruned
    /// [`ErrorKind::Incomplete`].
    pub fn shortcoming(&self) -> Option<ErrorKind> {
        if let Some(refused) = &self.plan.refused {
            return Some(refused.kind());
        }
        if let Some(failed) = self.report.as_ref().and_then(PruneReport::failure) {
            return Some(match failed.kind() {
                ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ => ErrorKind::Incomplete,
            });
        }
        let unread = self.plan.storages.iter().filter(|storage| storage.problem.is_some()).count();
        match unread {
            0 => None,
            all if all == self.plan.storages.len() => Some(ErrorKind::Unchecked),
            _ => Some(ErrorKind::Incomplete),
        }
    }
}

impl Deployment {
    /// Decides what a job's retention keeps in each of its storages, and with
    /// [`PruneOptions::apply`] removes the rest. Needs neither the database nor a key.
    ///
    /// # Errors
    /// When the configuration is wrong, [`ErrorKind::Locked`] when another run of the job is
    /// going on, or when interrupted while it looks. What is wrong with a storage is in the
    /// result.
    pub async fn prune(
        &self,
        job: &str,
        options: PruneOptions,
        context: &Context,
    ) -> Result<Pruned> {
        let retention = self.job(job)?.retention_or_default();
        let policy = retention.policy()?;
        let most = usize::try_from(retention.max_delete).unwrap_or(usize::MAX);
        let _lock = match options.apply {
            true => Some(JobLock::take(&self.state_dir(), job)?),
            false => None,
        };
        context.step("looking at the storages");
        let (storages, problems) = self.openable_storages(Some(job)).await?;
        let look = async {
            let query = Query { job: Some(job), ..Query::default() };
            let mut catalog = Catalog::query(&storages, &query).await;
            catalog.problems.extend(problems);
            let rules = PruneRules {
                job,
                policy: &policy,
                now: Timestamp::now(),
                host: wiring::host_name(),
                foreign: options.foreign,
                max_delete: Some(options.max_delete.unwrap_or(most)),
                lock_days: self.lock_days(job, &storages),
            };
            Ok(plan_prune(&catalog, &storages, &rules).await)
        };
        let plan = context.cancel.guard(look).await?;
        let report = match options.apply && plan.refused.is_none() {
            true => Some(apply_prune(&plan, &storages, context).await?),
            false => None,
        };
        Ok(Pruned { plan, report })
    }

    /// What belongs behind each complete backup of a job whose retention is written in the
    /// config: a prune of it. `None` where it is not. Backups of another source are left alone.
    ///
    /// # Errors
    /// As [`Deployment::prune`]. They are no failure of the backup.
    pub async fn prune_after_backup(&self, job: &str, context: &Context) -> Option<Result<Pruned>> {
        self.config().job.get(job)?.retention.as_ref()?;
        let options = PruneOptions { apply: true, max_delete: None, foreign: Foreign::Keep };
        Some(self.prune(job, options, context).await)
    }

    /// The days for which each storage locks its objects.
    fn lock_days(&self, job: &str, storages: &[Arc<dyn Storage>]) -> BTreeMap<String, u32> {
        let days = storages.iter().filter_map(|storage| {
            let lock = self.objects(storage.name(), Some(job)).object_lock?;
            Some((storage.name().to_owned(), lock.days))
        });
        days.collect()
    }

    /// Keeps a backup from being pruned, for a `reason`, as `by` says. Tells for each storage
    /// that has a copy whether it is pinned there.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an empty or overlong reason; when no storage can be opened.
    pub async fn pin(
        &self,
        entry: &CatalogEntry,
        reason: &str,
        by: &str,
    ) -> Result<Vec<(String, Result<Pinned>)>> {
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > MAX_REASON {
            let message = format!("a reason has 1 to {MAX_REASON} characters");
            return Err(Error::usage("pin", message)
                .next_step("say in a sentence why the backup is to be kept"));
        }
        let (storages, _) = self.readable_storages().await?;
        let wanted = Pin {
            format: PIN_FORMAT,
            backup: entry.id.to_string(),
            reason: reason.to_owned(),
            by: by.to_owned(),
            host: wiring::host_name(),
            pinned: Timestamp::now(),
            tool: TOOL.to_owned(),
        };
        Ok(pin(entry, &storages, &wanted).await)
    }

    /// Takes a backup's pins away.
    ///
    /// # Errors
    /// When no storage can be opened.
    pub async fn unpin(&self, entry: &CatalogEntry) -> Result<Vec<(String, Result<()>)>> {
        let (storages, _) = self.readable_storages().await?;
        Ok(unpin(entry, &storages).await)
    }

    /// Who pinned a backup, and why; `None` when nobody did.
    ///
    /// # Errors
    /// When that can't be read.
    pub async fn pin_of(&self, entry: &CatalogEntry) -> Result<Option<Pin>> {
        if !entry.is_pinned() {
            return Ok(None);
        }
        let (storages, _) = self.readable_storages().await?;
        read_pin(entry, &storages).await
    }
}
