//! psql against a real server.

use std::time::Instant;

use backup_core::ErrorKind;

use super::*;
use crate::test_server::{PASSWORD, TestServer, command_lines, search};

#[tokio::test]
async fn queries_statements_and_their_failures() {
    let server = TestServer::start();
    let psql = server.psql("postgres").await;

    let answer: serde_json::Value = psql
        .query_json("select json_build_object('a', E'é\n''\\\\', 'b', array[1,2])")
        .await
        .unwrap();
    assert_eq!(answer, serde_json::json!({"a": "é\n'\\", "b": [1, 2]}));
    assert_eq!(psql.query_text("show search_path").await.unwrap(), "\"\"");
    assert_eq!(psql.query_text("show client_encoding").await.unwrap(), "UTF8");
    assert_eq!(psql.query_text("select 1 -- no semicolon").await.unwrap(), "1");
    assert!(psql.query_json::<u32>("select 'text'").await.is_err());

    psql.execute("create table public.t(i int); insert into public.t select 1").await.unwrap();
    let stopped =
        psql.execute("insert into public.t select 2; selec nonsense; drop table public.t");
    assert_eq!(stopped.await.unwrap_err().to_string(), "psql: syntax error at or near \"selec\"");
    assert_eq!(psql.query_text("select count(*) from public.t").await.unwrap(), "2");

    // The failing statement is quoted by psql: its password is not.
    let quoted = psql.execute("alter role x password 'very-secret' nonsense").await.unwrap_err();
    let said = format!("{quoted:?}");
    assert!(said.contains("LINE") && !said.contains("very-secret"), "{said}");

    // libpq reads our quoting back.
    let nasty = r#"it's \ "a" = b 'c"#;
    let create = format!("create database \"{}\"", nasty.replace('"', "\"\""));
    psql.execute(&create).await.unwrap();
    let there = psql.with_database(nasty);
    assert_eq!(there.query_text("select current_database()").await.unwrap(), nasty);

    let large = psql.query_text("select repeat('x', 10000000)").await.unwrap();
    assert_eq!(large.len(), 10_000_000);
}

#[tokio::test]
async fn a_login_that_fails_says_why_and_what_to_do() {
    let server = TestServer::start();
    let tools = search().newest().await.unwrap();
    let ask = async |connection: &Connection| {
        let error = Psql::new(&tools, connection).query_text("select 1").await.unwrap_err();
        let said = format!("{error:?} {}", error.causes().join(" "));
        assert!(!said.contains("wr0ng") && !said.contains(PASSWORD), "{said}");
        (error.kind(), format!("{} | {}", error.message(), error.advice().unwrap()))
    };
    let good = server.connection("postgres");

    let wrong = server.connection_as("postgres", "wr0ng", "postgres");
    let (kind, said) = ask(&wrong).await;
    assert_eq!(kind, ErrorKind::Failed);
    assert!(said.starts_with("the server refused the password (password authentication failed for user \"postgres\") | check user and password for 127.0.0.1:"), "{said}");

    let (_, said) = ask(&good.with_database("not there")).await;
    assert!(
        said.starts_with("database \"not there\" does not exist | check the database's name"),
        "{said}"
    );

    let (_, said) = ask(&good.with_public("port", "1")).await;
    assert!(said.starts_with("no server answers at that address"), "{said}");

    let (_, said) = ask(&good.with_public("sslmode", "require")).await;
    assert!(said.starts_with("the connection demands TLS and the server has none"), "{said}");

    let (_, said) = ask(&good.with_public("target_session_attrs", "standby")).await;
    assert!(said.starts_with("none of the hosts is what target_session_attrs asks for"), "{said}");

    // libpq itself judges what this crate doesn't know.
    let unknown = good.or_parameter("made_up", "wr0ng").unwrap();
    let (kind, said) = ask(&unknown).await;
    assert_eq!(kind, ErrorKind::Usage);
    assert!(said.contains("libpq does not know") && said.contains("made_up"), "{said}");

    let no_service = good.with_public("service", "nowhere_defined");
    assert_eq!(ask(&no_service).await.0, ErrorKind::Usage);

    let socket = Connection::from_parameters([("host".to_owned(), "/nowhere".to_owned())]).unwrap();
    assert!(ask(&socket).await.1.starts_with("no server listens on that socket"));
}

#[tokio::test]
async fn a_running_query_shows_no_secret_and_ends_with_its_caller() {
    let server = TestServer::start();
    let port = format!("port='{}'", server.server.port());
    let mine = || {
        let lines = command_lines("psql").into_iter().filter(|(_, line)| line.contains(&port));
        lines.collect::<Vec<_>>()
    };
    // A secret without an environment variable goes by a file, and libpq accepts it.
    let tools = search().newest().await.unwrap();
    let connection =
        server.connection("postgres").or_parameter("sslpassword", "ke'y s\\ecret").unwrap();
    let psql = Psql::new(&tools, &connection);
    assert_eq!(psql.query_text("select 1").await.unwrap(), "1");

    let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
    let watcher = psql.clone();
    let running = tokio::spawn(async move { psql.query_text("select pg_sleep(600)").await });
    while watcher.query_text(sleeping).await.unwrap() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lines = mine();
    let (id, line) = lines.first().unwrap();
    assert!(line.contains("dbname='postgres'") && line.contains("service='marb-backup'"), "{line}");
    assert!(!line.contains("secret") && !line.contains("Zq7"), "{line}");
    let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let file = environment.split('\0').find_map(|v| v.strip_prefix("PGSERVICEFILE=")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    let folder = std::path::Path::new(file).parent().unwrap();
    assert_eq!(std::fs::metadata(folder).unwrap().mode() & 0o777, 0o700);

    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(mine(), [], "the process is gone as soon as its caller is");
    assert!(!folder.exists());
    let cancelled = Instant::now();
    while watcher.query_text(sleeping).await.unwrap() != "0" {
        assert!(cancelled.elapsed() < Duration::from_secs(5), "the query goes on at the server");
    }
}

#[tokio::test]
async fn a_slow_statement_is_given_up() {
    let server = TestServer::start();
    let psql = server.psql("postgres").await.with_timeout(Duration::from_millis(300));
    let error = psql.query_text("select pg_sleep(600)").await.unwrap_err();
    assert!(error.message().starts_with("the statement took longer than it may"), "{error}");
}
