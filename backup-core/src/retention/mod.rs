//! Which backups to keep: a pure decision, without I/O and without a clock.
//!
//! [`RetentionRules`] is the policy of a job. docs/retention.md tells it with examples.

mod decide;
mod rules;
mod slots;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::BackupId;

pub use rules::{HowMany, RetentionRules};

/// Decides what is kept. Pure: the same input gives the same answer.
///
/// Every policy holds these rules, whatever its settings (the conformance suite checks them):
///
/// - one decision per backup in the order given, which does not matter otherwise,
/// - the newest good backup is kept, a pinned one is kept, and what a kept one needs is kept,
/// - with `now` before the newest backup nothing expires, nor when there is no good backup.
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
    /// A drill of it has passed.
    pub drilled: bool,
    /// Backups without which this one can't be restored: what an incremental one builds on.
    pub needs: Vec<BackupId>,
    /// The backup whose data this one holds once more, encrypted anew: the two are one state of
    /// what was backed up, and count once.
    pub same_data_as: Option<BackupId>,
}

impl BackupSummary {
    /// A good backup that is neither pinned nor drilled and stands by itself.
    pub fn good(id: BackupId) -> Self {
        Self {
            id,
            good: true,
            pinned: false,
            drilled: false,
            needs: Vec::new(),
            same_data_as: None,
        }
    }
}

/// Keep or expire, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Kept, for these reasons.
    Keep(Vec<String>),
    /// May be deleted, for this reason.
    Expire(String),
}

impl Decision {
    /// Whether the backup stays.
    pub fn keeps(&self) -> bool {
        matches!(self, Decision::Keep(_))
    }
}
