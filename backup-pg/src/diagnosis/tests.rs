//! What people read when something went wrong, word by word.

use super::*;

fn connection() -> Connection {
    "postgresql://marb:hunter2secret@db.example:5432/claims?sslpassword=key2secret".parse().unwrap()
}

/// Message and next step.
fn explained(stderr: &str) -> (String, String) {
    let error = explain("pg_dump", stderr, &connection());
    (error.to_string(), error.advice().unwrap().to_owned())
}

#[test]
fn a_login_that_failed() {
    let (message, step) = explained(
        "pg_dump: error: connection to server at \"127.0.0.1\", port 5432 failed: FATAL:  password authentication failed for user \"marb\"\nconnection to server at \"127.0.0.1\", port 5432 failed: FATAL:  password authentication failed for user \"marb\"\n",
    );
    assert_eq!(
        message,
        "pg_dump: the server refused the password (password authentication failed for user \"marb\")"
    );
    assert_eq!(
        step,
        "check user and password for db.example:5432/claims; in a URL, special characters of a password are percent-encoded (@ is %40, / is %2F)"
    );
    let (message, step) = explained(
        "psql: error: connection to server at \"db\", port 1 failed: FATAL:  no pg_hba.conf entry for host \"1.2.3.4\", user \"a\", database \"b\", no encryption\n",
    );
    assert!(message.starts_with("pg_dump: the server does not let this user in from here without encryption (no pg_hba.conf entry"));
    assert!(step.starts_with("add sslmode=require"));
}

#[test]
fn a_server_that_is_not_there() {
    let (message, step) = explained(
        "psql: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?\n",
    );
    assert_eq!(
        message,
        "pg_dump: no server answers at that address (connection to server at \"127.0.0.1\", port 1 failed: Connection refused)"
    );
    assert!(step.contains("systemctl status postgresql"));
    let (message, step) = explained(
        "pg_dump: error: connection to server at \"127.0.0.1\", port 5 failed: FATAL:  database \"nope\" does not exist\n",
    );
    assert_eq!(message, "pg_dump: database \"nope\" does not exist");
    assert!(step.contains("psql --list"));
    let (message, _) = explained(
        "psql: error: connection to server at \"h\", port 5 failed: FATAL:  role \"nobody\" does not exist\n",
    );
    assert_eq!(message, "pg_dump: role \"nobody\" does not exist");
}

#[test]
fn a_dump_that_may_not_or_can_not() {
    let (message, step) = explained(
        "pg_dump: error: query failed: ERROR:  permission denied for table claims\npg_dump: detail: Query was: LOCK TABLE public.claims IN ACCESS SHARE MODE\n",
    );
    assert_eq!(message, "pg_dump: permission denied for table claims");
    assert!(step.starts_with("GRANT pg_read_all_data"));
    let (message, step) = explained(
        "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\npg_dump: detail: Query was: LOCK TABLE public.claims IN ACCESS SHARE MODE\n",
    );
    assert_eq!(
        message,
        "pg_dump: another session kept a table locked for too long (canceling statement due to statement timeout)"
    );
    assert!(step.contains("pg_stat_activity"));
    let (message, step) = explained(
        "pg_dump: error: query failed: ERROR:  query would be affected by row-level security policy for table \"claims\"\n",
    );
    assert!(message.starts_with("pg_dump: row-level security would hide rows"));
    assert!(step.contains("BYPASSRLS"));
    let (message, _) = explained(
        "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetCopyData() failed.\npg_dump: detail: Error message from server: FATAL:  terminating connection due to administrator command\nserver closed the connection unexpectedly\n",
    );
    assert_eq!(
        message,
        "pg_dump: the server was stopped, or an administrator ended the session (terminating connection due to administrator command)"
    );
    let mismatch = explain(
        "pg_dump",
        "pg_dump: error: aborting because of server version mismatch\npg_dump: detail: server version: 18.1; pg_dump version: 15.18\n",
        &connection(),
    );
    assert_eq!(mismatch.kind(), ErrorKind::Refused);
    assert!(mismatch.causes()[0].contains("server version: 18.1"));
}

#[test]
fn the_unknown_is_quoted() {
    let (message, step) = explained(
        "pg_dump: last built-in OID is 16383\npg_dump: error: the moon is in the wrong phase\n",
    );
    assert_eq!(message, "pg_dump: the moon is in the wrong phase");
    assert!(step.contains("server's log"));
    let long = explain("psql", &"x".repeat(10_000), &connection());
    assert!(long.causes()[0].len() < 2100);
}

#[test]
fn a_parameter_that_libpq_does_not_know_is_named() {
    let error = explain(
        "psql",
        "psql: error: syntax error in service file \"/tmp/x\", line 2\n",
        &connection(),
    );
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("sslpassword"));
}

#[test]
fn every_cause_can_be_found_and_says_what_to_do() {
    for cause in causes::CAUSES {
        assert!(!cause.next_step.is_empty());
        let stderr = cause.all_of.join(" ");
        let first = causes::CAUSES.iter().find(|c| c.fits(&stderr)).unwrap();
        assert!(std::ptr::eq(first, cause), "{:?} is shadowed by {:?}", cause.all_of, first.all_of);
    }
}

#[test]
fn secrets_and_stored_passwords_are_masked() {
    let scrubber = Scrubber::new(&connection());
    assert_eq!(scrubber.scrub("a hunter2secret b key2secret"), "a *** b ***");
    assert_eq!(
        scrubber.scrub("LINE 1: ALTER ROLE a PASSWORD 'it''s mine' LOGIN; x PassWord 'y'"),
        "LINE 1: ALTER ROLE a PASSWORD '***' LOGIN; x PassWord '***'"
    );
    assert_eq!(
        scrubber.scrub(
            "SCRAM-SHA-256$4096:c2FsdA==$a:b= md5d41d8cd98f00b204e9800998ecf8427e, md5sum é"
        ),
        "*** ***, md5sum é"
    );
    assert_eq!(scrubber.scrub("PASSWORD 'cut off"), "PASSWORD '***");
}
