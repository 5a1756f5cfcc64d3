//! A hostile database goes through the swap, within a version and to the next one.

use backup_testkit::postgres::{PostgresServer, client_tools};

use crate::hostile::{HOSTILE, assert_same, dump_text, globals_text, sql_file};
use crate::support::{Scratch, target_file};

/// Names of all tables with their rows, as both versions count them.
const ROWS: &str = "
select string_agg(format('%s %s', oid::regclass, (xpath('/row/n/text()', query_to_xml(
    format('select count(*) as n from %s', oid::regclass), false, true, '')))[1]), ' ' order by oid::regclass::text)
from pg_class where relkind = 'r' and relnamespace::regnamespace::text !~ '^pg_|information_schema'";

/// Restores on a server that has an older state of the database live.
async fn through_the_swap(from: u32, to: u32) {
    let origin = PostgresServer::start(from).await.unwrap();
    let target = PostgresServer::start(to).await.unwrap();
    // Some packages of 17 come without ICU: what uses it can't be restored there by anybody.
    let icu = "SELECT count(*) > 0 FROM pg_collation WHERE collname = 'en-x-icu'";
    let has_icu = target.sql("postgres", icu).await.unwrap() == "t";
    let without_icu = if has_icu { "without_icu=0" } else { "without_icu=1" };
    let variables = [format!("db={HOSTILE}"), without_icu.to_owned()];
    origin.load("postgres", &sql_file(), &variables.each_ref().map(String::as_str)).await.unwrap();
    let scratch = Scratch::of(&origin, HOSTILE);
    scratch.run(&["backup"]).await.expect(0);
    let to_url = target_file(&scratch, &target, HOSTILE);
    scratch.run(&["restore", "latest", "--to", &to_url]).await.expect(0);
    target.sql(HOSTILE, "CREATE TABLE public.only_here (n int)").await.unwrap();

    // From here on the job's database is the one on the target.
    scratch.write("url", &target.url(HOSTILE));
    let run = scratch.run(&["restore", "latest", "--json", "-v"]).await.expect(0);
    println!("{}", run.stderr);
    let gone = "SELECT to_regclass('public.only_here') IS NULL";
    assert_eq!(target.sql(HOSTILE, gone).await.unwrap(), "t");
    assert_eq!(target.sql(HOSTILE, ROWS).await.unwrap(), origin.sql(HOSTILE, ROWS).await.unwrap());
    if from == to {
        let tools = client_tools(from).or_else(|| client_tools(18)).unwrap();
        let (before, after) =
            (dump_text(&origin, &tools, HOSTILE), dump_text(&target, &tools, HOSTILE));
        assert_same(&before, &after, "the pg_dump texts");
        assert_same(&globals_text(&origin, &tools), &globals_text(&target, &tools), "the globals");
    }
    scratch.run(&["restore", "--rollback"]).await.expect(0);
    assert_eq!(target.sql(HOSTILE, gone).await.unwrap(), "f");
}

#[tokio::test]
async fn within_14() {
    through_the_swap(14, 14).await;
}

#[tokio::test]
async fn within_15() {
    through_the_swap(15, 15).await;
}

#[tokio::test]
async fn within_16() {
    through_the_swap(16, 16).await;
}

#[tokio::test]
async fn within_17() {
    through_the_swap(17, 17).await;
}

#[tokio::test]
async fn within_18() {
    through_the_swap(18, 18).await;
}

#[tokio::test]
async fn from_14_to_15() {
    through_the_swap(14, 15).await;
}

#[tokio::test]
async fn from_15_to_16() {
    through_the_swap(15, 16).await;
}

#[tokio::test]
async fn from_16_to_17() {
    through_the_swap(16, 17).await;
}

#[tokio::test]
async fn from_17_to_18() {
    through_the_swap(17, 18).await;
}
