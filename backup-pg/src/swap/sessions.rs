//! Ending what is connected to a database, and saying who stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{STAGE, Swap};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_millis(50);

/// So many of those who stay are named.
const NAMED: usize = 10;

/// A session that was ended for a swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnded {
    /// The process at the server.
    pub pid: i32,
    /// The role; `None` where it is gone.
    pub user: Option<String>,
    /// The `application_name`, as far as this role may see it.
    pub application: String,
}

/// Everything that is connected to these databases, told to end where we may. A process without
/// a role is the server's own (autovacuum): the renaming ends it by itself.
const ROUND_SQL: &str = "
select json_build_object(
  'sessions', (select coalesce(json_agg(json_build_object(
      'pid', s.pid, 'user', s.rolname, 'application', coalesce(s.application_name, ''),
      'kind', s.backend_type, 'superuser', s.super,
      'told', case when s.may then pg_terminate_backend(s.pid) end) order by s.pid), '[]')
    from (select a.pid, r.rolname, a.application_name, a.backend_type,
        coalesce(r.rolsuper, false) as super,
        current_setting('is_superuser') = 'on' or not coalesce(r.rolsuper, true) and (
          pg_has_role(a.usesysid, 'USAGE') or pg_has_role('pg_signal_backend', 'USAGE')) as may
      from pg_catalog.pg_stat_activity a left join pg_catalog.pg_roles r on r.oid = a.usesysid
      where a.datid in ($OIDS) and a.usesysid is not null and a.pid <> pg_backend_pid()
      offset 0) s),
  'prepared', (select coalesce(json_agg(p.gid order by p.prepared), '[]')
    from pg_catalog.pg_prepared_xacts p join pg_catalog.pg_database d on d.datname = p.database
    where d.oid in ($OIDS)))";

/// Who holds what a renaming waits for: a lock on the databases, or on a row that lists them.
const HOLDERS_SQL: &str = "
select coalesce(json_agg(distinct concat_ws(' ', 'pid', l.pid, '(user', coalesce(a.usename, '?'), 'in',
    coalesce(a.datname, '?') || ')')), '[]')
from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.granted and l.pid <> pg_backend_pid() and (
  l.locktype = 'object' and l.classid = 'pg_catalog.pg_database'::regclass and l.objid in ($OIDS)
  or l.locktype = 'relation' and l.relation = 'pg_catalog.pg_database'::regclass
    and l.mode = 'RowExclusiveLock')";

#[derive(Debug, Deserialize)]
struct Round {
    sessions: Vec<Found>,
    prepared: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Found {
    #[serde(flatten)]
    session: SessionEnded,
    kind: Option<String>,
    superuser: bool,
    told: Option<bool>,
}

impl Found {
    fn described(&self) -> String {
        let user = self.session.user.as_deref().unwrap_or("?");
        let mut said = format!("pid {} (user {user}", self.session.pid);
        if !self.session.application.is_empty() {
            said.push_str(&format!(", {}", self.session.application));
        }
        match self.kind.as_deref() {
            None | Some("client backend") => {}
            Some(kind) => said.push_str(&format!(", {kind}")),
        }
        said.push_str(match (self.told, self.superuser) {
            (None, true) => "): a superuser's, which only a superuser may end",
            (None, false) => "): this role may not end it",
            (Some(_), _) => "): was told to end and has not",
        });
        said
    }
}

/// The sessions that were ended so far, each once.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeMap<i32, SessionEnded>);

impl Ended {
    pub fn into_list(self) -> Vec<SessionEnded> {
        self.0.into_values().collect()
    }
}

impl Swap {
    /// Ends every session of these databases, again and again until none is left.
    ///
    /// # Errors
    /// When somebody stays until the deadline, naming them; a prepared transaction at once.
    pub(super) async fn end_sessions(
        &self,
        oids: [u32; 2],
        deadline: Instant,
        ended: &mut Ended,
    ) -> Result<()> {
        loop {
            let round: Round = self.admin.query_json(&with_oids(ROUND_SQL, oids)).await?;
            refuse_prepared(&round.prepared)?;
            for found in round.sessions.iter().filter(|found| found.told == Some(true)) {
                ended.0.insert(found.session.pid, found.session.clone());
            }
            if round.sessions.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(who_stays(&round.sessions));
            }
            // The caller's guard drops this pause when somebody asks for a stop.
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Refuses what nobody but its owner may end, while nothing is closed yet.
    pub(super) async fn refuse_prepared(&self, oids: [u32; 2]) -> Result<()> {
        let sql = "select coalesce(json_agg(p.gid), '[]') from pg_catalog.pg_prepared_xacts p
            join pg_catalog.pg_database d on d.datname = p.database where d.oid in ($OIDS)";
        let prepared: Vec<String> = self.admin.query_json(&with_oids(sql, oids)).await?;
        refuse_prepared(&prepared)
    }

    /// The error for a lock that did not come.
    pub(super) async fn locked(&self, oids: [u32; 2], message: &str) -> Error {
        let holders: Vec<String> =
            self.admin.query_json(&with_oids(HOLDERS_SQL, oids)).await.unwrap_or_default();
        let who = match holders.is_empty() {
            true => "another session".to_owned(),
            false => holders.join(", "),
        };
        Error::failed(STAGE, format!("{who} holds a lock on the database ({message})")).next_step(
            "let it finish or end it (CREATE DATABASE .. TEMPLATE, ALTER or COMMENT ON DATABASE in an open transaction), then try again",
        )
    }
}

fn with_oids(sql: &str, [first, second]: [u32; 2]) -> String {
    sql.replace("$OIDS", &format!("{first}, {second}"))
}

fn refuse_prepared(prepared: &[String]) -> Result<()> {
    if prepared.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = prepared.iter().take(NAMED).map(|gid| format!("{gid:?}")).collect();
    Err(Error::refused(
        STAGE,
        format!("prepared transactions keep the database as it is: {}", list.join(", ")),
    )
    .next_step("let whoever prepared them COMMIT PREPARED or ROLLBACK PREPARED, then try again"))
}

fn who_stays(sessions: &[Found]) -> Error {
    let list: Vec<String> = sessions.iter().take(NAMED).map(Found::described).collect();
    let more = match sessions.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let next = match sessions.iter().any(|found| found.told.is_none()) {
        true => {
            "stop what connects so, or let [restore] admin_url log in as a superuser or a member of pg_signal_backend"
        }
        false => "stop what connects so, and look at these processes on the server",
    };
    Error::failed(STAGE, format!("sessions stay connected: {}{more}", list.join("; ")))
        .next_step(next)
}
