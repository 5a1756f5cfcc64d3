//! Connection strings: what libpq understands, and how its secrets reach child processes.

mod conninfo;
#[cfg(test)]
mod tests;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use backup_core::{Error, Result};
use secrecy::{ExposeSecret, SecretString};

use crate::client::ClientCommand;

/// The stage that errors about connection strings name.
const STAGE: &str = "connection";

/// Parameters that may stand in a child's arguments, which every user of the host can read.
///
/// All of libpq's except its secrets. A name that is missing here (a future one, a typo) is
/// handed over in a file instead: libpq judges it just the same, and it can't leak.
const PUBLIC_PARAMETERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "port",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// How to reach a PostgreSQL server: a parsed connection string.
///
/// Understands what libpq does (`postgresql://` URLs with several hosts, percent-encoding and
/// query parameters; `key=value` strings; a bare database name) and SQLAlchemy's spellings
/// (`postgresql+psycopg2://`). Parameters this crate has never heard of are passed on, so that
/// libpq judges them. Absent ones fall to libpq's own defaults: the `PG*` environment that the
/// child processes inherit, `~/.pgpass`, `~/.pg_service.conf`.
///
/// Secrets show up neither in `Debug` nor in [`Connection::label`] nor in a child's arguments.
/// The password goes into the child's `PGPASSWORD`; another secret goes into a 0600 service
/// file that lives as long as the child (which then doesn't look at `PGSERVICE`, and `service=`
/// beside such a secret is refused).
///
/// ```
/// use backup_pg::Connection;
/// let connection: Connection =
///     "postgresql+psycopg2://marb:hun%40ter@db.example:5433/claims?sslmode=require".parse()?;
/// assert_eq!(connection.label(), "db.example:5433/claims");
/// assert_eq!(connection.database(), Some("claims"));
/// assert!(!format!("{connection:?}").contains("hun"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Connection {
    public: BTreeMap<String, String>,
    secret: BTreeMap<String, SecretString>,
}

impl FromStr for Connection {
    type Err = Error;

    /// Parses a URL, a `key=value` string or a bare database name.
    ///
    /// The error is of kind [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) and repeats no
    /// value from the text: a password may stand where it doesn't belong.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::usage(STAGE, "the connection string is empty").next_step(
                "write postgresql://user@host/database, or postgresql:// for libpq's defaults",
            ));
        }
        let parameters = if text.contains("://") && !looks_like_conninfo(text) {
            url::parse(text)?
        } else if text.contains('=') {
            conninfo::parse(text)?
        } else if text.contains(['@', ':', '/']) {
            // A misspelt URL: as a database's name its password would be shown everywhere.
            return Err(Error::usage(
                STAGE,
                "the connection string is neither a URL nor the name of a database",
            )
            .next_step("write postgresql://user@host/database, or dbname='...' for such a name"));
        } else {
            vec![("dbname".to_owned(), text.to_owned())]
        };
        Self::from_parameters(parameters)
    }
}

/// Whether the first `=` comes before the first `://`: `host=x options='a://b'`.
fn looks_like_conninfo(text: &str) -> bool {
    match (text.find('='), text.find("://")) {
        (Some(equals), Some(scheme)) => equals < scheme,
        _ => false,
    }
}

impl Connection {
    /// A connection from separate parameters, as libpq names them. A later one wins, and an
    /// empty value means "not given", as in libpq.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) for a name that can't be a
    /// parameter's, a value with a NUL byte, or a port that is no number.
    pub fn from_parameters(parameters: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut connection = Self::default();
        for (name, value) in parameters {
            connection.set(name, value)?;
        }
        connection.check_ports()?;
        Ok(connection)
    }

    fn set(&mut self, name: String, value: String) -> Result<()> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Error::usage(STAGE, "holds something that is no parameter name")
                .next_step("percent-encode the special characters of the password (? is %3F, & is %26), or quote the value"));
        }
        if value.contains('\0') {
            return Err(Error::usage(STAGE, format!("the value of {name} holds a NUL byte")));
        }
        self.public.remove(&name);
        self.secret.remove(&name);
        if value.is_empty() {
            return Ok(());
        }
        if PUBLIC_PARAMETERS.contains(&name.as_str()) {
            self.public.insert(name, value);
        } else {
            self.secret.insert(name, SecretString::from(value));
        }
        Ok(())
    }

    /// libpq would repeat a bad port in its message, and a bad port is often half a password.
    fn check_ports(&self) -> Result<()> {
        let bad = |port: &str| !port.is_empty() && port.parse::<u16>().is_err();
        if self.public.get("port").is_some_and(|ports| ports.split(',').any(bad)) {
            return Err(Error::usage(STAGE, "the port is no number from 1 to 65535").next_step(
                "percent-encode the special characters of the password: / is %2F, @ is %40, : is %3A",
            ));
        }
        Ok(())
    }

    /// The database's name as given; `None` leaves it to libpq (`PGDATABASE`, the user's name).
    pub fn database(&self) -> Option<&str> {
        self.parameter("dbname")
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        self.with_public("dbname", name)
    }

    /// The same connection with `value` for a parameter that isn't given.
    ///
    /// For defaults of the caller's own, which beat what libpq takes from the environment:
    /// whoever sets `connect_timeout` this way looks at `PGCONNECT_TIMEOUT` first.
    ///
    /// # Errors
    /// As [`Connection::from_parameters`].
    pub fn or_parameter(&self, name: &str, value: &str) -> Result<Self> {
        let mut connection = self.clone();
        if !self.public.contains_key(name) && !self.secret.contains_key(name) {
            connection.set(name.to_owned(), value.to_owned())?;
            connection.check_ports()?;
        }
        Ok(connection)
    }

    /// `name` is one of [`PUBLIC_PARAMETERS`].
    pub(crate) fn with_public(&self, name: &str, value: &str) -> Self {
        let mut connection = self.clone();
        connection.public.insert(name.to_owned(), value.to_owned());
        connection
    }

    /// A parameter that is not secret, as given.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.public.get(name).map(String::as_str)
    }

    /// Whether the connection string itself brings a password, or anything else that is kept
    /// secret (a parameter that is not known to be harmless counts).
    pub fn brings_secrets(&self) -> bool {
        !self.secret.is_empty()
    }

    /// Every secret value, for scrubbing messages.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        self.secret.values().cloned().collect()
    }

    /// Names of the parameters that go into a service file.
    pub(crate) fn filed_parameters(&self) -> Vec<&str> {
        self.secret.keys().map(String::as_str).filter(|name| *name != "password").collect()
    }

    /// The server as given, without secrets: `db.example:5432`, a socket folder, several of
    /// them, or the service that names it. `None` leaves it to libpq.
    pub fn server(&self) -> Option<String> {
        let Some(hosts) = self.parameter("host").or_else(|| self.parameter("hostaddr")) else {
            return self.parameter("service").map(|name| format!("service {name}"));
        };
        let ports: Vec<&str> = self.parameter("port").unwrap_or("").split(',').collect();
        let port = |at: usize| match ports[..] {
            [one] => one,
            _ => ports.get(at).copied().unwrap_or(""),
        };
        let named = hosts.split(',').enumerate().map(|(at, host)| server_name(host, port(at)));
        Some(named.collect::<Vec<_>>().join(","))
    }

    /// Server and database for messages, without secrets: `db.example:5432/claims`.
    pub fn label(&self) -> String {
        let server = self.server().unwrap_or_else(|| "default server".to_owned());
        match self.database() {
            Some(database) => format!("{server}/{database}"),
            None => server,
        }
    }

    /// A command that runs `program` (any client that knows `--dbname`) on this connection.
    ///
    /// # Errors
    /// When a secret can't be handed over safely.
    pub(crate) fn command(&self, program: &Path) -> Result<ClientCommand> {
        let mut command = ClientCommand::new(program, self)?;
        let mut arguments = self.public.clone();
        let filed = self.filed_parameters();
        if !filed.is_empty() {
            let service = command.hand_over_by_file(&self.service_file(&filed)?)?;
            arguments.insert("service".to_owned(), service);
        }
        if let Some(password) = self.secret.get("password") {
            command.env("PGPASSWORD", password.expose_secret());
        }
        command.arg(format!("--dbname={}", conninfo::render(&arguments)));
        Ok(command)
    }

    /// The lines of a service file for these parameters.
    fn service_file(&self, names: &[&str]) -> Result<SecretString> {
        if self.parameter("service").is_some() || self.parameter("servicefile").is_some() {
            return Err(Error::usage(
                STAGE,
                format!("{} can't be combined with service=", names.join(", ")),
            )
            .next_step(
                "write these parameters into the service's own section and drop them here",
            ));
        }
        let mut lines = String::new();
        for name in names {
            let value = self.secret.get(*name).map_or("", |value| value.expose_secret());
            let fits = value.len() <= SERVICE_LINE_BYTES
                && value.trim() == value
                && !value.contains(['\n', '\r']);
            if !fits {
                return Err(Error::usage(
                    STAGE,
                    format!(
                        "the value of {name} can't be handed to libpq: it is longer than {SERVICE_LINE_BYTES} bytes, holds a line break, or starts or ends with a space"
                    ),
                ));
            }
            lines.push_str(&format!("{name}={value}\n"));
        }
        Ok(SecretString::from(lines))
    }
}

/// Longest value that fits a line of a service file: libpq reads 1024 bytes with the name.
const SERVICE_LINE_BYTES: usize = 900;

/// `host:port`, with brackets for IPv6. The port is left out where it isn't given.
pub(crate) fn server_name(host: &str, port: &str) -> String {
    let host = if host.contains(':') && !host.starts_with('/') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if port.is_empty() { host } else { format!("{host}:{port}") }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden: Vec<&String> = self.secret.keys().collect();
        f.debug_struct("Connection")
            .field("parameters", &self.public)
            .field("secret", &hidden)
            .finish()
    }
}
