//! The library as an application embeds it: in its own process, several at once, no terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_cli::config::{Config, Environment, Value};
use backup_cli::{Deployment, RestoreOptions};
use backup_core::pipeline::{Context, Event, Progress};
use backup_core::{ErrorKind, Query};
use backup_testkit::postgres::PostgresServer;

use crate::support::Scratch;

#[derive(Default)]
struct Heard {
    read: AtomicU64,
    parts: AtomicU64,
}

impl Progress for Heard {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Read { bytes } => _ = self.read.fetch_add(bytes, Ordering::Relaxed),
            Event::PartFinished { .. } => _ = self.parts.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }
}

fn deployment(scratch: &Scratch, url: &str) -> Deployment {
    let path = std::env::var_os("PATH").unwrap();
    let variables = [("TEST_DATABASE_URL".into(), url.into()), ("PATH".into(), path)];
    let config = Config::read(&scratch.path("marb-backup.toml")).unwrap();
    Deployment::new(config, Environment::new(variables)).unwrap()
}

#[tokio::test]
async fn two_deployments_back_up_and_restore_in_one_process() {
    let server = PostgresServer::start(15).await.unwrap();
    for database in ["one", "two"] {
        server.sql("postgres", &format!("create database {database}")).await.unwrap();
        server.sql(database, "create table t as select generate_series(1, 1000) n").await.unwrap();
    }
    let run = async |database: &str| {
        let scratch = Scratch::of(&server, database);
        let deployment = deployment(&scratch, &server.url(database));
        let heard = Arc::new(Heard::default());
        let context = Context::with_progress(heard.clone());
        let made = deployment.backup("database", false, &context).await.unwrap();
        assert_eq!(made.stored_in, ["local"]);
        assert!(heard.read.load(Ordering::Relaxed) > 0);
        assert_eq!(heard.parts.load(Ordering::Relaxed), 3, "dump, globals, contents");

        let catalog =
            deployment.catalog(&Query { job: Some("database"), ..Query::default() }).await.unwrap();
        let target = Value::Literal(server.url(&format!("{database}_back")));
        let options = RestoreOptions::into_database(target);
        let back =
            deployment.restore(catalog.find("latest").unwrap(), &options, &context).await.unwrap();
        assert_eq!((back.rows_compared, back.created), (1000, true));
        // A second time there are tables in it: refused, and nothing changes.
        let again = deployment.restore(catalog.find("latest").unwrap(), &options, &context).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Refused);
    };
    tokio::join!(run("one"), run("two"));
}

#[tokio::test]
async fn an_environment_is_what_was_handed_in() {
    let scratch = Scratch::new("postgresql:///unused");
    let config = Config::read(&scratch.path("marb-backup.toml")).unwrap();
    let deployment = Deployment::new(config, Environment::default()).unwrap();
    let error = deployment.backup("database", false, &Context::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "database: the variable TEST_DATABASE_URL is not set");
}
