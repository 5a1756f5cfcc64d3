//! `restore --cleanup`: drops what earlier restores left, once it is not needed any more.

use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, DumpFilters, Inventory, PartRole, Query, Result, TableData};
use backup_pg::swap::{CleanupItem, CleanupOrder, CleanupOutcome, Phase, SwapState};
use backup_pg::{Server, Working};
use jiff::{SignedDuration, Timestamp};

use super::site::{Site, SwapTarget};
use crate::Deployment;

/// A database that was being filled is dropped after so long: no restore takes longer without
/// being connected to it.
const UNFINISHED_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A database that an earlier restore left.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// Its name.
    pub database: String,
    /// The run that left it, where that is known.
    pub run: Option<String>,
    /// Its size on the server's disk, where it may be known.
    pub bytes: Option<u64>,
    /// From when to when it was live, of one that was put back: what was written then is in it
    /// and in no other database, nor in any backup that began before or after.
    pub window: Option<(Timestamp, Timestamp)>,
    /// What happens or happened to it.
    pub outcome: CleanupOutcome,
}

impl From<CleanupItem> for Leftover {
    fn from(item: CleanupItem) -> Self {
        let marker = item.marker;
        // A put-back database that is being dropped has noted both times, too.
        let window = match (marker.phase, marker.swapped, marker.put_back) {
            (Phase::Failed | Phase::Dropping, Some(from), Some(to)) => Some((from, to)),
            _ => None,
        };
        Self {
            database: item.database,
            run: Some(marker.run.to_string()),
            bytes: item.bytes,
            window,
            outcome: item.outcome,
        }
    }
}

/// A backup counts as newer than a swap when it began so much later.
const CLOCK_MARGIN: SignedDuration = SignedDuration::from_mins(10);

impl Deployment {
    /// Drops databases that earlier restores left: `keep_old` has passed, and a backup of the
    /// live database that is newer than the swap was verified; and whatever killed restores were
    /// filling on that server, once it is a day old and nobody uses it. Everything else is kept,
    /// and why.
    ///
    /// # Errors
    /// When the server can't be asked. What could not be dropped is in the list.
    pub async fn clean_up(
        &self,
        target: &SwapTarget,
        dry_run: bool,
        context: &Context,
    ) -> Result<Vec<Leftover>> {
        let site = context.cancel.guard(self.site(target)).await?;
        let (ticket, _job) = site.lock(self)?;
        site.warn_of_killed(&ticket, context);
        let swap = site.swap();
        let state = context.cancel.guard(swap.state()).await?;
        let newest_verified = match holding_writes_since(&state) {
            Some(since) => self.newest_verified(&site, since, context).await?,
            None => None,
        };
        let order =
            CleanupOrder { now: Timestamp::now(), keep_old: site.keep_old(), newest_verified };
        let items = match dry_run {
            true => context.cancel.guard(swap.plan_cleanup(&order)).await?,
            false => swap.cleanup(&order).await?,
        };
        let mut left: Vec<Leftover> = items.into_iter().map(Leftover::from).collect();
        left.extend(state.unmarked.into_iter().map(unmarked));
        left.extend(clean_up_unfinished(&site.admin, dry_run).await?);
        Ok(left)
    }

    /// When the newest verified backup of the live database began, of those after `since`. What
    /// a storage can't tell counts as not verified.
    async fn newest_verified(
        &self,
        site: &Site,
        since: Timestamp,
        context: &Context,
    ) -> Result<Option<Timestamp>> {
        if self.config().storage.is_empty() {
            return Ok(None);
        }
        context.step("looking for a verified backup");
        let catalog = context.cancel.guard(self.catalog(&Query::default())).await?;
        for problem in &catalog.problems {
            context.warn(&format!("storage {}: {}", problem.storage, problem.error));
        }
        let is_late = |one: &CatalogEntry| counts_from(one) > since;
        let mut ours: Vec<&CatalogEntry> = catalog
            .backups
            .iter()
            .filter(|one| is_late(one) && is_of(one, site) && is_verified(one))
            .collect();
        ours.sort_by_key(|entry| std::cmp::Reverse(entry.manifest.started));
        for entry in ours {
            match context.cancel.guard(self.what_is_missing(entry, context)).await {
                Ok(None) => return Ok(Some(counts_from(entry))),
                Ok(Some(why)) => {
                    context.warn(&format!("backup {} does not count: {why}", entry.id));
                }
                Err(error) if context.cancel.is_cancelled() => return Err(error),
                Err(error) => context.warn(&format!(
                    "backup {} does not count, for its contents can't be read: {error}",
                    entry.id
                )),
            }
        }
        Ok(None)
    }

    /// Why the backup does not stand for the whole database; `None` when it does.
    async fn what_is_missing(
        &self,
        entry: &CatalogEntry,
        context: &Context,
    ) -> Result<Option<String>> {
        let reader = self.reader(entry, context).await?;
        let contents = reader.contents(context).await?;
        let part = reader.manifest().part(PartRole::Database);
        let plain = part.and_then(|part| contents.part(&part.name));
        let Some(plain) = plain else { return Ok(Some("it holds no database".to_owned())) };
        let job = self.database_of(&entry.manifest.job).ok().map(|postgres| postgres.filters());
        Ok(left_out(&plain.inventory, job.as_ref()))
    }
}

/// The moment whose state the backup holds for certain: the clocks of two hosts may differ.
fn counts_from(entry: &CatalogEntry) -> Timestamp {
    entry.manifest.started - CLOCK_MARGIN
}

/// When the first of the databases that may hold what no other does was swapped out.
fn holding_writes_since(state: &SwapState) -> Option<Timestamp> {
    state.marked.iter().filter_map(|one| one.marker.swapped).min()
}

/// What a backup lacks of its database, as it tells itself. For an older one, which does not, the
/// job's word of today has to do, and without a job nobody knows.
fn left_out(inventory: &Inventory, job: Option<&DumpFilters>) -> Option<String> {
    let said = |filters: &DumpFilters, whose: &str| {
        let keys = filters.leave_out();
        (!keys.is_empty()).then(|| format!("{whose} {}", keys.join(", ")))
    };
    let unknown = "it does not tell what was left out when it was made, and its job";
    let filtered = match (&inventory.filters, job) {
        (Some(filters), _) => said(filters, "it was made with"),
        (None, Some(job)) => said(job, &format!("{unknown} has")),
        (None, None) => Some(format!("{unknown} is gone")),
    };
    let lacks_rows = inventory.tables.iter().any(|table| table.data == TableData::Excluded);
    filtered.or_else(|| lacks_rows.then(|| "it lacks the rows of some tables".to_owned()))
}

/// One that is called as ours are: it is for whoever knows it to say whose it is.
fn unmarked(database: String) -> Leftover {
    let outcome = CleanupOutcome::Kept(format!(
        "it is called like a database of a restore and carries no mark of one; look into it, and when nobody needs it: dropdb {database}"
    ));
    Leftover { database, run: None, bytes: None, window: None, outcome }
}

/// Drops what killed restores were filling; what can't be dropped is told in its entry.
async fn clean_up_unfinished(server: &Server, dry_run: bool) -> Result<Vec<Leftover>> {
    let mut left = Vec::new();
    for one in Working::list(server).await? {
        let outcome = match one.kept(Timestamp::now(), UNFINISHED_KEPT) {
            Some(why) => CleanupOutcome::Kept(why),
            None if dry_run => CleanupOutcome::Drop,
            None => match one.drop_from(server).await {
                Ok(()) => CleanupOutcome::Dropped { subscriptions: Vec::new(), slots: Vec::new() },
                Err(error) => CleanupOutcome::Failed(error.message().to_owned()),
            },
        };
        left.push(Leftover {
            database: one.name,
            run: one.mark.and_then(|mark| mark.purpose.run),
            bytes: one.bytes,
            window: None,
            outcome,
        });
    }
    Ok(left)
}

/// Whether a backup is one of the live database, as far as both tell.
fn is_of(entry: &CatalogEntry, site: &Site) -> bool {
    let source = &entry.manifest.source;
    let same_server = match (&source.system_identifier, site.admin.system_identifier()) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => source.server == site.admin.name(),
    };
    let same_job = site.job.as_ref().is_none_or(|job| *job == entry.manifest.job);
    source.database == site.live && same_server && same_job
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
    use backup_core::TableContents;

    use super::*;

    #[test]
    fn a_backup_tells_itself_what_it_lacks_and_an_older_one_is_as_its_job() {
        let filtered = DumpFilters { tables: vec!["claims".to_owned()], ..DumpFilters::default() };
        let whole = DumpFilters::default();
        let told = |filters: Option<&DumpFilters>, job: Option<&DumpFilters>| {
            let inventory = Inventory { filters: filters.cloned(), ..Inventory::default() };
            left_out(&inventory, job)
        };
        assert_eq!(told(Some(&whole), Some(&whole)), None);
        // The job of today is not the one that made it.
        assert_eq!(told(Some(&whole), Some(&filtered)), None);
        assert_eq!(told(Some(&whole), None), None);
        let why = "it was made with tables".to_owned();
        assert_eq!(told(Some(&filtered), Some(&whole)), Some(why));
        assert_eq!(told(None, Some(&whole)), None);
        let claims = TableContents {
            schema: "public".to_owned(),
            name: "claims".to_owned(),
            data: TableData::Excluded,
            digest: None,
        };
        let older = Inventory { tables: vec![claims], ..Inventory::default() };
        assert_eq!(left_out(&older, Some(&whole)), Some("it lacks the rows of some tables".into()));
        assert!(told(None, Some(&filtered)).unwrap().ends_with("its job has tables"));
        assert!(told(None, None).unwrap().ends_with("its job is gone"));
    }

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
