//! What an archive needs from the server and this host, found out before anything is changed.

use std::collections::BTreeSet;
use std::process::Stdio;

use backup_core::{Error, Result};
use tokio::io::AsyncReadExt;

use super::role_names::needed_roles;
use super::{RestoreOptions, STAGE};
use crate::archive::{ArchiveVersion, Toc};
use crate::database::TablespaceMap;
use crate::globals::{Globals, GlobalsPlan, plan_globals};
use crate::tools::how_to_install;
use crate::{ClientTools, Server, ToolSearch};

/// The largest text about a target's roles that is taken, in bytes.
const MAX_ROLES_BYTES: u64 = 64 * 1024 * 1024;

/// Chooses the client tools: those of the server's own major if they read the archive, else the
/// next newer ones that do.
pub(super) async fn choose_tools(
    search: &ToolSearch,
    server: &Server,
    archive: ArchiveVersion,
) -> Result<ClientTools> {
    let needed = server.version().major.max(archive.first_reader());
    let installed = search.installed().await?;
    installed
        .iter()
        .filter(|tools| tools.version().major >= needed)
        .min_by_key(|tools| tools.version().major)
        .cloned()
        .ok_or_else(|| {
            let newest = installed.first().map_or("none".to_owned(), |t| t.version().to_string());
            Error::refused(
                STAGE,
                format!("the archive has format {archive}, which pg_restore reads from {needed} on; the newest here is {newest}"),
            )
            .next_step(how_to_install(needed))
        })
}

/// Refuses unless every tablespace is there, under its own name or the one it is mapped to.
pub(super) async fn check_tablespaces(
    server: &Server,
    toc: &Toc,
    map: &TablespaceMap,
    database: Option<&str>,
) -> Result<()> {
    let named = toc.entries.iter().map(|entry| entry.tablespace.as_str()).chain(database);
    let needed: BTreeSet<&str> = named.filter_map(|name| map.target(name)).collect();
    if needed.is_empty() {
        return Ok(());
    }
    let sql = "select coalesce(json_agg(spcname), '[]') from pg_catalog.pg_tablespace";
    let existing: BTreeSet<String> = server.psql().query_json(sql).await?;
    let missing: Vec<&str> = needed.into_iter().filter(|name| !existing.contains(*name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::refused(STAGE, format!("the server has no tablespace {}", missing.join(", ")))
        .next_step("make it, map it to one there is (OLD=NEW), or restore without tablespaces"))
}

/// Checks that every role is there that the archive's objects and grants need, or will be
/// created from the globals at hand. The plan is not run yet.
///
/// # Errors
/// `Refused` when roles are missing.
pub(super) async fn check_roles(
    server: &Server,
    toc: &Toc,
    options: &RestoreOptions,
) -> Result<GlobalsPlan> {
    let plan = match &options.globals {
        Some(globals) => {
            // Roles that others stand in for are not needed.
            let globals = globals.without(options.roles.keys());
            plan_globals(&globals, &target_globals(server).await?, server.version().major)
        }
        None => GlobalsPlan::default(),
    };
    let sql = "select json_agg(rolname) from pg_catalog.pg_roles";
    let existing: BTreeSet<String> = server.psql().query_json(sql).await?;
    let missing: Vec<String> = needed_roles(toc, options.no_owners)
        .into_iter()
        .filter(|role| !existing.contains(role) && !plan.creates.contains(role))
        .collect();
    if missing.is_empty() {
        return Ok(plan);
    }
    let advice = match options.globals {
        Some(_) => {
            "create them first, put others in their place (--role OLD=NEW), or restore without owners and grants"
        }
        None => {
            "create them first, restore the backup's globals with it, or restore without owners and grants"
        }
    };
    Err(Error::refused(
        STAGE,
        format!("the server lacks roles that the backup needs: {}", missing.join(", ")),
    )
    .next_step(advice))
}

/// Runs a plan: all of it, or nothing.
pub(super) async fn create_roles(server: &Server, plan: &GlobalsPlan) -> Result<()> {
    let statements = plan.statements();
    if statements.is_empty() {
        return Ok(());
    }
    let sql = format!("BEGIN;\n{};\nCOMMIT", statements.join(";\n"));
    server.psql().execute(&sql).await.map_err(|error| {
        Error::failed(STAGE, "the backup's roles could not be created; none was")
            .next_step("create them by hand, or restore without owners and grants")
            .caused_by(error)
    })
}

/// The target's own roles, in pg_dumpall's words.
async fn target_globals(server: &Server) -> Result<Globals> {
    let mut command = server.connection().command(&server.tools().pg_dumpall())?;
    command.args(["--roles-only", "--no-role-passwords", "--no-password"]);
    command.arg(format!("--database={}", server.database()));
    let mut child = command.spawn("pg_dumpall", Stdio::null())?;
    let mut text = Vec::new();
    if let Some(stdout) = child.take_stdout() {
        let read = stdout.take(MAX_ROLES_BYTES).read_to_end(&mut text).await;
        read.map_err(|e| Error::from_io("pg_dumpall", e))?;
    }
    child.success().await?;
    Globals::read(&String::from_utf8_lossy(&text))
}
