//! What a restore in place refuses before anything is touched: rows that would be in neither the
//! backup nor the safety backup.

use super::Live;
use crate::support::CLAIMS;
use crate::support::claims_digest;

/// A safety backup without the rows of a table would be none: the restore drops them.
#[tokio::test]
async fn in_place_a_job_that_leaves_something_out_makes_no_safety_backup() {
    let live = Live::new(100).await;
    live.run(&["backup"]).await.expect(0);
    let url = "url = { env = 'TEST_DATABASE_URL' }";
    let mut last = url.to_owned();
    for (key, value) in [
        ("exclude_table_data", "['payers']"),
        ("exclude_tables", "['payers']"),
        ("tables", "['claims']"),
        ("schemas", "['public']"),
        ("exclude_schemas", "['audit']"),
        ("large_objects", "false"),
    ] {
        let with_filter = format!("{url}, {key} = {value}");
        live.scratch.edit_config(&last, &with_filter);
        last = with_filter;
        for more in [&[][..], &["--dry-run"]] {
            let restore = [&["restore", "latest", "--in-place"], more].concat();
            live.run(&restore).await.expect(6).explains("safety backup", key);
        }
    }
    assert_eq!(live.scratch.listed().await.len(), 1, "no backup was made");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, live.original);
    // Whoever has another one says so.
    live.run(&["restore", "latest", "--in-place", "--no-safety-backup"]).await.expect(0);
}

/// The plan is there before the safety backup begins, and a newer partition is in the way.
#[tokio::test]
async fn in_place_a_partition_with_newer_rows_is_in_the_way() {
    let live = Live::new(100).await;
    let parted = "CREATE TABLE visits (day int, note text) PARTITION BY RANGE (day);
        CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (1) TO (10);
        INSERT INTO visits VALUES (5, 'old')";
    live.sql(parted).await;
    live.run(&["backup"]).await.expect(0);
    live.sql("CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (10) TO (20)").await;
    live.sql("INSERT INTO visits VALUES (15, 'newer'); CREATE INDEX later ON claims (note)").await;
    let planned = live.run(&["restore", "latest", "--in-place", "--dry-run"]).await.expect(6);
    assert!(
        planned.stdout.contains("table public.visits_2 would go with its rows"),
        "{planned:#?}"
    );
    let refused = live.run(&["restore", "latest", "--in-place"]).await.expect(6);
    refused.explains("pg_restore", "visits_2");
    assert_eq!(
        live.sql("SELECT string_agg(note, ' ' ORDER BY day) FROM visits").await,
        "old newer"
    );
    assert_eq!(live.scratch.listed().await.len(), 1, "no backup was made");

    live.sql("ALTER TABLE visits DETACH PARTITION visits_2").await;
    let done = live.run(&["restore", "latest", "--in-place"]).await.expect(0);
    let at = |text: &str| done.stderr.find(text).unwrap_or_else(|| panic!("no {text}: {done:#?}"));
    assert!(at("index public.later") < at("safety backup by the job"), "{done:#?}");
    assert_eq!(live.sql("SELECT note FROM visits_2").await, "newer");
}
