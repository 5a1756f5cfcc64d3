//! The roles that an archive names.

use backup_pg::{Globals, Needs, PreflightOptions, Severity::*};

use super::{Rig, options};

const GLOBALS: &str = "CREATE ROLE owning; ALTER ROLE owning WITH NOLOGIN PASSWORD 'SCRAM-geheim';";

fn needs() -> Needs {
    Needs {
        owners: ["owning".into(), "postgres".into()].into(),
        grantees: ["granted".into()].into(),
        complete: true,
        ..Needs::default()
    }
}

#[tokio::test]
async fn missing_roles_block_unless_they_are_not_needed() {
    let rig = Rig::start(15).await;
    let found = rig.ask(&needs()).await;
    let missing = found.has("roles", Blocking, "lacks granted, owning");
    assert!(missing.remedy.contains("--with-globals") && missing.remedy.contains("--no-owner"));

    let no_owners = PreflightOptions { no_owners: true, ..options() };
    rig.ask_with(&needs(), &no_owners).await.lacks("roles", "");
    let globals = Some(Globals::read(GLOBALS).unwrap());
    let with_globals = PreflightOptions { globals, ..options() };
    let found = rig.ask_with(&needs(), &with_globals).await;
    let missing = found.has("roles", Blocking, "lacks granted");
    assert!(!missing.detail.contains("owning") && !missing.remedy.contains("--with-globals"));
    found.has("roles", Note, "created from the backup: owning");
    assert!(!format!("{found:?}{with_globals:?}").contains("geheim"));

    let map = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    let role_map = [map("owning", "postgres"), map("granted", "postgres")].into();
    let mapped = PreflightOptions { role_map, ..options() };
    rig.ask_with(&needs(), &mapped).await.lacks("roles", "");
    let role_map = [map("owning", "nobody here"), map("granted", "postgres")].into();
    let mapped = PreflightOptions { role_map, ..options() };
    let found = rig.ask_with(&needs(), &mapped).await;
    found.has("roles", Blocking, "mapped to nobody here");
    found.lacks("roles", "the server lacks owning");

    rig.sql("create role owning; create role granted").await;
    rig.ask(&needs()).await.lacks("roles", "");
    rig.ask_with(&needs(), &with_globals).await.lacks("roles", "");
}

#[tokio::test]
async fn a_role_of_a_policy_is_needed_without_owners_too() {
    let rig = Rig::start(15).await;
    let needs = Needs { named_roles: ["by policy".into()].into(), ..needs() };
    let no_owners = PreflightOptions { no_owners: true, ..options() };
    let found = rig.ask_with(&needs, &no_owners).await;
    let missing = found.has("roles", Blocking, "by policy");
    assert!(missing.remedy.contains("--no-owner does not help"), "{missing:?}");
    rig.sql("create role \"by policy\"").await;
    rig.ask_with(&needs, &no_owners).await.lacks("roles", "");
}

#[tokio::test]
async fn an_inventory_leaves_grants_unknown_and_says_so() {
    let rig = Rig::start(15).await;
    let needs = Needs { complete: false, owners: ["postgres".into()].into(), ..Needs::default() };
    rig.ask(&needs).await.has("roles", Note, "only owners were compared");
    let complete = Needs { complete: true, ..needs };
    rig.ask(&complete).await.lacks("roles", "");
}
