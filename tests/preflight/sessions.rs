//! Whoever is connected.

use std::process::Stdio;

use backup_pg::{Needs, RestoreMode, Severity::*};
use backup_testkit::postgres::{PASSWORD, client_tools};
use tokio::process::Command;

use super::{ABLE, Rig, options};

#[tokio::test]
async fn sessions_and_poolers_are_counted() {
    let rig = Rig::start(17).await;
    let needs = Needs::default();
    rig.sql("create role app login password 'app'").await;
    let found = rig.ask(&needs).await;
    found.lacks("sessions", "");
    found.lacks("poolers", "");

    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(rig.session("app", "app", "gunicorn").await);
    }
    rig.until("select count(*) from pg_stat_activity where application_name = 'gunicorn'", |n| {
        n == "2"
    })
    .await;
    open.push(rig.session("postgres", PASSWORD, "").await);
    rig.until("select count(*) from pg_stat_activity where datname = 'claims'", |n| n == "3").await;
    let found = rig.ask(&needs).await;
    found.has("sessions", Note, "these: 2 of app (gunicorn), 1 of postgres");
    found.lacks("poolers", "");
    let in_place = backup_pg::PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask_with(&needs, &in_place).await.has("sessions", Warning, "is in use");
    // Those of other databases are nobody's business.
    let other = super::ask(&rig.admin().await, Some("template1"), &needs, &options()).await;
    other.lacks("sessions", "");

    open.push(rig.session("app", "app", "PgBouncer-1.24").await);
    let found = rig.ask(&needs).await;
    found.has("poolers", Note, "PgBouncer-1.24");
    found.lacks("sessions", "at work");
    open.push(rig.session("postgres", PASSWORD, "pg_dump").await);
    rig.ask(&needs).await.has(
        "sessions",
        Warning,
        "at work in the live database: 1 of postgres (pg_dump)",
    );
}

#[tokio::test]
async fn a_prepared_transaction_blocks_until_it_is_done() {
    let rig = Rig::start_with(15, &ABLE[..4]).await;
    let needs = Needs::default();
    rig.ask(&needs).await.lacks("prepared transactions", "");
    rig.live("begin; create table t (i int); prepare transaction 'a''b'").await;
    // One of another database does not count.
    rig.sql("begin; create table t (i int); prepare transaction 'elsewhere'").await;
    let found = rig.ask(&needs).await;
    let blocking = found.has("prepared transactions", Blocking, "has 1: a'b;");
    // That is true: the server refuses it.
    let renamed = rig.server.sql("postgres", "alter database claims rename to other").await;
    assert!(renamed.unwrap_err().message().contains("prepared transaction"));
    let rollback = blocking.remedy.split(" or ").nth(1).unwrap();
    rig.live(rollback).await;
    rig.ask(&needs).await.lacks("prepared transactions", "");
}

#[tokio::test]
async fn a_database_that_is_being_made_is_told() {
    let rig = Rig::start(15).await;
    let needs = Needs::default();
    rig.ask(&needs).await.lacks("sessions", "making");
    // A session keeps each copy waiting for five seconds.
    let session = rig.session("postgres", PASSWORD, "holding").await;
    let psql = client_tools(15).or_else(|| client_tools(18)).unwrap().join("psql");
    let mut copying = Command::new(psql);
    copying.args(["-Xq", &rig.server.url("postgres")]);
    copying.args(["-c", "create database copied template claims"].repeat(5));
    let mut copying = copying.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    rig.until(
        "select count(*) from pg_stat_activity where query like 'create database copied%'",
        |n| n == "1",
    )
    .await;
    rig.ask(&needs).await.has("sessions", Warning, "1 sessions are making a database");
    copying.kill().await.unwrap();
    let made = "from pg_stat_activity where query like 'create database copied%'";
    rig.sql(&format!("select pg_terminate_backend(pid) {made}")).await;
    rig.until(&format!("select count(*) {made}"), |n| n == "0").await;
    rig.ask(&needs).await.lacks("sessions", "making");
    drop(session);
}

#[tokio::test]
async fn whoever_streams_the_server_is_told() {
    let rig = Rig::start_with(15, &ABLE[..4]).await;
    let needs = Needs::default();
    rig.ask(&needs).await.lacks("standbys", "");
    let folder = tempfile::tempdir().unwrap();
    let receive = client_tools(15).unwrap().join("pg_receivewal");
    let mut receive = Command::new(receive);
    receive
        .args(["--dbname", &format!("{}?application_name=standby_b", rig.server.url("postgres"))]);
    receive.arg("-D").arg(folder.path()).stderr(Stdio::null()).kill_on_drop(true);
    let mut receiving = receive.spawn().unwrap();
    rig.until("select count(*) from pg_stat_replication", |n| n == "1").await;
    let found = rig.ask(&needs).await;
    let told = found.has("standbys", Note, "");
    assert!(!told.detail.ends_with(": "), "{told:?}");
    found.lacks("replication slots", "");
    receiving.kill().await.unwrap();
}
