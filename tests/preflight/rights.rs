//! A role that is no superuser: what it lacks is told, and only that.

use backup_pg::{Globals, Needs, PreflightOptions, Server, Severity::*};

use super::{Found, Rig, ask, options};

/// A role that restores, the application's role that owns the live database, and a stranger.
async fn restricted(major: u32) -> (Rig, Server) {
    let rig = Rig::start(major).await;
    rig.sql(
        "create role restorer login password 'restorer'; create role app login password 'app';
         create role stranger login password 'stranger'; alter database claims owner to app",
    )
    .await;
    let admin = rig.admin_of("restorer", "restorer").await;
    (rig, admin)
}

fn needs() -> Needs {
    Needs {
        owners: ["app".into()].into(),
        extensions: [("dblink".into(), None), ("hstore".into(), None)].into(),
        superuser_objects: [("event trigger".into(), ["watching".into()].into())].into(),
        complete: true,
        ..Needs::default()
    }
}

async fn of(admin: &Server, needs: &Needs, options: &PreflightOptions) -> Found {
    let found = ask(admin, Some("claims"), needs, options).await;
    assert!(found.0.iter().all(|f| !f.detail.contains("could not be checked")), "{found:#?}");
    found
}

#[tokio::test]
async fn what_a_restricted_role_lacks_is_told_until_it_has_it() {
    for major in [14, 15, 16, 18] {
        let (rig, admin) = restricted(major).await;
        let found = of(&admin, &needs(), &options()).await;
        found.has("rights", Blocking, "may not make or rename databases");
        found.has("rights", Blocking, "does not own the database");
        found.has("rights", Blocking, "event trigger watching");
        found.has("owners", Blocking, "may not give objects to app");
        found.has("sessions", Warning, "may not end sessions of other roles");
        let extensions = found.has("extensions", Blocking, "dblink");
        assert!(!extensions.detail.contains("hstore"), "{extensions:?}");

        rig.sql("alter role restorer createdb; grant app to restorer; grant pg_signal_backend to restorer").await;
        let found =
            of(&admin, &Needs { owners: ["app".into()].into(), ..Needs::default() }, &options())
                .await;
        for subject in ["rights", "owners", "sessions", "extensions"] {
            found.lacks(subject, "");
        }
        // The superuser misses nothing of it.
        let found = rig.ask(&needs()).await;
        for subject in ["rights", "owners", "sessions", "extensions"] {
            found.lacks(subject, "");
        }
        let no_owners = PreflightOptions { no_owners: true, ..options() };
        rig.sql("revoke app from restorer").await;
        of(&admin, &needs(), &no_owners).await.lacks("owners", "");
    }
}

#[tokio::test]
async fn handing_over_needs_the_set_option() {
    let (rig, admin) = restricted(16).await;
    rig.sql("alter role restorer createdb; grant app to restorer with set false").await;
    let found = of(&admin, &needs(), &options()).await;
    let refused = found.has("rights", Blocking, "may not give the new database to app");
    rig.sql(&refused.remedy).await;
    of(&admin, &needs(), &options()).await.lacks("rights", "may not give");
}

#[tokio::test]
async fn sessions_that_can_not_be_ended_are_told() {
    let (rig, admin) = restricted(15).await;
    let needs = Needs::default();
    rig.sql("grant app to restorer").await;
    let of_app = rig.session("app", "app", "worker").await;
    of(&admin, &needs, &options()).await.has("sessions", Warning, "may not end");
    let of_stranger = rig.session("stranger", "stranger", "visitor").await;
    let found = of(&admin, &needs, &options()).await;
    let refused =
        found.has("sessions", Blocking, "may not end these sessions: 1 of stranger (visitor)");
    rig.sql(&refused.remedy).await;
    // Not even a member of a superuser's role may.
    rig.sql("create role boss superuser login password 'boss'; grant boss to restorer").await;
    let of_superuser = rig.session("boss", "boss", "console").await;
    let found = of(&admin, &needs, &options()).await;
    found.has("sessions", Blocking, "superusers, and there are some: 1 of boss (console)");
    found.lacks("sessions", "may not end");
    drop(of_superuser);
    rig.until("select count(*) from pg_stat_activity where application_name = 'console'", |n| {
        n == "0"
    })
    .await;
    of(&admin, &needs, &options()).await.lacks("sessions", "superusers");
    drop((of_app, of_stranger));
}

#[tokio::test]
async fn roles_can_only_be_created_by_who_may() {
    let (rig, admin) = restricted(16).await;
    let globals = Some(Globals::read("CREATE ROLE fresh; ALTER ROLE fresh WITH NOLOGIN;").unwrap());
    let options = PreflightOptions { globals, ..options() };
    let needs = Needs { owners: ["fresh".into()].into(), complete: true, ..Needs::default() };
    let found = of(&admin, &needs, &options).await;
    found.has("roles", Blocking, "may not create roles");
    found.lacks("roles", "the server lacks");
    rig.sql("alter role restorer createrole").await;
    let found = of(&admin, &needs, &options).await;
    found.has("roles", Note, "fresh");
    // Whoever creates a role may not act as it yet.
    found.has("owners", Blocking, "fresh");
    rig.ask_with(&needs, &options).await.lacks("owners", "");
}

#[tokio::test]
async fn a_providers_administrator_is_only_warned() {
    let (rig, admin) = restricted(15).await;
    rig.sql("create role rds_superuser; grant rds_superuser to restorer").await;
    let found = of(&admin, &needs(), &options()).await;
    found.has("rights", Warning, "event trigger watching");
    found.has("extensions", Warning, "dblink");
    found.has("owners", Warning, "app");
    found.has("rights", Blocking, "may not make or rename databases");
}

#[tokio::test]
async fn settings_that_can_not_be_carried_over_are_told() {
    let (rig, admin) = restricted(15).await;
    of(&admin, &needs(), &options()).await.lacks("rights", "settings");
    rig.sql("alter role restorer in database claims set work_mem = '1MB'").await;
    rig.sql("alter database claims set work_mem = '2MB'").await;
    of(&admin, &needs(), &options()).await.lacks("rights", "settings");
    rig.sql("alter role stranger in database claims set work_mem = '1MB'").await;
    of(&admin, &needs(), &options()).await.has("rights", Warning, "\"claims\": stranger");
    rig.ask(&needs()).await.lacks("rights", "");
}

#[tokio::test]
async fn a_database_that_one_does_not_get_into_is_told() {
    let (rig, admin) = restricted(15).await;
    of(&admin, &needs(), &options()).await.lacks("live database", "");
    rig.sql("revoke connect on database claims from public").await;
    let found = of(&admin, &needs(), &options()).await;
    found.has("live database", Warning, "can't be looked into");
    let in_place = PreflightOptions { mode: backup_pg::RestoreMode::InPlace, ..options() };
    of(&admin, &needs(), &in_place).await.has("live database", Blocking, "can't be looked into");
}
