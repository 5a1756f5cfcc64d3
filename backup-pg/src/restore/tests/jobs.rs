//! Restores by several sessions.

use super::modes::{dump_of, restored};
use super::*;

fn two_jobs(spool_dir: &Path) -> RestoreOptions {
    RestoreOptions {
        jobs: NonZeroUsize::new(2).unwrap(),
        spool_dir: spool_dir.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn several_jobs_restore_the_same_and_set_no_data_aside() {
    let bench = Bench::start().await;
    let archive = pieces(&bench.dump().await, 900);
    let folder = tempfile::tempdir().unwrap();
    let options = || two_jobs(folder.path());
    let restore = bench.restore("fx2", options());
    let writer = write(&restore, &archive).await.unwrap();
    assert!(!bench.databases().await.contains("fx2"), "nothing can be seen before the end");
    writer.commit().await.unwrap();
    let report = restore.report().unwrap();
    assert_eq!((report.tables_compared, report.rows_compared, report.large_objects), (9, 137, 4));
    assert_eq!((report.notes, report.spooled_bytes), (vec![], 0));
    assert_eq!(bench.text("fx2"), bench.text("fx"));
    // One transaction needs one session.
    bench.sql("postgres", "create database leer").await;
    let report = restored(&bench, "leer", options(), &archive).await.unwrap();
    assert!(report.notes.iter().any(|note| note.contains("one session")), "{report:?}");
    // Of an archive that breaks off, or holds what the server does not take, nothing stays.
    let whole = archive.concat();
    let cut = Bytes::copy_from_slice(&whole[..whole.len() - 1]);
    let error = restored(&bench, "fx3", options(), &[cut]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let mut broken = whole.clone();
    let at = broken.windows(6).position(|w| w == b"1\t\\N\n\0").unwrap();
    broken[at] = b'x';
    let error = restored(&bench, "fx3", options(), &[broken.into()]).await.unwrap_err();
    assert!(error.to_string().contains("invalid input syntax"), "{error}");
    let writer = write(&bench.restore("fx3", options()), &archive).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(children(&bench), [""; 0]);
    assert_eq!(bench.databases().await, "fx fx2 leer");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Nobody names a partition to ANALYZE: it comes with its table.
#[tokio::test]
async fn several_jobs_gather_the_statistics_of_everything() {
    let bench = Bench::start().await;
    bench.sql("postgres", "create database parts").await;
    let sql = "create table p (i int, t text) partition by range (i);
        create table p1 partition of p for values from (0) to (1000);
        create table p2 partition of p for values from (1000) to (2000) partition by list (t);
        create table p2a partition of p2 for values in ('a');
        create table plain (i int); create table child () inherits (plain);
        insert into p select n, 'a' from generate_series(1, 1999) n;
        insert into plain select 1; insert into child select 2;
        create materialized view seen as select * from p";
    bench.sql("parts", sql).await;
    let folder = tempfile::tempdir().unwrap();
    let archive = dump_of(&bench, "parts").await;
    restored(&bench, "again", two_jobs(folder.path()), &archive).await.unwrap();
    let with_statistics = "select string_agg(distinct starelid::regclass::text, ' ' order by starelid::regclass::text)
        from pg_statistic where starelid >= 16384";
    assert_eq!(bench.sql("again", with_statistics).await, "child p p1 p2 p2a plain seen");
}

/// Tables of many rows, rows and large objects that are longer than a piece.
#[tokio::test]
async fn what_is_too_large_for_one_is_filled_by_several_sessions() {
    let bench = Bench::start().await;
    bench.sql("postgres", "create database big").await;
    let sql = "create table many as select n, repeat(md5(n::text), 4) || E'\\n\\\\.' as t
            from generate_series(1, 250000) n;
        create table dots as select '.'::text as t from generate_series(1, 6000) n;
        create table long as select repeat(n::text, 36000000) as t from generate_series(1, 2) n;
        create table last as select 1 as i;
        select lo_from_bytea(n, convert_to(repeat(n::text, 9000000 * n), 'utf8'))
            from generate_series(1, 4) n;";
    bench.sql("big", sql).await;
    let facts = "select (select sum(hashtext(t)::numeric) + count(*) from many),
        (select count(*) from dots), (select sum(hashtext(t)::numeric) from long), (select i from last),
        (select sum(hashtext(md5(lo_get(oid)))) from pg_largeobject_metadata)";
    let wanted = bench.sql("big", facts).await;
    let archive = dump_of(&bench, "big").await;
    let folder = tempfile::tempdir().unwrap();
    for jobs in [2, 3] {
        let jobs = NonZeroUsize::new(jobs).unwrap();
        let options = RestoreOptions { jobs, ..two_jobs(folder.path()) };
        let report = restored(&bench, "again", options, &archive).await.unwrap();
        assert_eq!((report.rows_compared, report.large_objects), (256_003, 4));
        assert_eq!(bench.sql("again", facts).await, wanted);
        bench.sql("postgres", "drop database again").await;
    }
}

/// Nobody but pg_restore knows where rows end in what pg_dump compressed.
#[tokio::test]
async fn several_jobs_set_a_compressed_archive_aside() {
    let bench = Bench::start().await;
    let dump = Command::new(system_programs().join("pg_dump"))
        .args(["--format=custom", "--compress=5", "-d", &bench.server.connection_string("fx")])
        .output()
        .unwrap();
    let archive = pieces(&[dump.stdout.into()], 900);
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive.concat().len() as u64;
    let options = || RestoreOptions { expected_bytes: Some(bytes), ..two_jobs(folder.path()) };
    let restore = bench.restore("fx2", options());
    let writer = write(&restore, &archive).await.unwrap();
    assert_eq!(bench.databases().await, "fx", "nothing begins before everything was checked");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a file without a name");
    writer.commit().await.unwrap();
    assert!(restore.report().unwrap().spooled_bytes > 0);
    assert_eq!(bench.text("fx2"), bench.text("fx"));
    // Too little space is refused at once.
    let much = RestoreOptions { expected_bytes: Some(u64::MAX), ..options() };
    let error = restored(&bench, "fx3", much, &archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    // An archive that breaks off never reaches the server.
    let cut = Bytes::copy_from_slice(&archive.concat()[..archive.concat().len() - 1]);
    let error = restored(&bench, "fx3", options(), &[cut]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(bench.databases().await, "fx fx2");
}
