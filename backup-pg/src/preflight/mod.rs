//! What stands against a restore, found out before anything is touched.
//!
//! [`preflight`] asks the server about everything that an archive wants ([`Needs`]) and that a
//! swap of databases needs, and says of each [`Finding`] what to do. It changes nothing.
//!
//! What can't be seen with the rights of the role that asks is said, not passed over. Absent on
//! purpose: locks and the state of an unfinished swap; they are looked at when it is their turn.

mod access;
mod cluster;
mod extensions;
mod finding;
mod live;
mod locale;
mod names;
mod needs;
mod ownership;
mod publisher;
mod replication;
mod rights;
mod roles;
mod server;
mod sessions;
mod space;
mod statements;
mod subscriber;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use backup_core::{Error, Result};

use crate::database::TablespaceMap;
use crate::{Connection, Globals, Psql, Server, ToolSearch};

use cluster::{Database, Role};
pub use finding::{Finding, Severity, refuse_blocking};
pub use needs::Needs;

/// How an archive gets into its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreMode {
    /// Into a database beside the live one, which then takes its place.
    #[default]
    Swap,
    /// Into a database that does not exist yet.
    Create,
    /// Into the live database itself.
    InPlace,
    /// Into a database that exists and is empty.
    Fill,
}

/// What is known of the restore that is about to begin.
#[derive(Debug, Clone, Default)]
pub struct PreflightOptions {
    /// How the archive gets into its target.
    pub mode: RestoreMode,
    /// Every name that a database may get by it; the first is the one that is restored into.
    pub new_names: Vec<String>,
    /// Further logins that must reach that first one: what migrates it. The role that restores
    /// is always tried.
    pub clients: Vec<Connection>,
    /// Where client tools are looked for.
    pub search: ToolSearch,
    /// Roles that will be created.
    pub globals: Option<Globals>,
    /// Roles of the archive that become others, old name to new name.
    pub role_map: BTreeMap<String, String>,
    /// Owners and grants are left out.
    pub no_owners: bool,
    /// What becomes of tablespaces.
    pub tablespaces: TablespaceMap,
    /// Replication that breaks is a warning, and no reason to refuse.
    pub accept_replication_break: bool,
}

/// Looks for everything that stands against a restore. Findings that block come first.
///
/// `admin` leads to a maintenance database, as the role that restores. `live` is the database
/// that is to be replaced; one that does not exist is told as such. A check that could not be
/// made is a finding that says so.
///
/// ```no_run
/// use backup_pg::{Needs, PreflightOptions, Server, Toc, ToolSearch, preflight, refuse_blocking};
/// # async fn example(toc: &Toc) -> backup_core::Result<()> {
/// let admin = "postgresql://postgres@db.example/postgres".parse()?;
/// let admin = Server::connect(&admin, &ToolSearch::default()).await?;
/// let options = PreflightOptions {
///     new_names: vec!["claims_restoring_20261122t020000z_k3v9".to_owned()],
///     ..PreflightOptions::default()
/// };
/// let findings = preflight(&admin, Some("claims"), &Needs::from_toc(toc), &options).await?;
/// refuse_blocking(&findings)
/// # }
/// ```
///
/// # Errors
/// When the server can't be asked at all.
pub async fn preflight(
    admin: &Server,
    live: Option<&str>,
    needs: &Needs,
    options: &PreflightOptions,
) -> Result<Vec<Finding>> {
    let inquiry = Inquiry::begin(admin, live, needs, options).await?;
    let lost_replication = match options.accept_replication_break {
        true => Severity::Warning,
        false => Severity::Blocking,
    };
    let checks = [
        ("server", Severity::Warning, server::check(&inquiry).await),
        ("database names", Severity::Blocking, names::check(&inquiry).await),
        ("live database", Severity::Blocking, live::check(&inquiry).await),
        ("rights", Severity::Warning, rights::check(&inquiry).await),
        ("roles", Severity::Warning, roles::check(&inquiry)),
        ("extensions", Severity::Warning, extensions::check(&inquiry).await),
        ("encoding and locale", Severity::Warning, locale::check(&inquiry).await),
        ("tablespaces and space", Severity::Warning, space::check(&inquiry).await),
        ("sessions", Severity::Blocking, sessions::check(&inquiry).await),
        ("replication", lost_replication, replication::check(&inquiry).await),
        ("access", Severity::Warning, access::check(&inquiry).await),
    ];
    let mut findings = Vec::new();
    for (subject, severity, found) in checks {
        match found {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(unchecked(subject, severity, &error)),
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

/// Could not check is never fine.
fn unchecked(subject: &'static str, severity: Severity, error: &Error) -> Finding {
    let remedy = error.advice().unwrap_or("look into the server's log, then try again");
    Finding::new(severity, subject, format!("could not be checked: {}", error.message()), remedy)
}

/// Everything that a check needs to know.
struct Inquiry<'a> {
    admin: &'a Server,
    psql: Psql,
    major: u32,
    needs: &'a Needs,
    options: &'a PreflightOptions,
    /// Who we are.
    role: Role,
    /// Every role of the server, by name.
    roles: BTreeMap<String, cluster::OtherRole>,
    databases: Vec<Database>,
    /// The name that is to be replaced.
    live_name: Option<&'a str>,
    /// Why one can't get into it, though it is open.
    live_refused: Option<Error>,
}

impl<'a> Inquiry<'a> {
    async fn begin(
        admin: &'a Server,
        live_name: Option<&'a str>,
        needs: &'a Needs,
        options: &'a PreflightOptions,
    ) -> Result<Self> {
        let (psql, major) = (admin.psql(), admin.version().major);
        let facts = cluster::ask(&psql, major).await?;
        let mut inquiry = Self {
            admin,
            psql,
            major,
            needs,
            options,
            role: facts.role,
            roles: facts.roles,
            databases: facts.databases,
            live_name,
            live_refused: None,
        };
        if let Some(live) = inquiry.live_psql() {
            inquiry.live_refused = live.query_text("select 1").await.err();
        }
        Ok(inquiry)
    }

    /// The live database, where it exists.
    fn live(&self) -> Option<&Database> {
        self.databases.iter().find(|database| Some(database.name.as_str()) == self.live_name)
    }

    /// Runs SQL in the live database, where one can get in.
    fn live_psql(&self) -> Option<Psql> {
        let open = |live: &&Database| live.allows_connections && !live.is_invalid();
        let live = self.live().filter(open).filter(|_| self.live_refused.is_none())?;
        Some(self.psql.with_database(&live.name))
    }

    fn is_swap(&self) -> bool {
        self.options.mode == RestoreMode::Swap
    }

    /// Whether the database exists and keeps its own properties.
    fn is_in_place(&self) -> bool {
        matches!(self.options.mode, RestoreMode::InPlace | RestoreMode::Fill)
    }

    /// What a right that only superusers have costs those who aren't: nothing for sure where a
    /// provider's own administrator may do more than the catalog says.
    fn superuser_severity(&self) -> Severity {
        if self.role.managed { Severity::Warning } else { Severity::Blocking }
    }
}
