//! Restoring over what a database holds: the old way, made safe.
//!
//! 1. The backup is read and checked to its end, and nothing is touched.
//! 2. The preflight and the plan say what is replaced, what goes with it and what stays; something
//!    in the way ends it here.
//! 3. A safety backup of the database, by the ordinary way, and pinned. When that fails nothing is
//!    restored.
//! 4. The backup is read again, and checked again on its way into one transaction, which is
//!    committed after the comparison.

use backup_core::pipeline::Context;
use backup_core::{Error, Result, SourceIdentity};
use backup_pg::{Finding, InPlacePlan, PgRestore, Toc};
use serde::Serialize;

use crate::opened_source::OpenedSource;
use crate::restoring::RestoreOptions;
use crate::{Deployment, RestoreFrom, RestoreSummary};

/// What is backed up before a restore in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SafetyBackup {
    /// The database, by this job.
    Of(String),
    /// Nothing: what the database holds is lost.
    None,
}

/// What a restore in place would do, and what the preflight found.
#[derive(Debug, Clone, Serialize)]
pub struct InPlaceOutlook {
    /// What it replaces, and what is in its way.
    #[serde(flatten)]
    pub plan: InPlacePlan,
    /// What the preflight found; the blocking ones first.
    pub findings: Vec<Finding>,
}

impl InPlaceOutlook {
    /// `Ok` when nothing is in the way.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) naming what is.
    pub fn check(&self) -> Result<()> {
        backup_pg::refuse_blocking(&self.findings)?;
        self.plan.check()
    }
}

/// What a restore in place did.
#[derive(Debug)]
pub struct InPlaceSummary {
    /// What it replaced, and what it left.
    pub plan: InPlaceOutlook,
    /// The backup that holds what the database held before.
    pub safety_backup: Option<String>,
    /// What came back.
    pub restored: RestoreSummary,
}

impl Deployment {
    /// What a restore in place would do. Reads the backup to its end; changes nothing.
    ///
    /// # Errors
    /// What is wrong with the backup; when the database does not answer. That something is in
    /// the way is no error here: see [`InPlaceOutlook::check`].
    pub async fn plan_in_place(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<InPlaceOutlook> {
        refuse_selection(options)?;
        let source = self.open_for_restore(from, options, context).await?;
        context.step("reading the backup to its end");
        self.look_in_place(&source, options, context).await
    }

    /// `Ok` when the safety backup would hold all that a restore in place drops.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the job leaves something out.
    pub fn check_safety_backup(&self, safety: &SafetyBackup) -> Result<()> {
        let SafetyBackup::Of(job) = safety else { return Ok(()) };
        let filters = self.database_of(job)?.filters().leave_out();
        if filters.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            "safety backup",
            format!(
                "the job {job} leaves a part of the database out ({}), which the restore would drop all the same",
                filters.join(", ")
            ),
        )
        .next_step("restore beside the database and swap (leave --in-place out); or back all of it up yourself, and say --no-safety-backup"))
    }

    /// Restores over what the database holds, all of it or nothing. `tell` gets the plan before
    /// anything is touched.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when something stands in the way or the safety backup fails;
    /// otherwise the first cause. The database is as it was then.
    pub async fn restore_in_place(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        safety: &SafetyBackup,
        context: &Context,
        tell: &(dyn Fn(&InPlaceOutlook) + Sync),
    ) -> Result<InPlaceSummary> {
        refuse_selection(options)?;
        self.check_safety_backup(safety)?;
        let source = self.open_for_restore(from, options, context).await?;
        context.step("reading the backup to its end, before anything is touched");
        let plan = self.look_in_place(&source, options, context).await?;
        tell(&plan);
        plan.check()?;
        let safety_backup = match safety {
            SafetyBackup::Of(job) => Some(self.safety_backup(job, from, options, context).await?),
            SafetyBackup::None => None,
        };
        context.step(&format!("restoring over what {} holds", plan.plan.database));
        let restored = self.restore_source(&source, options, true, context).await;
        let restored = match (restored, &safety_backup) {
            (Ok(mut restored), Some(id)) => {
                let gap = "what was written to the database after it began is in neither";
                restored.notes.push(format!("the safety backup is {id}; {gap}"));
                let unpin = format!("marb-backup unpin {id}");
                restored.notes.push(format!("it is pinned; when it is needed no more: {unpin}"));
                restored
            }
            (Ok(restored), None) => restored,
            (Err(error), Some(id)) => {
                context.warn(&format!("the safety backup {id} stays, pinned"));
                return Err(error);
            }
            (Err(error), None) => return Err(error),
        };
        Ok(InPlaceSummary { plan, safety_backup, restored })
    }

    /// Reads the backup to its end, then looks at the database.
    async fn look_in_place(
        &self,
        source: &OpenedSource,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<InPlaceOutlook> {
        let archive = source.check(context).await?;
        context.step("preflight");
        let findings = self.outlook(source, options, true, context).await?.findings;
        let sink = self.restore_sink(source, options, true).await?;
        let plan = plan_in_place(&sink, archive.toc(), options, context).await?;
        Ok(InPlaceOutlook { plan, findings })
    }

    /// Backs up what is about to be replaced; returns the backup's id.
    async fn safety_backup(
        &self,
        job: &str,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<String> {
        context.step(&format!("safety backup by the job {job}"));
        let refused = |message: String| {
            Error::refused("safety backup", message).next_step(
                "see what `marb-backup doctor` says, or go on without one (--no-safety-backup)",
            )
        };
        let target = self.connect(&options.target, "target").await?.identity();
        let of_job = self.connect(&self.database_of(job)?.url, "database").await?.identity();
        if !same_database(&target, &of_job) {
            return Err(refused(format!(
                "the job {job} backs up {} on {}, not {} on {}",
                of_job.database, of_job.server, target.database, target.server
            )));
        }
        match self.back_up_before_restore(job, from, context).await {
            Ok(id) => Ok(id),
            Err(error) if context.cancel.is_cancelled() => Err(error),
            Err(error) => {
                Err(refused("it failed, so nothing was restored".to_owned()).caused_by(error))
            }
        }
    }
}

/// The plan, with the tables that would be left empty among what stands in the way.
async fn plan_in_place(
    sink: &PgRestore,
    toc: &Toc,
    options: &RestoreOptions,
    context: &Context,
) -> Result<InPlacePlan> {
    let mut plan = context.cancel.guard(sink.plan_in_place(toc)).await?;
    if !options.accept_missing_rows {
        let empty = toc.tables_without_rows();
        let said = |table| {
            format!(
                "{table}: its rows are not in the backup, it would be empty (--accept-missing-rows goes on)"
            )
        };
        plan.blocks.extend(empty.into_iter().map(said));
    }
    Ok(plan)
}

/// Whether both are the same database. Not every role may see a server's own number.
fn same_database(a: &SourceIdentity, b: &SourceIdentity) -> bool {
    let same_server = match (&a.system_identifier, &b.system_identifier) {
        (Some(a), Some(b)) => a == b,
        _ => a.server == b.server,
    };
    same_server && a.database == b.database
}

fn refuse_selection(options: &RestoreOptions) -> Result<()> {
    if options.selection.is_none() {
        return Ok(());
    }
    Err(Error::usage("restore", "selected tables and a restore in place exclude each other")
        .next_step("leave out --in-place: selected tables are added to a database that is in use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safety_backup_of_another_database_is_none() {
        let identity = |id: Option<&str>, server: &str, database: &str| SourceIdentity {
            system_identifier: id.map(str::to_owned),
            server: server.to_owned(),
            database: database.to_owned(),
        };
        let live = identity(Some("1"), "socket", "app");
        assert!(same_database(&live, &identity(Some("1"), "db:5432", "app")));
        assert!(!same_database(&live, &identity(Some("2"), "socket", "app")));
        assert!(!same_database(&live, &identity(Some("1"), "socket", "app2")));
        assert!(same_database(&live, &identity(None, "socket", "app")));
        assert!(!same_database(&live, &identity(None, "db:5432", "app")));
    }
}
