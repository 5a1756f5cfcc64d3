//! What a server says about itself, and the client tools that suit it.

use backup_core::{Error, PostgresVersions, Result, SourceIdentity};
use serde::Deserialize;

use crate::connect::server_name;
use crate::tools::{Version, newest_of};
use crate::{ClientTools, Connection, Psql, ToolSearch};

/// How long the size estimate may take. It is only for the progress bar.
const ESTIMATE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Facts that any role may read. Works on every server from 9.6 on, so that an unsupported one
/// is named as such. psql fills in `:'HOST'` and `:'PORT'`: which of several hosts it is. Behind
/// them, in a line of its own, PostgreSQL's system identifier, where this role may read it.
const FACTS: &str = "
select pg_catalog.json_build_object(
    'host', :'HOST',
    'port', :'PORT',
    'version', pg_catalog.current_setting('server_version'),
    'version_number', pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
    'database', pg_catalog.current_database(),
    'user', current_user::pg_catalog.text,
    'superuser', pg_catalog.current_setting('is_superuser') = 'on',
    'reads_role_passwords', pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'select'),
    'in_recovery', pg_catalog.pg_is_in_recovery(),
    'encoding', pg_catalog.current_setting('server_encoding'));
select coalesce(pg_catalog.has_function_privilege(
    pg_catalog.to_regprocedure('pg_catalog.pg_control_system()'), 'execute'), false) as may_ask \\gset
\\if :may_ask
select system_identifier from pg_catalog.pg_control_system();
\\endif";

/// Heap and TOAST of every table that is dumped with data: about as large as its COPY text. A
/// table that somebody else has locked is not waited for.
const ESTIMATE: &str = "
set lock_timeout = '1s';
select coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::pg_catalog.int8
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence <> 't'
  and (n.nspname !~ '^pg_' and n.nspname <> 'information_schema' or c.relname = 'pg_largeobject')";

/// With indexes, but without a lock on any table.
const ROUGH_ESTIMATE: &str = "select pg_catalog.pg_database_size(pg_catalog.current_database())";

/// A server that answered: its facts, and client tools that suit it.
#[derive(Debug, Clone)]
pub struct Server {
    connection: Connection,
    tools: ClientTools,
    facts: Facts,
    version: Version,
    system_identifier: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Facts {
    host: String,
    port: String,
    version: String,
    version_number: u32,
    database: String,
    user: String,
    superuser: bool,
    reads_role_passwords: bool,
    in_recovery: bool,
    encoding: String,
}

impl Server {
    /// Asks the server for its facts (with the newest psql there is) and chooses the client
    /// tools that suit it.
    ///
    /// # Errors
    /// When it can't be reached or doesn't let us in, with the cause and the next step;
    /// [`ErrorKind::Refused`](backup_core::ErrorKind::Refused) when the server is too old or no
    /// client tools suit it.
    pub async fn connect(connection: &Connection, search: &ToolSearch) -> Result<Self> {
        let installed = search.installed().await?;
        let newest = newest_of(&installed)?;
        let answer = Psql::new(newest, connection).query_text(FACTS).await?;
        let (facts, identifier) = answer.split_once('\n').unwrap_or((&answer, ""));
        let facts: Facts = serde_json::from_str(facts).map_err(|e| {
            Error::failed("psql", "the server's answer is not what was asked for").caused_by(e)
        })?;
        let tools = search.pick(&installed, facts.version_number / 10_000)?.clone();
        let version = Version::parse(&facts.version)
            .ok_or_else(|| Error::failed("psql", "the server does not tell its version"))?;
        Ok(Self {
            connection: connection.with_database(&facts.database),
            tools,
            facts,
            version,
            system_identifier: (!identifier.is_empty()).then(|| identifier.to_owned()),
        })
    }

    /// Runs SQL on the connection's database.
    pub fn psql(&self) -> Psql {
        Psql::new(&self.tools, &self.connection)
    }

    /// How the server is reached, with the database's actual name.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Client tools of the server's own major version, or the next higher one.
    pub fn tools(&self) -> &ClientTools {
        &self.tools
    }

    /// The server's version, `15.18`.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The server's version as a number, `150018`.
    pub fn version_number(&self) -> u32 {
        self.facts.version_number
    }

    /// PostgreSQL's system identifier; `None` where this role may not read it.
    pub fn system_identifier(&self) -> Option<&str> {
        self.system_identifier.as_deref()
    }

    /// The database the connection leads to.
    pub fn database(&self) -> &str {
        &self.facts.database
    }

    /// The role the connection logs in as.
    pub fn user(&self) -> &str {
        &self.facts.user
    }

    /// Whether that role is a superuser.
    pub fn is_superuser(&self) -> bool {
        self.facts.superuser
    }

    /// Whether that role may read the stored role passwords (`pg_authid`).
    pub fn reads_role_passwords(&self) -> bool {
        self.facts.reads_role_passwords
    }

    /// Whether the server is a standby (or recovers after a crash).
    pub fn is_standby(&self) -> bool {
        self.facts.in_recovery
    }

    /// The database's encoding, `UTF8`.
    pub fn encoding(&self) -> &str {
        &self.facts.encoding
    }

    /// The server's name: as the connection gives it, else where libpq found it.
    pub fn name(&self) -> String {
        let found = || server_name(&self.facts.host, &self.facts.port);
        self.connection.server().unwrap_or_else(found)
    }

    /// Roughly how many bytes a dump without compression will have, for progress; `None` when
    /// the server doesn't tell in time. Never an error: a backup does not need it.
    pub async fn estimate_bytes(&self) -> Option<u64> {
        let psql = self.psql().with_timeout(ESTIMATE_TIMEOUT);
        for query in [ESTIMATE, ROUGH_ESTIMATE] {
            match psql.query_json(query).await {
                Ok(bytes) => return Some(bytes),
                Err(error) => tracing::debug!(%error, "no size estimate"),
            }
        }
        None
    }

    /// What is backed up, for the manifest.
    pub fn identity(&self) -> SourceIdentity {
        SourceIdentity {
            system_identifier: self.system_identifier.clone(),
            database: self.facts.database.clone(),
            server: self.name(),
        }
    }

    /// Versions for the manifest; the archive's is known after the dump.
    pub fn versions(&self) -> PostgresVersions {
        PostgresVersions {
            server: self.version.to_string(),
            pg_dump: self.tools.version().to_string(),
            archive: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{TestServer, search};
    use backup_core::ErrorKind;

    #[tokio::test]
    async fn a_server_tells_who_it_is_and_what_one_may() {
        let server = TestServer::start();
        let sql = "create table public.t as select generate_series(1, 100000) i;
            create role plain login password 'plain-password'; revoke all on function pg_control_system() from public";
        server.execute("postgres", sql).await;

        let admin = server.facts(&server.connection("postgres")).await;
        assert_eq!(admin.version_number() / 10_000, admin.tools().version().major);
        assert_eq!(
            (admin.database(), admin.user(), admin.encoding()),
            ("postgres", "postgres", "UTF8")
        );
        assert!(admin.is_superuser() && admin.reads_role_passwords() && !admin.is_standby());
        assert_eq!(admin.name(), format!("127.0.0.1:{}", server.server.port()));
        let estimate = admin.estimate_bytes().await.unwrap();
        assert!((3_000_000..6_000_000).contains(&estimate), "{estimate}");
        let identity = admin.identity();
        assert!(identity.system_identifier.as_ref().unwrap().parse::<u64>().unwrap() > 1 << 60);
        assert!(admin.versions().server.starts_with(&admin.version().major.to_string()));

        let plain = server.connection_as("plain", "plain-password", "postgres");
        let plain = server.facts(&plain).await;
        assert!(!plain.is_superuser() && !plain.reads_role_passwords());
        assert_eq!(plain.system_identifier(), None);
        assert!(plain.estimate_bytes().await.is_some());

        // Without a database and a host, libpq finds both; the facts say which they are.
        let socket = server.server.socket_folder().display().to_string();
        let wanted =
            [("host", ""), ("user", "postgres"), ("password", crate::test_server::PASSWORD)];
        let given = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let connection = Connection::from_parameters(given).unwrap();
        let connection = connection.or_parameter("host", &socket).unwrap();
        let connection =
            connection.or_parameter("port", &server.server.port().to_string()).unwrap();
        assert_eq!(connection.database(), None);
        assert_eq!(server.facts(&connection).await.database(), "postgres");
    }

    #[tokio::test]
    async fn a_server_newer_than_the_tools_is_refused() {
        let server = TestServer::start();
        let connection = server.connection("postgres");
        let facts = server.facts(&connection).await;
        // The same tools, but their pg_dump says that it is an older one.
        let folder = tempfile::tempdir().unwrap();
        for program in ["pg_dumpall", "pg_restore", "psql"] {
            let real = facts.tools().folder().join(program);
            std::os::unix::fs::symlink(real, folder.path().join(program)).unwrap();
        }
        let old = folder.path().join("pg_dump");
        std::fs::write(&old, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.1'\n").unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
        let search = ToolSearch { configured: Some(folder.path().into()), ..search() };
        let refused = Server::connect(&connection, &search).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert!(refused.message().contains("newest client tools here are 12.1"), "{refused}");
    }
}
