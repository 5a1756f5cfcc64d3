//! What stands against a restore, found out before anything is touched.

use std::sync::Arc;

use backup_core::Result;
use backup_core::pipeline::Context;
use backup_pg::{ArchiveHead, Needs, RestorePlan, Toc};

use crate::opened_source::OpenedSource;
use crate::{Deployment, RestoreFrom, RestoreOptions, RestoreSummary};

impl Deployment {
    /// What a restore into a new or an empty database, or of some tables, would do. Touches
    /// nothing.
    ///
    /// # Errors
    /// When archive or server can't be read, or the database is none that this restore may go
    /// into. What else stands in the way is among the findings.
    pub async fn plan_restore(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
    ) -> Result<RestorePlan> {
        let source = self.open_for_restore(from, options, context).await?;
        self.outlook(&source, options, false, context).await
    }

    /// Restores into a new or an empty database, or some tables, after a look at what stands
    /// against it. `tell` gets the plan before anything is touched; of some tables there is none,
    /// for they are checked on their way.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when something is in the way;
    /// otherwise as [`Deployment::restore`].
    pub async fn restore_after_a_look(
        &self,
        from: RestoreFrom<'_>,
        options: &RestoreOptions,
        context: &Context,
        tell: &(dyn Fn(&RestorePlan) + Sync),
    ) -> Result<RestoreSummary> {
        let source = self.open_for_restore(from, options, context).await?;
        if options.selection.is_none() {
            let plan = self.outlook(&source, options, false, context).await?;
            tell(&plan);
            backup_pg::refuse_blocking(&plan.findings)?;
        }
        self.restore_source(&source, options, false, context).await
    }

    /// Looks at archive and target.
    pub(crate) async fn outlook(
        &self,
        source: &OpenedSource,
        options: &RestoreOptions,
        in_place: bool,
        context: &Context,
    ) -> Result<RestorePlan> {
        let toc = source.head(context).await?;
        let needs = source.needs(&toc);
        let sink = self.restore_sink(source, options, in_place).await?;
        let looking = sink.plan(&toc, &needs, options.accept_replication_break);
        context.cancel.guard(looking).await
    }
}

impl OpenedSource {
    /// The archive's table of contents.
    pub(crate) async fn head(&self, context: &Context) -> Result<Toc> {
        let head = ArchiveHead::new();
        let read = self.read_into(Arc::new(head.clone()), &context.without_progress()).await;
        head.judge(read)
    }

    /// What the archive wants of a server.
    pub(crate) fn needs(&self, toc: &Toc) -> Needs {
        let mut needs = Needs::from_toc(toc);
        if let Some(inventory) = self.inventory() {
            needs = needs.with_inventory(inventory);
        }
        if let Some(bytes) = self.plain_bytes {
            needs = needs.with_plain_bytes(bytes);
        }
        if let Some(version) = self.server_version() {
            needs = needs.with_server_version(version);
        }
        needs
    }
}
