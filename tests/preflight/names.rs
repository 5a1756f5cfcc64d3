//! Names, and the state of the live database.

use backup_pg::{Needs, RestoreMode, Severity::*};

use super::{Rig, SCRATCH, ask, options};

#[tokio::test]
async fn names_must_be_new_and_fit() {
    let rig = Rig::start(15).await;
    let needs = Needs::default();
    rig.ask(&needs).await.lacks("database names", "");

    let fits = "ü".repeat(31) + "x";
    let names = |names: &[&str]| {
        let new_names = names.iter().map(|name| (*name).to_owned()).collect();
        backup_pg::PreflightOptions { new_names, ..options() }
    };
    rig.ask_with(&needs, &names(&[&fits])).await.lacks("database names", "");
    let found = rig.ask_with(&needs, &names(&[&(fits + "x")])).await;
    found.has("database names", Blocking, "64 bytes");
    let found = rig.ask_with(&needs, &names(&[SCRATCH, SCRATCH])).await;
    found.has("database names", Blocking, "two databases");
    let found = rig.ask_with(&needs, &names(&["claims"])).await;
    found.has("database names", Blocking, "two databases");
    rig.ask_with(&needs, &names(&[""])).await.has("database names", Blocking, "empty");

    rig.sql(&format!("create database {SCRATCH}")).await;
    let found = rig.ask(&needs).await;
    found.has("database names", Blocking, SCRATCH);
    assert!(backup_pg::refuse_blocking(&found.0).unwrap_err().message().contains("exists already"));
}

#[tokio::test]
async fn the_live_database_must_be_one_that_can_be_put_away() {
    let rig = Rig::start(16).await;
    let needs = Needs::default();
    let admin = rig.admin().await;
    rig.ask(&needs).await.lacks("live database", "");

    let found = ask(&admin, Some("nowhere"), &needs, &options()).await;
    found.has("live database", Note, "does not exist");
    found.passes();
    let in_place = backup_pg::PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    let found = ask(&admin, Some("nowhere"), &needs, &in_place).await;
    found.has("live database", Blocking, "does not exist");

    let found = ask(&admin, Some("template1"), &needs, &options()).await;
    found.has("live database", Blocking, "the server's own templates");
    let found = ask(&admin, Some("postgres"), &needs, &options()).await;
    found.has("live database", Blocking, "maintenance connection");

    rig.sql("alter database claims is_template true").await;
    rig.ask(&needs).await.has("live database", Warning, "is a template");
    rig.ask_with(&needs, &in_place).await.lacks("live database", "template");
    rig.sql("alter database claims is_template false").await;

    rig.sql("alter database claims allow_connections false").await;
    let found = rig.ask(&needs).await;
    let closed = found.has("live database", Blocking, "accepts no connections");
    assert!(closed.remedy.contains("--rollback"), "{closed:?}");
    rig.sql("alter database claims allow_connections true").await;

    rig.sql("update pg_database set datconnlimit = -2 where datname = 'claims'").await;
    rig.ask(&needs).await.has("live database", Blocking, "invalid");
    rig.sql("update pg_database set datconnlimit = -1 where datname = 'claims'").await;
    rig.ask(&needs).await.lacks("live database", "");
}

#[tokio::test]
async fn event_triggers_of_the_live_database_are_told() {
    let rig = Rig::start(17).await;
    let complete = Needs { complete: true, ..Needs::default() };
    let in_place = backup_pg::PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask(&complete).await.lacks("event triggers", "");
    rig.ask_with(&complete, &in_place).await.lacks("event triggers", "");
    rig.live(
        "create function f() returns event_trigger language plpgsql as $$ begin end $$;
         create event trigger watching on ddl_command_start execute function f()",
    )
    .await;
    rig.ask(&complete).await.has("event triggers", Note, "watching");
    rig.ask_with(&complete, &in_place).await.has("event triggers", Warning, "watching");
    let mut archived = complete;
    archived.superuser_objects.insert("event trigger".into(), ["watching".into()].into());
    rig.ask(&archived).await.lacks("event triggers", "");
    rig.live("alter event trigger watching disable").await;
    rig.ask_with(&archived, &in_place).await.lacks("event triggers", "");
}
