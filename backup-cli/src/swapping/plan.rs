//! What a swap would do, found out without touching anything.

use backup_core::Result;
use backup_pg::swap::Names;
use backup_pg::{Finding, PreflightOptions, RestoreMode, Toc, preflight};
use serde::Serialize;

use super::Attempt;
use super::site::Site;
use crate::opened_source::OpenedSource;

/// What a swap would do, and what the preflight found.
#[derive(Debug, Clone, Serialize)]
pub struct SwapPlan {
    /// The backup's id, or the file.
    pub from: String,
    /// The database that is to be replaced.
    pub database: String,
    /// Its server.
    pub server: String,
    /// The run's name.
    pub run: String,
    /// Where the backup is restored to and proven.
    pub restoring: String,
    /// Where the old database stays after the swap.
    pub before: String,
    /// Where the new one stays when it has to be put back.
    pub failed: String,
    /// What will be done, in order.
    pub steps: Vec<PlannedStep>,
    /// What the preflight found; the blocking ones first.
    pub findings: Vec<backup_pg::Finding>,
}

/// One step of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStep {
    /// What is done.
    pub what: String,
    /// Whether the application is down meanwhile.
    pub application_down: bool,
}

impl SwapPlan {
    /// The refusal for what the preflight found to be in the way.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) naming each of them.
    pub fn refuse_blocking(&self) -> Result<()> {
        backup_pg::refuse_blocking(&self.findings)
    }
}

impl Attempt<'_> {
    /// Looks at archive and server. Changes nothing.
    pub(super) async fn plan(&self) -> Result<SwapPlan> {
        let Self { site, source, options, context, .. } = self;
        let run = &self.order.run;
        context.step("preflight");
        let toc = source.head(context).await?;
        let needs = source.needs(&toc);
        let names = Names::new(&site.live, run);
        let ask = PreflightOptions {
            mode: RestoreMode::Swap,
            new_names: names.all().map(str::to_owned).to_vec(),
            clients: vec![site.application()?],
            search: self.deployment.tool_search(),
            globals: source.globals.clone(),
            role_map: options.restore.roles.iter().cloned().collect(),
            no_owners: options.restore.no_owners,
            tablespaces: options.restore.tablespace_map(),
            accept_replication_break: options.restore.accept_replication_break,
        };
        let asked = preflight(&site.admin, Some(&site.live), &needs, &ask);
        let mut findings = context.cancel.guard(asked).await?;
        if !options.restore.accept_missing_rows {
            // First: it is what would be lost.
            findings.splice(0..0, left_out(source).into_iter().chain(missing_rows(&toc)));
        }
        Ok(SwapPlan {
            from: source.label.clone(),
            database: site.live.clone(),
            server: site.admin.name(),
            run: run.to_string(),
            steps: steps(site, &names),
            restoring: names.restoring,
            before: names.before,
            failed: names.failed,
            findings,
        })
    }
}

/// Tables named before they are only counted.
const NAMED_TABLES: usize = 10;

/// The filter that leaves tables in, without their rows: each is named by itself.
const OF_ROWS: &str = "exclude_table_data";

/// What the dump was told not to take would be gone with the database that has it.
fn left_out(source: &OpenedSource) -> Option<Finding> {
    let (_, part, contents) = source.backup()?;
    let filters = contents.part(&part.name)?.inventory.filters.as_ref()?;
    let keys: Vec<&str> = filters.leave_out().into_iter().filter(|key| *key != OF_ROWS).collect();
    (!keys.is_empty()).then(|| {
        Finding::blocking(
            "filters",
            format!("the backup was made with {}", keys.join(", ")),
            "what that left out would be missing in the live database: choose another backup, or say --accept-missing-rows and bring it over from the old database",
        )
    })
}

/// A database that goes live with empty tables has lost their rows.
fn missing_rows(toc: &Toc) -> Option<Finding> {
    let tables = toc.tables_without_rows();
    let named = tables.iter().take(NAMED_TABLES).cloned().collect::<Vec<_>>().join(", ");
    let more = match tables.len().saturating_sub(NAMED_TABLES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!tables.is_empty()).then(|| {
        Finding::blocking(
            "rows",
            format!("the backup leaves the rows of these tables out: {named}{more}"),
            "they would be empty in the live database: choose another backup, or say --accept-missing-rows and bring the rows over from the old database",
        )
    })
}

fn steps(site: &Site, names: &Names) -> Vec<PlannedStep> {
    let config = &site.config;
    let mut steps = Vec::new();
    let mut add = |what: String, application_down| {
        steps.push(PlannedStep { what, application_down });
    };
    let hooks = |key: &str, all: &[Vec<String>]| -> Vec<String> {
        all.iter().map(|argv| crate::hooks::shown(key, argv)).collect()
    };
    for hook in hooks("before", &config.before) {
        add(hook, false);
    }
    add(format!("restore into {}", names.restoring), false);
    add("compare every table's rows with the backup".to_owned(), false);
    for check in &config.checks {
        add(format!("check: {}", check.trim()), false);
    }
    for hook in hooks("migrate", &config.migrate) {
        add(hook, false);
    }
    add(format!("copy owner, grants and settings of {}, analyze", site.live), false);
    for hook in hooks("stop", &config.stop) {
        add(hook, true);
    }
    add(format!("end all sessions on {}", site.live), true);
    add(
        format!("rename {0} to {1}, and {2} to {0}", site.live, names.before, names.restoring),
        true,
    );
    for hook in hooks("start", &config.start) {
        add(hook, true);
    }
    if let Some(health) = &site.health {
        add(format!("wait for {} to answer 2xx", health.label()), true);
    }
    for hook in hooks("after", &config.after) {
        add(hook, false);
    }
    steps
}
