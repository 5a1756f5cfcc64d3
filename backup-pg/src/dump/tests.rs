//! pg_dump against a real server: the good end, and every bad one.

use std::time::{Duration, Instant};

use backup_core::{DumpFilters, TableContents, TableData};
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::test_server::{TestServer, command_lines};
use crate::throwaway::Shutdown;

/// Larger than the pipe and all buffers: a dump of it is still running after its first chunk.
const BIG: &str = "create table public.big as
    select i, repeat(md5(i::text), 8) t from generate_series(1, 100000) i";

/// One table alone.
fn only(table: &str) -> DumpOptions {
    let filters = DumpFilters { tables: vec![table.to_owned()], ..DumpFilters::default() };
    DumpOptions { filters, ..DumpOptions::default() }
}

async fn dump(server: &TestServer, options: DumpOptions) -> Result<(Vec<u8>, Findings)> {
    let facts = server.facts(&server.connection("postgres")).await;
    read(PgDump::new(&facts, options).open().await?).await
}

async fn read(mut stream: Box<dyn SourceStream>) -> Result<(Vec<u8>, Findings)> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        assert!(!chunk.is_empty());
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, stream.findings()))
}

/// The pg_dump processes that talk to this server.
fn running(server: &TestServer) -> Vec<(u32, String)> {
    let port = format!("port='{}'", server.server.port());
    command_lines("pg_dump").into_iter().filter(|(_, line)| line.contains(&port)).collect()
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

/// Ended and waited for: not even a zombie.
fn is_gone(id: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{id}")).exists()
}

fn rows(name: &str, data: TableData) -> TableContents {
    TableContents { schema: "public".to_owned(), name: name.to_owned(), data, digest: None }
}

fn without_digests(inventory: &Inventory) -> Vec<TableContents> {
    let tables = inventory.tables.iter().cloned();
    tables.map(|table| TableContents { digest: None, ..table }).collect()
}

#[tokio::test]
async fn a_whole_dump_counts_its_rows_and_filters_are_told() {
    let server = TestServer::start();
    server.execute("postgres", BIG).await;
    let more = "create table public.small(i int); insert into public.small values (1), (2);
        create schema other; create table other.one(i int);
        create table public.a(i int); create table public.b(i int);
        select lo_from_bytea(0, 'abc')";
    server.execute("postgres", more).await;

    let (bytes, findings) = dump(&server, DumpOptions::default()).await.unwrap();
    assert!(bytes.len() > 25_000_000 && bytes.starts_with(b"PGDMP"));
    let tables = without_digests(&findings.inventory);
    assert!(tables.contains(&rows("big", TableData::Complete { rows: 100_000 })));
    assert!(tables.contains(&rows("small", TableData::Complete { rows: 2 })));
    assert_eq!(findings.inventory.large_objects, Some(1));
    assert!(findings.archive_version.unwrap().starts_with("1.1"));
    assert_eq!(findings.notes, [""; 0]);

    let options = DumpOptions {
        filters: DumpFilters {
            schemas: vec!["public".to_owned()],
            exclude_tables: vec!["public.a".to_owned(), "public.b".to_owned()],
            exclude_table_data: vec!["public.big".to_owned()],
            large_objects: Some(false),
            ..DumpFilters::default()
        },
        ..DumpOptions::default()
    };
    assert!(!options.is_complete());
    let (_, findings) = dump(&server, options).await.unwrap();
    let small = rows("small", TableData::Complete { rows: 2 });
    let tables = without_digests(&findings.inventory);
    assert_eq!(tables, [rows("big", TableData::Excluded), small]);
    assert_eq!(findings.inventory.large_objects, Some(0));

    let error = dump(&server, only("public.smal")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.message().contains("public.smal"), "{error}");
}

#[tokio::test]
async fn while_it_runs_no_secret_is_to_be_seen_and_dropping_it_ends_it() {
    let server = TestServer::start();
    server.execute("postgres", BIG).await;
    let facts = server.facts(&server.connection("postgres")).await;
    let source = PgDump::new(&facts, DumpOptions::default());
    assert!(!format!("{source:?}").contains("Zq7"));
    let mut stream = source.open().await.unwrap();
    stream.next_chunk().await.unwrap().unwrap();

    let seen = running(&server);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].1.contains(
        "--format=custom --compress=0 --no-password --encoding=UTF8 --lock-wait-timeout=60000"
    ));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        // The part of the password that no quoting changes.
        assert!(!line.contains("Zq7"), "{line}");
    }
    drop(stream);
    assert!(is_gone(seen[0].0));
}

#[tokio::test]
async fn a_dump_that_was_cut_off_never_ends_well() {
    let mut server = TestServer::start();
    server.execute("postgres", BIG).await;
    let facts = server.facts(&server.connection("postgres")).await;
    let start = async |options: DumpOptions| {
        let mut stream = PgDump::new(&facts, options).open().await.unwrap();
        stream.next_chunk().await.unwrap().unwrap();
        stream
    };

    // Killed.
    let stream = start(DumpOptions::default()).await;
    signal(running(&server)[0].0, Signal::KILL);
    let error = read(stream).await.unwrap_err();
    assert_eq!(error.to_string(), "pg_dump: was ended by signal 9 before it was done");

    // Stuck.
    let patience = Duration::from_millis(700);
    let stalled = DumpOptions { stall_timeout: patience, ..DumpOptions::default() };
    let stream = start(stalled).await;
    let stuck = running(&server)[0].0;
    signal(stuck, Signal::STOP);
    let error = read(stream).await.unwrap_err();
    assert!(error.message().starts_with("sent nothing for"), "{error}");
    assert!(is_gone(stuck), "a stuck child is killed all the same");

    // Its session ended by an administrator.
    let stream = start(DumpOptions::default()).await;
    let terminate =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pg_dump'";
    server.execute("postgres", terminate).await;
    let error = read(stream).await.unwrap_err();
    // Which of the two reaches pg_dump depends on what it was reading.
    let told = ["the server was stopped, or", "the server or the network broke"];
    assert!(told.iter().any(|text| error.message().starts_with(text)), "{error:?}");

    // The server gone.
    let stream = start(DumpOptions::default()).await;
    server.server.shut_down(Shutdown::Immediate).unwrap();
    let error = read(stream).await.unwrap_err();
    assert!(error.message().contains("server"), "{error:?}");
    assert!(error.advice().is_some());
    assert_eq!(running(&server), []);
}

#[tokio::test]
async fn a_dump_that_may_not_says_what_it_needs() {
    let server = TestServer::start();
    let sql = "create table public.t(i int); create table public.guarded(i int);
        create role reader login password 'reader-password';
        create role owner; grant select on public.guarded to reader;
        alter table public.guarded enable row level security;
        alter table public.guarded owner to owner";
    server.execute("postgres", sql).await;
    let reader = server.connection_as("reader", "reader-password", "postgres");
    let facts = server.facts(&reader).await;
    let as_reader = async |options: DumpOptions| {
        read(PgDump::new(&facts, options).open().await.unwrap()).await.unwrap_err()
    };
    let error = as_reader(DumpOptions::default()).await;
    assert_eq!(error.to_string(), "pg_dump: permission denied for table t");
    assert!(error.advice().unwrap().contains("GRANT pg_read_all_data"));

    let error = as_reader(only("public.guarded")).await;
    assert!(error.message().starts_with("row-level security would hide rows"), "{error:?}");

    // Somebody holds a table.
    let holder = server.psql("postgres").await;
    let holding = tokio::spawn(async move {
        holder.execute("begin; lock table public.t; select pg_sleep(60)").await
    });
    let psql = server.psql("postgres").await;
    let locked = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and relation = 'public.t'::regclass";
    while psql.query_text(locked).await.unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = Instant::now();
    let impatient =
        DumpOptions { lock_wait_timeout: Duration::from_millis(400), ..DumpOptions::default() };
    let error = dump(&server, impatient).await.unwrap_err();
    assert!(error.message().starts_with("another session kept a table locked"), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    holding.abort();
}

#[test]
fn notes_hold_no_names() {
    assert_eq!(notes(""), [""; 0]);
    let warned = "pg_dump: warning: something about \"claims\"\nWARNING:  database \"x\" has a collation version mismatch\nDETAIL:  y\n";
    let notes = notes(warned);
    assert_eq!(notes.len(), 2);
    assert!(notes.iter().all(|note| !note.contains("claims") && !note.contains("\"x\"")));
}

/// The inventory of a dump, by a login whose settings are these, comparable with `like`.
async fn inventory(server: &TestServer, set: &str, like: Option<&Inventory>) -> Inventory {
    server.execute("postgres", &format!("alter role postgres reset all; {set}")).await;
    let facts = server.facts(&server.connection("postgres")).await;
    let mut dump = PgDump::new(&facts, DumpOptions::default());
    if let Some(like) = like {
        dump = dump.comparable_with(like).unwrap();
    }
    read(dump.open().await.unwrap()).await.unwrap().1.inventory
}

#[tokio::test]
async fn digests_depend_on_the_rows_and_on_nothing_else() {
    let server = TestServer::start();
    let sql = "create table public.t (id int, at timestamptz, data bytea, f float8, n text);
        insert into public.t select i, '2026-01-01 00:00+00'::timestamptz + i * interval '1 h',
            decode(md5(i::text), 'hex'), i / 7.0, 'a' from generate_series(1, 1000) i;
        create table public.other (i int); insert into public.other values (1), (1), (2);
        select lo_from_bytea(4711, 'abc'), lo_from_bytea(4712, 'def')";
    server.execute("postgres", sql).await;
    let escape = "alter role postgres set bytea_output = escape;
        alter role postgres set timezone = 'Asia/Kathmandu'; alter role postgres set datestyle = 'German'";
    let first = inventory(&server, escape, None).await;
    let settings = &first.row_digests.as_ref().unwrap().settings;
    assert_eq!(settings["bytea_output"], "escape");
    assert!(first.tables.iter().all(|table| table.digest.as_ref().unwrap().len() == 64));

    let same = inventory(&server, "select 1", Some(&first)).await;
    assert!(first.comparable_digests(&same) && first.same_tables(&same));
    assert_eq!(first, same);
    let own_key = inventory(&server, escape, None).await;
    assert_ne!(own_key.tables[0].digest, first.tables[0].digest);
    assert!(!first.comparable_digests(&own_key) && first.same_tables(&own_key));

    let order = "update public.t set id = id where id % 3 = 0; cluster public.t using by_id";
    server.execute("postgres", "create index by_id on public.t (n, id desc)").await;
    server.execute("postgres", order).await;
    let moved = inventory(&server, "drop index public.by_id", Some(&first)).await;
    assert!(first.same_tables(&moved));

    let pairs = "delete from public.other where i = 1; insert into public.other values (3), (3)";
    for change in [
        "update public.t set n = 'b' where id = 500",
        "update public.t set f = f + 1e-13 where id = 7",
        pairs,
        "select lo_put(4712, 1, 'x')",
    ] {
        let before = inventory(&server, "select 1", Some(&first)).await;
        server.execute("postgres", change).await;
        let after = inventory(&server, "select 1", Some(&first)).await;
        assert!(!before.same_tables(&after), "{change}");
        assert_eq!(before.large_objects, after.large_objects);
        let rows = |found: &Inventory| {
            found.tables.iter().map(|table| table.data.clone()).collect::<Vec<_>>()
        };
        assert_eq!(rows(&before), rows(&after));
    }
}
