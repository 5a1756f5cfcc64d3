//! What a restore needs around it: roles, tablespaces, settings, client tools.

use super::*;

#[tokio::test]
async fn missing_roles_are_refused_or_made_from_the_globals() {
    let source = Bench::start().await;
    let archive = source.dump().await;
    let target = Bench::start().await;
    target.sql("postgres", "DROP DATABASE fx").await;
    target.sql("postgres", "DROP OWNED BY \"cl;aims \"\"o\"; DROP ROLE \"cl;aims \"\"o\"").await;
    target.sql("postgres", "DROP OWNED BY reader; DROP ROLE reader").await;
    let error =
        write(&target.restore("fx", RestoreOptions::default()), &archive).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.message().contains("cl;aims \"o") && error.message().contains("reader"),
        "{error}"
    );
    assert_eq!(target.databases().await, "");

    let globals = "CREATE ROLE \"cl;aims \"\"o\"; ALTER ROLE \"cl;aims \"\"o\" WITH LOGIN;
        CREATE ROLE reader; ALTER ROLE reader WITH NOLOGIN; CREATE ROLE postgres; ALTER ROLE postgres WITH SUPERUSER;";
    let globals = Some(Globals::read(globals).unwrap());
    let restore = target.restore("fx", RestoreOptions { globals, ..Default::default() });
    write(&restore, &archive).await.unwrap().commit().await.unwrap();
    let report = restore.report().unwrap();
    assert_eq!(report.created_roles, ["cl;aims \"o", "reader"]);
    assert_eq!(report.cannot_log_in, ["cl;aims \"o"]);
    assert!(report.notes.iter().any(|note| note.contains("role postgres exists")), "{report:?}");
    assert_eq!(target.text("fx"), source.text("fx"));

    let restore = target.restore("plain", RestoreOptions { no_owners: true, ..Default::default() });
    write(&restore, &archive).await.unwrap().commit().await.unwrap();
    let owner = "select tableowner from pg_tables where tablename = 'claims'";
    assert_eq!(target.sql("plain", owner).await, "postgres");
}

/// The database must not be lost for a setting that can't be made.
#[tokio::test]
async fn a_property_that_can_not_be_set_is_told_and_costs_nothing_else() {
    let bench = Bench::start().await;
    let gone = "CREATE ROLE gone; ALTER ROLE gone IN DATABASE fx SET work_mem = '1MB'";
    bench.sql("postgres", gone).await;
    let archive = bench.dump().await;
    bench.sql("postgres", "DROP ROLE gone").await;
    let restore = bench.restore("fx2", RestoreOptions::default());
    write(&restore, &archive).await.unwrap().commit().await.unwrap();
    let notes = restore.report().unwrap().notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("gone") && notes[0].contains("could not be run"), "{notes:?}");
    assert_eq!(bench.text("fx2"), bench.text("fx"));
}

/// What a service file or libpq's defaults name is found out by connecting.
#[tokio::test]
async fn a_connection_without_a_database_leads_where_libpq_goes() {
    let bench = Bench::start().await;
    let nameless = bench.server.connection_string("").trim_end_matches('/').to_owned();
    let connection: Connection = nameless.parse().unwrap();
    assert_eq!(connection.database(), None);
    let restore = PgRestore::new(connection, bench.search.clone(), RestoreOptions::default());
    write(&restore, &bench.dump().await).await.unwrap().commit().await.unwrap();
    assert_eq!(restore.report().unwrap().database, "postgres");
}

#[tokio::test]
async fn tablespaces_are_refused_mapped_or_ignored() {
    let bench = Bench::start().await;
    let archive = [Bytes::from_static(include_bytes!("../../archive/fixtures/tablespace.dump"))];
    let error =
        write(&bench.restore("ts", RestoreOptions::default()), &archive).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("fast ssd"), "{error}");
    let options = |ignore, to: &str| RestoreOptions {
        tablespaces: TablespaceMap {
            ignore,
            renamed: [("fast ssd".to_owned(), to.to_owned())].into(),
        },
        ..Default::default()
    };
    let ts = "SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE \"lang \"\"sam\" LOCATION ''";
    bench.sql("postgres", ts).await;
    for (name, options, wanted) in
        [("mapped", options(false, "lang \"sam"), "lang \"sam"), ("plain", options(true, ""), "")]
    {
        let restore = bench.restore(name, options);
        write(&restore, &pieces(&archive, 100)).await.unwrap().commit().await.unwrap();
        let sql = "select coalesce(tablespace, '') from pg_tables where tablename = 'a'";
        assert_eq!(bench.sql(name, sql).await, wanted);
    }
}

/// pg_restore 17 and later says `SET transaction_timeout`, which this server may not know.
#[tokio::test]
async fn newer_client_tools_restore_into_an_older_server() {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/servers.json");
    let json = std::fs::read(list).expect("`cargo xtask setup` writes the list of servers");
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for major in [17, 18] {
        let mut all = json.as_array().unwrap().iter();
        let folder = all.find(|one| one["major"] == major).unwrap()["bin"].as_str().unwrap();
        let bench = Bench::start_with(Path::new(folder)).await;
        let archive = pieces(&bench.dump().await, 1000);
        bench.sql("postgres", "CREATE DATABASE leer").await;
        for database in ["fx2", "leer"] {
            let restore = bench.restore(database, RestoreOptions::default());
            let writer = write(&restore, &archive).await.unwrap();
            // pg_restore may have ended: it does not wait for the end of what it reads.
            assert!(children(&bench).iter().any(|line| line.contains("bin/psql ")));
            writer.abort().await.unwrap();
            assert_eq!(children(&bench), [""; 0]);
            assert_eq!(bench.databases().await, "fx leer");
            let none = "select count(*) from pg_class where relname = 'claims'";
            assert_eq!(bench.sql("leer", none).await, "0");
        }
        for database in ["fx2", "leer"] {
            let restore = bench.restore(database, RestoreOptions::default());
            write(&restore, &archive).await.unwrap().commit().await.unwrap();
            assert_eq!(restore.report().unwrap().rows_compared, 137);
        }
        assert_eq!(bench.text("fx2"), bench.text("fx"));
        let mut broken = archive.concat();
        let at = broken.windows(6).position(|w| w == b"1\t\\N\n\0").unwrap();
        broken[at] = b'x';
        let restore = bench.restore("fx3", RestoreOptions::default());
        let writer = write(&restore, &[Bytes::from(broken)]).await.unwrap();
        let error = writer.commit().await.unwrap_err();
        assert!(format!("{error:?}").contains("invalid input syntax"), "{error:?}");
        assert_eq!(bench.databases().await, "fx fx2 leer");
    }
}
