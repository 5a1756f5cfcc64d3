//! A server with an old database under a nasty name and a new one beside it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backup_core::pipeline::Cancel;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::sql::{quote_ident, quote_literal};
use crate::swap::{Names, Swap, SwapLimits, SwapOrder, SwapState};
use crate::test_server::{bin_dir, search};
use crate::throwaway::{ThrowawayOptions, ThrowawayServer};
use crate::{Connection, Psql};

/// The live database's name: everything that has to be quoted.
pub(super) const LIVE: &str = "li\"ve 'é' \\x :y";
pub(super) const PASSWORD: &str = "pw'Zq7 \\x@/%";
/// A role that owns the databases, may make some, and may end other sessions.
pub(super) const KEEPER: &str = "keep\"er";

pub(super) struct Rig {
    pub server: ThrowawayServer,
    pub admin: Psql,
    _folder: TempDir,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_with(bin_dir(), &[]).await
    }

    pub async fn start_with(programs: PathBuf, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = ThrowawayOptions {
            tcp: true,
            password: Some(PASSWORD.into()),
            locale: "C.UTF-8".into(),
            settings: settings.iter().map(owned).collect(),
        };
        let server = ThrowawayServer::start(&programs, &folder.path().join("pg"), &options);
        let server = server.unwrap();
        let tools = search().newest().await.unwrap();
        let admin = Psql::new(&tools, &connection(server.port(), "postgres", "postgres"));
        let rig = Self { server, admin, _folder: folder };
        let keeper = quote_ident(KEEPER);
        rig.execute(&format!(
            "create role {keeper} login createdb password {};
             grant pg_signal_backend to {keeper};
             create role app login password {}",
            quote_literal(PASSWORD),
            quote_literal(PASSWORD)
        ))
        .await;
        rig
    }

    pub async fn execute(&self, sql: &str) {
        self.admin.execute(sql).await.unwrap();
    }

    /// psql as this role, in the maintenance database.
    pub async fn psql_as(&self, user: &str) -> Psql {
        let tools = search().newest().await.unwrap();
        Psql::new(&tools, &connection(self.server.port(), user, "postgres"))
    }

    pub fn swap(&self) -> Swap {
        Swap::new(self.admin.clone(), LIVE, limits())
    }

    pub async fn swap_as(&self, user: &str) -> Swap {
        Swap::new(self.psql_as(user).await, LIVE, limits())
    }

    /// Makes a database with a table that says what it is.
    pub async fn make(&self, name: &str, owner: &str, what: &str) {
        let sql = format!("create database {} owner {}", quote_ident(name), quote_ident(owner));
        self.execute(&sql).await;
        let sql = format!(
            "create table public.t(what text); insert into public.t values ('{what}');
             create table public.log(i serial, who text); grant all on all tables in schema public to public;
             grant usage on all sequences in schema public to public"
        );
        self.admin.with_database(name).execute(&sql).await.unwrap();
    }

    /// An old database under the live name, and the new one of a new run.
    pub async fn old_and_new(&self, owner: &str) -> SwapOrder {
        self.make(LIVE, owner, "old").await;
        self.new_one(owner, "new").await
    }

    pub async fn new_one(&self, owner: &str, what: &str) -> SwapOrder {
        let run = self.swap().new_run(Timestamp::now()).await.unwrap();
        self.make(&Names::new(LIVE, &run).restoring, owner, what).await;
        SwapOrder { run, backup: Some("20260730T000000Z".to_owned()) }
    }

    /// What the database under the live name says that it is, to a role of no privileges.
    pub async fn live_says(&self) -> String {
        let there = self.psql_as("app").await.with_database(LIVE);
        there.query_text("select what from public.t").await.unwrap()
    }

    pub async fn state(&self) -> SwapState {
        self.swap().state().await.unwrap()
    }

    /// The comment of a database.
    pub async fn comment_of(&self, name: &str) -> Option<String> {
        let sql = format!(
            "select to_json(shobj_description(oid, 'pg_database')) from pg_database where datname = {}",
            quote_literal(name)
        );
        let answer = self.admin.query_text(&sql).await.unwrap();
        if answer.is_empty() { None } else { serde_json::from_str(&answer).unwrap() }
    }

    /// All databases but the server's own, and whether they are open.
    pub async fn databases(&self) -> Vec<(String, bool)> {
        let sql =
            "select coalesce(json_agg(json_build_array(datname, datallowconn) order by oid), '[]')
            from pg_database where datname not in ('postgres', 'template0', 'template1')";
        self.admin.query_json(sql).await.unwrap()
    }

    /// A session that runs this and then waits, until it is dropped.
    pub async fn hold(&self, psql: Psql, sql: &str) -> Held {
        let mark = format!("held {:?}", Instant::now()).replace(['{', '}', '"'], "");
        let text = format!("{sql}; select /* {mark} */ pg_sleep(600)");
        let task = tokio::spawn(async move { psql.with_timeout(MINUTES).query_text(&text).await });
        let sql = format!(
            "select coalesce(min(pid), 0) from pg_stat_activity where query like '%{mark}%' and pid <> pg_backend_pid()"
        );
        loop {
            let pid: i32 = self.admin.query_json(&sql).await.unwrap();
            if pid != 0 {
                return Held { task, pid };
            }
            assert!(!task.is_finished(), "{:?}", task.await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const MINUTES: Duration = Duration::from_secs(900);

pub(super) struct Held {
    pub task: JoinHandle<backup_core::Result<String>>,
    pub pid: i32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn limits() -> SwapLimits {
    SwapLimits { sessions: Duration::from_secs(8), lock: Duration::from_secs(2) }
}

pub(super) fn never() -> Cancel {
    Cancel::default()
}

pub(super) fn connection(port: u16, user: &str, database: &str) -> Connection {
    let parameters = [
        ("host", "127.0.0.1"),
        ("port", &port.to_string()),
        ("user", user),
        ("password", PASSWORD),
        ("dbname", database),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Connection::from_parameters(parameters).unwrap()
}

/// The programs of every server version that this machine has for tests.
pub(super) fn every_version() -> Vec<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Listed {
        bin: PathBuf,
    }
    let path = std::env::var_os("MARB_TEST_SERVERS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/servers.json"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let listed: Vec<Listed> = serde_json::from_str(&text).unwrap_or_default();
    let found: Vec<PathBuf> =
        listed.into_iter().map(|one| one.bin).filter(|bin| bin.join("initdb").exists()).collect();
    if found.is_empty() { vec![bin_dir()] } else { found }
}

/// Random numbers that the same seed gives again.
pub(super) struct Chance(u64);

impl Chance {
    pub fn new() -> Self {
        let given = std::env::var("MARB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("MARB_TEST_SEED={seed}");
        Self(seed)
    }

    /// Below `limit`. SplitMix64.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    pub fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64))
    }
}

/// How many random cases of a kind: `few` in tests, `many` in the soak.
pub(super) fn cases(few: usize, many: usize) -> usize {
    if std::env::var_os("MARB_SOAK").is_some() { many } else { few }
}
