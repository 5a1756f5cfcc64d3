//! Which backups a catalog is asked for: the less, the fewer requests.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::listing::horizon;
use crate::Result;
use crate::layout::BackupId;

/// Which backups to read. The default is all of them.
///
/// What is asked for is complete in the catalog: every storage that has one of these backups is
/// among its copies, and none that has it counts as missing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// Of this job only.
    pub job: Option<&'a str>,
    /// Only those that started at this time or later.
    pub since: Option<Timestamp>,
    /// Of each job at most so many, the newest that any storage lists. A backup whose manifest
    /// can't be read counts; one from a day or more ahead of this host's clock doesn't, and is
    /// shown besides.
    pub limit: Option<usize>,
    /// Only the backup with this id.
    pub id: Option<BackupId>,
}

impl<'a> Query<'a> {
    /// What [`Catalog::find`](crate::Catalog::find) needs to find a backup by its id, or the
    /// newest for `latest`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when it is neither.
    pub fn for_backup(job: Option<&'a str>, wanted: &str) -> Result<Self> {
        let query = Self { job, ..Self::default() };
        Ok(match wanted {
            "latest" => Self { limit: Some(1), ..query },
            id => Self { id: Some(id.parse()?), ..query },
        })
    }

    pub(super) fn wants_everything(&self) -> bool {
        self.since.is_none() && self.limit.is_none() && self.id.is_none()
    }

    /// Of all that is listed anywhere, what is asked for.
    pub(super) fn select<'k>(
        &self,
        listed: impl Iterator<Item = &'k (String, BackupId)>,
    ) -> BTreeSet<(String, BackupId)> {
        let mut by_job: BTreeMap<&String, BTreeSet<BackupId>> = BTreeMap::new();
        for (job, id) in listed {
            let wanted = self.id.is_none_or(|wanted| wanted == *id)
                && self.since.is_none_or(|since| id.started() >= since);
            if wanted {
                by_job.entry(job).or_default().insert(*id);
            }
        }
        let horizon = horizon();
        let mut selected = BTreeSet::new();
        for (job, ids) in by_job {
            let (past, ahead): (Vec<BackupId>, Vec<BackupId>) =
                ids.into_iter().rev().partition(|id| id.started() <= horizon);
            let newest = past.into_iter().take(self.limit.unwrap_or(usize::MAX));
            selected.extend(newest.chain(ahead).map(|id| (job.clone(), id)));
        }
        selected
    }
}
