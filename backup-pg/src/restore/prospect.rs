//! What a restore would find: the preflight of its own target, and what of the archive would
//! come back. Nothing is changed.

use backup_core::Result;
use serde::Serialize;

use super::prepare::Prepared;
use super::target::Target;
use super::{PgRestore, not_there};
use crate::archive::{Toc, TocEntry};
use crate::preflight::{Finding, Needs, PreflightOptions, RestoreMode, Severity, preflight};

/// What a restore into a new or an empty database, or of some tables, would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RestorePlan {
    /// The database.
    pub database: String,
    /// Its server.
    pub server: String,
    /// Whether it is made for this.
    pub creates_database: bool,
    /// Tables that would come back, with or without rows. Empty when something is in the way.
    pub tables: Vec<String>,
    /// Roles that would be made.
    pub creates_roles: Vec<String>,
    /// What stands against it; the blocking findings first.
    pub findings: Vec<Finding>,
    /// What one must know, a line each.
    pub notes: Vec<String>,
}

impl PgRestore {
    /// Looks at the target of this restore. Of some tables in a database that others use only
    /// what those tables need is asked.
    ///
    /// # Errors
    /// When the target can't be reached, holds something, or, without a finding that says so,
    /// lacks what the archive needs. What blocks otherwise is among the findings.
    pub async fn plan(
        &self,
        toc: &Toc,
        needs: &Needs,
        accept_replication_break: bool,
    ) -> Result<RestorePlan> {
        let options = &self.options;
        let shared = options.in_place || options.selection.is_some();
        let target = Target::find(&self.connection, &self.search, shared).await?;
        if options.in_place && !target.is_existing() {
            return Err(not_there(target.name()));
        }
        let mut plan = RestorePlan {
            database: target.name().to_owned(),
            server: target.server().name(),
            creates_database: !target.is_existing(),
            ..RestorePlan::default()
        };
        let whole = options.selection.is_none();
        if whole {
            let ask = PreflightOptions { accept_replication_break, ..self.questions(&target) };
            let live = target.is_existing().then(|| target.name());
            plan.findings = preflight(target.server(), live, needs, &ask).await?;
        }
        if options.in_place || plan.is_blocked() {
            return Ok(plan);
        }
        let prepared = Prepared::find(toc, &target, &self.search, options).await?;
        plan.tables = prepared.restored.entries.iter().filter_map(table).collect();
        plan.tables.sort();
        plan.tables.dedup();
        plan.creates_roles = prepared.roles.creates;
        plan.notes = prepared.notes;
        Ok(plan)
    }

    /// What the preflight has to know of this restore.
    fn questions(&self, target: &Target) -> PreflightOptions {
        let options = &self.options;
        let (mode, new_names) = match (options.in_place, target.is_existing()) {
            (true, _) => (RestoreMode::InPlace, Vec::new()),
            (false, true) => (RestoreMode::Fill, Vec::new()),
            (false, false) => (RestoreMode::Create, vec![target.name().to_owned()]),
        };
        PreflightOptions {
            mode,
            new_names,
            search: self.search.clone(),
            globals: options.globals.clone(),
            role_map: options.roles.clone(),
            no_owners: options.no_owners,
            tablespaces: options.tablespaces.clone(),
            ..PreflightOptions::default()
        }
    }
}

impl RestorePlan {
    fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocking)
    }
}

fn table(entry: &TocEntry) -> Option<String> {
    let is_table = ["TABLE", "TABLE DATA", "FOREIGN TABLE"].contains(&entry.desc.as_str());
    is_table.then(|| format!("{}.{}", entry.namespace, entry.tag))
}
