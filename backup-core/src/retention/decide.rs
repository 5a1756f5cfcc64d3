//! Puts the rules and the safety together.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::slots::{Verdict, verdicts};
use super::{BackupSummary, Decision, RetentionRules};
use crate::BackupId;

pub(super) fn decide(
    rules: &RetentionRules,
    backups: &[BackupSummary],
    now: Timestamp,
) -> Vec<Decision> {
    let mut newest_first: Vec<&BackupSummary> = backups.iter().collect();
    newest_first.sort_by_key(|backup| std::cmp::Reverse(backup.id));
    let mut fates = fates(rules, &newest_first, now);
    keep_what_is_needed(backups, &mut fates);
    backups.iter().map(|backup| fates.remove(&backup.id).unwrap_or_default().decision()).collect()
}

/// What speaks for a backup, and what the rules say that do not.
#[derive(Default)]
struct Fate {
    reasons: Vec<String>,
    passed_over: Vec<String>,
}

impl Fate {
    fn decision(self) -> Decision {
        if !self.reasons.is_empty() {
            return Decision::Keep(self.reasons);
        }
        if self.passed_over.is_empty() {
            return Decision::Expire("no rule keeps it: none is set".to_owned());
        }
        Decision::Expire(format!("no rule keeps it: {}", self.passed_over.join("; ")))
    }
}

/// The fate of each of `backups`, which come newest first, by itself.
fn fates(
    rules: &RetentionRules,
    backups: &[&BackupSummary],
    now: Timestamp,
) -> BTreeMap<BackupId, Fate> {
    let newest_good = backups.iter().find(|backup| backup.good).map(|backup| backup.id);
    let clock_is_behind = backups.first().is_some_and(|newest| newest.id.started() > now);
    // Without a good backup every rule is silent: a damaged copy is better than none.
    let verdicts = if newest_good.is_some() { verdicts(rules, backups) } else { Vec::new() };
    let mut fates = BTreeMap::new();
    for (place, backup) in backups.iter().enumerate() {
        let mut fate = Fate::default();
        let mut keep = |reason: &str| fate.reasons.push(reason.to_owned());
        match newest_good {
            None => keep("no good backup exists"),
            Some(newest) if newest == backup.id => keep("the newest good backup"),
            Some(newest) if newest < backup.id => {
                keep("not good, but newer than the newest good backup: it may be repairable");
            }
            Some(_) => {}
        }
        if backup.pinned {
            keep("pinned");
        }
        if clock_is_behind {
            keep("the clock stands before the newest backup");
        }
        for verdicts in &verdicts {
            match verdicts.get(place) {
                Some(Verdict::Keeps(reason)) => fate.reasons.push(reason.clone()),
                Some(Verdict::Passes(why)) => fate.passed_over.push(why.clone()),
                None => {}
            }
        }
        fates.insert(backup.id, fate);
    }
    fates
}

/// Whatever a kept backup needs is kept, and what that one needs.
fn keep_what_is_needed(backups: &[BackupSummary], fates: &mut BTreeMap<BackupId, Fate>) {
    let needs: BTreeMap<BackupId, &[BackupId]> =
        backups.iter().map(|backup| (backup.id, backup.needs.as_slice())).collect();
    let is_kept = |fate: &Fate| !fate.reasons.is_empty();
    let mut to_follow: Vec<BackupId> =
        fates.iter().filter(|(_, fate)| is_kept(fate)).map(|(id, _)| *id).collect();
    // Newest first, so that a link names the nearest backup that needs it.
    to_follow.sort_unstable();
    while let Some(id) = to_follow.pop() {
        for needed in needs.get(&id).copied().unwrap_or_default() {
            let Some(fate) = fates.get_mut(needed) else { continue };
            let known = is_kept(fate);
            let reason = format!("needed by {id}");
            if !fate.reasons.contains(&reason) {
                fate.reasons.push(reason);
            }
            if !known {
                to_follow.push(*needed);
            }
        }
    }
}
