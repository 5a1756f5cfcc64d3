//! Dropping the subscriptions of a database that is to be dropped, without a word to their
//! publishers: the restored database, or another server, may be using the same slots.
//!
//! `DROP SUBSCRIPTION` runs inside the database only, which is closed. Once it is open its apply
//! workers may start as well, and contact the publisher. No statement disables a subscription
//! from outside, so the shared catalog is changed directly, which superusers may, while the
//! database is still closed: disabled, without a slot, and (for the slots of a table's first
//! copy, which `DROP SUBSCRIPTION` would want to remove at the publisher) with an address that
//! leads nowhere.

use backup_core::{Error, ErrorKind, Result};

use super::script::{Outcome, Transaction};
use super::turn::allow;
use super::{STAGE, Swap};
use crate::sql::{quote_ident, quote_literal};

/// A socket below something that is no folder: refused at once, on every system.
const NOWHERE: &str = "host=/dev/null/marb-backup port=1 dbname=nowhere connect_timeout=2";

impl Swap {
    /// Drops all subscriptions of the closed database `name`; returns what they were called.
    pub(super) async fn drop_subscriptions(&self, name: &str, oid: u32) -> Result<Vec<String>> {
        let sql = format!(
            "select coalesce(json_agg(subname order by subname), '[]')
             from pg_catalog.pg_subscription where subdbid = {oid}"
        );
        let subscriptions: Vec<String> = self.admin.query_json(&sql).await?;
        if subscriptions.is_empty() {
            return Ok(subscriptions);
        }
        self.cut_off(oid, &subscriptions).await?;
        // Superusers come in whatever the limit is; nobody else shall.
        let open = Transaction::begin(self.limits.lock)
            .step(&format!("ALTER DATABASE {} CONNECTION LIMIT 0", quote_ident(name)))
            .step(&allow(name, true));
        let opened = match open.run(&self.admin).await {
            Ok(outcome) => {
                outcome.done("the database could not be opened to drop its subscriptions")
            }
            Err(error) => Err(error),
        };
        let dropped = match opened {
            Ok(()) => self.drop_inside(name, &subscriptions).await,
            Err(error) => Err(error),
        };
        self.admin.execute(&allow(name, false)).await?;
        dropped.map(|()| subscriptions)
    }

    async fn cut_off(&self, oid: u32, subscriptions: &[String]) -> Result<()> {
        let update = format!(
            "UPDATE pg_catalog.pg_subscription
             SET subenabled = false, subslotname = NULL, subconninfo = {}
             WHERE subdbid = {oid}",
            quote_literal(NOWHERE)
        );
        // Not if somebody opened it: a worker may be at work then.
        let closed = format!(
            "exists (select from pg_catalog.pg_database where oid = {oid} and not datallowconn)"
        );
        let transaction = Transaction::begin(self.limits.lock).only_if(&closed).step(&update);
        match transaction.run(&self.admin).await? {
            Outcome::Failed { message, .. } => Err(Error::new(
                ErrorKind::Failed,
                STAGE,
                format!(
                    "its subscriptions ({}) can't be disabled: {message}",
                    subscriptions.join(", ")
                ),
            )
            .next_step("run the cleanup as a superuser")),
            outcome => outcome.done("its subscriptions can't be disabled"),
        }
    }

    async fn drop_inside(&self, name: &str, subscriptions: &[String]) -> Result<()> {
        let statements = subscriptions.iter().map(|subscription| {
            let subscription = quote_ident(subscription);
            format!(
                "ALTER SUBSCRIPTION {subscription} DISABLE;\n\
                 ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE);\n\
                 DROP SUBSCRIPTION {subscription}"
            )
        });
        let sql = statements.collect::<Vec<_>>().join(";\n");
        self.admin.with_database(name).execute(&sql).await
    }
}
