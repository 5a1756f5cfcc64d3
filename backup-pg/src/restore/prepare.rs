//! From an archive's table of contents to what is restored of it: edited, and checked against the
//! server before anything is changed there.

use std::collections::BTreeSet;

use backup_core::{Error, Result};

use super::clean::{self, InPlacePlan};
use super::role_names::{map_roles, unknown_roles};
use super::run::needs_psql;
use super::target::Target;
use super::{RestoreOptions, STAGE, edits, preflight, present};
use crate::archive::{Present, SelectedPart, Selection, Toc, is_relation, list_of, select};
use crate::database::{database_facts, database_tablespace};
use crate::globals::GlobalsPlan;
use crate::{ClientTools, Server, ToolSearch};

/// What will be restored, and with what.
pub(super) struct Prepared {
    /// The entries, with the roles and schemas that they get.
    pub restored: Toc,
    pub tools: ClientTools,
    pub roles: GlobalsPlan,
    /// A schema that has to be made first.
    pub new_schema: Option<String>,
    /// Sessions that restore at the same time.
    pub jobs: usize,
    /// What a restore in place does.
    pub in_place: Option<InPlacePlan>,
    /// What one has to know.
    pub notes: Vec<String>,
}

impl Prepared {
    /// Finds out everything that can be known before anything is changed.
    ///
    /// # Errors
    /// `Refused` when something is missing, in the way, or can't be done; `Usage` when a table is
    /// asked for that the archive does not have.
    pub async fn find(
        toc: &Toc,
        target: &Target,
        search: &ToolSearch,
        options: &RestoreOptions,
    ) -> Result<Self> {
        let server = target.server();
        let tools = preflight::choose_tools(search, server, toc.header.version).await?;
        let mut notes = Vec::new();
        let mut restored = edited(toc, options, &mut notes);
        let mut new_schema = None;
        if let Some(selection) = &options.selection {
            let present = if target.is_existing() {
                present::present(&server.psql()).await?
            } else {
                present::new_database()
            };
            let whole = std::mem::replace(&mut restored, empty(toc));
            restored = choose(whole, selection, &present, &mut notes)?;
            new_schema = selection.into_schema.clone().filter(|s| !present.schemas.contains(s));
        }
        let in_place = match options.in_place {
            true => Some(plan_in_place(&mut restored, server).await?),
            false => None,
        };
        if let Some(plan) = &in_place {
            plan.check()?;
        }
        let map = &options.tablespaces;
        let own_tablespace =
            if target.is_existing() { None } else { database_tablespace(&restored) };
        preflight::check_tablespaces(server, &restored, map, own_tablespace.as_deref()).await?;
        let roles = preflight::check_roles(server, &restored, options).await?;
        notes.extend(encoding_note(target, toc));
        let jobs = jobs(&tools, target, options, &mut notes);
        Ok(Self { restored, tools, roles, new_schema, jobs, in_place, notes })
    }
}

/// What a restore in place would do, and the schemas and extensions kept.
pub(super) async fn plan_in_place(restored: &mut Toc, server: &Server) -> Result<InPlacePlan> {
    if !restored.entries.iter().any(is_relation) {
        return Err(Error::refused(
            STAGE,
            "the backup defines no table: there is nothing to replace",
        )
        .next_step("add its rows to tables that are there: --table '*' --data-only"));
    }
    let rows_of_extensions = edits::keep_containers(restored);
    let plan = clean::plan(&server.psql(), restored, server.database()).await?;
    let stays = rows_of_extensions.into_iter().map(|table| format!("rows of table {table}"));
    Ok(InPlacePlan { stays: plan.stays.into_iter().chain(stays).collect(), ..plan })
}

/// With other roles, and without what is not wanted.
pub(super) fn edited(toc: &Toc, options: &RestoreOptions, notes: &mut Vec<String>) -> Toc {
    let mut edited = toc.clone();
    for old in unknown_roles(toc, &options.roles) {
        notes.push(format!("the backup names no role {old}"));
    }
    map_roles(&mut edited, &options.roles);
    let subscriptions = toc.of_kind("SUBSCRIPTION").count();
    if options.without_subscriptions || options.in_place {
        edits::leave_out_subscriptions(&mut edited);
    }
    if options.in_place && subscriptions > 0 {
        notes.push(format!(
            "{subscriptions} subscriptions are left as they are; those that the database has need \
             ALTER SUBSCRIPTION .. REFRESH PUBLICATION, for their tables are new"
        ));
    }
    edited
}

fn empty(toc: &Toc) -> Toc {
    Toc { entries: Vec::new(), header: toc.header.clone(), end: toc.end }
}

/// The chosen tables alone, in the schema they go to.
fn choose(
    mut toc: Toc,
    selection: &Selection,
    present: &Present,
    notes: &mut Vec<String>,
) -> Result<Toc> {
    let selected = select(&toc, selection, present)?;
    notes.extend(selected.notes);
    edits::keep(&mut toc, &selected.entries, !present.is_existing);
    if let Some(schema) = &selection.into_schema {
        edits::into_schema(&mut toc, &selected.relations, schema)?;
    }
    check_places(&toc, &selected.relations, selection, present)?;
    Ok(toc)
}

/// Definitions need a free place, rows alone need their table.
fn check_places(
    toc: &Toc,
    relations: &BTreeSet<i64>,
    selection: &Selection,
    present: &Present,
) -> Result<()> {
    let rows_only = selection.what == SelectedPart::DataOnly;
    let chosen = toc.entries.iter().filter(|entry| match rows_only {
        true => entry.desc == "TABLE DATA",
        false => relations.contains(&entry.dump_id) && is_relation(entry),
    });
    let mut wrong: Vec<String> = chosen
        .filter(|entry| {
            let place = (entry.namespace.clone(), entry.tag.clone());
            present.relations.contains(&place) != rows_only
        })
        .map(|entry| format!("{}.{}", entry.namespace, entry.tag))
        .collect();
    wrong.sort();
    if wrong.is_empty() {
        return Ok(());
    }
    let names = list_of(&wrong);
    Err(match rows_only {
        true => Error::refused(STAGE, format!("the database does not have {names}"))
            .next_step("restore without --data-only: definitions and rows"),
        false => Error::refused(STAGE, format!("the database has {names} already")).next_step(
            "add the rows to it with --data-only, restore it into another schema \
             (--into-schema NEW) or database, or drop or rename it first",
        ),
    })
}

/// How many sessions can restore at the same time.
fn jobs(
    tools: &ClientTools,
    target: &Target,
    options: &RestoreOptions,
    notes: &mut Vec<String>,
) -> usize {
    let wanted = options.jobs.get();
    let obstacle = if wanted == 1 {
        return 1;
    } else if target.is_existing() {
        "the database was there before, so all has to be one transaction"
    } else if needs_psql(tools, target.server().version().major) {
        "this pg_restore is newer than the server"
    } else {
        return wanted;
    };
    notes.push(format!("one session restores instead of {wanted}: {obstacle}"));
    1
}

fn encoding_note(target: &Target, toc: &Toc) -> Option<String> {
    let archived = database_facts(toc)?.encoding;
    let existing = target.server().encoding();
    (target.is_existing() && !archived.is_empty() && archived != existing).then(|| {
        format!("the database has the encoding {existing}, the backup's had {archived}: text was converted")
    })
}
