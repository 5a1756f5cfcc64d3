//! What belongs to a database and is not inside it (owner, grants, settings, limits, labels),
//! carried over from the live one to the new one.
//!
//! The comment comes with the exchange, in its transaction.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::script::{Outcome, Transaction};
use super::settings::{Settings, setting_changes};
use super::{Names, RunId, STAGE, Swap};
use crate::sql::{quote_ident, quote_literal};

/// How long moving to another tablespace, or ANALYZE, may take.
const LONG_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

const PROPERTIES_SQL: &str = "
select json_build_object(
  'owner', pg_get_userbyid(d.datdba), 'connections', d.datconnlimit, 'template', d.datistemplate,
  'tablespace', (select t.spcname from pg_catalog.pg_tablespace t where t.oid = d.dattablespace),
  'grants', (select coalesce(json_agg(json_build_object(
        'grantor', pg_get_userbyid(a.grantor),
        'grantee', case when a.grantee <> 0 then pg_get_userbyid(a.grantee) end,
        'privilege', a.privilege_type, 'grantable', a.is_grantable) order by a.ordinality), '[]')
    from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) with ordinality a),
  'labels', (select coalesce(json_agg(json_build_array(l.provider, l.label) order by l.provider), '[]')
    from pg_catalog.pg_shseclabel l
    where l.classoid = 'pg_catalog.pg_database'::regclass and l.objoid = d.oid),
  'settings', (select coalesce(json_agg(json_build_object(
        'role', case when s.setrole <> 0 then pg_get_userbyid(s.setrole) end,
        'values', s.setconfig) order by s.setrole), '[]')
    from pg_catalog.pg_db_role_setting s where s.setdatabase = d.oid))
from pg_catalog.pg_database d where d.datname = ";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Properties {
    owner: String,
    connections: i64,
    template: bool,
    tablespace: Option<String>,
    /// In the order they were granted, so that a grant option comes before its use.
    grants: Vec<Grant>,
    labels: Vec<(String, String)>,
    settings: Vec<Settings>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Grant {
    grantor: String,
    /// `None` for PUBLIC.
    grantee: Option<String>,
    privilege: String,
    grantable: bool,
}

/// A change, and what to call it when it fails. Settings may hold the application's secrets, so
/// their values show up nowhere.
pub(super) struct Change {
    what: String,
    statements: Vec<String>,
    hidden: Option<String>,
}

impl Change {
    pub fn new(what: impl Into<String>, sql: String) -> Self {
        Self { what: what.into(), statements: vec![sql], hidden: None }
    }

    /// The same, with a value that no message may repeat.
    pub fn hiding(self, value: &str) -> Self {
        Self { hidden: Some(value.to_owned()), ..self }
    }

    fn note(&self, reason: &str) -> String {
        let reason = match &self.hidden {
            Some(value) if !value.is_empty() => reason.replace(value.as_str(), "..."),
            _ => reason.to_owned(),
        };
        format!("{} could not be carried over: {reason}", self.what)
    }
}

impl Swap {
    /// Gives this run's scratch database what the live one has: owner, grants, connection limit,
    /// tablespace, template flag, security labels, and every setting (also `ALTER ROLE .. IN
    /// DATABASE`); settings that only the scratch has are reset. `analyze` runs ANALYZE too.
    ///
    /// Returns what could not be carried over, one sentence each, as what needs a superuser.
    ///
    /// # Errors
    /// When the server can't be asked, or one of the two databases is missing.
    pub async fn carry_properties(&self, run: &RunId, analyze: bool) -> Result<Vec<String>> {
        let scratch = Names::new(&self.live, run).restoring;
        let live = self.properties(&self.live).await?;
        let before = self.properties(&scratch).await?;
        let mut notes = Vec::new();
        // Before the limits and settings of the live one apply, which may keep us out.
        notes.extend(self.move_tablespace(&live, &before, &scratch).await);
        if analyze {
            notes.extend(self.analyze(&scratch).await);
        }
        let changes = changes(&live, &before, &scratch);
        notes.extend(self.carry_out(&changes).await?);
        let after = self.properties(&scratch).await?;
        notes.extend(differences(&live, &after));
        Ok(notes)
    }

    async fn properties(&self, database: &str) -> Result<Properties> {
        let sql = format!("{PROPERTIES_SQL}{}", quote_literal(database));
        let answer = self.admin.query_text(&sql).await?;
        if answer.is_empty() {
            let said = format!("there is no database {database}");
            return Err(Error::new(ErrorKind::NotFound, STAGE, said));
        }
        serde_json::from_str(&answer).map_err(|e| {
            Error::failed(STAGE, "the server's answer about a database is not understood")
                .caused_by(e)
        })
    }

    async fn move_tablespace(
        &self,
        live: &Properties,
        now: &Properties,
        scratch: &str,
    ) -> Option<String> {
        let wanted = live.tablespace.as_deref().filter(|_| live.tablespace != now.tablespace)?;
        let sql = format!(
            "ALTER DATABASE {} SET TABLESPACE {}",
            quote_ident(scratch),
            quote_ident(wanted)
        );
        let moved = self.admin.with_timeout(LONG_TIMEOUT).execute(&sql).await;
        moved
            .err()
            .map(|error| format!("the tablespace {wanted} could not be taken: {}", error.message()))
    }

    async fn analyze(&self, scratch: &str) -> Option<String> {
        let there = self.admin.with_database(scratch).with_timeout(LONG_TIMEOUT);
        let done = there.execute("ANALYZE").await;
        done.err()
            .map(|error| format!("the new database could not be analyzed: {}", error.message()))
    }

    /// All together, or, when one is refused, each by itself: what is possible is done.
    async fn carry_out(&self, changes: &[Change]) -> Result<Vec<String>> {
        let all: Vec<&Change> = changes.iter().collect();
        if let Outcome::Done = self.transaction(&all).await? {
            return Ok(Vec::new());
        }
        let mut notes = Vec::new();
        for change in changes {
            if let Outcome::Failed { message, .. } = self.transaction(&[change]).await? {
                notes.push(change.note(&message));
            }
        }
        Ok(notes)
    }

    async fn transaction(&self, changes: &[&Change]) -> Result<Outcome> {
        let statements = changes.iter().flat_map(|change| &change.statements);
        let begun = Transaction::begin(self.limits.lock);
        statements.fold(begun, |transaction, sql| transaction.step(sql)).run(&self.admin).await
    }
}

/// What makes a database that has `now` one that has `live`.
fn changes(live: &Properties, now: &Properties, name: &str) -> Vec<Change> {
    let database = quote_ident(name);
    let alter = |rest: String| format!("ALTER DATABASE {database} {rest}");
    let mut all = Vec::new();
    if live.owner != now.owner {
        let sql = alter(format!("OWNER TO {}", quote_ident(&live.owner)));
        all.push(Change::new(format!("the owner {}", live.owner), sql));
    }
    if grants(live) != grants(now) || live.owner != now.owner {
        all.extend(grant_changes(live, now, &database));
    }
    for (provider, _) in now.labels.iter().filter(|label| !live.labels.contains(label)) {
        all.push(label_change(provider, None, &database));
    }
    for (provider, label) in live.labels.iter().filter(|label| !now.labels.contains(label)) {
        all.push(label_change(provider, Some(label), &database));
    }
    all.extend(setting_changes(&live.settings, &now.settings, &database));
    if live.template != now.template {
        all.push(Change::new("the template flag", alter(format!("IS_TEMPLATE {}", live.template))));
    }
    if live.connections != now.connections {
        let sql = alter(format!("CONNECTION LIMIT {}", live.connections));
        all.push(Change::new("the connection limit", sql));
    }
    all
}

/// Takes everything back that the owner granted (and with it what others made of that), then
/// grants again, each as who granted it.
fn grant_changes(live: &Properties, now: &Properties, database: &str) -> Vec<Change> {
    let mut all = Vec::new();
    let mut holders: Vec<Option<&str>> =
        now.grants.iter().map(|grant| grant.grantee.as_deref()).collect();
    holders.extend([None, Some(live.owner.as_str())]);
    holders.sort_unstable();
    holders.dedup();
    // The former owner's rights went to the new one.
    for holder in holders.into_iter().filter(|h| live.owner == now.owner || *h != Some(&now.owner))
    {
        let from = role_or_public(holder);
        let sql = format!("REVOKE ALL PRIVILEGES ON DATABASE {database} FROM {from} CASCADE");
        all.push(Change::new(format!("taking back the grants to {from}"), sql));
    }
    for grant in &live.grants {
        let to = role_or_public(grant.grantee.as_deref());
        let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
        let sql = format!("GRANT {} ON DATABASE {database} TO {to}{option}", grant.privilege);
        let what =
            format!("the grant of {} to {to} by {}", grant.privilege, quote_ident(&grant.grantor));
        let mut change = Change::new(what, sql);
        if grant.grantor != live.owner {
            let role = format!("SET LOCAL ROLE {}", quote_ident(&grant.grantor));
            change.statements.insert(0, role);
            change.statements.push("SET LOCAL ROLE NONE".to_owned());
        }
        all.push(change);
    }
    all
}

fn role_or_public(role: Option<&str>) -> String {
    role.map_or_else(|| "PUBLIC".to_owned(), quote_ident)
}

fn label_change(provider: &str, label: Option<&str>, database: &str) -> Change {
    let text = label.map_or_else(|| "NULL".to_owned(), quote_literal);
    let sql =
        format!("SECURITY LABEL FOR {} ON DATABASE {database} IS {text}", quote_ident(provider));
    Change::new(format!("the security label of {provider}"), sql)
}

fn grants(of: &Properties) -> Vec<&Grant> {
    let mut all: Vec<&Grant> = of.grants.iter().collect();
    all.sort_unstable();
    all
}

/// What still differs, without values.
fn differences(live: &Properties, new: &Properties) -> Vec<String> {
    let mut said = Vec::new();
    let mut differs = |what: &str, equal: bool| {
        if !equal {
            said.push(format!("{what} differ between the live and the new database"));
        }
    };
    differs("the owners", live.owner == new.owner);
    differs("the grants", grants(live) == grants(new));
    differs("the connection limits", live.connections == new.connections);
    differs("the template flags", live.template == new.template);
    differs("the tablespaces", live.tablespace == new.tablespace);
    differs("the security labels", live.labels == new.labels);
    let mut roles: Vec<&Settings> = live.settings.iter().chain(&new.settings).collect();
    roles.retain(|one| !(live.settings.contains(one) && new.settings.contains(one)));
    roles.sort_unstable_by(|a, b| a.role.cmp(&b.role));
    roles.dedup_by(|a, b| a.role == b.role);
    for one in roles {
        differs(&format!("the {}", one.described()), false);
    }
    said
}
