//! Who is connected: sessions, prepared transactions, dumps, poolers, standbys.

use backup_core::Result;
use serde::Deserialize;

use super::finding::some_of;
use super::{Finding, Inquiry};
use crate::sql::{quote_ident, quote_literal};

const SESSIONS: &str = "sessions";

/// What connection poolers are called.
const POOLERS: [&str; 5] = ["pgbouncer", "pgpool", "odyssey", "pgcat", "supavisor"];

/// Programs that a swap would cut off in the middle.
const AT_WORK: [&str; 3] = ["pg_dump", "pg_restore", "pg_recvlogical"];

#[derive(Debug, Deserialize)]
struct Facts {
    /// Sessions of the live database, by who they are.
    sessions: Vec<Sessions>,
    prepared: Vec<String>,
    /// Sessions anywhere that make a database.
    creating: u64,
    /// Names of those who stream the whole server's changes.
    standbys: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Sessions {
    user: String,
    application: String,
    count: u64,
    superuser: bool,
    /// They run with rights that the role which restores has, too.
    own: bool,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let Some(live) = inquiry.live() else { return Ok(Vec::new()) };
    let facts: Facts = inquiry.psql.query_json(&query(&live.name)).await?;
    let mut findings = Vec::new();
    findings.extend(prepared(inquiry, &facts.prepared));
    if inquiry.is_swap() {
        findings.extend(endless(inquiry, &facts.sessions));
    }
    findings.extend(at_work(&facts.sessions));
    if facts.creating > 0 {
        findings.push(Finding::warning(
            SESSIONS,
            format!("{} sessions are making a database", facts.creating),
            "wait until they are done: one that copies the live database keeps it from being renamed",
        ));
    }
    if inquiry.is_swap() {
        findings.extend(told(&facts));
    } else if inquiry.is_in_place() && !facts.sessions.is_empty() {
        findings.push(Finding::warning(
            SESSIONS,
            format!("the live database is in use: {}", listed(&facts.sessions)),
            "stop the application first: its locks and the restore's wait for each other",
        ));
    }
    Ok(findings)
}

/// What belongs to somebody is told to everybody, but for the kind of process.
fn query(live: &str) -> String {
    format!(
        "with live as (select {} as name)
select json_build_object(
    'sessions', (select coalesce(json_agg(json_build_object('user', usename, 'application',
            application_name, 'count', count, 'superuser', rolsuper, 'own', own)
            order by count desc), '[]')
        from (select usename, application_name, rolsuper, pg_has_role(usesysid, 'usage') as own,
                count(*) as count
            from pg_catalog.pg_stat_activity a join pg_catalog.pg_roles r on r.oid = a.usesysid
            where datname = (select name from live) and pid <> pg_backend_pid()
                and coalesce(backend_type, '') in ('', 'client backend', 'walsender')
            group by 1, 2, 3, 4) s),
    'prepared', (select coalesce(json_agg(gid order by prepared), '[]')
        from pg_catalog.pg_prepared_xacts where database = (select name from live)),
    'creating', (select count(*) from pg_catalog.pg_stat_activity
        where state = 'active' and query ~* '^\\s*create\\s+database\\s' and pid <> pg_backend_pid()),
    'standbys', (select coalesce(json_agg(application_name order by 1), '[]')
        from pg_catalog.pg_stat_replication r
        where not exists (select from pg_catalog.pg_replication_slots s
            where s.active_pid = r.pid and s.slot_type = 'logical')))",
        quote_literal(live)
    )
}

fn prepared(inquiry: &Inquiry<'_>, prepared: &[String]) -> Option<Finding> {
    let first = quote_literal(prepared.first()?);
    let (count, names) = (prepared.len(), some_of(prepared));
    let effect = match inquiry.is_in_place() {
        true => "their locks stop the restore",
        false => "no database with one can be renamed",
    };
    Some(Finding::blocking(
        "prepared transactions",
        format!("the live database has {count}: {names}; {effect}"),
        format!(
            "ask the application's transaction manager, then in the live database: COMMIT PREPARED {first} or ROLLBACK PREPARED {first}"
        ),
    ))
}

/// Sessions that the swap could not end.
fn endless(inquiry: &Inquiry<'_>, sessions: &[Sessions]) -> Vec<Finding> {
    let role = &inquiry.role;
    if role.superuser {
        return Vec::new();
    }
    let me = &role.name;
    let mut findings = Vec::new();
    let (of_superusers, of_others): (Vec<&Sessions>, Vec<&Sessions>) = sessions
        .iter()
        .filter(|session| session.superuser || !session.own)
        .partition(|session| session.superuser);
    if !of_superusers.is_empty() {
        findings.push(Finding::blocking(
            SESSIONS,
            format!(
                "{me} can't end sessions of superusers, and there are some: {}",
                listed(of_superusers)
            ),
            "let them disconnect, or restore as a superuser (admin_url)",
        ));
    }
    if role.signals {
        return findings;
    }
    let grant = format!("GRANT pg_signal_backend TO {}", quote_ident(me));
    findings.push(if of_others.is_empty() {
        let detail =
            format!("{me} may not end sessions of other roles, should there be some by then");
        Finding::warning(SESSIONS, detail, grant)
    } else {
        let detail = format!("{me} may not end these sessions: {}", listed(of_others));
        Finding::blocking(SESSIONS, detail, grant)
    });
    findings
}

fn at_work(sessions: &[Sessions]) -> Option<Finding> {
    let running: Vec<&Sessions> =
        sessions.iter().filter(|s| AT_WORK.contains(&s.application.as_str())).collect();
    if running.is_empty() {
        return None;
    }
    Some(Finding::warning(
        SESSIONS,
        format!("somebody is at work in the live database: {}", listed(running)),
        "wait until they are done: a backup that is cut off is none",
    ))
}

fn told(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !facts.sessions.is_empty() {
        findings.push(Finding::note(
            SESSIONS,
            format!("the live database has these: {}", listed(&facts.sessions)),
            "nothing to do: the swap ends them, and whoever reconnects gets the restored database",
        ));
    }
    let is_pooler = |session: &&Sessions| {
        let name = session.application.to_lowercase();
        POOLERS.iter().any(|pooler| name.contains(pooler))
    };
    let poolers: Vec<&Sessions> = facts.sessions.iter().filter(is_pooler).collect();
    if !poolers.is_empty() {
        findings.push(Finding::note(
            "poolers",
            format!("a connection pooler is in between: {}", listed(poolers)),
            "PAUSE the database there during the swap and RECONNECT it afterwards; its own list of databases needs the scratch name only for migrations",
        ));
    }
    if !facts.standbys.is_empty() {
        findings.push(Finding::note(
            "standbys",
            format!("these stream from the server: {}", some_of(&facts.standbys)),
            "the swap reaches them by itself; sessions on a standby stay in the old database until they reconnect, so let readers there reconnect",
        ));
    }
    findings
}

/// `10 of marb (gunicorn), 1 of postgres`.
fn listed<'a>(sessions: impl IntoIterator<Item = &'a Sessions>) -> String {
    some_of(sessions.into_iter().map(|session| {
        let Sessions { user, application, count, .. } = session;
        match application.is_empty() {
            true => format!("{count} of {user}"),
            false => format!("{count} of {user} ({application})"),
        }
    }))
}
