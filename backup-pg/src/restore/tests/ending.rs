//! The last part of a restore: what is missing is found, and it can be stopped.

use std::time::Instant;

use backup_core::TableData;
use backup_core::pipeline::Cancel;

use super::super::compare::{Expectations, Witness, compare};
use super::*;
use crate::archive::ArchiveSummary;

/// How long a stopped commit may take until nothing is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// With everything that the archive holds.
async fn compare_all(
    psql: &Psql,
    summary: &ArchiveSummary,
    limit: Duration,
    report: &mut RestoreReport,
) -> Result<()> {
    let expected = Expectations::of(summary, summary.toc(), &BTreeMap::new(), report);
    compare(Witness::Outside(psql.with_timeout(limit)), &expected, report).await
}

async fn compared(bench: &Bench, archive: &[u8]) -> (Result<()>, RestoreReport) {
    let mut report = RestoreReport::default();
    let (psql, summary) = (bench.psql("fx").await, finish(archive));
    let outcome = compare_all(&psql, &summary, Duration::from_secs(60), &mut report).await;
    (outcome, report)
}

#[tokio::test]
async fn a_table_or_schema_that_is_missing_is_damage() {
    let bench = Bench::start().await;
    let own = "CREATE SCHEMA own; CREATE TABLE own.a (i int); CREATE TABLE b (i int);
        CREATE TABLE parts (i int) PARTITION BY LIST (i)";
    bench.sql("fx", own).await;
    let archive = bench.dump().await.concat();
    let (outcome, report) = compared(&bench, &archive).await;
    outcome.unwrap();
    assert_eq!(report.tables_compared, 11);
    for (lost, label) in [
        ("DROP TABLE b", "public.b"),
        ("DROP TABLE parts", "public.parts"),
        ("DROP SCHEMA own CASCADE", "own.a"),
    ] {
        bench.sql("fx", lost).await;
        let (outcome, report) = compared(&bench, &archive).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{lost}: {error}");
        assert!(error.message().contains(&format!("the table {label} is missing")), "{error}");
        assert!(!report.not_compared.iter().any(|note| note.contains(label)), "{report:?}");
    }
}

/// Only what this role may not see is a note, and every such table is named.
#[tokio::test]
async fn what_may_not_be_read_is_named_and_what_cannot_be_read_is_an_error() {
    let bench = Bench::start().await;
    let own = "CREATE ROLE reads_some LOGIN; CREATE SCHEMA shut; CREATE TABLE shut.a (i int);
        CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO reads_some;
        CREATE TABLE own.closed (i int); CREATE TABLE own.filtered (i int);
        CREATE TABLE own.readable (i int); INSERT INTO own.readable VALUES (1), (2);
        ALTER TABLE own.filtered ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON own.filtered, own.readable TO reads_some";
    bench.sql("fx", own).await;
    let archive = bench.dump().await.concat();
    let connection = bench.connection("fx").with_public("user", "reads_some");
    let psql = Psql::new(&bench.search.newest().await.unwrap(), &connection);
    let mut report = RestoreReport::default();
    let summary = finish(&archive);
    compare_all(&psql, &summary, Duration::from_secs(60), &mut report).await.unwrap();
    assert!(report.tables_compared >= 1 && report.rows_compared >= 2, "{report:?}");
    for (label, why) in [
        ("shut.a", "may not read"),
        ("own.closed", "may not read"),
        ("own.filtered", "row-level security"),
    ] {
        let told =
            report.not_compared.iter().filter(|note| note.starts_with(&format!("{label}: ")));
        assert_eq!(told.filter(|note| note.contains(why)).count(), 1, "{label} {report:?}");
    }
    let whole =
        summary.inventory().tables.iter().filter(|t| t.data != TableData::Partitioned).count();
    assert_eq!(report.tables_compared as usize + report.not_compared.len(), whole, "{report:?}");

    // Somebody holds a table: that is neither a difference nor something to pass over.
    let holder = bench.psql("fx").await;
    let hold = "BEGIN; LOCK TABLE own.readable; select pg_sleep(60)";
    let holding = tokio::spawn(async move { holder.execute(hold).await });
    let locked = "select count(*) from pg_locks where mode = 'AccessExclusiveLock'
        and relation = 'own.readable'::regclass";
    while bench.sql("fx", locked).await == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut report = RestoreReport::default();
    let psql = bench.psql("fx").await;
    let outcome = compare_all(&psql, &summary, Duration::from_secs(1), &mut report).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Failed);
    holding.abort();
}

/// An index that takes an hour to build or to analyze, but not in the original.
async fn slow(bench: &Bench, when: &str) -> Vec<Bytes> {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION public.crawl(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        begin
            if pg_catalog.current_database() <> 'fx'
                and pg_catalog.current_query() ~ '{when}' then
                perform pg_catalog.pg_sleep(3600);
            end if;
            return i;
        end $$;
        CREATE TABLE IF NOT EXISTS crawling AS select 1 as i;
        CREATE INDEX IF NOT EXISTS crawls ON crawling (crawl(i))"
    );
    bench.sql("fx", &sql).await;
    bench.dump().await
}

async fn until_it_crawls(bench: &Bench) {
    let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let started = Instant::now();
    while bench.sql("postgres", sql).await == "0" {
        assert!(started.elapsed() < STOP_TIMEOUT, "nobody sleeps");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_commit_can_be_stopped_and_leaves_nothing() {
    let bench = Bench::start().await;
    bench.sql("postgres", "CREATE DATABASE leer").await;
    for (when, database, stays) in [
        ("^CREATE INDEX", "fx2", false),
        ("^CREATE INDEX", "leer", false),
        ("^ANALYZE", "fx2", false),
        ("^ANALYZE", "leer", true),
    ] {
        let archive = slow(&bench, when).await;
        let cancel = Cancel::default();
        let restore =
            bench.restore(database, RestoreOptions::default()).with_cancel(cancel.clone());
        let writer = write(&restore, &archive).await.unwrap();
        let commit = tokio::spawn(writer.commit());
        until_it_crawls(&bench).await;
        cancel.interrupt("stopped by SIGINT");
        let outcome = tokio::time::timeout(STOP_TIMEOUT, commit).await;
        let error = outcome.expect("the commit goes on").unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{when} {database}");
        assert_eq!(error.message(), "stopped by SIGINT");
        assert_eq!(error.advice().unwrap().contains("do not use the database leer"), stays);
        assert_eq!(children(&bench), [""; 0]);
        assert_eq!(bench.databases().await, "fx leer", "{when} {database}");
        let tables = "select count(*) > 0 from pg_class where relname = 'claims'";
        assert_eq!(bench.sql("leer", tables).await == "t", stays, "{when} {database}");
        assert!(restore.report().is_none());
        let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        assert_eq!(bench.sql("postgres", sleeping).await, "0", "the server works on");
    }
}

/// With a limit of its own the commit ends before [`COMMIT_TIMEOUT`]'s share of it is over.
#[tokio::test]
async fn a_commit_that_takes_too_long_cleans_up_before_the_outer_limit() {
    let bench = Bench::start().await;
    let archive = slow(&bench, "^CREATE INDEX").await;
    let timeout = Duration::from_secs(2);
    let restore = bench.restore("fx2", RestoreOptions { timeout, ..Default::default() });
    let writer = write(&restore, &archive).await.unwrap();
    let outer = timeout * 2 + STOP_TIMEOUT;
    let outcome = tokio::time::timeout(outer, writer.commit()).await.expect("dropped from outside");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(bench.databases().await, "fx");
    assert!(crate::COMMIT_TIMEOUT >= RESTORE_TIMEOUT * 2 + Duration::from_secs(60 * 60));
}

/// The server has made the database, and its word does not arrive: here because it waits for a
/// standby that does not exist.
#[tokio::test]
async fn a_stop_while_the_database_is_made_leaves_none() {
    let bench = Bench::start().await;
    let archive = bench.dump().await.concat();
    let summary = finish(&archive);
    let mut target = Target::find(&bench.connection("fx2"), &bench.search, false).await.unwrap();
    let reload = "select pg_reload_conf()";
    bench.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    bench.sql("postgres", reload).await;
    let map = TablespaceMap::default();
    let preparing = target.prepare(summary.toc(), &map, false, None);
    let stopped = tokio::time::timeout(Duration::from_secs(3), preparing).await;
    assert!(stopped.is_err(), "the database was made too soon: {stopped:?}");
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names").await;
        bench.sql("postgres", reload).await;
    };
    let (dropped, ()) = tokio::join!(target.drop_made(), later);
    dropped.unwrap();
    assert_eq!(bench.databases().await, "fx");
}

/// What a restore into `fx2` is for, when somebody else goes on with the database.
fn purpose() -> Purpose {
    let comment = Some(MARK.to_owned());
    Purpose { kind: "swap".into(), live: "fx".into(), run: None, comment }
}

const MARK: &str = "of whoever goes on";

async fn mark_of_fx2(bench: &Bench) -> String {
    let said =
        "select shobj_description(oid, 'pg_database') from pg_database where datname = 'fx2'";
    bench.sql("postgres", said).await
}

/// The archive's properties are set one by one then, and its comment is not.
#[tokio::test]
async fn a_property_that_can_not_be_set_does_not_cost_the_mark() {
    let bench = Bench::start().await;
    let gone = "CREATE ROLE gone; ALTER ROLE gone IN DATABASE fx SET work_mem = '1MB';
        COMMENT ON DATABASE fx IS 'mine'";
    bench.sql("postgres", gone).await;
    let archive = bench.dump().await;
    bench.sql("postgres", "DROP ROLE gone").await;
    let options = RestoreOptions { purpose: Some(purpose()), ..RestoreOptions::default() };
    let restore = bench.restore("fx2", options);
    write(&restore, &archive).await.unwrap().commit().await.unwrap();
    assert_eq!(restore.report().unwrap().notes.len(), 1);
    assert_eq!(mark_of_fx2(&bench).await, MARK);
}

/// The server has given the database its name, and its word does not arrive.
#[tokio::test]
async fn a_database_whose_naming_was_not_answered_has_its_name_and_mark() {
    let bench = Bench::start().await;
    let archive = bench.dump().await.concat();
    let mut target = Target::find(&bench.connection("fx2"), &bench.search, false).await.unwrap();
    let map = TablespaceMap::default();
    target.prepare(finish(&archive).toc(), &map, false, Some(&purpose())).await.unwrap();
    bench.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    bench.sql("postgres", "select pg_reload_conf()").await;
    let cutting = async {
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
        while bench.sql("postgres", cut).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (published, ()) = tokio::join!(target.publish(), cutting);
    assert_eq!(published.unwrap(), [""; 0]);
    assert_eq!(bench.databases().await, "fx fx2");
    assert_eq!(mark_of_fx2(&bench).await, MARK);
}

/// A database that the server refuses to make needs no dropping.
#[tokio::test]
async fn a_database_that_was_not_made_is_no_trouble() {
    let bench = Bench::start().await;
    bench.sql("postgres", "CREATE ROLE makes_none LOGIN").await;
    let archive = bench.dump().await.concat();
    let connection = bench.connection("fx2").with_public("user", "makes_none");
    let mut target = Target::find(&connection, &bench.search, false).await.unwrap();
    let map = TablespaceMap::default();
    let error = target.prepare(finish(&archive).toc(), &map, false, None).await.unwrap_err();
    assert!(error.message().contains("permission denied to create database"), "{error}");
    target.drop_made().await.unwrap();
    assert_eq!(bench.databases().await, "fx");
}
