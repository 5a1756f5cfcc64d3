//! Plans for clusters that lack roles, and for clusters whose roles differ.

use super::*;

/// As pg_dumpall 16 and later write it.
const BACKUP: &str = r#"--
-- PostgreSQL database cluster dump
--
\restrict AbC'd

SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE ROLE alice;
ALTER ROLE alice WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:salt$stored:server' VALID UNTIL '2030-01-01 00:00:00+00';
COMMENT ON ROLE alice IS 'it''s; "alice"';
CREATE ROLE "b ""o; b";
ALTER ROLE "b ""o; b" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS PASSWORD 'SCRAM-SHA-256$4096:other';
CREATE ROLE readers;
ALTER ROLE readers WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;

-- User Config "alice"
ALTER ROLE alice SET search_path TO 'a', 'b;c';
ALTER ROLE alice SET work_mem TO '1MB';

GRANT pg_monitor TO readers WITH INHERIT TRUE GRANTED BY postgres;
GRANT readers TO alice WITH ADMIN OPTION, INHERIT FALSE, SET FALSE GRANTED BY postgres;
GRANT readers TO "b ""o; b" WITH INHERIT TRUE GRANTED BY gone;

CREATE TABLESPACE "fast ssd" OWNER postgres LOCATION '/mnt/s''sd';
ALTER TABLESPACE "fast ssd" SET (random_page_cost=1.1);
GRANT ALL ON TABLESPACE "fast ssd" TO alice WITH GRANT OPTION;
COMMENT ON TABLESPACE "fast ssd" IS 'x';
GRANT SET ON PARAMETER "log_min_duration_statement" TO alice;

\unrestrict AbC'd
"#;

const FRESH: &str = "CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS;";

fn planned(target: &str, major: u32) -> GlobalsPlan {
    plan_globals(&Globals::read(BACKUP).unwrap(), &Globals::read(target).unwrap(), major)
}

#[test]
fn an_empty_cluster_gets_everything() {
    let plan = planned(FRESH, 16);
    assert_eq!(plan.creates, ["alice", "b \"o; b", "readers"]);
    assert_eq!(
        plan.statements(),
        [
            "CREATE ROLE \"alice\" WITH CONNECTION LIMIT 5 INHERIT LOGIN NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOSUPERUSER VALID UNTIL '2030-01-01 00:00:00+00' PASSWORD 'SCRAM-SHA-256$4096:salt$stored:server'",
            "ALTER ROLE \"alice\" SET search_path TO 'a', 'b;c'",
            "ALTER ROLE \"alice\" SET work_mem TO '1MB'",
            "COMMENT ON ROLE alice IS 'it''s; \"alice\"'",
            "CREATE ROLE \"b \"\"o; b\" WITH INHERIT LOGIN NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION NOSUPERUSER",
            "CREATE ROLE \"readers\" WITH INHERIT NOBYPASSRLS NOCREATEDB NOCREATEROLE NOLOGIN NOREPLICATION NOSUPERUSER",
            "GRANT \"pg_monitor\" TO \"readers\" WITH INHERIT TRUE GRANTED BY \"postgres\"",
            "GRANT \"readers\" TO \"alice\" WITH ADMIN OPTION, INHERIT FALSE, SET FALSE GRANTED BY \"postgres\"",
            "GRANT \"readers\" TO \"b \"\"o; b\" WITH INHERIT TRUE",
            "GRANT SET ON PARAMETER \"log_min_duration_statement\" TO alice",
        ]
    );
    assert_eq!(plan.cannot_log_in, ["b \"o; b"]);
    assert_eq!(plan.tablespaces[0].location, "/mnt/s'sd");
}

#[test]
fn an_older_server_gets_what_it_can_express() {
    let plan = planned(FRESH, 14);
    let grants: Vec<_> = plan.statements().into_iter().filter(|s| s.contains("GRANT")).collect();
    assert_eq!(
        grants[1],
        "GRANT \"readers\" TO \"alice\" WITH ADMIN OPTION GRANTED BY \"postgres\""
    );
    assert_eq!(grants[2], "GRANT \"readers\" TO \"b \"\"o; b\"");
    assert_eq!(grants.len(), 3, "no rights on parameters: {grants:?}");
    let told = plan.differences.join("\n");
    assert!(told.contains("can't express") && told.contains("ON PARAMETER"), "{told}");
}

#[test]
fn grantors_from_before_version_16_stay_behind_on_a_newer_server() {
    let backup = Globals::read("CREATE ROLE a; CREATE ROLE b; GRANT a TO b GRANTED BY postgres;");
    let target = Globals::read(FRESH).unwrap();
    let last = |major| plan_globals(backup.as_ref().unwrap(), &target, major).statements().pop();
    assert_eq!(last(15).unwrap(), "GRANT \"a\" TO \"b\" GRANTED BY \"postgres\"");
    assert_eq!(last(16).unwrap(), "GRANT \"a\" TO \"b\"");
}

#[test]
fn nothing_that_exists_is_altered_and_differences_are_told() {
    let target = "CREATE ROLE alice; ALTER ROLE alice WITH SUPERUSER LOGIN PASSWORD 'md5hers';
        CREATE ROLE readers; ALTER ROLE readers WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB
        NOLOGIN NOREPLICATION NOBYPASSRLS; GRANT readers TO alice GRANTED BY postgres;";
    let plan = planned(&format!("{FRESH}{target}"), 16);
    assert_eq!(plan.creates, ["b \"o; b"]);
    for statement in plan.statements() {
        let creates = statement.starts_with("CREATE ROLE \"b ") || statement.starts_with("GRANT ");
        assert!(creates, "{statement}");
        assert!(!statement.contains("alice"), "{statement}");
    }
    let told = plan.differences.join("\n");
    assert!(told.contains("role alice exists and stays as it is"), "{told}");
    assert!(told.contains("SUPERUSER") && told.contains("work_mem"), "{told}");
    assert!(told.contains("membership of alice in readers exists"), "{told}");
    assert!(!told.contains("role readers"), "{told}");
}

#[test]
fn equal_clusters_need_nothing() {
    let plan = planned(BACKUP, 16);
    assert!(plan.statements().is_empty() && plan.creates.is_empty(), "{plan:?}");
    assert_eq!(plan.differences, ["rights on tablespaces are not restored"]);
}

#[test]
fn passwords_are_never_shown() {
    let globals = Globals::read(BACKUP).unwrap();
    let shown = format!("{globals:?} {:?}", planned(FRESH, 16));
    assert!(!shown.contains("SCRAM"), "{shown}");
    let broken = "ALTER ROLE x WITH PASSWORD 'SCRAM-secret' (";
    let error = Globals::read(broken).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn grants_name_their_roles() {
    let all = |sql: &str| grantees(sql).into_iter().collect::<Vec<_>>().join("|");
    assert_eq!(
        all("GRANT SELECT ON TABLE a.\"TO\" TO bob,\"x \"\"y\" WITH GRANT OPTION"),
        "bob|x \"y"
    );
    assert_eq!(all("REVOKE ALL ON SCHEMA public FROM PUBLIC"), "");
    let defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA s GRANT SELECT ON TABLES TO b";
    assert_eq!(all(defaults), "a|b");
    assert_eq!(all("SET SESSION AUTHORIZATION carl"), "carl");
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in ["DROP ROLE x;", "ALTER ROLE x RENAME TO y;", "GRANT a TO b WITH MAGIC;"] {
        assert!(Globals::read(text).is_err(), "{text}");
    }
}
