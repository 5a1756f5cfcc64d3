//! The table of known causes: what the programs say, what it means, what to do.

use backup_core::ErrorKind;

/// A known cause.
pub(super) struct Cause {
    /// Texts that all stand in stderr; the line with the first is quoted.
    pub(super) all_of: &'static [&'static str],
    /// What it means, where the program's own sentence doesn't say it.
    pub(super) meaning: &'static str,
    /// What to do. `{server}` is the connection's label, `{filed}` its secret parameters.
    pub(super) next_step: &'static str,
    /// What the failure means for the caller.
    pub(super) kind: ErrorKind,
}

const fn cause(
    all_of: &'static [&'static str],
    meaning: &'static str,
    next_step: &'static str,
) -> Cause {
    Cause { all_of, meaning, next_step, kind: ErrorKind::Failed }
}

const fn of_kind(kind: ErrorKind, cause: Cause) -> Cause {
    Cause { kind, ..cause }
}

/// The first that fits counts: the more telling ones stand first.
pub(super) const CAUSES: &[Cause] = &[
    // Who one is.
    cause(
        &["password authentication failed"],
        "the server refused the password",
        "check user and password for {server}; in a URL, special characters of a password are percent-encoded (@ is %40, / is %2F)",
    ),
    cause(
        &["no password supplied"],
        "the server asks for a password and none was given",
        "put the password into the connection URL, PGPASSWORD or ~/.pgpass of the user that runs the backup",
    ),
    cause(
        &["Peer authentication failed"],
        "on this socket the server lets in only the system user of the same name",
        "run as that user (sudo -u postgres ...), or connect by host=127.0.0.1 with a password",
    ),
    cause(
        &["no pg_hba.conf entry", "no encryption"],
        "the server does not let this user in from here without encryption",
        "add sslmode=require to the connection, or ask the server's administrator for a line in pg_hba.conf",
    ),
    cause(
        &["no pg_hba.conf entry"],
        "the server does not let this user in from here",
        "add a line for this user, database and address to the server's pg_hba.conf and reload it",
    ),
    cause(
        &["pg_hba.conf rejects connection"],
        "the server does not let this user in from here",
        "change the line for this user, database and address in the server's pg_hba.conf and reload it",
    ),
    cause(
        &["role \"", "\" does not exist", "FATAL"],
        "",
        "check the user in the connection of {server}, or create the role",
    ),
    cause(&["is not permitted to log in"], "", "use a role with LOGIN, or: ALTER ROLE ... LOGIN"),
    // Where it is.
    cause(
        &["FATAL", "database \"", "\" does not exist"],
        "",
        "check the database's name; `psql --list` shows which there are",
    ),
    cause(
        &["could not translate host name"],
        "",
        "check the host's spelling and the name resolution of this machine",
    ),
    cause(
        &["Connection refused"],
        "no server answers at that address",
        "check host and port, and that PostgreSQL runs there (systemctl status postgresql) and listens on that address (listen_addresses)",
    ),
    cause(
        &["No such file or directory", "running locally"],
        "no server listens on that socket",
        "check that PostgreSQL runs (systemctl status postgresql) and the folder and port of its socket (unix_socket_directories)",
    ),
    cause(
        &["timeout expired"],
        "the server did not answer in time",
        "check the network and firewall between here and {server}; connect_timeout= in the connection sets the limit",
    ),
    cause(
        &["Connection timed out"],
        "the server did not answer in time",
        "check the network and firewall between here and {server}",
    ),
    cause(&["No route to host"], "", "check the network and firewall between here and {server}"),
    cause(
        &["Network is unreachable"],
        "",
        "check the network and firewall between here and {server}",
    ),
    cause(
        &["the database system is "],
        "the server is not ready",
        "wait until it is up, then run again; the server's log says what it is doing",
    ),
    cause(
        &["remaining connection slots are reserved"],
        "the server has no connection left",
        "close idle connections or raise max_connections",
    ),
    cause(
        &["too many c"],
        "the server has no connection left",
        "close idle connections, or raise the limit that is named",
    ),
    cause(
        &["hot standby mode"],
        "none of the hosts is what target_session_attrs asks for",
        "check target_session_attrs and the hosts of the connection",
    ),
    cause(
        &["session is "],
        "none of the hosts is what target_session_attrs asks for",
        "check target_session_attrs and the hosts of the connection",
    ),
    // Encryption.
    cause(
        &["server does not support SSL"],
        "the connection demands TLS and the server has none",
        "switch ssl on at the server, or, on a trusted network, set sslmode=prefer",
    ),
    cause(
        &["root certificate file", "does not exist"],
        "",
        "give the CA's file with sslrootcert=, or sslrootcert=system for the system's own list",
    ),
    cause(
        &["certificate verify failed"],
        "the server's certificate is not signed by a CA that is trusted here",
        "give the CA's file with sslrootcert=",
    ),
    cause(
        &["does not match host name"],
        "the server's certificate is for another host",
        "connect by the name in the certificate, or use sslmode=verify-ca",
    ),
    cause(
        &["private key file", "access"],
        "",
        "chmod 0600 the key file; it must belong to the user that runs the backup",
    ),
    // What libpq does not know.
    of_kind(
        ErrorKind::Usage,
        cause(
            &["syntax error in service file"],
            "libpq does not know one of the connection's parameters",
            "check the spelling of {filed}; a parameter newer than the client tools needs newer tools",
        ),
    ),
    of_kind(
        ErrorKind::Usage,
        cause(
            &["invalid connection option"],
            "",
            "check its spelling; a parameter newer than the client tools needs newer tools",
        ),
    ),
    of_kind(
        ErrorKind::Usage,
        cause(
            &["definition of service", "not found"],
            "",
            "check service= and the file ~/.pg_service.conf (or PGSERVICEFILE) of the user that runs the backup",
        ),
    ),
    of_kind(
        ErrorKind::Usage,
        cause(
            &["invalid sslmode value"],
            "",
            "use disable, allow, prefer, require, verify-ca or verify-full",
        ),
    ),
    // What one may.
    cause(
        &["query would be affected by row-level security"],
        "row-level security would hide rows from this dump",
        "dump as the table's owner or a superuser, or: ALTER ROLE ... BYPASSRLS",
    ),
    cause(
        &["permission denied for large object"],
        "",
        "dump as a superuser or the owner of the large objects, or leave them out (large_objects = false)",
    ),
    cause(
        &["permission denied for database"],
        "",
        "GRANT CONNECT ON DATABASE ... TO the role of the connection",
    ),
    cause(
        &["permission denied to create database"],
        "",
        "ALTER ROLE ... CREATEDB, or create the database as a superuser and restore into it",
    ),
    cause(
        &["permission denied for "],
        "",
        "GRANT pg_read_all_data TO the role of the connection, or connect as the owner or a superuser",
    ),
    cause(&["must be owner of"], "", "connect as the owner or a superuser"),
    // What happened on the way.
    of_kind(
        ErrorKind::Refused,
        cause(
            &["aborting because of server version mismatch"],
            "the client tools are older than the server",
            "install the client tools of the server's version",
        ),
    ),
    cause(
        &["canceling statement due to lock timeout"],
        "another session kept a table locked for too long",
        "find it with: select pid, query from pg_stat_activity where state <> 'idle'; back up at a quieter time, or raise the lock wait limit",
    ),
    cause(
        &["canceling statement due to statement timeout", "LOCK TABLE"],
        "another session kept a table locked for too long",
        "find it with: select pid, query from pg_stat_activity where state <> 'idle'; back up at a quieter time, or raise the lock wait limit",
    ),
    cause(
        &["canceling statement due to statement timeout"],
        "the statement took longer than it may",
        "run again when the server is less busy, or raise statement_timeout of the connection's role",
    ),
    cause(
        &["conflict with recovery"],
        "the standby cancelled the dump so that replication could go on",
        "set hot_standby_feedback = on or raise max_standby_streaming_delay on the standby, or dump the primary",
    ),
    cause(
        &["due to unexpected postmaster exit"],
        "the server crashed",
        "look into the server's log for the reason, then run again when it is up",
    ),
    cause(
        &["because of crash of another server process"],
        "the server crashed",
        "look into the server's log for the reason, then run again when it is up",
    ),
    cause(
        &["due to administrator command"],
        "the server was stopped, or an administrator ended the session",
        "run again when the server is up",
    ),
    cause(
        &["max_locks_per_transaction"],
        "the server has no room for a lock on every table",
        "raise max_locks_per_transaction in postgresql.conf and restart the server",
    ),
    cause(
        &["No space left on device"],
        "a disk is full",
        "free space on the server's disk (its log says where), then run again",
    ),
    cause(
        &["invalid page in block"],
        "the server's own data is damaged",
        "check the server's disk; keep every existing backup; pg_amcheck shows the extent",
    ),
    cause(
        &["could not read block"],
        "the server can't read its own data",
        "check the server's disk and its log; keep every existing backup",
    ),
    cause(
        &["missing chunk number"],
        "the server's own data is damaged",
        "check the server's disk; keep every existing backup; pg_amcheck shows the extent",
    ),
    cause(
        &["Input/output error"],
        "a disk fails",
        "check the disk of the server and of this machine; keep every existing backup",
    ),
    cause(
        &["could not open relation with OID"],
        "a table was dropped while the dump began",
        "run again; if it repeats, back up while no migration runs",
    ),
    cause(
        &["cache lookup failed for"],
        "an object was dropped while the dump began",
        "run again; if it repeats, back up while no migration runs",
    ),
    of_kind(
        ErrorKind::Usage,
        cause(
            &["no matching tables were found"],
            "",
            "check the names of tables in the job: schema.table, with quotes around upper case",
        ),
    ),
    of_kind(
        ErrorKind::Usage,
        cause(
            &["no matching schemas were found"],
            "",
            "check the names of schemas in the job, with quotes around upper case",
        ),
    ),
    // Last: these also follow from the ones above.
    cause(
        &["server closed the connection unexpectedly"],
        "the server or the network broke the connection off",
        "look into the server's log (a crash, a restart, the out-of-memory killer), then run again",
    ),
    cause(
        &["SSL connection has been closed unexpectedly"],
        "the server or the network broke the connection off",
        "look into the server's log (a crash, a restart, the out-of-memory killer), then run again",
    ),
    cause(
        &["onnection reset by peer"],
        "the server or the network broke the connection off",
        "look into the server's log (a crash, a restart, the out-of-memory killer), then run again",
    ),
    cause(
        &["connection to server was lost"],
        "the server or the network broke the connection off",
        "look into the server's log (a crash, a restart, the out-of-memory killer), then run again",
    ),
    // pg_dumpall keeps the server's own words to itself.
    cause(
        &["pg_dumpall: error: could not connect to database"],
        "the server did not let pg_dumpall in, though it had let others in before",
        "look into the server's log (it may have been stopped, or be out of connections), then run again",
    ),
];
