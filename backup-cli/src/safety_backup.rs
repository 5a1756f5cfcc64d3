//! The backup before a restore: what is about to be replaced, pinned so that no retention removes
//! the only copy of it.

use backup_core::pipeline::Context;
use backup_core::{Error, Query, Result};

use crate::{Deployment, RestoreFrom};

/// Who pins it.
const BY: &str = "marb-backup restore";
/// Most characters of a file's name that the reason shows.
const LABEL_SHOWN: usize = 300;

impl Deployment {
    /// Backs up by `job` what a restore of `from` is about to replace, and pins it in every
    /// storage that has it; returns the backup's id.
    ///
    /// # Errors
    /// As [`Deployment::backup`]; [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when it
    /// could be pinned nowhere. Nothing may be restored then.
    pub async fn back_up_before_restore(
        &self,
        job: &str,
        from: RestoreFrom<'_>,
        context: &Context,
    ) -> Result<String> {
        let report = self.backup(job, false, context).await?;
        for (storage, error) in &report.failed {
            context.warn(&format!("the safety backup is not in {storage}: {error}"));
        }
        let id = report.manifest.id;
        match context.cancel.guard(self.pin_safety_backup(job, &id, from, context)).await {
            Ok(()) => Ok(id),
            Err(error) if context.cancel.is_cancelled() => Err(error),
            Err(error) => {
                let message = format!("{id} was made, but could not be pinned");
                Err(Error::refused("safety backup", message)
                    .next_step(format!(
                        "see why `marb-backup pin {id} --reason TEXT` fails: a prune could remove it"
                    ))
                    .caused_by(error))
            }
        }
    }

    /// A pin beside one copy keeps all of them.
    async fn pin_safety_backup(
        &self,
        job: &str,
        id: &str,
        from: RestoreFrom<'_>,
        context: &Context,
    ) -> Result<()> {
        let catalog = self.catalog(&Query::for_backup(Some(job), id)?).await?;
        let label: String = from.label().chars().take(LABEL_SHOWN).collect();
        let reason = format!("safety backup before restore of {label}");
        let done = self.pin(catalog.find(id)?, &reason, BY).await?;
        let (set, failed): (Vec<_>, Vec<_>) = done.into_iter().partition(|(_, done)| done.is_ok());
        let failed = failed.into_iter().filter_map(|(storage, done)| Some((storage, done.err()?)));
        let mut failed: Vec<(String, Error)> = failed.collect();
        if set.is_empty() {
            let none = || Error::failed("pin", "no storage has a copy");
            return Err(failed.pop().map_or_else(none, |(_, error)| error));
        }
        for (storage, error) in &failed {
            context.warn(&format!("the safety backup is not pinned in {storage}: {error}"));
        }
        Ok(())
    }
}
