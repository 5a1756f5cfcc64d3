//! What a copy to a storage would bring in vain: its retention would remove it again.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::plan::summary_of;
use crate::{BackupId, BackupSummary, Catalog, Decision, RetentionPolicy};

/// The backups of a catalog of one job that `policy` would remove from a storage which had them
/// all, each as good as its best copy.
///
/// What stays of them stays also when the others never come: a policy keeps the newest of each
/// slot.
pub fn expired_on_arrival(
    catalog: &Catalog,
    policy: &dyn RetentionPolicy,
    now: Timestamp,
) -> BTreeSet<BackupId> {
    let summaries = catalog.backups.iter().filter_map(|entry| {
        let copies = entry.copies.iter().map(|copy| summary_of(entry, copy));
        copies.max_by_key(|summary| summary.good)
    });
    let summaries: Vec<BackupSummary> = summaries.collect();
    let decisions = policy.decide(&summaries, now);
    let expired = summaries.iter().zip(decisions);
    let expired = expired.filter(|(_, decision)| matches!(decision, Decision::Expire(_)));
    expired.map(|(summary, _)| summary.id).collect()
}
