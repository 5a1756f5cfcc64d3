//! The preflight of a restore, against real servers of every version: each finding once where it
//! is to be made, and once where it is not.

mod names;
mod replication;
mod rights;
mod roles;
mod sessions;
mod surroundings;
mod versions;

use std::process::Stdio;

use backup_pg::{
    Connection, Finding, Needs, PreflightOptions, Server, Severity, ToolSearch, preflight,
};
use backup_testkit::postgres::{PASSWORD, PostgresServer, SUPERUSER, client_tools};
use tokio::process::{Child, Command};

/// The name that the restored database gets first.
pub const SCRATCH: &str = "claims_restoring_20261122t020000z_k3v9";

/// Settings of a server that can do everything that a preflight looks for.
pub const ABLE: [(&str, &str); 5] = [
    ("wal_level", "logical"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_prepared_transactions", "5"),
    ("allow_in_place_tablespaces", "on"),
];

/// A server with a database `claims`.
pub struct Rig {
    pub server: PostgresServer,
}

impl Rig {
    pub async fn start(major: u32) -> Self {
        Self::start_with(major, &[]).await
    }

    pub async fn start_with(major: u32, settings: &[(&str, &str)]) -> Self {
        let server = PostgresServer::start_with(major, settings).await.unwrap();
        let rig = Self { server };
        rig.sql("create database claims").await;
        rig
    }

    /// Runs SQL in the maintenance database.
    pub async fn sql(&self, sql: &str) -> String {
        self.server.sql("postgres", sql).await.unwrap()
    }

    /// Runs SQL in the live database.
    pub async fn live(&self, sql: &str) -> String {
        self.server.sql("claims", sql).await.unwrap()
    }

    pub fn connection_of(&self, user: &str, password: &str, database: &str) -> Connection {
        self.server.url_of(user, password, database).parse().unwrap()
    }

    pub async fn admin(&self) -> Server {
        self.admin_of(SUPERUSER, PASSWORD).await
    }

    pub async fn admin_of(&self, user: &str, password: &str) -> Server {
        let connection = self.connection_of(user, password, "postgres");
        Server::connect(&connection, &search()).await.unwrap()
    }

    /// A preflight of the superuser's, for a swap.
    pub async fn ask(&self, needs: &Needs) -> Found {
        self.ask_with(needs, &options()).await
    }

    pub async fn ask_with(&self, needs: &Needs, options: &PreflightOptions) -> Found {
        ask(&self.admin().await, Some("claims"), needs, options).await
    }

    /// A session that does nothing, until it is dropped.
    pub async fn session(&self, user: &str, password: &str, name: &str) -> Child {
        let url = self.server.url_of(user, password, "claims");
        let url = format!("{url}?application_name={name}");
        let psql = client_tools(15).or_else(|| client_tools(18)).unwrap().join("psql");
        let mut command = Command::new(psql);
        command.args(["-Xq", &url]).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let count = format!(
            "select count(*) from pg_stat_activity where datname = 'claims' and application_name = '{name}'"
        );
        self.until(&count, |count| count != "0").await;
        child
    }

    /// Waits until a query answers so.
    pub async fn until(&self, sql: &str, wanted: impl Fn(&str) -> bool) {
        for _ in 0..600 {
            if wanted(&self.sql(sql).await) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("never came: {sql}: {}", self.sql(sql).await);
    }
}

pub async fn ask(
    admin: &Server,
    live: Option<&str>,
    needs: &Needs,
    options: &PreflightOptions,
) -> Found {
    let found = Found(preflight(admin, live, needs, options).await.unwrap());
    for pair in found.0.windows(2) {
        assert!(pair[0].severity <= pair[1].severity, "{found:#?}");
    }
    for finding in &found.0 {
        assert!(!finding.remedy.is_empty() && !finding.detail.is_empty(), "{finding:?}");
    }
    found
}

pub fn search() -> ToolSearch {
    ToolSearch { extra: (14..=18).filter_map(client_tools).collect(), ..ToolSearch::default() }
}

pub fn options() -> PreflightOptions {
    PreflightOptions {
        new_names: vec![SCRATCH.into(), SCRATCH.replace("restoring", "before")],
        search: search(),
        ..PreflightOptions::default()
    }
}

#[derive(Debug)]
pub struct Found(pub Vec<Finding>);

impl Found {
    /// The finding about `subject` that says `text`.
    #[track_caller]
    pub fn has(&self, subject: &str, severity: Severity, text: &str) -> &Finding {
        let fits = |f: &&Finding| f.subject == subject && f.detail.contains(text);
        let found =
            self.0.iter().find(fits).unwrap_or_else(|| panic!("{subject}, {text}: {self:#?}"));
        assert_eq!(found.severity, severity, "{found:?}");
        found
    }

    /// That nothing about `subject` says `text`.
    #[track_caller]
    pub fn lacks(&self, subject: &str, text: &str) {
        let found = self.0.iter().find(|f| f.subject == subject && f.detail.contains(text));
        assert_eq!(found, None);
    }

    /// That nothing blocks.
    #[track_caller]
    pub fn passes(&self) {
        backup_pg::refuse_blocking(&self.0).unwrap();
    }
}
