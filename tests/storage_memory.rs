//! The program's memory with several storages at once does not grow with the database.

use backup_testkit::postgres::PostgresServer;
use backup_testkit::servers::{S3Server, SftpServer};

use crate::memory::peak_of;
use crate::support::stores::{s3_section, sftp_section};
use crate::support::{Scratch, cases};

/// How far the peaks of a small and a large database may lie apart: two frames of zstd.
const TOLERANCE_KILOBYTES: u64 = 40_000;
/// What a row takes in a dump, in bytes: random hexadecimal digits, of which half is stored.
const ROW_BYTES: u64 = 1_024;

/// A table whose dump has `megabytes`.
async fn fill(server: &PostgresServer, database: &str, megabytes: u64) {
    server.sql("postgres", &format!("CREATE DATABASE {database}")).await.unwrap();
    let rows = megabytes * 1_000_000 / ROW_BYTES;
    let sql = format!(
        "CREATE UNLOGGED TABLE t (x text);
         INSERT INTO t SELECT string_agg(md5((n * 32 + m)::text), '')
             FROM generate_series(1, {rows}) n, generate_series(1, 32) m GROUP BY n"
    );
    server.sql(database, &sql).await.unwrap();
}

#[tokio::test]
async fn three_storages_at_once_take_the_same_memory_whatever_the_size() {
    let large = cases(400, 4000) as u64;
    let (server, s3, sftp) =
        tokio::join!(PostgresServer::start(15), S3Server::start(), SftpServer::start());
    let (server, s3, sftp) = (server.unwrap(), s3.unwrap(), sftp.unwrap());
    let mut peaks = Vec::new();
    for (database, megabytes) in [("small", 100), ("large", large)] {
        fill(&server, database, megabytes).await;
        let scratch = Scratch::of(&server, database);
        let sections = s3_section(&s3, &s3.endpoint()) + &sftp_section(&sftp);
        // A folder of its own: another database may not go where one's backups are.
        let sections = sections.replace("/backups'", &format!("/{database}'"));
        scratch.edit_config("[encryption]", &format!("{sections}[encryption]"));
        scratch.edit_config("storages = ['local']", "storages = ['local', 's3', 'sftp']");
        let peak = peak_of(&scratch, &["backup", "-q"]).await;
        let files = scratch.stored_files();
        let stored: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        println!("{megabytes} MB, {} MB stored in each of three: {peak} kB", stored / 1_000_000);
        assert!(stored > megabytes * 400_000, "it compresses too well: {stored}");
        scratch.run(&["verify", "latest"]).await.expect(0);
        peaks.push(peak);
        server.sql("postgres", &format!("DROP DATABASE {database}")).await.unwrap();
    }
    assert!(peaks[0].abs_diff(peaks[1]) < TOLERANCE_KILOBYTES, "{peaks:?} kB");
}
