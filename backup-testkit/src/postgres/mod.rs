//! Real PostgreSQL servers for tests, one harness for two ways of having them: containers where
//! an engine answers (feature `containers`), programs on this machine elsewhere.
//!
//! Unlike the libraries this reads the environment: `MARB_TEST_POSTGRES` (`containers` or
//! `local`; without it containers where an engine answers), `MARB_TEST_POSTGRES_IMAGE` (a name
//! with `{major}` in it, by default `postgres:{major}`), `MARB_TEST_SERVERS` (the list that
//! `cargo xtask setup` writes, by default `target/servers.json`).

#[cfg(feature = "containers")]
mod container;
mod local;
mod programs;

pub use local::LocalServer;
pub use programs::{client_tools, majors};

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use backup_core::{Error, Result};

/// Every server's superuser.
pub const SUPERUSER: &str = "postgres";
/// The superuser's password: characters that a URL, a shell and a password file treat specially.
pub const PASSWORD: &str = "p@ss:w/ör%d \\'\"#";

const STAGE: &str = "test server";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(100);

/// Where a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// In a container of its own.
    Container,
    /// As a process of this machine.
    Local,
}

/// How a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As an administrator stops it: clients are disconnected, data is written.
    Stop,
    /// kill -9, as a crash of the machine would.
    Crash,
}

/// A PostgreSQL server of one's own that listens on TCP; it ends when dropped.
///
/// ```no_run
/// use backup_testkit::postgres::{Ending, PostgresServer};
/// # async fn f() -> backup_core::Result<()> {
/// let mut server = PostgresServer::start(16).await?;
/// server.sql("postgres", "CREATE DATABASE claims").await?;
/// println!("{}", server.url("claims"));
/// server.end(Ending::Crash).await?;
/// server.start_again().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    major: u32,
    host: String,
    port: u16,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Local(LocalServer),
    #[cfg(feature = "containers")]
    Container(Box<container::Container>),
}

impl PostgresServer {
    /// Starts a server of version `major`, ready for connections.
    pub async fn start(major: u32) -> Result<Self> {
        Self::start_with(major, &[]).await
    }

    /// Starts a server with further settings of postgresql.conf, `("wal_level", "logical")`.
    pub async fn start_with(major: u32, settings: &[(&str, &str)]) -> Result<Self> {
        let settings: Vec<(String, String)> =
            settings.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        #[cfg(feature = "containers")]
        if container::wanted().await {
            let started = container::Container::start(major, &settings).await?;
            let (host, port) = started.address();
            let running = Running::Container(Box::new(started));
            let server = Self { major, host, port, running };
            return server.wait_until_ready().await.map(|()| server);
        }
        let started = LocalServer::start(major, settings).await?;
        let port = started.port();
        Ok(Self { major, host: "127.0.0.1".into(), port, running: Running::Local(started) })
    }

    /// Where it runs.
    pub fn kind(&self) -> ServerKind {
        match self.running {
            Running::Local(_) => ServerKind::Local,
            #[cfg(feature = "containers")]
            Running::Container(_) => ServerKind::Container,
        }
    }

    /// The server's version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The address to connect to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port to connect to; it stays the same over [`start_again`](Self::start_again).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's URL of `database`, with the password.
    pub fn url(&self, database: &str) -> String {
        self.url_of(SUPERUSER, PASSWORD, database)
    }

    /// Somebody's URL of `database`.
    pub fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        let [user, password, database] = [user, password, database].map(percent_encoded);
        format!("postgresql://{user}:{password}@{}:{}/{database}", self.host, self.port)
    }

    /// The process on this machine with its data directory, socket and log, where it is one.
    pub fn local(&self) -> Option<&LocalServer> {
        match &self.running {
            Running::Local(server) => Some(server),
            #[cfg(feature = "containers")]
            Running::Container(_) => None,
        }
    }

    /// Ends the server and keeps its data.
    pub async fn end(&mut self, how: Ending) -> Result<()> {
        match &mut self.running {
            Running::Local(server) => server.end(how).await,
            #[cfg(feature = "containers")]
            Running::Container(container) => container.end(how).await,
        }
    }

    /// Starts an ended server again, with its data and on its port, ready for connections.
    pub async fn start_again(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Local(server) => server.start_again().await?,
            #[cfg(feature = "containers")]
            Running::Container(container) => container.start_again().await?,
        }
        self.wait_until_ready().await
    }

    /// Runs SQL as the superuser; gives what psql prints, unaligned, without headers.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.psql(database, &["-c", sql]).await
    }

    /// Runs a file of SQL as the superuser, each `name=value` a psql variable.
    pub async fn load(&self, database: &str, file: &Path, variables: &[&str]) -> Result<String> {
        let file = file.to_string_lossy();
        let mut args: Vec<&str> = variables.iter().flat_map(|v| ["-v", v]).collect();
        args.extend(["-f", &file]);
        self.psql(database, &args).await
    }

    async fn psql(&self, database: &str, args: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(programs::psql())
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| Error::failed(STAGE, "cannot run psql").caused_by(e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Error::failed(STAGE, format!("psql: {}", errors.trim())))
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        loop {
            match self.sql("postgres", "SELECT 1").await {
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(READY_POLL).await;
                }
                result => return result.map(|_| ()),
            }
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests;
