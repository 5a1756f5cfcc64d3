//! The part of a swap in which the application still runs: restore beside, compare, check,
//! migrate.

use backup_core::Result;
use backup_core::pipeline::Context;
use backup_pg::Purpose;
use backup_pg::swap::{Names, SwapOrder};

use super::Attempt;
use super::checks::{SqlCheckPassed, run_checks};
use super::site::Site;
use crate::{RestoreOptions, RestoreSummary};

/// A new database that stands beside the live one, proven.
pub(super) struct Beside {
    pub restored: RestoreSummary,
    pub checks: Vec<SqlCheckPassed>,
    /// What could not be carried over from the live database.
    pub notes: Vec<String>,
}

impl Attempt<'_> {
    /// Restores beside the live database and proves the result. The live one is only read.
    ///
    /// On an error the new database is gone again, unless it is to be kept.
    pub(super) async fn build_beside(&self) -> Result<Beside> {
        let site = &self.site;
        site.run_until_failure("before", &site.config.before, self.context).await?;
        let built = self.restore_and_prove().await;
        if let Err(error) = &built {
            tracing::debug!(%error, "the new database is not to go live");
            discard(site, &self.order, self.options.keep_failed, self.context).await;
        }
        built
    }

    async fn restore_and_prove(&self) -> Result<Beside> {
        let Self { site, order, context, .. } = self;
        let names = Names::new(&site.live, &order.run);
        context.step(&format!("restoring into {}", names.restoring));
        let restored = self.restore_scratch().await?;
        let swap = site.swap();
        // Restoring may have taken longer than a scratch database is kept: its time begins now.
        swap.adopt(order).await?;
        let application = site.as_application(&names.restoring)?;
        if !site.config.checks.is_empty() {
            context.step("running the SQL checks");
        }
        let checks = run_checks(&application, &site.config.checks, &context.cancel).await?;
        site.migrate(&names.restoring, context).await?;
        context.step(&format!("copying owner, grants and settings of {}, analyzing", site.live));
        let carried = swap.carry_properties(&order.run, true);
        let notes = context.cancel.guard(carried).await?;
        Ok(Beside { restored, checks, notes })
    }

    async fn restore_scratch(&self) -> Result<RestoreSummary> {
        let Self { site, source, options, order, context, .. } = self;
        let names = Names::new(&site.live, &order.run);
        let target = site.restore_url(&names.restoring, options.restore.no_owners)?;
        let scratch = RestoreOptions {
            target,
            purpose: Some(Purpose {
                kind: "swap".to_owned(),
                live: site.live.clone(),
                run: Some(order.run.to_string()),
                // A crash leaves something that is known to be ours, from its first moment on.
                comment: Some(site.swap().first_mark(order)),
            }),
            without_subscriptions: true,
            // Migrations come first.
            analyze: false,
            ..options.restore.clone()
        };
        self.deployment.restore_source(source, &scratch, false, context).await
    }
}

/// Drops a database that was never live, or says that it stays.
pub(super) async fn discard(site: &Site, order: &SwapOrder, keep: bool, context: &Context) {
    let name = Names::new(&site.live, &order.run).restoring;
    if keep {
        context.warn(&format!("{name} is kept as you wished, if it was restored so far"));
        return;
    }
    if let Err(error) = site.swap().drop_restored(&order.run).await {
        context.warn(&format!("{name} may be left: {error}; `restore --cleanup` drops it later"));
    }
}
