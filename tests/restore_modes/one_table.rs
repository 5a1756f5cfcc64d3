//! Of a backup that says where its tables stand, a restore of one table reads no other.

use std::path::Path;

use super::{Live, damage_end};
use crate::support::{CLAIMS, claims_digest, target_file};

/// Some 60 MB that stand before the claims: several frames of the stored dump.
const PADDING: &str = "CREATE TABLE a_padding AS
    SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 60000) AS n";

/// A database with much before the claims, backed up; and its stored dump.
async fn backed_up() -> (Live, std::path::PathBuf) {
    let mut live = Live::new(500).await;
    live.sql(PADDING).await;
    live.original = claims_digest(&live.server, CLAIMS).await;
    live.run(&["backup"]).await.expect(0);
    let stored = live.scratch.stored_files();
    let dump = stored.into_iter().find(|path| path.to_string_lossy().contains(".dump."));
    (live, dump.unwrap())
}

/// Turns a bit at so many thousandths of the file; a second time puts it back.
fn damage_at(file: &Path, thousandths: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() * thousandths / 1000;
    bytes[at] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn damage_to_others_does_not_matter_and_to_it_does() {
    let (live, dump) = backed_up().await;
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    let claims = ["restore", "latest", "--to", &to, "--table", "claims"];
    live.sql("DROP TABLE claims").await;
    // The middle belongs to the other table, the end to the message as a whole.
    damage_at(&dump, 500);
    damage_end(&dump, 3);
    let done = live.run(&claims).await.expect(0);
    assert!(done.stderr.contains("only these tables were read"), "{done:#?}");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    let other = ["restore", "latest", "--to", &to, "--table", "a_padding", "--into-schema", "old"];
    let refused = live.run(&other).await.expect(4);
    assert!(refused.stderr.contains("frame"), "{refused:#?}");
    assert_eq!(live.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'old'").await, "0");
    let whole = target_file(&live.scratch, &live.server, "whole");
    live.run(&["restore", "latest", "--to", &whole, "--jobs", "2"]).await.expect(4);
    damage_end(&dump, 3);
    damage_at(&dump, 500);
    target_file(&live.scratch, &live.server, CLAIMS);
    live.run(&other).await.expect(0);

    // The frames of the head and of the table itself.
    live.sql("DROP TABLE claims").await;
    for thousandths in [2, 997] {
        damage_at(&dump, thousandths);
        live.run(&claims).await.expect(4);
        assert!(!live.has_claims().await);
        damage_at(&dump, thousandths);
    }
    live.run(&claims).await.expect(0);
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    assert_eq!(live.bytes_left(), 0);
}

/// What was written without frames, as gzip is, is read whole.
#[tokio::test]
async fn without_frames_all_of_it_is_read() {
    let live = Live::new(500).await;
    let job = "[job.database]";
    live.scratch.edit_config(job, &format!("{job}\ncompression = 'gzip'"));
    live.run(&["backup"]).await.expect(0);
    let to = target_file(&live.scratch, &live.server, CLAIMS);
    live.sql("DROP TABLE claims").await;
    let done = live.run(&["restore", "latest", "--to", &to, "--table", "claims"]).await.expect(0);
    assert!(!done.stderr.contains("only these tables were read"), "{done:#?}");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
}
