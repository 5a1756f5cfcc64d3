//! Logical replication slots of the live database, and its publications.

use backup_core::Result;
use serde::Deserialize;

use super::replication::broken;
use super::{Finding, Inquiry};
use crate::sql::{quote_ident, quote_literal};

/// Copying a table's first state uses slots of its own, which come and go.
const TABLE_COPY: &str = "_sync_";

#[derive(Debug, Deserialize)]
struct Slot {
    name: String,
    plugin: String,
    active: bool,
    temporary: bool,
    two_phase: bool,
    failover: bool,
}

#[derive(Debug, Deserialize)]
struct Publication {
    name: String,
    all_tables: bool,
    tables: u64,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let Some(live) = inquiry.live() else { return Ok(Vec::new()) };
    let sql = format!(
        "select coalesce(json_agg(json_build_object('name', slot_name, 'plugin', plugin,
            'active', active, 'temporary', temporary, 'two_phase', two_phase,
            'failover', coalesce((to_jsonb(s) ->> 'failover')::bool, false)) order by slot_name), '[]')
         from pg_catalog.pg_replication_slots s
         where slot_type = 'logical' and database = {}",
        quote_literal(&live.name)
    );
    let slots: Vec<Slot> = inquiry.psql.query_json(&sql).await?;
    let publications = publications(inquiry).await?;
    let mut findings = Vec::new();
    if !slots.is_empty() {
        let names = slots.iter().map(described).collect::<Vec<_>>().join(", ");
        let detail = match inquiry.is_in_place() {
            true => format!(
                "whoever reads these slots of the live database gets the restored rows on top of the old ones, or stops: {names}"
            ),
            false => format!(
                "these slots belong to the live database and stay with the old one: {names}"
            ),
        };
        let steps = recreate(inquiry, &live.name, &slots, &publications);
        findings.push(broken(inquiry, "replication slots", detail, steps));
    }
    findings.extend(lost_publications(inquiry, &publications));
    Ok(findings)
}

fn described(slot: &Slot) -> String {
    let mut about = vec![slot.plugin.as_str()];
    about.extend(slot.active.then_some("in use"));
    about.extend(slot.temporary.then_some("temporary"));
    about.extend(slot.two_phase.then_some("two-phase"));
    about.extend(slot.failover.then_some("failover"));
    format!("{} ({})", slot.name, about.join(", "))
}

async fn publications(inquiry: &Inquiry<'_>) -> Result<Vec<Publication>> {
    let Some(psql) = inquiry.live_psql() else { return Ok(Vec::new()) };
    let sql = "select coalesce(json_agg(json_build_object('name', pubname, 'all_tables', puballtables,
            'tables', (select count(*) from pg_catalog.pg_publication_rel r where r.prpubid = p.oid))
            order by pubname), '[]')
        from pg_catalog.pg_publication p";
    psql.query_json(sql).await
}

/// What to do so that the subscribers get the restored database's changes.
fn recreate(
    inquiry: &Inquiry<'_>,
    live: &str,
    slots: &[Slot],
    publications: &[Publication],
) -> Vec<String> {
    let mut steps = Vec::new();
    let lasting: Vec<&Slot> =
        slots.iter().filter(|s| !s.temporary && !is_table_copy(&s.name)).collect();
    if !lasting.is_empty() {
        steps.push(
            "1. on each subscriber, before the swap: ALTER SUBSCRIPTION .. DISABLE".to_owned(),
        );
        steps.push(format!(
            "2. after it, once going back is out of the question, in {}:",
            quote_ident(live)
        ));
        for slot in lasting {
            let (name, plugin) = (quote_literal(&slot.name), quote_literal(&slot.plugin));
            let mut arguments = format!("{name}, {plugin}, false, {}", slot.two_phase);
            if slot.failover {
                arguments.push_str(", true");
            }
            steps.push(format!("   SELECT pg_drop_replication_slot({name});"));
            steps.push(format!("   SELECT pg_create_logical_replication_slot({arguments});"));
        }
        steps.push(
            "3. on each subscriber: empty its tables, ALTER SUBSCRIPTION .. ENABLE, and copy them \
             anew (DROP and CREATE SUBSCRIPTION copies by itself): it has changes that the \
             restored database does not have"
                .to_owned(),
        );
        steps.push(
            "until then the slots keep the server's write-ahead log: mind the space".to_owned(),
        );
    }
    let known: Vec<String> = publications.iter().map(published).collect();
    if !known.is_empty() && !inquiry.is_in_place() {
        steps.push(format!("publications of the live database: {}", known.join(", ")));
    }
    if steps.is_empty() {
        steps
            .push("wait until they are gone: all of them are temporary or copy a table".to_owned());
    }
    steps
}

fn is_table_copy(slot: &str) -> bool {
    slot.starts_with("pg_") && slot.contains(TABLE_COPY)
}

fn published(publication: &Publication) -> String {
    match publication.all_tables {
        true => format!("{} (all tables)", publication.name),
        false => format!("{} ({} tables)", publication.name, publication.tables),
    }
}

/// Publications that the restored database will not have.
fn lost_publications(inquiry: &Inquiry<'_>, publications: &[Publication]) -> Option<Finding> {
    if !inquiry.needs.complete || inquiry.is_in_place() {
        return None;
    }
    let lost: Vec<String> = publications
        .iter()
        .filter(|publication| !inquiry.needs.publications.contains(&publication.name))
        .map(published)
        .collect();
    if lost.is_empty() {
        return None;
    }
    Some(Finding::warning(
        "publications",
        format!("the live database has publications that the backup lacks: {}", lost.join(", ")),
        "create them in the restored database (CREATE PUBLICATION ..) before anybody subscribes",
    ))
}
