//! The harness itself, on every version this machine has.

use super::*;

#[tokio::test]
async fn every_version_starts_and_says_its_own() {
    let majors = majors().await;
    assert!(majors.len() >= 2, "run `cargo xtask setup`: only {majors:?}");
    for major in majors {
        let server = PostgresServer::start_with(major, &[("wal_level", "logical")]).await.unwrap();
        let sql = "SELECT current_setting('server_version_num')::int / 10000, \
                   current_setting('wal_level'), current_setting('server_encoding')";
        let said = server.sql("postgres", sql).await.unwrap();
        assert_eq!(said, format!("{major}|logical|UTF8"), "{:?}", server.kind());
    }
}

#[tokio::test]
async fn a_server_comes_back_on_its_port_with_its_data() {
    let major = majors().await[0];
    let mut server = PostgresServer::start(major).await.unwrap();
    server.sql("postgres", "CREATE TABLE kept AS SELECT 42 AS answer").await.unwrap();
    server.sql("postgres", "CHECKPOINT").await.unwrap();
    let url = server.url("postgres");
    for how in [Ending::Stop, Ending::Crash] {
        server.end(how).await.unwrap();
        assert!(server.sql("postgres", "SELECT 1").await.is_err(), "{how:?}");
        server.start_again().await.unwrap();
        assert_eq!(server.sql("postgres", "SELECT answer FROM kept").await.unwrap(), "42");
        assert_eq!(server.url("postgres"), url);
    }
}

#[tokio::test]
async fn the_password_is_asked_for() {
    let server = PostgresServer::start(majors().await[0]).await.unwrap();
    let wrong = server.url_of(SUPERUSER, "guess", "postgres");
    let mut psql = std::process::Command::new(programs::psql());
    let output = psql.args(["-c", "SELECT 1", &wrong]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
}

#[test]
fn client_tools_are_of_the_version_asked_for() {
    let found: Vec<u32> = (14..=18).filter(|&major| client_tools(major).is_some()).collect();
    assert!(!found.is_empty(), "run `cargo xtask setup`");
    for major in found {
        let program = client_tools(major).unwrap().join("pg_dump");
        let said = std::process::Command::new(program).arg("--version").output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains(&format!(") {major}.")), "{said}");
    }
}
