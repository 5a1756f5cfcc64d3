//! Which backups to keep: a pure decision, without I/O and without a clock.

use jiff::Timestamp;

use crate::BackupId;

/// Decides what is kept. Pure: the same input gives the same answer.
///
/// Every policy holds these rules, whatever its settings (the conformance suite checks them):
/// one decision per backup in the order given, the newest good backup is kept, a pinned one is
/// kept, and with `now` before the newest backup nothing expires.
pub trait RetentionPolicy: Send + Sync {
    /// One [`Decision`] for each of `backups`, in their order.
    fn decide(&self, backups: &[BackupSummary], now: Timestamp) -> Vec<Decision>;
}

/// What a policy knows of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    /// Which one.
    pub id: BackupId,
    /// Manifest valid, all parts there with their recorded size, no failed verification.
    pub good: bool,
    /// Pinned by the operator.
    pub pinned: bool,
}

/// Keep or expire, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Kept, for these reasons.
    Keep(Vec<String>),
    /// May be deleted, for this reason.
    Expire(String),
}

/// Keeps the newest `n` good backups, plus whatever no policy may expire.
#[derive(Debug, Clone, Copy)]
pub struct KeepLast(pub usize);

impl RetentionPolicy for KeepLast {
    fn decide(&self, backups: &[BackupSummary], now: Timestamp) -> Vec<Decision> {
        let mut good: Vec<&BackupId> = backups.iter().filter(|b| b.good).map(|b| &b.id).collect();
        good.sort_unstable_by(|a, b| b.cmp(a));
        let clock_is_behind = backups.iter().any(|b| b.id.started() > now);
        // The newest good one stays even with `KeepLast(0)`.
        let kept = &good[..good.len().min(self.0.max(1))];
        // Without a good backup nothing may go: a damaged copy is better than none.
        let nothing_good = good.is_empty();

        let reasons_for = |backup: &BackupSummary| {
            let mut reasons = Vec::new();
            if let Some(rank) = kept.iter().position(|id| **id == backup.id) {
                reasons.push(format!("last {} of {}", rank + 1, self.0.max(1)));
            }
            if backup.pinned {
                reasons.push("pinned".to_owned());
            }
            if nothing_good {
                reasons.push("no good backup exists".to_owned());
            }
            if clock_is_behind {
                reasons.push("the clock stands before the newest backup".to_owned());
            }
            reasons
        };
        backups
            .iter()
            .map(|backup| match reasons_for(backup) {
                reasons if reasons.is_empty() => {
                    Decision::Expire(format!("older than the last {}", self.0.max(1)))
                }
                reasons => Decision::Keep(reasons),
            })
            .collect()
    }
}
