//! Archives that real pg_dumps wrote, whole and broken. How they were made: fixtures/README.md.

use std::collections::BTreeMap;

use backup_core::{ErrorKind, Result, Sink, TableData};
use bytes::Bytes;

use super::*;

macro_rules! fixtures {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("fixtures/", $name, ".dump")))),*]
    };
}

const FIXTURES: &[(&str, &[u8])] = fixtures![
    "pg15-none",
    "pg15-gzip",
    "pg15-inserts",
    "pg15-filtered",
    "pg15-data-only",
    "pg15-schema-only",
    "pg17-none",
    "pg17-gzip",
    "pg17-zstd",
    "pg17-lz4",
    "pg18-none",
    "pg18-redirected",
];

fn fixture(name: &str) -> &'static [u8] {
    FIXTURES.iter().find(|(found, _)| *found == name).unwrap().1
}

fn read(archive: &[u8], piece: usize) -> Result<ArchiveSummary> {
    let mut reader = ArchiveReader::new();
    for piece in archive.chunks(piece) {
        reader.feed(piece)?;
    }
    reader.finish()
}

fn tables(summary: &ArchiveSummary) -> BTreeMap<String, TableData> {
    let tables = summary.inventory().tables;
    tables.into_iter().map(|t| (format!("{}.{}", t.schema, t.name), t.data)).collect()
}

/// What database.sql puts into each table.
fn expected() -> BTreeMap<String, TableData> {
    let rows = |rows| TableData::Complete { rows };
    let not_dumped = |kind: &str| TableData::NotDumped { kind: kind.to_owned() };
    [
        ("Süd \"😀\nx.tab.le", rows(3)),
        ("public.child", rows(2)),
        ("public.claims", rows(120)),
        ("public.ft", not_dumped("foreign table")),
        ("public.leer", rows(0)),
        ("public.mv", not_dumped("materialized view")),
        ("public.no column", rows(7)),
        ("public.parent", rows(1)),
        ("public.parted", TableData::Partitioned),
        ("public.parted_1", TableData::Partitioned),
        ("public.parted_1_a", rows(2)),
        ("public.parted_2", rows(1)),
        ("public.ul", rows(1)),
    ]
    .map(|(name, data)| (name.to_owned(), data))
    .into()
}

#[test]
fn rows_are_exact_whatever_the_compression_and_the_size_of_the_pieces() {
    for name in ["pg15-none", "pg15-gzip", "pg17-none", "pg17-gzip", "pg17-zstd"] {
        for piece in [1, 2, 3, 7, 64, 4096, usize::MAX] {
            let summary = read(fixture(name), piece).unwrap();
            assert_eq!(tables(&summary), expected(), "{name} in pieces of {piece}");
            assert_eq!(summary.inventory().large_objects, Some(4), "{name}");
            assert_eq!(summary.bytes(), fixture(name).len() as u64);
        }
    }
}

#[test]
fn an_archive_of_version_18_is_read_with_its_statistics() {
    let mut wanted = expected();
    wanted.remove("public.ft");
    for name in ["pg18-none", "pg18-redirected"] {
        let summary = read(fixture(name), 100).unwrap();
        assert_eq!(tables(&summary), wanted);
        assert!(summary.toc().of_kind("STATISTICS DATA").count() > 5);
        assert_eq!(summary.archive_version(), "1.16");
        assert_eq!(summary.bytes(), fixture(name).len() as u64);
    }
}

#[test]
fn what_lz4_hides_is_not_made_up() {
    let summary = read(fixture("pg17-lz4"), 50).unwrap();
    assert_eq!(tables(&summary)["public.claims"], TableData::Uncounted);
    assert_eq!(tables(&summary)["public.parted"], TableData::Partitioned);
    assert_eq!(summary.inventory().large_objects, Some(4));
}

#[test]
fn filters_and_statements_are_not_taken_for_complete_tables() {
    let filtered = tables(&read(fixture("pg15-filtered"), 999).unwrap());
    assert_eq!(filtered["public.claims"], TableData::Excluded);
    assert_eq!(filtered["public.ul"], TableData::Complete { rows: 1 });
    let inserts = tables(&read(fixture("pg15-inserts"), 999).unwrap());
    assert_eq!(inserts["public.claims"], TableData::Uncounted);
    let schema = tables(&read(fixture("pg15-schema-only"), 999).unwrap());
    assert_eq!(schema["public.claims"], TableData::Excluded);
    assert_eq!(schema["public.parted"], TableData::Partitioned);
    let data = tables(&read(fixture("pg15-data-only"), 999).unwrap());
    assert_eq!(data["public.claims"], TableData::Complete { rows: 120 });
}

#[test]
fn the_table_of_contents_is_there_before_the_data() {
    let archive = fixture("pg15-none");
    let end = read(archive, 4096).unwrap().toc().end as usize;
    let mut reader = ArchiveReader::new();
    reader.feed(&archive[..end - 1]).unwrap();
    assert!(reader.toc().is_none());
    reader.feed(&archive[end - 1..end]).unwrap();
    let toc = reader.toc().unwrap();
    assert_eq!(toc.end, end as u64);
    assert_eq!(toc.header.database, "fx");
    assert!(toc.header.dump_version.starts_with("15."));
    assert_eq!(toc.header.created.unwrap().year(), 2026);
    let claims = toc.of_kind("TABLE").find(|entry| entry.tag == "claims").unwrap();
    assert_eq!(claims.owner, "cl;aims \"o");
    assert!(claims.defn.contains("CREATE TABLE public.claims"));
}

#[test]
fn the_inventory_tells_of_database_roles_and_extensions() {
    let inventory = read(fixture("pg15-none"), 4096).unwrap().inventory();
    let database = inventory.database.unwrap();
    assert_eq!((database.name.as_str(), database.encoding.as_str()), ("fx", "UTF8"));
    assert_eq!(database.locale_provider.as_deref(), Some("libc"));
    assert_eq!(database.locale.as_deref(), Some("C.UTF-8"));
    assert_eq!(inventory.extensions, ["postgres_fdw"]);
    assert_eq!(inventory.roles, ["cl;aims \"o", "postgres"]);
}

/// Where an archive is cut or flipped: all of its last bytes, and some before them; every single
/// one with `MARB_SOAK=1`, which takes minutes.
fn places(archive: &[u8]) -> impl Iterator<Item = usize> {
    let step = if std::env::var_os("MARB_SOAK").is_some() { 1 } else { 97 };
    let tail = archive.len().saturating_sub(64);
    (0..tail).step_by(step).chain(tail..archive.len())
}

#[test]
fn cuts_are_noticed_wherever_they_are() {
    for (name, archive) in FIXTURES {
        let whole = read(archive, 4096).unwrap().inventory();
        for cut in places(archive) {
            match read(&archive[..cut], 4096) {
                // What pg_dump appended behind the data is no loss when it is gone as a whole.
                Ok(cut) if *name == "pg18-redirected" => assert_eq!(cut.inventory(), whole),
                Ok(_) => panic!("{name} cut at {cut} passed"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{name} cut at {cut}"),
            }
        }
    }
}

#[test]
fn trailing_bytes_are_noticed() {
    for (name, archive) in FIXTURES {
        for tail in [&b"\0"[..], b"\n", b"\x01", &archive[..20], archive] {
            let longer = [archive, tail].concat();
            for piece in [1, 4096] {
                let error = read(&longer, piece).expect_err(name);
                assert_eq!(error.kind(), ErrorKind::Damaged, "{name}");
            }
        }
    }
}

/// Behind the data of pg18-redirected its table of contents stands again, and nothing else may.
#[test]
fn only_the_same_table_of_contents_may_follow_the_data() {
    let archive = fixture("pg18-redirected");
    let first = archive.windows(8).position(|w| w == b"parted_1").unwrap();
    let again = archive.windows(8).rposition(|w| w == b"parted_1").unwrap();
    assert!(again > first + 10_000);
    let mut broken = archive.to_vec();
    broken[again] = b'q';
    let error = read(&broken, 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("follow its end"), "{error}");
}

/// Damage in the data itself can't be seen without a checksum, which only gzip has; but
/// nothing may crash.
#[test]
fn flipped_bytes_do_no_harm() {
    for (name, archive) in FIXTURES {
        let whole = read(archive, 4096).unwrap();
        let mut broken = archive.to_vec();
        for at in places(archive) {
            for flip in [0x01, 0x80, 0xff] {
                broken[at] ^= flip;
                let result = read(&broken, 4096);
                broken[at] = archive[at];
                // Only an oid of a large object means nothing to the reader.
                if let (Ok(read), true) =
                    (result, name.ends_with("gzip") && at as u64 >= whole.toc().end)
                {
                    assert_eq!(read.inventory().tables, whole.inventory().tables, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn an_unknown_format_is_neither_good_nor_damaged() {
    let mut newer = fixture("pg15-none").to_vec();
    newer[6] = 17;
    assert_eq!(read(&newer, 9).unwrap_err().kind(), ErrorKind::Unchecked);
    let directory = [&newer[..6], &[14, 0, 4, 8, 5][..]].concat();
    assert_eq!(read(&directory, 9).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(read(b"-- PostgreSQL database dump", 9).unwrap_err().kind(), ErrorKind::Damaged);
}

/// A length field that asks for a gigabyte must not get one.
#[test]
fn an_absurd_length_costs_nothing() {
    let archive = fixture("pg15-none");
    let at = archive.windows(2).position(|two| two == b"fx").unwrap() - 4;
    let mut broken = archive.to_vec();
    broken[at..at + 4].copy_from_slice(&[0xff; 4]);
    assert_eq!(read(&broken, 4096).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn older_and_newer_layouts_differ_by_their_fields() {
    // 1.14 without the access method is 1.12 and 1.13; with a byte for the compression, 1.15.
    for minor in [12, 13, 14, 15] {
        let archive = handmade(minor);
        let summary = read(&archive, 3).unwrap();
        assert_eq!(summary.archive_version(), format!("1.{minor}"));
        assert_eq!(tables(&summary)["s.t"], TableData::Complete { rows: 2 });
        let entry = &summary.toc().entries[0];
        let text = &entry.places.tablespace;
        let place = text.start as usize..text.end as usize;
        assert_eq!(&archive[place], b"\0\x04\0\0\0fast");
        assert_eq!(entry.dependencies, [2, 3]);
        for cut in 0..archive.len() {
            assert!(read(&archive[..cut], 4096).is_err(), "1.{minor} cut at {cut}");
        }
    }
}

fn handmade(minor: u8) -> Vec<u8> {
    let int = |value: i32| [&[u8::from(value < 0)][..], &value.abs().to_le_bytes()].concat();
    let text = |text: &str| [int(text.len() as i32), text.as_bytes().to_vec()].concat();
    let none = || int(-1);
    let mut out = [b"PGDMP".as_slice(), &[1, minor, 0, 4, 8, 1]].concat();
    out.extend(if minor < 15 { int(0) } else { vec![0] });
    out.extend([1, 2, 3, 4, 5, 120, 0].map(int).concat());
    out.extend(["db", "10.1", "10.1"].map(text).concat());
    out.extend(int(2));
    for (id, desc) in [(7, "TABLE"), (8, "TABLE DATA")] {
        let data = desc == "TABLE DATA";
        out.extend(
            [int(id), int(data.into()), text("0"), text("0"), text("t"), text(desc)].concat(),
        );
        out.extend([int(2 + i32::from(data)), text("CREATE TABLE s.t ()"), none()].concat());
        out.extend(
            [if data { text("COPY s.t FROM stdin;\n") } else { none() }, text("s")].concat(),
        );
        out.extend(text("fast"));
        out.extend(if minor >= 14 { text("heap") } else { Vec::new() });
        out.extend([text("o"), text("false"), text("2"), text("3"), none()].concat());
        out.extend([&[if data { 1 } else { 3 }][..], &[0; 8]].concat());
    }
    out.extend([vec![1], int(8), int(4), b"a\nb\n".to_vec()].concat());
    out.extend([int(5), b"\\.\n\n\n".to_vec(), int(0)].concat());
    out
}

#[test]
fn rows_end_at_their_terminator_and_nowhere_else() {
    let rows = |pieces: &[&[u8]]| {
        let mut counter = rows::RowCounter::default();
        pieces.iter().for_each(|piece| counter.take(piece));
        counter.finish().map(|rows| rows.count)
    };
    assert_eq!(rows(&[b"\\.\n\n\n"]), Some(0));
    assert_eq!(rows(&[b"a\n\\.\n"]), Some(1));
    assert_eq!(rows(&[b"\n\n\n\n\n\n\n\n\n", b"\\", b".", b"\n\n", b"\n"]), Some(9));
    assert_eq!(rows(&[b"a\nb\n", b"x\\.\n\n\n"]), None, "the end of a row is no line of its own");
    assert_eq!(rows(&[b"a\nb\n\n\n"]), None);
    assert_eq!(rows(&[b"a\nb\n\\."]), None);
    assert_eq!(rows(&[]), None);
    assert_eq!(rows(&[&[b'\n'; 40]]), None);
}

#[tokio::test]
async fn the_check_commits_whole_archives_only() {
    let check = ArchiveCheck::new();
    let archive = fixture("pg15-none");
    let mut writer = check.begin("x").await.unwrap();
    writer.write(Bytes::from_static(archive)).await.unwrap();
    assert!(check.summary().is_none());
    assert_eq!(writer.commit().await.unwrap().bytes, archive.len() as u64);
    assert!(!check.summary().unwrap().has_checksum());
    let mut writer = check.begin("x").await.unwrap();
    writer.write(Bytes::from_static(&archive[..archive.len() - 1])).await.unwrap();
    assert_eq!(writer.commit().await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(check.summary().is_none(), "a failed check leaves no summary");
}
