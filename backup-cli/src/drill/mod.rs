//! `drill`: a backup is restored for a try, and what comes back is compared with what went in.
//!
//! | step | file |
//! | --- | --- |
//! | a server of its own, or a new database on another | `place.rs` |
//! | the restore, and where its time goes | `watch.rs` |
//! | every table's rows, by number and by digest | `tables.rs` |
//! | the definition of every object | `schema.rs` |
//! | the user's own SQL | `checks.rs` |
//! | what is told of it, and what is kept beside the backup | `report.rs`, `proof.rs` |
//!
//! What can't be compared is said and never counts as equal.

mod checks;
mod place;
mod proof;
mod report;
mod run;
mod schema;
mod tables;
mod watch;

use std::time::Instant;

use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, Error, ErrorKind, Result};
use jiff::Timestamp;

pub use report::{
    BackupFacts, CheckOutcome, CheckResult, DrillReport, Outcome, PlaceFacts, Problem,
    SchemaDifference, SchemaResult, StoredProof, TableResult, Times, Verdict,
};

use crate::config::Value;
use crate::{Deployment, RestoreFrom, RestoreOptions, TOOL, wiring};
pub(crate) use place::PREFIX;
use place::Place;
use run::Run;

const STAGE: &str = "drill";

/// How a drill is done.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// The server, in place of the configured one: any database on it.
    pub server: Option<Value>,
    /// On such a server: create the roles that it lacks, restore owners and grants. A throwaway
    /// server always gets them.
    pub with_globals: bool,
    /// Go on though it is the very server that was backed up.
    pub same_server: bool,
    /// Go on though nothing proves who wrote the backup.
    pub accept_unsigned: bool,
}

impl Deployment {
    /// Restores a backup into a new database, compares it with the backup's contents, removes it
    /// again, and stores a proof beside every copy of the backup.
    ///
    /// # Errors
    /// When it could not begin (no such server, a backup that isn't ours, no key), or was
    /// interrupted. What went wrong from there on is in the report.
    pub async fn drill(
        &self,
        entry: &CatalogEntry,
        options: &DrillOptions,
        context: &Context,
    ) -> Result<DrillReport> {
        let began = Instant::now();
        let started = Timestamp::now();
        let on_server = options.server.is_some() || self.config().drill.server.is_some();
        let with_owners = !on_server || options.with_globals;
        let source = RestoreOptions {
            globals: with_owners,
            accept_unsigned: options.accept_unsigned,
            // What is opened does not depend on where it goes to.
            ..RestoreOptions::into_database(Value::Literal(String::new()))
        };
        let opening = self.open_source(RestoreFrom::Backup(entry), &source, context);
        let source = context.cancel.guard(opening).await?;
        let Some((reader, part, contents)) = source.backup() else {
            return Err(Error::failed(STAGE, "a backup was opened as a plain file"));
        };
        let other_version = context
            .cancel
            .guard(async { Ok(self.warn_of_other_version(reader.manifest(), context).await) });
        let other_version = other_version.await?;
        let origin = reader.origin(self.keys().await?.authenticate().as_deref()).await?;
        let place =
            Place::prepare(self, reader.manifest(), source.plain_bytes, options, context).await?;
        let mut report = blank_report(&place, started);
        report.backup = run::backup_facts(entry, part, contents, origin);
        report.notes.extend(other_version);
        report.times.prepare = began.elapsed();
        let mut run = Run {
            deployment: self,
            source: &source,
            inventory: contents.part(&part.name).map(|plain| &plain.inventory),
            place: &place,
            // Without the backup's roles nothing can belong to them.
            with_owners: with_owners && source.globals.is_some(),
            made: false,
            context,
        };
        let went = run.go(&mut report).await;
        let made = run.made;
        report.backup.read_from = reader.storage().name().to_owned();
        let cleaning = Instant::now();
        context.step("removing what the drill made");
        let cleaned = place.clean_up(made).await;
        report.times.clean_up = cleaning.elapsed();
        finish(&mut report, went, cleaned)?;
        report.finished = Timestamp::now().max(started);
        self.keep_proof(entry, &mut report, context).await;
        Ok(report)
    }
}

fn blank_report(place: &Place, started: Timestamp) -> DrillReport {
    DrillReport {
        verdict: Verdict::NotProven,
        problems: Vec::new(),
        backup: BackupFacts::default(),
        place: PlaceFacts {
            throwaway: place.is_throwaway(),
            server: place.server.name(),
            server_version: place.server.version().to_string(),
            database: place.scratch.clone(),
            pg_dump: place.server.tools().version().to_string(),
            ..PlaceFacts::default()
        },
        started,
        finished: started,
        tool: TOOL.to_owned(),
        host: wiring::host_name(),
        times: Times::default(),
        tables: Vec::new(),
        large_objects: None,
        schema: SchemaResult {
            not_compared: Some("it did not come to that".to_owned()),
            ..SchemaResult::default()
        },
        checks: Vec::new(),
        notes: Vec::new(),
        left_behind: None,
        proofs: Vec::new(),
    }
}

/// What came of it. An interrupted drill has no result, whatever it had found.
fn finish(report: &mut DrillReport, went: Result<()>, cleaned: Result<()>) -> Result<()> {
    if let Err(error) = went {
        if error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        report.problems.push(stopped(&error));
    }
    report.problems.extend(run::problems(report));
    report.problems.sort_by_key(|problem| !problem.is_failure);
    report.verdict = match report.problems.first() {
        None => Verdict::Passed,
        Some(worst) if worst.is_failure => Verdict::Failed,
        Some(_) => Verdict::NotProven,
    };
    if let Err(error) = cleaned {
        // The result stands, and somebody has to remove what is left.
        let advice = error.advice().map(|advice| format!(": {advice}")).unwrap_or_default();
        report.left_behind = Some(format!("{error}{advice}"));
    }
    Ok(())
}

/// Damage is a difference; everything else only kept the drill from its end.
fn stopped(error: &Error) -> Problem {
    let is_failure = error.kind() == ErrorKind::Damaged;
    let mut text = error.to_string();
    for cause in error.causes() {
        if !text.contains(&cause) {
            text.push_str(&format!(" ({cause})"));
        }
    }
    let public = match is_failure {
        true => "the backup is damaged, or what came back is not what was backed up",
        false => "the drill could not be brought to its end",
    };
    Problem {
        is_failure,
        text,
        public: public.to_owned(),
        next_step: error.advice().map(str::to_owned),
    }
}
