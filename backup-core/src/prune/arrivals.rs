//! What a copy to a storage would bring in vain: its retention would remove it again.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::plan::{decide, is_foreign, owner, summary_of};
use crate::copy::is_lacking;
use crate::{
    BackupId, BackupSummary, Catalog, CatalogEntry, Decision, RetentionPolicy, StoredCopy,
};

/// The backups of a catalog of one job that a prune of the storage `to` would remove there, were
/// it brought all that it lacks of the storage `from`, but for those that `failed` to come.
///
/// Judged is what `to` would hold then, each copy by its own state: one whose verification failed
/// in `to` is not replaced, and stands for nothing. The rest of the catalog tells what counts for
/// every copy, as it does for a prune: pins, drills, and whose the job's folder is. Backups of
/// another source a prune leaves alone, so they are none of these, and speak against none.
///
/// What stays of them stays also when the others never come: a policy keeps the newest of each
/// slot.
pub fn expired_on_arrival(
    catalog: &Catalog,
    [from, to]: [&str; 2],
    failed: &BTreeSet<BackupId>,
    policy: &dyn RetentionPolicy,
    now: Timestamp,
) -> BTreeSet<BackupId> {
    let entries: Vec<&CatalogEntry> = catalog.backups.iter().collect();
    let owner = owner(&entries);
    let ours = entries.iter().filter(|entry| !is_foreign(owner, entry));
    let summaries: Vec<BackupSummary> = ours
        .filter_map(|entry| Some(summary_of(entry, afterwards(entry, [from, to], failed)?)))
        .collect();
    let expired = summaries.iter().zip(decide(&summaries, policy, now));
    let expired = expired.filter(|(_, decision)| matches!(decision, Decision::Expire(_)));
    expired.map(|(summary, _)| summary.id).collect()
}

/// The copy that `to` would have.
fn afterwards<'a>(
    entry: &'a CatalogEntry,
    [from, to]: [&str; 2],
    failed: &BTreeSet<BackupId>,
) -> Option<&'a StoredCopy> {
    let comes = is_lacking(entry, from, to) && !failed.contains(&entry.id);
    let name = if comes { from } else { to };
    entry.copies.iter().find(|copy| copy.storage == name)
}
