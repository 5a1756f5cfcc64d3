//! The middle of a drill: restore, read again, compare, check. And what is wrong, in words.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use backup_core::pipeline::Context;
use backup_core::{CatalogEntry, Contents, Error, Inventory, Origin, Part, Result};
use backup_core::{ErrorKind, SourceStream as _};
use backup_pg::sql::quote_literal;
use backup_pg::{
    Connection, DumpOptions, PgDump, PgRestore, RestoreOptions, Server, TablespaceMap, Toc,
    Version, with_recorded_settings,
};

use super::place::Place;
use super::report::{
    BackupFacts, CheckOutcome, CheckResult, DrillReport, Outcome, Problem, SchemaDifference,
    SchemaResult, TableResult,
};
use super::tables::Comparison;
use super::watch::{Seen, Watched};
use super::{STAGE, checks, schema};
use crate::Deployment;
use crate::opened_source::OpenedSource;

/// The setting that decides how amounts of money are written and read.
const MONEY: &str = "lc_monetary";

/// One drill under way.
pub(super) struct Run<'a> {
    pub deployment: &'a Deployment,
    pub source: &'a OpenedSource,
    /// What the backup's contents tell of the database.
    pub inventory: Option<&'a Inventory>,
    pub place: &'a Place,
    pub with_owners: bool,
    /// Whether the database is there by our doing.
    pub made: bool,
    pub context: &'a Context,
}

impl Run<'_> {
    /// Restores and compares; what it finds goes into `report`.
    ///
    /// # Errors
    /// What kept it from going on.
    pub async fn go(&mut self, report: &mut DrillReport) -> Result<()> {
        let recorded = self.recorded(report).await?;
        let settings = recorded.row_digests.as_ref().map(|digests| digests.settings.clone());
        let settings = settings.unwrap_or_default();
        let connection = with_recorded_settings(&self.place.connection(), &settings);
        let archive = self.restore(&connection, report).await?;
        let comparing = Instant::now();
        self.context.step("reading the restored database");
        let search = self.deployment.tool_search();
        let scratch = self.place.connection();
        let connecting = Server::connect(&scratch, &search);
        let server = self.context.cancel.guard(connecting).await?;
        let (found, restored) = self.read_again(&server, &recorded).await?;
        self.context.step("comparing");
        let versions = Versions::of(report);
        let comparison = Comparison {
            recorded: &recorded,
            found: &found,
            archive: &archive,
            restored: &restored,
            no_digests: versions.no_digests(&recorded, &found),
        };
        report.tables = comparison.tables();
        report.large_objects = comparison.large_objects();
        report.schema = match versions.no_schema() {
            None => schema::compare(&archive, &restored, self.with_owners),
            Some(why) => {
                let not_compared = Some(why);
                SchemaResult { not_compared, ..SchemaResult::default() }
            }
        };
        report.times.compare = comparing.elapsed();
        self.check(&server, report).await
    }

    /// The contents of the backup; without a setting that this server cannot have.
    async fn recorded(&self, report: &mut DrillReport) -> Result<Inventory> {
        let Some(recorded) = self.inventory else {
            return Err(Error::new(
                ErrorKind::Unchecked,
                STAGE,
                "the backup's contents do not tell what is in the database",
            ));
        };
        let mut recorded = recorded.clone();
        let Some(digests) = &mut recorded.row_digests else { return Ok(recorded) };
        let Some(locale) = digests.settings.get(MONEY) else { return Ok(recorded) };
        let psql = self.place.server.psql();
        let ask = format!("select set_config('{MONEY}', {}, false)", quote_literal(locale));
        if let Err(error) = self.context.cancel.guard(psql.query_text(&ask)).await {
            if error.kind() == ErrorKind::Interrupted {
                return Err(error);
            }
            report.notes.push(format!(
                "the drill's server has no locale {locale:?}: columns of type money would come back wrong or not at all"
            ));
            digests.settings.remove(MONEY);
        }
        Ok(recorded)
    }

    async fn restore(&mut self, to: &Connection, report: &mut DrillReport) -> Result<Toc> {
        self.context.step("restoring");
        let options = RestoreOptions {
            globals: self.source.globals.clone().filter(|_| self.with_owners),
            tablespaces: TablespaceMap { ignore: true, renamed: BTreeMap::new() },
            no_owners: !self.with_owners,
            without_subscriptions: true,
            expected_bytes: self.source.plain_bytes,
            purpose: Some(self.place.purpose()),
            ..RestoreOptions::default()
        };
        self.make_what_the_archive_does_not().await?;
        let restore = PgRestore::new(to.clone(), self.deployment.tool_search(), options)
            .with_cancel(self.context.cancel.clone());
        let watched = Watched::new(restore.clone());
        let restoring = Instant::now();
        let went = self.source.read_into(Arc::new(watched.clone()), self.context).await;
        let Seen { toc, waiting, loading, finishing } = watched.take();
        report.times.restore = restoring.elapsed();
        (report.times.waiting, report.times.loading) = (waiting, loading);
        report.times.finishing = finishing;
        if let Some(done) = restore.report() {
            self.made |= done.created;
            report.place.pg_restore = done.pg_restore;
            report.place.roles_created = done.created_roles;
            report.notes.extend(done.notes);
            if !self.place.is_throwaway() && !report.place.roles_created.is_empty() {
                report.notes.push("the roles that were made for it stay on the server".to_owned());
            }
        }
        report.place.with_owners = self.with_owners;
        went?;
        if !self.made {
            return Err(Error::failed(
                STAGE,
                "the database was there before: nothing in it is touched",
            ));
        }
        report.restored = true;
        // Whatever the restore took: from here on it is as young as any.
        self.place.mark().await?;
        toc.ok_or_else(|| Error::failed(STAGE, "the restore ended without a table of contents"))
    }

    /// A dump of some schemas or tables does not tell how its database is made.
    async fn make_what_the_archive_does_not(&mut self) -> Result<()> {
        if self.inventory.is_none_or(|inventory| inventory.database.is_some()) {
            return Ok(());
        }
        let name = backup_pg::sql::quote_ident(&self.place.scratch);
        let make = format!("create database {name} template template0");
        let psql = self.place.server.psql();
        let making = self.context.cancel.guard(psql.execute(&make)).await;
        // After a stop nobody knows whether it came into being; after an error it did not.
        let unknown = making.as_ref().is_err_and(|e| e.kind() == ErrorKind::Interrupted);
        self.made = making.is_ok() || unknown;
        making?;
        self.place.mark().await
    }

    async fn read_again(&self, server: &Server, recorded: &Inventory) -> Result<(Inventory, Toc)> {
        let dump = PgDump::new(server, DumpOptions::default()).comparable_with(recorded)?;
        let reading = async {
            let mut stream = dump.begin().await?;
            while stream.next_chunk().await?.is_some() {}
            let inventory = stream.findings().inventory;
            let missing = || Error::failed(STAGE, "the restored database could not be read again");
            stream.take_toc().map(|toc| (inventory, toc)).ok_or_else(missing)
        };
        self.context.cancel.guard(reading).await
    }

    async fn check(&self, server: &Server, report: &mut DrillReport) -> Result<()> {
        let config = &self.deployment.config().drill;
        if config.checks.is_empty() {
            return Ok(());
        }
        self.context.step("running the checks");
        let checking = Instant::now();
        let limit = config.check_timeout.unwrap_or(checks::CHECK_TIMEOUT);
        report.checks = checks::run(&server.psql(), &config.checks, limit, self.context).await?;
        report.times.checks = checking.elapsed();
        Ok(())
    }
}

/// Major versions, then and now.
struct Versions {
    server: (u32, u32),
    pg_dump: (u32, u32),
}

impl Versions {
    fn of(report: &DrillReport) -> Self {
        let major = |text: &str| Version::parse(text).map_or(0, |version| version.major);
        let was = |text: &Option<String>| text.as_deref().map_or(0, major);
        let (backup, place) = (&report.backup, &report.place);
        Self {
            server: (was(&backup.server_version), major(&place.server_version)),
            pg_dump: (was(&backup.pg_dump), major(&place.pg_dump)),
        }
    }

    /// Values are written in the same way by servers of one major version.
    fn no_digests(&self, recorded: &Inventory, found: &Inventory) -> Option<String> {
        if recorded.row_digests.is_none() {
            return Some("the backup was made without digests of its rows".to_owned());
        }
        let (was, is) = self.server;
        if was != is {
            return Some(format!("the backup is of PostgreSQL {was}, this server is {is}"));
        }
        (!recorded.comparable_digests(found)).then(|| "the digests have another key".to_owned())
    }

    /// Definitions are, when pg_dump is of one major version, too.
    fn no_schema(&self) -> Option<String> {
        let differs = |(was, is): (u32, u32), what: &str| {
            (was != is).then(|| format!("the backup is of {what} {was}, the drill used {is}"))
        };
        differs(self.server, "PostgreSQL").or_else(|| differs(self.pg_dump, "pg_dump"))
    }
}

/// What was restored, for the report.
pub(super) fn backup_facts(
    entry: &CatalogEntry,
    part: &Part,
    contents: &Contents,
    origin: Origin,
) -> BackupFacts {
    let manifest = &entry.manifest;
    let origin = match origin {
        Origin::Proven => "signed with a key of ours",
        Origin::Unsigned => "not signed",
        Origin::NoKey => "signed by an unknown key",
    };
    BackupFacts {
        id: manifest.id.clone(),
        job: manifest.job.clone(),
        database: manifest.source.database.clone(),
        server: manifest.source.server.clone(),
        server_version: manifest.postgres.as_ref().map(|postgres| postgres.server.clone()),
        pg_dump: manifest.postgres.as_ref().map(|postgres| postgres.pg_dump.clone()),
        app_version: manifest.app_version.clone(),
        started: Some(manifest.started),
        finished: Some(manifest.finished),
        tool: manifest.tool.clone(),
        stored_bytes: part.bytes,
        plain_bytes: contents.part(&part.name).map_or(0, |plain| plain.bytes),
        sha256: part.sha256.clone(),
        origin: origin.to_owned(),
        read_from: String::new(),
        stored_in: entry.copies.iter().map(|copy| copy.storage.clone()).collect(),
    }
}

/// What keeps a drill from passing, by what was compared.
pub(super) fn problems(report: &DrillReport) -> Vec<Problem> {
    let tables = report.tables.iter().chain(&report.large_objects).filter(|t| t.differs());
    let mut problems: Vec<Problem> = tables.map(of_table).collect();
    problems.extend(report.schema.differences.iter().map(of_definition));
    problems.extend(report.checks.iter().filter_map(of_check));
    problems
}

fn failure(text: String, public: &str) -> Problem {
    Problem { is_failure: true, text, public: public.to_owned(), next_step: None }
}

fn of_table(table: &TableResult) -> Problem {
    let label = table.label();
    let text = match (&table.count, table.rows, table.restored_rows) {
        (Outcome::Differs, Some(was), Some(is)) => {
            format!("{label} has {is} rows, the backup {was}")
        }
        (Outcome::Differs, None, Some(_)) => format!("{label} is there, and not in the backup"),
        (Outcome::Differs, _, None) => format!("{label} is missing"),
        _ => format!("{label} has as many rows as in the backup, but not the same ones"),
    };
    failure(text, "a table's rows are not those of the backup")
}

fn of_definition(difference: &SchemaDifference) -> Problem {
    let how = match (&difference.backup, &difference.restored) {
        (_, None) => "is missing",
        (None, _) => "is there, and not in the backup",
        _ => "is defined in another way than in the backup",
    };
    let public = "an object's definition is not that of the backup";
    failure(format!("{} {how}", difference.object), public)
}

fn of_check(check: &CheckResult) -> Option<Problem> {
    let sql = &check.sql;
    match &check.outcome {
        CheckOutcome::Passed | CheckOutcome::NotRun => None,
        CheckOutcome::Failed(answer) => {
            let text = format!("the check `{sql}` gave {answer}");
            Some(failure(text, "a check of the user's is not true"))
        }
        CheckOutcome::Error(error) => Some(Problem {
            is_failure: false,
            text: format!("the check `{sql}` could not be run: {error}"),
            public: "a check of the user's could not be run".to_owned(),
            next_step: Some("correct it under [drill] in the config".to_owned()),
        }),
    }
}
