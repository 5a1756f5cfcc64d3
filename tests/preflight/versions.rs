//! The whole preflight on servers of every version, and what depends on versions.

use std::sync::Arc;

use backup_core::pipeline::{self, Context, Flow};
use backup_pg::{
    ArchiveHead, DumpOptions, Needs, PgDump, RestoreMode, Server, Severity::*, Toc, ToolSearch,
};
use backup_testkit::postgres::{PASSWORD, ServerKind, client_tools, majors};

use super::{ABLE, Rig, SCRATCH, options, search};

/// The table of contents of a real dump of the live database.
async fn toc(rig: &Rig) -> Toc {
    let url = rig.server.url("claims").parse().unwrap();
    let server = Server::connect(&url, &search()).await.unwrap();
    let head = ArchiveHead::new();
    let dump = Arc::new(PgDump::new(&server, DumpOptions::default()));
    let flow = Flow::new("head", dump, Arc::new(head.clone()));
    head.judge(pipeline::run(flow, &Context::default()).await).unwrap()
}

#[tokio::test]
async fn nothing_stands_against_an_ordinary_restore_on_any_version() {
    for major in majors().await {
        let rig = Rig::start(major).await;
        rig.live("create extension if not exists plpgsql; create table t as select 1 as i").await;
        let needs = Needs::from_toc(&toc(&rig).await).with_plain_bytes(1000);
        let mut found = rig.ask(&needs).await;
        if rig.server.kind() == ServerKind::Container {
            found.0.retain(|finding| finding.subject != "space");
        }
        // Where the client tools are newer than the server, that is told.
        found.0.retain(|finding| !finding.detail.contains("wrote the archive"));
        assert!(found.0.is_empty(), "{major}: {found:#?}");
        // Nor against one into a database that does not exist, whoever is in others.
        let session = rig.session("postgres", PASSWORD, "elsewhere").await;
        let options = backup_pg::PreflightOptions { mode: RestoreMode::Create, ..options() };
        let mut found = super::ask(&rig.admin().await, None, &needs, &options).await;
        found.0.retain(|f| f.subject != "space" && !f.detail.contains("wrote the archive"));
        assert!(found.0.is_empty(), "{major}: {found:#?}");
        drop(session);
    }
}

#[tokio::test]
async fn everything_is_found_on_every_version() {
    for major in majors().await {
        let rig = Rig::start_with(major, &ABLE[..4]).await;
        rig.sql("create role app login; alter database claims owner to app").await;
        rig.live(
            "create table t (i int primary key); alter table t owner to app;
             create publication p for table t;
             create subscription s connection 'host=127.0.0.1 dbname=x password=geheim'
                publication q with (connect = false, slot_name = 'remote');
             create function f() returns event_trigger language plpgsql as $$ begin end $$;
             create event trigger watching on ddl_command_start execute function f()",
        )
        .await;
        rig.live("select pg_create_logical_replication_slot('mine', 'pgoutput')").await;
        rig.live("begin; insert into t values (1); prepare transaction 'it''s'").await;
        let mut needs = Needs::from_toc(&toc(&rig).await);
        needs.extensions.insert("none_such".into(), None);
        needs.owners.insert("gone".into());
        needs.libc_locales.insert("xx_XX.UTF-8".into());
        needs.tablespaces.insert("nowhere".into());
        needs.publications.clear();
        let session = rig.session("postgres", PASSWORD, "busy").await;
        for mode in [RestoreMode::Swap, RestoreMode::InPlace] {
            let options = backup_pg::PreflightOptions { mode, ..options() };
            let found = rig.ask_with(&needs, &options).await;
            found.has("replication slots", Blocking, "mine (pgoutput)");
            found.has("subscriptions", Blocking, "s (q of 127.0.0.1/x, disabled)");
            found.has("subscriptions", Note, "leaves them out");
            let prepared = found.has("prepared transactions", Blocking, "it's");
            assert!(prepared.remedy.contains("ROLLBACK PREPARED 'it''s'"), "{prepared:?}");
            found.has("extensions", Blocking, "none_such");
            found.has("roles", Blocking, "gone");
            found.has("tablespaces", Blocking, "nowhere");
            let busy = if mode == RestoreMode::Swap { Note } else { Warning };
            found.has("sessions", busy, "1 of postgres (busy)");
            if mode == RestoreMode::Swap {
                found.has("locale", Blocking, "xx_XX.UTF-8");
                found.has("publications", Warning, "p (1 tables)");
            }
            assert!(
                found.0.iter().all(|f| !f.detail.contains("could not be checked")),
                "{found:#?}"
            );
            let json = serde_json::to_string(&found.0).unwrap();
            assert!(!json.contains("geheim"), "{json}");
        }
        drop(session);
    }
}

#[tokio::test]
async fn older_servers_and_older_tools_are_told() {
    let rig = Rig::start(15).await;
    let needs = |server, dump| Needs {
        server_major: Some(server),
        dump_major: Some(dump),
        ..Needs::default()
    };
    rig.ask(&needs(15, 15)).await.lacks("server", "");
    rig.ask(&needs(14, 14)).await.lacks("server", "");
    rig.ask(&needs(16, 16)).await.has("server", Warning, "the backup came from 16");
    let found = rig.ask(&needs(15, 17)).await;
    found.has("server", Note, "pg_dump 17 wrote");
    found.lacks("server", "came from");

    let of_format = |toc: Toc| Needs { archive: Some(toc.header.version), ..Needs::default() };
    let here = toc(&rig).await;
    let only_15 = ToolSearch { configured: client_tools(15), ..ToolSearch::default() };
    let options = backup_pg::PreflightOptions { search: only_15, ..options() };
    rig.ask_with(&of_format(here), &options).await.lacks("client tools", "");
    let newer = Rig::start(18).await;
    let needs = of_format(toc(&newer).await);
    let found = rig.ask_with(&needs, &options).await;
    found.has("client tools", Blocking, "pg_restore 17 or newer");
    rig.ask(&needs).await.lacks("client tools", "");
}

#[tokio::test]
async fn a_server_that_takes_no_changes_is_refused() {
    let mut rig = Rig::start_with(16, &ABLE[..4]).await;
    rig.sql("create role frozen superuser login password 'frozen'").await;
    let frozen = rig.admin_of("frozen", "frozen").await;
    let needs = Needs::default();
    super::ask(&frozen, Some("claims"), &needs, &options()).await.lacks("server", "");
    rig.sql("alter role frozen set default_transaction_read_only = on").await;
    let found = super::ask(&frozen, Some("claims"), &needs, &options()).await;
    found.has("server", Blocking, "read-only");
    let in_place = backup_pg::PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask_with(&needs, &in_place).await.lacks("server", "");
    rig.sql("alter database claims set default_transaction_read_only = on").await;
    rig.ask_with(&needs, &in_place).await.has("server", Blocking, "read-only");
    rig.ask(&needs).await.lacks("server", "");

    let Some(local) = rig.server.local() else { return };
    let signal = local.server().unwrap().data_dir().join("standby.signal");
    rig.server.end(backup_testkit::postgres::Ending::Stop).await.unwrap();
    std::fs::write(signal, "").unwrap();
    rig.server.start_again().await.unwrap();
    let found = rig.ask(&needs).await;
    found.has("server", Blocking, "standby");
    assert!(found.0.iter().all(|f| !f.detail.contains("could not be checked")), "{found:#?}");
    assert!(rig.sql("select datname from pg_database").await.lines().all(|name| name != SCRATCH));
}
