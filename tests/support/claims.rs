//! A database of claims: as large as a test wants, and known to the last row.

use backup_testkit::postgres::{PASSWORD, PostgresServer, SUPERUSER, client_tools};
use tokio::process::Command;
use tokio::time::{Duration, sleep};

use super::{Scratch, finish};

/// The database of [`claims_server`].
pub const CLAIMS: &str = "claims";

/// A server with the database [`CLAIMS`]: `rows` claims of 1 kB each, some payers, and what a
/// restore makes last (keys, an index).
pub async fn claims_server(major: u32, rows: u32) -> PostgresServer {
    claims_server_with(major, rows, &[]).await
}

/// The same, with settings of postgresql.conf.
pub async fn claims_server_with(
    major: u32,
    rows: u32,
    settings: &[(&str, &str)],
) -> PostgresServer {
    let server = PostgresServer::start_with(major, settings).await.unwrap();
    server.sql("postgres", &format!("CREATE DATABASE {CLAIMS}")).await.unwrap();
    server.sql(CLAIMS, &claims_sql(rows)).await.unwrap();
    server
}

/// Some 130 bytes of every row don't compress.
fn claims_sql(rows: u32) -> String {
    format!(
        "CREATE TABLE payers (id int PRIMARY KEY, name text NOT NULL);
         INSERT INTO payers SELECT n, 'payer ' || n FROM generate_series(0, 9) n;
         CREATE TABLE claims (id int PRIMARY KEY, payer int NOT NULL REFERENCES payers, note text);
         INSERT INTO claims SELECT n, n % 10, repeat(md5(n::text) || md5((n + 0.5)::text)
             || md5((n + 0.25)::text) || md5((n + 0.75)::text), 8) FROM generate_series(1, {rows}) n;
         CREATE INDEX ON claims (payer, id)"
    )
}

/// What tells one content of [`CLAIMS`] from any other.
pub async fn claims_digest(server: &PostgresServer, database: &str) -> String {
    let sql = "SELECT count(*), sum(hashtext(c::text)::bigint), (SELECT count(*) FROM payers),
               (SELECT count(*) FROM pg_constraint WHERE conrelid = 'claims'::regclass AND contype <> 'n')
               FROM claims c";
    server.sql(database, sql).await.unwrap()
}

/// Does something while another session holds the table `claims` locked.
pub async fn while_locked<T>(server: &PostgresServer, work: impl Future<Output = T>) -> T {
    let hold = "BEGIN; LOCK TABLE claims; SELECT pg_sleep(120)";
    let locked = "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                  AND relation = 'claims'::regclass";
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let working = async {
        while server.sql(CLAIMS, locked).await.unwrap() != "t" {
            sleep(Duration::from_millis(50)).await;
        }
        let done = work.await;
        server.sql("postgres", end).await.unwrap();
        done
    };
    tokio::join!(server.sql(CLAIMS, hold), working).1
}

/// Runs in the scratch's folder what the old scripts ran against [`CLAIMS`] on a server 15: the
/// script may say `$GPG`, which encrypts under the scratch's passphrase.
pub async fn run_old_script(server: &PostgresServer, scratch: &Scratch, script: &str) {
    let home = scratch.path("gnupg");
    std::fs::create_dir_all(&home).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&home, mode).unwrap();
    let script = format!(
        "set -euo pipefail; GPG='gpg --batch --quiet --pinentry-mode loopback \
         --passphrase-file {} --symmetric'; {script}\ngpgconf --kill all",
        scratch.path("key").display()
    );
    let mut command = Command::new("bash");
    let tools = client_tools(15).unwrap();
    command
        .args(["-c", &script])
        .current_dir(scratch.path(""))
        .env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()))
        .env("PGHOST", server.host())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGPASSWORD", PASSWORD)
        .env("PGDATABASE", CLAIMS)
        .env("GNUPGHOME", home);
    finish(command).await.expect(0);
}
