//! `postgresql://` URLs as libpq reads them, and what SQLAlchemy and its drivers add.

use backup_core::{Error, Result};

use super::STAGE;

const MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Settings of application-side pools and caches, which an application's own URL may carry.
/// They have no meaning for a dump and are dropped.
const POOL_SETTINGS: &[&str] = &[
    "async_fallback",
    "command_timeout",
    "conn_max_age",
    "connection_limit",
    "executemany_batch_page_size",
    "executemany_mode",
    "executemany_values_page_size",
    "max_overflow",
    "pgbouncer",
    "pool_pre_ping",
    "pool_recycle",
    "pool_size",
    "pool_timeout",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "socket_timeout",
    "statement_cache_size",
];

/// The parameters of a URL, in order: a later one wins.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let sqlalchemy = check_scheme(scheme)?;
    let (login, rest) = split_login(rest, sqlalchemy);
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (hosts, database) = match place.split_once('/') {
        Some((hosts, database)) => (hosts, Some(database)),
        None => (place, None),
    };

    let mut parameters = Vec::new();
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        parameters.push(("user".to_owned(), decode(user)?));
        parameters.push(("password".to_owned(), decode(password)?));
    }
    parameters.extend(parse_hosts(hosts)?);
    if let Some(database) = database.filter(|name| !name.is_empty()) {
        parameters.push(("dbname".to_owned(), decode(database)?));
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        let query = parse_query(query, sqlalchemy)?;
        parameters.extend(if sqlalchemy { join_hosts(query) } else { query });
    }
    Ok(parameters)
}

/// Whether the scheme is one of SQLAlchemy's, `postgresql+driver`.
fn check_scheme(scheme: &str) -> Result<bool> {
    let (dialect, driver) = match scheme.split_once('+') {
        Some((dialect, driver)) => (dialect, Some(driver)),
        None => (scheme, None),
    };
    let known = dialect == "postgres" || dialect == "postgresql";
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if known && driver.is_none_or(|name| !name.is_empty() && plain(name)) {
        return Ok(driver.is_some());
    }
    Err(Error::usage(STAGE, "this is no PostgreSQL connection string").next_step(
        "write postgresql://user@host:5432/database (postgres:// and postgresql+driver:// work too)",
    ))
}

/// Cuts `user:password@` off. libpq ends the login at the first `/`; SQLAlchemy lets a
/// password hold one.
fn split_login(rest: &str, sqlalchemy: bool) -> (Option<&str>, &str) {
    let Some(at) = rest.find('@') else { return (None, rest) };
    let login = &rest[..at];
    let is_login = match login.split_once('/') {
        None => true,
        Some((head, _)) if sqlalchemy && !head.starts_with('[') => {
            head.split_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()))
        }
        Some(_) => false,
    };
    if is_login { (Some(login), &rest[at + 1..]) } else { (None, rest) }
}

/// `a:1,b,[::1]:3` as libpq's two comma-separated lists.
fn parse_hosts(text: &str) -> Result<Vec<(String, String)>> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in text.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(inner) => {
                let (address, port) = inner.split_once(']').ok_or_else(|| {
                    Error::usage(STAGE, "an IPv6 address lacks its closing bracket")
                })?;
                (address, port.strip_prefix(':').unwrap_or(port))
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        if host.contains('@') {
            return Err(Error::usage(STAGE, "there is more than one @ before the host")
                .next_step("percent-encode the @ in the password or user name: %40"));
        }
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    let mut parameters = Vec::new();
    for (name, list) in [("host", hosts), ("port", ports)] {
        if list.iter().any(|entry| !entry.is_empty()) {
            parameters.push((name.to_owned(), list.join(",")));
        }
    }
    Ok(parameters)
}

fn parse_query(query: &str, sqlalchemy: bool) -> Result<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    for pair in query.split('&') {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Error::usage(STAGE, "holds a query parameter without \"=\"")
                .next_step("write ?name=value&name=value; a ? in the password is written %3F"));
        };
        let (name, value) = (decode(name)?, decode(value)?);
        match name.as_str() {
            "ssl" => parameters.push(("sslmode".to_owned(), sslmode(&value)?)),
            // asyncpg's name for libpq's.
            "timeout" if sqlalchemy => parameters.push(("connect_timeout".to_owned(), value)),
            name if POOL_SETTINGS.contains(&name) => {}
            "schema" | "server_settings" | "isolation_level" | "client_cert" => {
                return Err(Error::usage(
                    STAGE,
                    format!("the URL holds {name}, a setting of an application's driver that libpq doesn't have"),
                )
                .next_step("remove it from the URL: schemas are chosen in the job, server settings by options=-c%20name%3Dvalue"));
            }
            _ => parameters.push((name, value)),
        }
    }
    Ok(parameters)
}

/// What asyncpg and JDBC call `ssl`.
fn sslmode(value: &str) -> Result<String> {
    match value {
        "true" | "True" | "1" | "on" => Ok("require".to_owned()),
        "false" | "False" | "0" | "off" => Ok("disable".to_owned()),
        mode if MODES.contains(&mode) => Ok(mode.to_owned()),
        _ => Err(Error::usage(STAGE, "the value of ssl isn't understood")
            .next_step(format!("write sslmode= with one of {}", MODES.join(", ")))),
    }
}

/// SQLAlchemy repeats `host=a:1&host=b:2` where libpq wants lists.
fn join_hosts(query: Vec<(String, String)>) -> Vec<(String, String)> {
    let (hosts, mut rest): (Vec<_>, Vec<_>) =
        query.into_iter().partition(|(name, _)| name == "host");
    let entries: Vec<(String, String)> = hosts
        .into_iter()
        .flat_map(|(_, value)| value.split(',').map(split_port).collect::<Vec<_>>())
        .collect();
    let list = |pick: fn(&(String, String)) -> &str| {
        entries.iter().map(pick).collect::<Vec<_>>().join(",")
    };
    if entries.iter().any(|(_, port)| !port.is_empty()) {
        rest.push(("port".to_owned(), list(|entry| &entry.1)));
    }
    if !entries.is_empty() {
        rest.push(("host".to_owned(), list(|entry| &entry.0)));
    }
    rest
}

/// `host:port`; a socket folder and an IPv6 address are hosts as a whole.
fn split_port(entry: &str) -> (String, String) {
    match entry.split_once(':') {
        Some((host, port)) if !host.starts_with('/') && !port.contains(':') => {
            (host.to_owned(), port.to_owned())
        }
        _ => (entry.to_owned(), String::new()),
    }
}

/// Percent-decoding, as libpq does it: `+` stays.
fn decode(text: &str) -> Result<String> {
    let malformed = |what: &str| {
        Error::usage(STAGE, format!("the URL holds {what}"))
            .next_step("write a literal percent sign as %25")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut decoded = [0];
        let digits = rest.get(..2).ok_or_else(|| malformed("a % without two hex digits"))?;
        hex::decode_to_slice(digits, &mut decoded)
            .map_err(|_| malformed("a % without two hex digits"))?;
        bytes.extend(decoded);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| malformed("a percent-encoding that is not UTF-8"))
}
