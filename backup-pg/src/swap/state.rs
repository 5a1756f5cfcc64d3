//! What the server's databases and their comments tell about a live name.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::marker::PREFIX;
use super::{Marker, Names, Phase, RunId, STAGE, Swap};
use crate::sql::quote_literal;

/// Everything that is known about one live name.
#[derive(Debug, Clone, Serialize)]
pub struct SwapState {
    /// The database under the live name; `None` when there is none.
    pub live: Option<LiveDatabase>,
    /// The databases with a marker of this live name, the oldest run first.
    pub marked: Vec<MarkedDatabase>,
    /// Databases that are called as ours are and have no marker: never touched.
    pub unmarked: Vec<String>,
}

/// The database under the live name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveDatabase {
    /// Whether it accepts connections.
    pub open: bool,
}

/// A database that carries a marker.
#[derive(Debug, Clone, Serialize)]
pub struct MarkedDatabase {
    /// Its name.
    pub name: String,
    /// What its comment says.
    pub marker: Marker,
    /// Its size on the server's disk; `None` where this role may not know.
    pub bytes: Option<u64>,
    /// Whether it accepts connections.
    pub open: bool,
}

impl SwapState {
    /// The run that has to be finished or put back before another may begin.
    pub fn unfinished(&self) -> Option<&MarkedDatabase> {
        self.marked.iter().find(|one| one.marker.phase.is_unfinished())
    }

    /// The old database of the newest swap that was not put back.
    pub fn newest_before(&self) -> Option<&MarkedDatabase> {
        let before = [Phase::Swapped, Phase::Confirmed, Phase::PuttingBack];
        self.marked.iter().rfind(|one| before.contains(&one.marker.phase))
    }

    /// The database of the swap that happened last, whether it was put back or not.
    pub(super) fn last_swapped(&self) -> Option<&MarkedDatabase> {
        let swapped = self.marked.iter().filter(|one| one.marker.phase != Phase::Dropping);
        swapped.filter(|one| one.marker.swapped.is_some()).max_by_key(|one| one.marker.swapped)
    }

    /// The database that carries the marker of this run.
    pub fn of_run(&self, run: &RunId) -> Option<&MarkedDatabase> {
        self.marked.iter().find(|one| one.marker.run == *run)
    }
}

/// A database as the server lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listed {
    pub oid: u32,
    pub name: String,
    pub open: bool,
    /// That of the live database, or one that begins as a marker.
    pub comment: Option<String>,
    bytes: Option<u64>,
}

/// One look at the server: the databases, and what a transaction checks to know that what was
/// decided by this look still holds.
#[derive(Debug, Deserialize)]
pub(super) struct Look {
    /// The database that we are connected to.
    here: String,
    fingerprint: String,
    databases: Vec<Listed>,
}

impl Look {
    /// The database of this name.
    pub fn named(&self, name: &str) -> Option<&Listed> {
        self.databases.iter().find(|one| one.name == name)
    }

    /// The database that had this number all along.
    pub fn numbered(&self, oid: u32) -> Option<&Listed> {
        self.databases.iter().find(|one| one.oid == oid)
    }

    /// The condition under which nothing has changed since: same names, same markers.
    pub fn unchanged(&self, live: &str) -> String {
        format!("({}) = {}", fingerprint_sql(live), quote_literal(&self.fingerprint))
    }

    /// What it means for the live name.
    pub fn state(&self, live: &str) -> SwapState {
        let marked = |one: &Listed| {
            let marker = one.marker().filter(|marker| marker.live == live && one.name != live)?;
            Some(MarkedDatabase {
                name: one.name.clone(),
                marker,
                bytes: one.bytes,
                open: one.open,
            })
        };
        let mut all: Vec<MarkedDatabase> = self.databases.iter().filter_map(marked).collect();
        all.sort_by(|a, b| a.marker.run.cmp(&b.marker.run));
        let ours = |name: &str| all.iter().any(|one| one.name == name);
        let unmarked = self.databases.iter().filter(|one| Names::suit(live, &one.name));
        SwapState {
            live: self.named(live).map(|one| LiveDatabase { open: one.open }),
            unmarked: unmarked.map(|one| one.name.clone()).filter(|name| !ours(name)).collect(),
            marked: all,
        }
    }
}

impl Listed {
    /// Its marker, where it has one.
    pub fn marker(&self) -> Option<Marker> {
        Marker::read(&self.name, self.comment.as_deref()?)
    }
}

/// Number, name and comment of the live database and of all that carry markers, as one hash.
fn fingerprint_sql(live: &str) -> String {
    format!(
        "select encode(sha256(convert_to(coalesce(string_agg(
             concat_ws(' ', d.oid, length(d.datname::text), d.datname, c.text), ' ' order by d.oid), ''),
             'UTF8')), 'hex')
         from pg_catalog.pg_database d,
              lateral (select shobj_description(d.oid, 'pg_database') as text) c
         where d.datname = {} or starts_with(c.text, '{PREFIX}')",
        quote_literal(live)
    )
}

fn look_sql(live: &str, sizes: bool) -> String {
    let fingerprint = fingerprint_sql(live);
    let live = quote_literal(live);
    // The size of a large database takes its time, which is not spent while one is closed. A
    // role that may neither connect nor read statistics would get an error for it.
    format!(
        "select json_build_object(
           'here', current_database(),
           'fingerprint', ({fingerprint}),
           'databases', (select json_agg(json_build_object(
             'oid', d.oid::int8, 'name', d.datname, 'open', d.datallowconn,
             'comment', case when d.datname = {live} or c.ours then c.text end,
             'bytes', case when {sizes} and c.ours and (has_database_privilege(d.oid, 'CONNECT')
                 or pg_has_role('pg_read_all_stats', 'USAGE')) then pg_database_size(d.oid) end))
             from pg_catalog.pg_database d, lateral (
               select t.text, starts_with(t.text, '{PREFIX}') as ours
               from (select shobj_description(d.oid, 'pg_database') as text) t) c))"
    )
}

impl Swap {
    /// All databases and markers of this live name. Changes nothing.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn state(&self) -> Result<SwapState> {
        self.look_at(true).await.map(|look| look.state(&self.live))
    }

    /// `Ok` when a new swap of this live name may begin.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when an unfinished one is there;
    /// it names the ways out.
    pub async fn refuse_unfinished(&self) -> Result<()> {
        refuse_unfinished(&self.state().await?, None)
    }

    /// One look, without sizes.
    pub(super) async fn look(&self) -> Result<Look> {
        self.look_at(false).await
    }

    async fn look_at(&self, sizes: bool) -> Result<Look> {
        let look: Look = self.admin.query_json(&look_sql(&self.live, sizes)).await?;
        if look.here == self.live || Names::suit(&self.live, &look.here) {
            return Err(Error::usage(
                STAGE,
                format!(
                    "the maintenance connection leads to {}, which is to be renamed",
                    look.here
                ),
            )
            .next_step("let [restore] admin_url lead to another database, as a rule postgres"));
        }
        Ok(look)
    }
}

/// Refuses when a run other than `mine` is unfinished.
pub(super) fn refuse_unfinished(state: &SwapState, mine: Option<&RunId>) -> Result<()> {
    match state.unfinished() {
        Some(other) if Some(&other.marker.run) != mine => Err(unfinished(&other.marker)),
        _ => Ok(()),
    }
}

pub(super) fn unfinished(marker: &Marker) -> Error {
    let how = match marker.phase {
        Phase::Closing => "had closed the database and not yet swapped it",
        Phase::PuttingBack => "was putting the old database back",
        _ => "has swapped the database and was never confirmed",
    };
    Error::refused(STAGE, format!("restore {} of {} {how}", marker.run, marker.live)).next_step(
        "finish it with `restore --continue`, or put the old database back with `restore --rollback`",
    )
}
