//! Subscriptions of the live database.

use backup_core::Result;
use serde::Deserialize;

use super::replication::broken;
use super::statements::server_of;
use super::{Finding, Inquiry};
use crate::sql::{quote_ident, quote_literal};

#[derive(Deserialize)]
struct Subscription {
    name: String,
    enabled: bool,
    slot: Option<String>,
    publications: Vec<String>,
    /// With its password: never shown. Only superusers may read it.
    connection: Option<String>,
}

pub(super) async fn check(inquiry: &Inquiry<'_>) -> Result<Vec<Finding>> {
    let Some(live) = inquiry.live() else { return Ok(Vec::new()) };
    let connection = if inquiry.role.superuser { "subconninfo" } else { "null" };
    let sql = format!(
        "select coalesce(json_agg(json_build_object('name', subname, 'enabled', subenabled,
            'slot', subslotname, 'publications', subpublications, 'connection', {connection})
            order by subname), '[]')
         from pg_catalog.pg_subscription where subdbid = {}",
        live.oid
    );
    let subscriptions: Vec<Subscription> = inquiry.psql.query_json(&sql).await?;
    if subscriptions.is_empty() {
        return Ok(Vec::new());
    }
    let names = subscriptions.iter().map(described).collect::<Vec<_>>().join(", ");
    let (detail, mut steps) = match inquiry.is_in_place() {
        true => (
            format!("these subscriptions of the live database write into it: {names}"),
            vec![
                "1. before the restore: ALTER SUBSCRIPTION .. DISABLE".to_owned(),
                "2. after it, drop and create each, so that its tables are copied anew:".to_owned(),
            ],
        ),
        false => (
            format!(
                "these subscriptions of the live database stop with it, and the restored one has none: {names}"
            ),
            vec![format!(
                "after the swap, in {}, with the password that the subscription had:",
                quote_ident(&live.name)
            )],
        ),
    };
    steps.extend(subscriptions.iter().flat_map(recreate));
    steps.push(
        "rows that came after the backup are not in it: empty the tables first, so that \
         copy_data brings all of them"
            .to_owned(),
    );
    Ok(vec![broken(inquiry, "subscriptions", detail, steps)])
}

fn server(subscription: &Subscription) -> String {
    match &subscription.connection {
        Some(connection) => server_of(connection),
        None => "a server that only superusers may see".to_owned(),
    }
}

fn described(subscription: &Subscription) -> String {
    let state = if subscription.enabled { "enabled" } else { "disabled" };
    let publications = subscription.publications.join(" and ");
    let Subscription { name, .. } = subscription;
    format!("{name} ({publications} of {}, {state})", server(subscription))
}

/// The old one is to let go of its slot first: two can't read it.
fn recreate(subscription: &Subscription) -> Vec<String> {
    let name = quote_ident(&subscription.name);
    let publications: Vec<String> =
        subscription.publications.iter().map(|name| quote_ident(name)).collect();
    let mut options = vec!["copy_data = true".to_owned()];
    let mut steps = Vec::new();
    if let Some(slot) = &subscription.slot {
        steps.push(format!(
            "   on {}: SELECT pg_drop_replication_slot({});",
            server(subscription),
            quote_literal(slot)
        ));
        options.push(format!("slot_name = {}", quote_literal(slot)));
    }
    if !subscription.enabled {
        options.push("enabled = false".to_owned());
    }
    steps.push(format!(
        "   CREATE SUBSCRIPTION {name} CONNECTION '..' PUBLICATION {} WITH ({});  -- to {}",
        publications.join(", "),
        options.join(", "),
        server(subscription)
    ));
    steps
}
