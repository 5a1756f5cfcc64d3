//! Locales, extensions, tablespaces, space and pg_hba.conf.

use backup_core::DatabaseFacts;
use backup_pg::{Needs, PreflightOptions, RestoreMode, Severity::*, TablespaceMap};
use backup_testkit::postgres::{PASSWORD, majors};

use super::{ABLE, Rig, SCRATCH, ask, options};

fn of_database(encoding: &str, provider: Option<&str>, locale: &str) -> Needs {
    let libc = provider.is_none_or(|provider| provider == "libc");
    let database = DatabaseFacts {
        encoding: encoding.into(),
        locale_provider: provider.map(Into::into),
        locale: Some(locale.into()),
        ..DatabaseFacts::default()
    };
    let libc_locales = Some(locale.to_owned()).filter(|_| libc).into_iter().collect();
    Needs { database: Some(database), libc_locales, ..Needs::default() }
}

#[tokio::test]
async fn encodings_and_locales_are_compared() {
    let rig = Rig::start(16).await;
    let found = rig.ask(&of_database("UTF8", Some("libc"), "C.UTF-8")).await;
    for subject in ["encoding", "locale", "collation version"] {
        found.lacks(subject, "");
    }
    let found = rig.ask(&of_database("LATIN1", None, "C")).await;
    found.has("encoding", Warning, "the backup has LATIN1, the live database UTF8");
    found.has("locale", Warning, "the backup has C (libc), the live database C.UTF-8 (libc)");
    let found = rig.ask(&of_database("KLINGON", None, "tlh_QO.UTF-8'")).await;
    found.has("encoding", Blocking, "does not know KLINGON");
    found.has("locale", Blocking, "the server's host lacks tlh_QO.UTF-8'");
    // In place nothing is made of them.
    let in_place = PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask_with(&of_database("LATIN1", None, "tlh"), &in_place).await.passes();

    let builtin = of_database("UTF8", Some("builtin"), "C.UTF-8");
    rig.ask(&builtin).await.has("locale", Blocking, "from builtin");
    Rig::start(17).await.ask(&builtin).await.lacks("locale", "from builtin");
}

/// Some servers are too old for ICU, others built without it: they have to agree.
#[tokio::test]
async fn locales_of_icu_are_for_servers_that_have_it() {
    let needs = of_database("UTF8", Some("icu"), "de");
    let mut outcomes = [0, 0];
    for major in majors().await {
        let rig = Rig::start(major).await;
        let make =
            "create database icu template template0 locale_provider icu icu_locale 'de' locale 'C'";
        let works = rig.server.sql("postgres", make).await.is_ok();
        let found = rig.ask(&needs).await;
        match works {
            true => found.lacks("locale", "can't use"),
            false => drop(found.has("locale", Blocking, "from icu")),
        }
        outcomes[usize::from(works)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[tokio::test]
async fn collation_versions_are_compared() {
    let mut seen = 0;
    for major in majors().await.into_iter().filter(|major| *major >= 15) {
        let rig = Rig::start(major).await;
        let sql =
            "select pg_collation_actual_version(oid) from pg_collation where collname = 'de-x-icu'";
        let actual = rig.sql(sql).await;
        if actual.is_empty() {
            continue; // built without ICU
        }
        seen += 1;
        let mut needs = of_database("UTF8", Some("icu"), "de");
        let mut with = |version: &str| {
            needs.database.as_mut().unwrap().collation_version = Some(version.into());
            needs.clone()
        };
        rig.ask(&with(&actual)).await.lacks("collation version", "");
        let found = rig.ask(&with("1.2.3")).await;
        found.has("collation version", Warning, "de sorted by version 1.2.3");
        // The C library's locale of that name is another.
        let mut libc = with("1.2.3");
        libc.libc_locales.clear();
        libc.database.as_mut().unwrap().locale_provider = None;
        rig.ask(&libc).await.lacks("collation version", "");

        rig.sql("create database icu template template0 locale_provider icu icu_locale 'de'").await;
        let (admin, needs) = (rig.admin().await, Needs::default());
        ask(&admin, Some("icu"), &needs, &options()).await.lacks("collation version", "");
        rig.sql("update pg_database set datcollversion = '9' where datname = 'icu'").await;
        let found = ask(&admin, Some("icu"), &needs, &options()).await;
        let found = found.has("collation version", Warning, "made with collation version 9");
        assert!(found.remedy.contains("REINDEX DATABASE \"icu\""), "{found:?}");
    }
    assert!(seen > 0, "no server here was built with ICU");
}

#[tokio::test]
async fn extensions_must_be_there() {
    let rig = Rig::start(15).await;
    let mut needs = Needs::default();
    needs.extensions.insert("hstore".into(), None);
    rig.ask(&needs).await.lacks("extensions", "");
    rig.live("create extension hstore version '1.4'").await;
    let found = rig.ask(&needs).await;
    let other = found.has("extensions", Note, "instead of 1.4");
    assert!(other.detail.contains("hstore 1."), "{other:?}");
    needs.extensions.insert("hstore".into(), Some("1.1".into()));
    rig.ask(&needs).await.has("extensions", Note, "instead of 1.1");
    let in_place = PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask_with(&needs, &in_place).await.lacks("extensions", "");
    needs.extensions.insert("it's gone".into(), None);
    rig.ask(&needs).await.has("extensions", Blocking, "lacks it's gone");
}

#[tokio::test]
async fn tablespaces_must_be_there_and_usable() {
    let rig = Rig::start_with(15, &ABLE).await;
    rig.sql("create role plain login password 'plain' createdb").await;
    rig.sql("create tablespace \"fast ssd\" location ''").await;
    let plain = rig.admin_of("plain", "plain").await;
    let needs =
        Needs { tablespaces: ["fast ssd".into(), "gone".into()].into(), ..Needs::default() };
    rig.ask(&needs).await.has("tablespaces", Blocking, "lacks gone");
    let to = |new: &str| TablespaceMap {
        renamed: [("gone".into(), new.into())].into(),
        ..TablespaceMap::default()
    };
    let mapped = PreflightOptions { tablespaces: to("fast ssd"), ..options() };
    rig.ask_with(&needs, &mapped).await.lacks("tablespaces", "");
    let mapped_wrong = PreflightOptions { tablespaces: to("nowhere"), ..options() };
    rig.ask_with(&needs, &mapped_wrong).await.has("tablespaces", Blocking, "lacks nowhere");
    let ignored = TablespaceMap { ignore: true, ..TablespaceMap::default() };
    let ignored = PreflightOptions { tablespaces: ignored, ..options() };
    rig.ask_with(&needs, &ignored).await.lacks("tablespaces", "");

    let found = ask(&plain, Some("claims"), &needs, &mapped).await;
    let refused = found.has("tablespaces", Blocking, "plain may not use fast ssd");
    rig.sql(&refused.remedy).await;
    ask(&plain, Some("claims"), &needs, &mapped).await.lacks("tablespaces", "");
    // The database's own counts, unless the database stays.
    let own = Needs { database_tablespace: Some("gone".into()), ..Needs::default() };
    rig.ask(&own).await.has("tablespaces", Blocking, "lacks gone");
    let in_place = PreflightOptions { mode: RestoreMode::InPlace, ..options() };
    rig.ask_with(&own, &in_place).await.lacks("tablespaces", "");
}

#[tokio::test]
async fn space_is_counted_where_it_can_be() {
    let rig = Rig::start(15).await;
    let of = |bytes| Needs::default().with_plain_bytes(bytes);
    rig.sql("create role plain login password 'plain'").await;
    let plain = rig.admin_of("plain", "plain").await;
    ask(&plain, Some("claims"), &of(1), &options()).await.has(
        "space",
        Note,
        "can't be seen from here",
    );
    rig.ask(&Needs::default()).await.lacks("space", "");

    let Some(local) = rig.server.local() else {
        rig.ask(&of(1)).await.has("space", Note, "can't be seen from here");
        return;
    };
    let data = local.server().unwrap().data_dir();
    let df = std::process::Command::new("df").args(["-B1", "--output=avail"]).arg(&data).output();
    let df = String::from_utf8(df.unwrap().stdout).unwrap();
    let free: u64 = df.lines().nth(1).unwrap().trim().parse().unwrap();
    rig.ask(&of(1000)).await.lacks("space", "");
    rig.ask(&of(free / 2)).await.lacks("space", "");
    rig.ask(&of(free * 2)).await.has("space", Warning, "are free on the server");
    rig.ask(&of(free * 8)).await.has("space", Blocking, "the live database takes");
}

/// Writes the server's pg_hba.conf, through the server, and waits until it holds.
async fn allow(rig: &Rig, lines: &[&str]) {
    let everyone_local = "local all postgres scram-sha-256".to_owned();
    let lines = lines.iter().map(|line| (*line).to_owned()).chain([everyone_local]);
    let quoted: Vec<String> =
        lines.map(|line| format!("('{}')", line.replace('\'', "''"))).collect();
    let file = rig.sql("show hba_file").await;
    let sql = format!("copy (values {}) to '{file}'; select pg_reload_conf()", quoted.join(", "));
    rig.sql(&sql).await;
    // The postmaster rereads it in its own time: every new session is asked for its view.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
}

#[tokio::test]
async fn the_scratch_name_must_get_through_pg_hba() {
    let rig = Rig::start(18).await;
    let needs = Needs::default();
    rig.sql("create role app login password 'app'").await;
    let app = rig.connection_of("app", "app", "claims");
    let with_app = PreflightOptions { clients: vec![app], ..options() };
    rig.ask_with(&needs, &with_app).await.lacks("pg_hba.conf", "");

    let all = "all 0.0.0.0/0 scram-sha-256";
    allow(&rig, &[&format!("host postgres,claims {all}")]).await;
    let found = rig.ask_with(&needs, &with_app).await;
    for name in [SCRATCH, "marb_restoring_"] {
        let text = format!("postgres does not get into a database of the new name {name}");
        found.has("pg_hba.conf", Blocking, &text);
    }
    found.has("pg_hba.conf", Blocking, "app does not get into");
    found.has("pg_hba.conf", Note, "name claims: 1 (scram-sha-256)");
    let in_place = PreflightOptions { mode: RestoreMode::InPlace, ..with_app.clone() };
    rig.ask_with(&needs, &in_place).await.lacks("pg_hba.conf", "");

    allow(
        &rig,
        &["host all postgres 0.0.0.0/0 scram-sha-256", "host claims app 0.0.0.0/0 scram-sha-256"],
    )
    .await;
    let found = rig.ask_with(&needs, &with_app).await;
    found.lacks("pg_hba.conf", "postgres does not");
    found.has("pg_hba.conf", Blocking, "app does not get into");

    // Patterns, as the remedy proposes them. The database is filled under a name of its own.
    let for_app = "host \"/^claims_\" app 0.0.0.0/0 scram-sha-256";
    let named =
        |pattern: &str| format!("host postgres,claims,\"/^{pattern}_\" postgres 0.0.0.0/0 md5");
    allow(&rig, &[&named("claims"), for_app]).await;
    let found = rig.ask_with(&needs, &with_app).await;
    let refused = found.has("pg_hba.conf", Blocking, "marb_restoring_");
    assert!(refused.remedy.contains("\"/^marb_restoring_\""), "{refused:?}");
    found.lacks("pg_hba.conf", SCRATCH);
    allow(&rig, &[&named("marb_restoring"), &named("claims"), for_app]).await;
    rig.ask_with(&needs, &with_app).await.lacks("pg_hba.conf", "does not get");

    allow(&rig, &["host claims stranger 0.0.0.0/0 reject", &format!("host all {all}")]).await;
    rig.ask_with(&needs, &with_app).await.has("pg_hba.conf", Warning, "name claims: 1 (reject)");
    let unknown = rig.connection_of("app", "wrong", "claims");
    let with_wrong = PreflightOptions { clients: vec![unknown], ..options() };
    rig.ask_with(&needs, &with_wrong).await.has("pg_hba.conf", Blocking, "refused the password");
    assert!(!format!("{with_app:?}").contains(PASSWORD));
}
