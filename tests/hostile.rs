//! A hostile database, there and back: nothing may be lost, and nothing invented.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_testkit::postgres::{PostgresServer, client_tools};

use crate::support::{Scratch, target_file};

/// A name that a shell, a URL and SQL all treat specially.
pub const HOSTILE: &str = "hostile \"db\" 'x' ü";

/// What `pg_dump --create` says of a database, comparable with another dump's. Settings of roles
/// in the database come in the catalog's physical order, which means nothing: they are sorted.
pub fn dump_text(server: &PostgresServer, tools: &Path, database: &str) -> String {
    let url = server.url(database);
    let all = text(tools, "pg_dump", &["--create", "--restrict-key=x", "--dbname", &url]);
    let mut lines: Vec<&str> = all.lines().collect();
    for run in lines.chunk_by_mut(|a, b| is_role_setting(a) && is_role_setting(b)) {
        if is_role_setting(run[0]) {
            run.sort_unstable();
        }
    }
    lines.join("\n")
}

fn is_role_setting(line: &str) -> bool {
    line.starts_with("ALTER ROLE ") && line.contains(" IN DATABASE ")
}

/// Roles and memberships. The superuser of both servers exists already, and what exists is
/// never altered, its password least of all.
pub fn globals_text(server: &PostgresServer, tools: &Path) -> String {
    let url = server.url("postgres");
    let all = text(tools, "pg_dumpall", &["--globals-only", "--restrict-key=x", "--dbname", &url]);
    all.lines()
        .filter(|line| !line.starts_with("ALTER ROLE postgres "))
        .collect::<Vec<_>>()
        .join("\n")
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn text(tools: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(tools.join(program)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every setting of roles and databases, by name.
async fn settings(server: &PostgresServer, database: &str) -> String {
    let sql = "select coalesce(r.rolname, '-'), setconfig from pg_db_role_setting s \
               left join pg_roles r on r.oid = setrole join pg_database d on d.oid = setdatabase \
               where datname = current_database() order by 1";
    server.sql(database, sql).await.unwrap()
}

pub fn assert_same(before: &str, after: &str, what: &str) {
    if before == after {
        return;
    }
    let shown = |line: &str| line.chars().take(300).collect::<String>();
    let differing = before.lines().zip(after.lines()).find(|(a, b)| a != b);
    let differing = differing.map(|(a, b)| (shown(a), shown(b)));
    panic!(
        "{what} differ: {} lines before, {} after; first difference {differing:#?}",
        before.lines().count(),
        after.lines().count()
    );
}

pub fn sql_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/hostile.sql")
}

/// Backs up on one server, restores on an empty one: everything must be there.
async fn round_trip(from: u32, to: u32) {
    let origin = PostgresServer::start(from).await.unwrap();
    origin.load("postgres", &sql_file(), &[&format!("db={HOSTILE}")]).await.unwrap();

    let scratch = Scratch::of(&origin, HOSTILE);
    scratch.run(&["backup"]).await.expect(0);
    scratch.run(&["verify", "latest"]).await.expect(0);

    let target = PostgresServer::start(to).await.unwrap();
    let to_url = target_file(&scratch, &target, HOSTILE);
    for sessions in ["1", "2"] {
        scratch.run(&["restore", "latest", "--to", &to_url, "--jobs", sessions]).await.expect(0);
        if from == to {
            let tools = client_tools(from).or_else(|| client_tools(18)).unwrap();
            let (mut before, mut after) =
                (dump_text(&origin, &tools, HOSTILE), dump_text(&target, &tools, HOSTILE));
            if sessions == "2" {
                // The rows of a large table come in whatever order its sessions write them.
                (before, after) = (sorted(&before), sorted(&after));
            }
            assert_same(&before, &after, "the pg_dump texts");
            assert_same(
                &globals_text(&origin, &tools),
                &globals_text(&target, &tools),
                "the globals",
            );
        }
        assert_eq!(settings(&origin, HOSTILE).await, settings(&target, HOSTILE).await);
        let drop = format!("DROP DATABASE \"{}\"", HOSTILE.replace('"', "\"\""));
        target.sql("postgres", &drop).await.unwrap();
    }
}

#[tokio::test]
async fn a_hostile_database_round_trips_on_14() {
    round_trip(14, 14).await;
}

#[tokio::test]
async fn a_hostile_database_round_trips_on_15() {
    round_trip(15, 15).await;
}

/// The client is 17 there: its `SET transaction_timeout` must not fail the restore.
#[tokio::test]
async fn a_hostile_database_round_trips_on_16_with_a_newer_client() {
    round_trip(16, 16).await;
}

#[tokio::test]
async fn a_hostile_database_round_trips_on_18() {
    round_trip(18, 18).await;
}

#[tokio::test]
async fn a_hostile_database_moves_to_a_newer_server() {
    round_trip(14, 16).await;
}
