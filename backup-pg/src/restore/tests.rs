//! Against this machine's own PostgreSQL: what comes back, and what is left when it doesn't.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{ErrorKind, Source};
use bytes::Bytes;

use super::*;
use crate::throwaway::{ThrowawayOptions, ThrowawayServer};
use crate::{DumpOptions, PgDump, Psql, Server};

mod ending;
mod jobs;
mod modes;
mod surroundings;

/// A server of its own for each test, with a small database `fx`.
struct Bench {
    server: ThrowawayServer,
    search: ToolSearch,
}

const SAMPLE: &str = include_str!("../archive/fixtures/database.sql");

/// The newest PostgreSQL that Debian's packages put here.
fn system_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(|path| number(path));
    newest.unwrap().join("bin")
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(&system_programs()).await
    }

    async fn start_with(clients: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).unwrap();
        // Commits can be made to wait for a standby.
        let settings =
            [("synchronous_commit", "on"), ("wal_level", "replica"), ("max_wal_senders", "1")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = ThrowawayOptions { settings, ..Default::default() };
        let server =
            ThrowawayServer::start(&system_programs(), &folder.join("server"), &options).unwrap();
        let search = ToolSearch { configured: Some(clients.to_owned()), ..Default::default() };
        let bench = Self { server, search };
        bench.sql("postgres", "CREATE DATABASE fx").await;
        bench.sql("fx", SAMPLE).await;
        bench
    }

    fn connection(&self, database: &str) -> Connection {
        self.server.connection_string(database).parse().unwrap()
    }

    async fn psql(&self, database: &str) -> Psql {
        let tools = self.search.newest().await.unwrap();
        Psql::new(&tools, &self.connection(database))
    }

    async fn sql(&self, database: &str, sql: &str) -> String {
        let sql = format!("set search_path = public;\n{sql}");
        self.psql(database).await.query_text(&sql).await.unwrap()
    }

    async fn dump(&self) -> Vec<Bytes> {
        let server = Server::connect(&self.connection("fx"), &self.search).await.unwrap();
        let mut stream = PgDump::new(&server, DumpOptions::default()).open().await.unwrap();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.next_chunk().await.unwrap() {
            chunks.push(chunk);
        }
        chunks
    }

    fn restore(&self, database: &str, options: RestoreOptions) -> PgRestore {
        PgRestore::new(self.connection(database), self.search.clone(), options)
    }

    /// Databases besides those of every cluster.
    async fn databases(&self) -> String {
        let sql = "select string_agg(datname, ' ' order by datname) from pg_database
            where not datistemplate and datname <> 'postgres'";
        self.sql("postgres", sql).await
    }

    /// The plain dump of a database by stock programs, without the name and the random key.
    fn text(&self, database: &str) -> String {
        let output = Command::new(system_programs().join("pg_dump"))
            .args(["--create", "--restrict-key=x", "-d", &self.server.connection_string(database)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let named = format!("DATABASE {}", crate::sql::quote_ident(database));
        String::from_utf8(output.stdout)
            .unwrap()
            .replace(&named, "DATABASE fx")
            .replace(&format!("DATABASE {database}"), "DATABASE fx")
            .replace(&format!("Name: {database};"), "Name: fx;")
            .replace(&format!("\\connect {database}\n"), "\\connect fx\n")
    }
}

async fn write(restore: &PgRestore, chunks: &[Bytes]) -> Result<Box<dyn SinkWriter>> {
    let mut writer = restore.begin("fx").await?;
    for chunk in chunks {
        if let Err(error) = writer.write(chunk.clone()).await {
            writer.abort().await.unwrap();
            return Err(error);
        }
    }
    Ok(writer)
}

fn pieces(chunks: &[Bytes], size: usize) -> Vec<Bytes> {
    chunks.concat().chunks(size).map(Bytes::copy_from_slice).collect()
}

/// Processes of client programs that work on this bench's server.
fn children(bench: &Bench) -> Vec<String> {
    let socket = bench.server.socket_folder();
    let socket = socket.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let client = line.contains("bin/pg_restore ") || line.contains("bin/psql ");
        let of_ours = line.contains(socket) || line.contains("--file=-");
        let parent = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let is_child = parent.lines().any(|l| l == format!("PPid:\t{}", std::process::id()));
        if client && of_ours && is_child {
            found.push(line);
        }
    }
    found
}

#[tokio::test]
async fn a_new_database_is_made_equal_to_the_original() {
    let bench = Bench::start().await;
    let restore = bench.restore("fx2", RestoreOptions::default());
    write(&restore, &pieces(&bench.dump().await, 1000)).await.unwrap().commit().await.unwrap();
    let report = restore.report().unwrap();
    assert_eq!((report.database.as_str(), report.created), ("fx2", true));
    assert_eq!((report.tables_compared, report.rows_compared), (9, 137));
    assert_eq!(report.large_objects, 4);
    assert_eq!(report.notes, [""; 0]);
    assert_eq!(bench.databases().await, "fx fx2");
    assert_eq!(bench.text("fx2"), bench.text("fx"));
    let settings = "select string_agg(array_to_string(setconfig, ' '), '|' order by setrole)
        from pg_db_role_setting s join pg_database d on d.oid = setdatabase where datname = ";
    let of_original = bench.sql("postgres", &format!("{settings}'fx'")).await;
    assert_eq!(bench.sql("postgres", &format!("{settings}'fx2'")).await, of_original);
    assert!(of_original.contains("work_mem"));
    let analyzed = "select reltuples from pg_class where relname = 'claims'";
    assert_eq!(bench.sql("fx2", analyzed).await, "120");
}

#[tokio::test]
async fn an_existing_empty_database_is_filled() {
    let bench = Bench::start().await;
    bench.sql("postgres", "CREATE DATABASE leer").await;
    let restore = bench.restore("leer", RestoreOptions::default());
    write(&restore, &bench.dump().await).await.unwrap().commit().await.unwrap();
    assert!(!restore.report().unwrap().created);
    assert_eq!(bench.sql("leer", "select count(*) from claims").await, "120");
}

#[tokio::test]
async fn a_database_with_anything_in_it_is_refused_untouched() {
    let bench = Bench::start().await;
    let error = bench.restore("fx", RestoreOptions::default()).begin("x").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("tables"), "{error}");
    for (name, sql) in [
        ("f", "create function f() returns int language sql as 'select 1'"),
        ("t", "create type t as enum ('a')"),
        ("s", "create schema s"),
        ("l", "select lo_create(0)"),
    ] {
        bench.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        bench.sql(name, sql).await;
        let error = bench.restore(name, RestoreOptions::default()).begin("x").await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused, "{name}");
    }
    bench.sql("postgres", "CREATE DATABASE ext").await;
    bench.sql("ext", "create extension pg_trgm").await;
    bench.restore("ext", RestoreOptions::default()).begin("x").await.unwrap();
}

#[tokio::test]
async fn an_abort_leaves_no_database_and_no_process() {
    let bench = Bench::start().await;
    let all = pieces(&bench.dump().await, 500);
    bench.sql("postgres", "CREATE DATABASE leer").await;
    let mut running = false;
    for database in ["fx2", "leer"] {
        for count in [1, all.len() / 2, all.len() - 1, all.len()] {
            let restore = bench.restore(database, RestoreOptions::default());
            let writer = write(&restore, &all[..count]).await.unwrap();
            // With the head alone it is not started yet, with everything it may have ended.
            running |= !children(&bench).is_empty();
            writer.abort().await.unwrap();
            assert_eq!(children(&bench), [""; 0]);
            assert_eq!(bench.databases().await, "fx leer");
            assert!(restore.report().is_none());
        }
    }
    assert!(running, "no abort met a running client");
    assert_eq!(
        bench.sql("leer", "select count(*) from pg_class where relname = 'claims'").await,
        "0"
    );
}

#[tokio::test]
async fn a_dropped_writer_leaves_no_process_and_nothing_under_the_name() {
    let bench = Bench::start().await;
    let all = bench.dump().await;
    bench.sql("postgres", "CREATE DATABASE leer").await;
    for database in ["fx2", "leer"] {
        let restore = bench.restore(database, RestoreOptions::default());
        drop(write(&restore, &all).await.unwrap());
        assert_eq!(children(&bench), [""; 0]);
        let named = "select count(*) from pg_database where datname = 'fx2'";
        assert_eq!(bench.sql("postgres", named).await, "0");
    }
    assert_eq!(
        bench.sql("leer", "select count(*) from pg_class where relname = 'claims'").await,
        "0"
    );
}

/// Everything was written, pg_restore had all the time of the world, and nothing is visible.
#[tokio::test]
async fn nothing_is_visible_before_commit() {
    let bench = Bench::start().await;
    bench.sql("postgres", "CREATE DATABASE leer").await;
    // What pg_dump 17 leaves behind the data comes in pieces of its own: none may push the
    // last of the data through.
    let redirected = include_bytes!("../archive/fixtures/tablespace.dump");
    let toc_again = {
        let summary = finish(redirected);
        let start = redirected.windows(4).position(|w| w == b"ts2\0").map(|_| ());
        assert!(start.is_some());
        second_toc(redirected, &summary)
    };
    let options = RestoreOptions {
        tablespaces: TablespaceMap { ignore: true, ..Default::default() },
        ..Default::default()
    };
    let chunks = pieces(&[Bytes::from([&redirected[..], &toc_again].concat())], 64);
    let restore = bench.restore("leer", options);
    let writer = write(&restore, &chunks).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(children(&bench).len(), 1, "pg_restore still waits");
    assert_eq!(bench.sql("leer", "select count(*) from pg_class where relname = 'b'").await, "0");
    writer.commit().await.unwrap();
    assert_eq!(bench.sql("leer", "select count(*) from b").await, "1");
}

fn finish(archive: &[u8]) -> crate::ArchiveSummary {
    let mut reader = crate::ArchiveReader::new();
    reader.feed(archive).unwrap();
    reader.finish().unwrap()
}

/// The table of contents of an archive, as pg_dump 17 appends it.
fn second_toc(archive: &[u8], summary: &crate::ArchiveSummary) -> Vec<u8> {
    let header = &summary.toc().header;
    let text = |text: &str| 5 + text.len();
    let names = text(&header.database) + text(&header.server_version) + text(&header.dump_version);
    let start = 11 + 5 + 7 * 5 + names;
    archive[start..summary.toc().end as usize].to_vec()
}

#[tokio::test]
async fn an_archive_that_is_cut_or_broken_leaves_nothing() {
    let bench = Bench::start().await;
    let archive = bench.dump().await.concat();
    for cut in [3, archive.len() / 3, archive.len() - 1] {
        let restore = bench.restore("fx2", RestoreOptions::default());
        let part = pieces(&[Bytes::copy_from_slice(&archive[..cut])], 700);
        let error = write(&restore, &part).await.unwrap().commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(bench.databases().await, "fx");
    }
    // A value that its column refuses: the server's word comes through.
    let mut broken = archive.clone();
    let at = archive.windows(6).position(|w| w == b"1\t\\N\n\0").unwrap();
    broken[at] = b'x';
    let restore = bench.restore("fx2", RestoreOptions::default());
    let writer = write(&restore, &[Bytes::from(broken)]).await.unwrap();
    let error = writer.commit().await.unwrap_err();
    assert!(format!("{error} {:?}", error.causes()).contains("invalid input syntax"), "{error:?}");
    assert_eq!(bench.databases().await, "fx");
    assert_eq!(children(&bench), [""; 0]);
}

/// A rule on the server's side eats rows: only counting them again finds out.
#[tokio::test]
async fn rows_that_did_not_arrive_are_damage() {
    let bench = Bench::start().await;
    let mut archive = bench.dump().await.concat();
    // The data of `leer` gets a line of `\.` more than pg_restore shows the server: an empty
    // table in the archive's own words holds a row in ours.
    let copy = archive.windows(10).rposition(|w| w == b"\x05\0\0\0\\.\n\n\n\0").unwrap();
    archive.splice(copy..copy + 9, *b"\x0a\0\0\0\\.\n7\n\\.\n\n\n");
    let restore = bench.restore("fx2", RestoreOptions::default());
    let outcome = match write(&restore, &pieces(&[Bytes::from(archive)], 900)).await {
        Ok(writer) => writer.commit().await.map(drop),
        Err(error) => Err(error),
    };
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.message().contains("rows, the backup"), "{error}");
    assert_eq!(bench.databases().await, "fx");
}
