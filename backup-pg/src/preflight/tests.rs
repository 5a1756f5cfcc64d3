//! What an archive wants, from a real dump. The findings themselves are tested on servers of
//! every version, in the integration tests.

use std::sync::Arc;

use backup_core::pipeline::{self, Context, Flow};
use backup_core::{DatabaseFacts, Inventory};

use super::Needs;
use crate::test_server::TestServer;
use crate::{ArchiveHead, DumpOptions, PgDump};

const SQL: &str = r#"
create extension hstore schema public;
create role owning; create role "Granted to"; create role "by policy"; create role mapped;
create role defaulted; create role on_database;
create schema s authorization owning;
create table s.t (i int) tablespace elsewhere; alter table s.t owner to owning;
grant select on s.t to "Granted to";
alter default privileges for role owning grant select on tables to defaulted;
grant connect on database wanting to on_database;
alter table s.t enable row level security;
create policy p on s.t for select to "by policy" using (i in (select 1 from s.t));
create foreign data wrapper wrapped; create server far foreign data wrapper wrapped;
create user mapping for mapped server far options (password 'top secret');
create publication part_of for table s.t; create publication everything for all tables;
create subscription sub connection 'host=pub.example dbname=d password=geheim'
    publication p with (connect = false);
create function s.unsafe() returns int language internal as 'pg_backend_pid';
create function s.harmless() returns text language sql as $$ select 'LANGUAGE c' $$;
create function s.on_ddl() returns event_trigger language plpgsql as $$ begin end $$;
create event trigger watching on ddl_command_start execute function s.on_ddl();
"#;

async fn needs_of(server: &TestServer, database: &str) -> Needs {
    let facts = server.facts(&server.connection(database)).await;
    let head = ArchiveHead::new();
    let source = Arc::new(PgDump::new(&facts, DumpOptions::default()));
    let flow = Flow::new("head", source, Arc::new(head.clone()));
    Needs::from_toc(&head.judge(pipeline::run(flow, &Context::default()).await).unwrap())
}

#[tokio::test]
async fn a_table_of_contents_tells_everything_that_is_wanted() {
    let server = TestServer::start();
    let sql = "set allow_in_place_tablespaces = on; create tablespace elsewhere location '';
         create database wanting template template0 encoding 'LATIN1' locale 'C' tablespace elsewhere;
         create database plain;";
    server.execute("postgres", sql).await;
    server.execute("wanting", SQL).await;
    let needs = needs_of(&server, "wanting").await;
    let major = server.facts(&server.connection("postgres")).await.version().major;

    assert_eq!((needs.server_major, needs.dump_major), (Some(major), Some(major)));
    let database = needs.database.as_ref().unwrap();
    assert_eq!((database.name.as_str(), database.encoding.as_str()), ("wanting", "LATIN1"));
    assert_eq!(needs.libc_locales, ["C".to_owned()].into());
    assert_eq!(needs.extensions, [("hstore".to_owned(), None)].into());
    let owners: Vec<&str> = needs.owners.iter().map(String::as_str).collect();
    assert!(owners.contains(&"owning") && owners.contains(&"postgres"), "{owners:?}");
    for grantee in ["Granted to", "defaulted", "on_database", "owning"] {
        assert!(needs.grantees.contains(grantee), "{grantee}: {:?}", needs.grantees);
    }
    let named: Vec<&str> = needs.named_roles.iter().map(String::as_str).collect();
    assert_eq!(named, ["by policy", "mapped"]);
    assert_eq!(needs.database_tablespace.as_deref(), Some("elsewhere"));
    let publications: Vec<&str> = needs.publications.iter().map(String::as_str).collect();
    assert_eq!(publications, ["everything", "part_of"]);
    assert_eq!(needs.subscriptions["sub"], "pub.example/d");
    let kinds: Vec<(&str, Vec<&str>)> = needs
        .superuser_objects
        .iter()
        .map(|(kind, names)| (kind.as_str(), names.iter().map(String::as_str).collect()))
        .collect();
    let expected = [
        ("event trigger", vec!["watching"]),
        ("foreign data wrapper", vec!["wrapped"]),
        ("function", vec!["unsafe()"]),
        ("publication for all tables", vec!["everything"]),
    ];
    assert_eq!(kinds, expected);
    assert!(needs.complete);
    let json = serde_json::to_string(&needs).unwrap();
    assert!(!json.contains("geheim") && !json.contains("secret"), "{json}");

    let plain = needs_of(&server, "plain").await;
    assert!(plain.extensions.is_empty() && plain.named_roles.is_empty());
    assert!(plain.superuser_objects.is_empty() && plain.tablespaces.is_empty());
    assert!(plain.database_tablespace.is_none() && plain.subscriptions.is_empty());
}

#[test]
fn an_inventory_tells_less_and_fills_gaps() {
    let facts = DatabaseFacts {
        encoding: "UTF8".into(),
        locale: Some("de_DE.UTF-8".into()),
        collation_version: Some("2.36".into()),
        ..DatabaseFacts::default()
    };
    let inventory = Inventory {
        database: Some(facts.clone()),
        extensions: vec!["hstore".into()],
        roles: vec!["owning".into()],
        ..Inventory::default()
    };
    let needs = Needs::from_inventory(&inventory).with_server_version("15.18 (Debian)");
    assert_eq!(needs.server_major, Some(15));
    assert!(!needs.complete && needs.owners.contains("owning"));
    assert!(needs.extensions.contains_key("hstore"));
    assert_eq!(needs.libc_locales, ["de_DE.UTF-8".to_owned()].into());

    // A table of contents counts more, but does not know the collation's version.
    let known = Needs {
        complete: true,
        server_major: Some(16),
        database: Some(DatabaseFacts { collation_version: None, ..facts }),
        ..Needs::default()
    };
    let known = known.with_inventory(&inventory).with_server_version("15.18");
    assert_eq!(known.server_major, Some(16));
    assert_eq!(known.database.unwrap().collation_version.as_deref(), Some("2.36"));
    assert!(known.extensions.is_empty());

    // ICU's locale is none of the C library's.
    let mut icu = inventory;
    icu.database.as_mut().unwrap().locale_provider = Some("icu".into());
    assert!(Needs::from_inventory(&icu).libc_locales.is_empty());
}
