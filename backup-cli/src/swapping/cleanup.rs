//! `restore --cleanup`: drops what earlier restores left, once it is not needed any more.

use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, Query, Result};
use backup_pg::swap::{CleanupItem, CleanupOrder};
use jiff::{SignedDuration, Timestamp};

use super::site::{Site, SwapTarget};
use crate::Deployment;

/// A backup counts as newer than a swap when it began so much later.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

impl Deployment {
    /// Drops databases that earlier restores left: `keep_old` has passed, and a backup of the
    /// live database that is newer than the swap was verified. Everything else is kept, and why.
    ///
    /// # Errors
    /// When the server can't be asked. What could not be dropped is in the list.
    pub async fn clean_up(
        &self,
        target: &SwapTarget,
        dry_run: bool,
        context: &Context,
    ) -> Result<Vec<CleanupItem>> {
        let site = context.cancel.guard(self.site(target)).await?;
        let (_ticket, _job) = site.lock(self)?;
        context.step("looking for a verified backup");
        let newest_verified = self.newest_verified(&site, context).await?;
        let order =
            CleanupOrder { now: Timestamp::now(), keep_old: site.keep_old(), newest_verified };
        let swap = site.swap();
        match dry_run {
            true => context.cancel.guard(swap.plan_cleanup(&order)).await,
            false => swap.cleanup(&order).await,
        }
    }

    /// When the newest verified backup of the live database began. What a storage can't tell
    /// counts as not verified.
    async fn newest_verified(&self, site: &Site, context: &Context) -> Result<Option<Timestamp>> {
        if self.config().storage.is_empty() {
            return Ok(None);
        }
        let catalog = context.cancel.guard(self.catalog(&Query::default())).await?;
        for problem in &catalog.problems {
            context.warn(&format!("storage {}: {}", problem.storage, problem.error));
        }
        let ours = catalog.backups.iter().filter(|entry| {
            is_of(entry, site) && self.is_of_a_whole_job(entry, site) && is_verified(entry)
        });
        // The clocks of two hosts may differ.
        Ok(ours.map(|entry| entry.manifest.started - CLOCK_MARGIN).max())
    }
}

impl Deployment {
    /// Whether the job that made it leaves nothing out: what a filter left out is in the old
    /// database alone.
    fn is_of_a_whole_job(&self, entry: &CatalogEntry, site: &Site) -> bool {
        let name = &entry.manifest.job;
        let Ok(pg) = self.database_of(name) else { return false };
        let filters = [
            &pg.schemas,
            &pg.exclude_schemas,
            &pg.tables,
            &pg.exclude_tables,
            &pg.exclude_table_data,
        ];
        site.job.as_ref().is_none_or(|of_site| of_site == name)
            && filters.iter().all(|filter| filter.is_empty())
            && pg.large_objects != Some(false)
    }
}

/// Whether a backup is one of the live database, as far as both tell.
fn is_of(entry: &CatalogEntry, site: &Site) -> bool {
    let source = &entry.manifest.source;
    let same_server = match (&source.system_identifier, site.admin.system_identifier()) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => source.server == site.admin.name(),
    };
    source.database == site.live && same_server
}

/// Whether some copy is whole and was read to its end, the last time that anybody did.
fn is_verified(entry: &CatalogEntry) -> bool {
    entry.copies.iter().any(|copy| copy.damaged_parts.is_empty() && passed_last(&copy.proofs))
}

/// Whether the newest proof that read the contents says that they are whole, and none says
/// otherwise since. The names begin with the time.
fn passed_last(proofs: &[String]) -> bool {
    let newest = |endings: &[&str]| {
        proofs.iter().filter(|name| endings.iter().any(|end| name.ends_with(end))).max()
    };
    let passed = newest(&["-verify.json"]);
    let failed = newest(&["-verify-failed.json", "-checksums-failed.json", "-drill-failed.json"]);
    passed.is_some_and(|passed| failed.is_none_or(|failed| time(passed) > time(failed)))
}

fn time(name: &str) -> &str {
    name.split('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_word_on_the_contents_counts() {
        let verified = |names: &[&str]| {
            passed_last(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        let (first, second) = ("20261122T020000Z", "20261123T020000Z");
        let name = |time: &str, kind: &str| format!("{time}-{kind}.json");
        assert!(verified(&[&name(first, "verify")]));
        assert!(!verified(&[]));
        assert!(!verified(&[&name(second, "checksums")]));
        assert!(!verified(&[&name(first, "verify-failed")]));
        assert!(verified(&[&name(first, "verify-failed"), &name(second, "verify")]));
        assert!(!verified(&[&name(first, "verify"), &name(second, "verify-failed")]));
        assert!(!verified(&[&name(first, "verify"), &name(second, "checksums-failed")]));
        assert!(!verified(&[&name(first, "verify"), &name(first, "verify-failed")]));
    }
}
