//! Where a drill happens: on a throwaway server of its own, or in a new database of a server that
//! the configuration names. In both cases nothing of it stays.

use std::path::{Path, PathBuf};

use backup_core::pipeline::Context;
use backup_core::{Error, Manifest, Result};
use backup_pg::sql::{quote_ident, quote_literal};
use backup_pg::swap::RunId;
use backup_pg::throwaway::{ScratchFolder, ThrowawayOptions, ThrowawayServer, sweep};
use backup_pg::{Connection, Purpose, Server, ToolSearch, Version, Working};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::statvfs;

use super::{DrillOptions, STAGE};
use crate::Deployment;

/// How the name of every database and folder of a drill starts.
pub(crate) const PREFIX: &str = "marb_drill_";
/// Where the throwaway server's data goes when the config does not say: on a disk, with a short
/// path.
const FOLDER: &str = "/var/tmp";
/// For databases with very many tables, which pg_dump locks all at once.
const SETTINGS: [(&str, &str); 2] =
    [("max_connections", "20"), ("max_locks_per_transaction", "4096")];
/// How the comment of a drill's database starts; the time follows.
const MARK: &str = "marb-backup drill ";
/// A database that a drill left behind is dropped after so long: no drill takes longer.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(48);

/// The place of one drill.
pub(super) struct Place {
    /// Reached over a database that is there anyway.
    pub server: Server,
    /// The database that is made for it.
    pub scratch: String,
    throwaway: Option<Throwaway>,
}

struct Throwaway {
    // Dropped in this order: first the server, then what is left of its folder.
    server: ThrowawayServer,
    _folder: ScratchFolder,
}

impl Place {
    /// Makes or finds it, and makes sure that it is not the server that was backed up.
    ///
    /// # Errors
    /// `Refused` when it is, or could be; otherwise when there is no server to be had.
    pub async fn prepare(
        deployment: &Deployment,
        manifest: &Manifest,
        plain_bytes: Option<u64>,
        options: &DrillOptions,
        context: &Context,
    ) -> Result<Self> {
        let configured = deployment.config().drill.server.as_ref().map(|server| &server.url);
        let scratch = scratch_name(Timestamp::now());
        let Some(url) = options.server.as_ref().or(configured) else {
            context.step("starting a throwaway server");
            return Self::throwaway(deployment, manifest, plain_bytes, scratch, context).await;
        };
        context.step("connecting to the drill's server");
        let server = context.cancel.guard(deployment.connect(url, "drill server")).await?;
        if !options.same_server {
            refuse_the_source(&server, manifest)?;
        }
        drop_left_behind(&server, context).await;
        drop_unfinished(&server, context).await;
        Ok(Self { server, scratch, throwaway: None })
    }

    async fn throwaway(
        deployment: &Deployment,
        manifest: &Manifest,
        plain_bytes: Option<u64>,
        scratch: String,
        context: &Context,
    ) -> Result<Self> {
        let config = &deployment.config().drill;
        let needed = server_major(manifest);
        let search = deployment.tool_search();
        let bin_dir = match &config.bin_dir {
            Some(folder) => folder.clone(),
            None => find_server(&search, needed).await?,
        };
        let parent = config.folder.clone().unwrap_or_else(|| FOLDER.into());
        refuse_too_little_space(&parent, plain_bytes)?;
        let ours = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = ours.into_iter().chain(config.settings.clone()).collect();
        let options = ThrowawayOptions { settings, ..ThrowawayOptions::default() };
        let programs = bin_dir.clone();
        let made = blocking(move || {
            let (removed, failed) = sweep(&parent, PREFIX);
            let folder = ScratchFolder::make(&parent, PREFIX)?;
            let server = ThrowawayServer::start(&programs, folder.path(), &options)?;
            Ok((Throwaway { server, _folder: folder }, removed, failed))
        });
        let (throwaway, removed, failed) = made.await?;
        for path in removed {
            context.warn(&format!("removed {}, left by a drill that was killed", path.display()));
        }
        for error in failed {
            context.warn(&format!("left by a drill that was killed: {error}"));
        }
        let connection: Connection = throwaway.server.connection_string("postgres").parse()?;
        let extra = ToolSearch { extra: vec![bin_dir], ..search };
        // A value, not a temporary: the server goes with it on an error.
        let connected = context.cancel.guard(Server::connect(&connection, &extra)).await;
        match connected.and_then(|server| not_older(server, needed)) {
            Ok(server) => Ok(Self { server, scratch, throwaway: Some(throwaway) }),
            Err(error) => {
                blocking(move || throwaway.server.stop()).await.ok();
                Err(error)
            }
        }
    }

    /// Whether the server was made for the drill.
    pub fn is_throwaway(&self) -> bool {
        self.throwaway.is_some()
    }

    /// How the new database is reached.
    pub fn connection(&self) -> Connection {
        self.server.connection().with_database(&self.scratch)
    }

    /// What its database is made for.
    pub fn purpose(&self) -> Purpose {
        let (kind, live) = (STAGE.to_owned(), self.scratch.clone());
        let comment = (!self.is_throwaway()).then(mark_of_now);
        Purpose { kind, live, run: None, comment }
    }

    /// Marks a database as a drill's from now on, so that a later one knows what it may drop, and
    /// when. One that a restore makes is marked by it first.
    pub async fn mark(&self) -> Result<()> {
        if self.is_throwaway() {
            return Ok(());
        }
        let comment = quote_literal(&mark_of_now());
        let name = quote_ident(&self.scratch);
        self.server.psql().execute(&format!("comment on database {name} is {comment}")).await
    }

    /// Removes everything. `made`: whether the database is there by our doing.
    pub async fn clean_up(self, made: bool) -> Result<()> {
        let Some(throwaway) = self.throwaway else {
            return if made { drop_database(&self.server, &self.scratch).await } else { Ok(()) };
        };
        blocking(move || throwaway.server.stop()).await
    }
}

fn mark_of_now() -> String {
    format!("{MARK}{}", Timestamp::now())
}

/// The major version of the server that was backed up.
fn server_major(manifest: &Manifest) -> u32 {
    let version = manifest.postgres.as_ref().map(|postgres| postgres.server.as_str());
    version.and_then(Version::parse).map_or(0, |version| version.major)
}

/// A name that no other drill has: `marb_drill_20261122t020000z_k3x9`.
fn scratch_name(now: Timestamp) -> String {
    format!("{PREFIX}{}", RunId::new(now))
}

/// The newest server programs of this version, else of the next higher one.
async fn find_server(search: &ToolSearch, needed: u32) -> Result<PathBuf> {
    let everywhere = ToolSearch { configured: None, ..search.clone() };
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for tools in everywhere.installed().await? {
        let folder = tools.folder();
        if ["initdb", "postgres"].iter().all(|program| folder.join(program).exists()) {
            found.push((tools.version().major, folder.to_owned()));
        }
    }
    let fitting = found.iter().filter(|(major, _)| *major >= needed);
    match fitting.min_by_key(|(major, _)| *major) {
        Some((_, folder)) => Ok(folder.clone()),
        None => Err(no_server(&found, needed)),
    }
}

/// Before an hour of restoring. The tables alone take about as much as the dump.
fn refuse_too_little_space(folder: &Path, plain_bytes: Option<u64>) -> Result<()> {
    let (Some(needed), Ok(disk)) = (plain_bytes, statvfs(folder)) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "{} has {} MB free, and the database takes at least {} MB",
        folder.display(),
        free / 1_000_000,
        needed / 1_000_000
    );
    Err(Error::refused(STAGE, message)
        .next_step("make room, or name another place as `folder` under [drill]"))
}

fn no_server(found: &[(u32, PathBuf)], needed: u32) -> Error {
    let there = match found.iter().map(|(major, _)| major).max() {
        Some(newest) => format!("the newest PostgreSQL server on this host is {newest}"),
        None => "there is no PostgreSQL server on this host".to_owned(),
    };
    Error::refused(STAGE, format!("{there}, and the backup is of a server {needed}")).next_step(
        format!(
            "install it (Debian, Ubuntu: apt-get install postgresql-{needed}), name its folder as \
             `bin_dir` under [drill], or name another server as `server`"
        ),
    )
}

fn not_older(server: Server, needed: u32) -> Result<Server> {
    if server.version().major >= needed {
        return Ok(server);
    }
    let version = server.version();
    Err(Error::refused(
        STAGE,
        format!("`bin_dir` holds PostgreSQL {version}, and the backup is of a server {needed}"),
    )
    .next_step(format!("name the folder of PostgreSQL {needed} or newer")))
}

/// A drill must not load the server that it is a drill for, nor be mistaken for it.
fn refuse_the_source(server: &Server, manifest: &Manifest) -> Result<()> {
    let recorded = manifest.source.system_identifier.as_deref();
    match (server.system_identifier(), recorded) {
        (Some(here), Some(source)) if here != source => Ok(()),
        (Some(_), Some(_)) => Err(Error::refused(
            STAGE,
            format!("{} is the server that was backed up (or a copy of it)", server.name()),
        )
        .next_step("name another server, or say --same-server if you mean it")),
        (here, _) => Err(Error::refused(
            STAGE,
            format!(
                "it can't be told whether {} is the server that was backed up: {} does not tell its system identifier",
                server.name(),
                if here.is_none() { "this login" } else { "the backup" }
            ),
        )
        .next_step("let the role execute pg_control_system(), or say --same-server if you know that it is another one")),
    }
}

async fn drop_database(server: &Server, name: &str) -> Result<()> {
    let quoted = quote_ident(name);
    // A template can't be dropped; the archived property may have made it one.
    let literal = quote_literal(name);
    let untemplate = format!(
        "select format('alter database %I is_template false', datname) \
         from pg_catalog.pg_database where datname = {literal} and datistemplate \\gexec\n"
    );
    let drop = format!("{untemplate}drop database if exists {quoted} with (force)");
    server.psql().execute(&drop).await.map_err(|error| {
        Error::failed(
            STAGE,
            format!("the drill's database {name} on {} could not be dropped", server.name()),
        )
        .next_step(format!(
            "drop it by hand, it holds restored data: drop database {quoted} with (force)"
        ))
        .caused_by(error)
    })
}

/// Drops what drills left that were killed. Only what carries their mark, is old, and nobody uses.
async fn drop_left_behind(server: &Server, context: &Context) {
    let sql = format!(
        "select coalesce(json_agg(json_build_array(d.datname, shobj_description(d.oid, 'pg_database')) \
            order by d.datname), '[]') from pg_catalog.pg_database d \
         where d.datname like {} and not exists \
            (select from pg_catalog.pg_stat_activity a where a.datid = d.oid)",
        quote_literal(&format!("{}%", PREFIX.replace('_', "\\_")))
    );
    let found: Vec<(String, Option<String>)> = match server.psql().query_json(&sql).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "left databases could not be looked for");
            return;
        }
    };
    for (name, comment) in found {
        let marked = comment.as_deref().and_then(|comment| comment.strip_prefix(MARK));
        let made: Option<Timestamp> = marked.and_then(|time| time.parse().ok());
        let is_old = made.is_some_and(|made| Timestamp::now().duration_since(made) > LEFT_BEHIND);
        if !is_old {
            context.warn(&format!(
                "the database {name} on {} is of another drill; if that was killed, drop it: it holds restored data",
                server.name()
            ));
            continue;
        }
        match drop_database(server, &name).await {
            Ok(()) => context.warn(&format!("dropped {name}, left by a drill that was killed")),
            Err(error) => context.warn(&error.to_string()),
        }
    }
}

/// Drops databases that restores and drills were filling when they were killed.
async fn drop_unfinished(server: &Server, context: &Context) {
    let found = match Working::list(server).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "unfinished databases could not be looked for");
            return;
        }
    };
    for one in found {
        let name = &one.name;
        if let Some(why) = one.kept(Timestamp::now(), LEFT_BEHIND) {
            let what =
                if one.untouched_since.is_some() { "is empty" } else { "holds restored data" };
            context.warn(&format!("{name} on {} {what}: {why}", server.name()));
            continue;
        }
        match one.drop_from(server).await {
            Ok(()) => context.warn(&format!("dropped {name}, left by a restore that was killed")),
            Err(error) => context.warn(&format!("{name} could not be dropped: {error}")),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let died = |e| Error::failed(STAGE, "a thread died").caused_by(e);
    tokio::task::spawn_blocking(work).await.map_err(died)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_fit_is_refused() {
        let refused = refuse_too_little_space(Path::new("/"), Some(u64::MAX)).unwrap_err();
        assert!(refused.advice().unwrap().contains("folder"), "{refused}");
        refuse_too_little_space(Path::new("/"), Some(1)).unwrap();
        refuse_too_little_space(Path::new("/"), None).unwrap();
    }

    #[test]
    fn names_are_never_the_same_and_short_enough() {
        let now = "2026-11-22T02:00:00Z".parse().unwrap();
        let (a, b) = (scratch_name(now), scratch_name(now));
        assert!(a.starts_with("marb_drill_20261122t020000z_") && a.len() < 63);
        assert_ne!(a, b);
    }
}
