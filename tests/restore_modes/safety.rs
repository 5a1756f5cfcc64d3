//! The safety backup before a restore is the only copy of what was replaced: no retention may
//! remove it.

use std::time::Duration;

use super::{CHANGES, Live};
use crate::support::{CLAIMS, claims_digest, target_file};

/// The last backup of all holds every slot.
const KEEP_ONE: &str = "[job.database.retention]\nkeep_daily = 0\nkeep_weekly = 0\nkeep_monthly = 0\nkeep_yearly = 0\nkeep_last = 1\n[job.database]";

#[tokio::test]
async fn the_next_backup_does_not_prune_the_safety_backup() {
    let live = Live::new(100).await;
    live.run(&["backup"]).await.expect(0);
    let first = live.scratch.listed().await.pop().unwrap();
    live.scratch.edit_config("[job.database]", KEEP_ONE);
    live.sql(CHANGES).await;
    let changed = claims_digest(&live.server, CLAIMS).await;
    let done = live.run(&["restore", &first, "--in-place", "--json"]).await.expect(0).json();
    let safety = done["safety_backup"].as_str().unwrap().to_owned();
    assert!(done["notes"].to_string().contains(&format!("unpin {safety}")), "{done:#}");

    live.run(&["backup"]).await.expect(0);
    let listed = live.scratch.listed().await;
    assert!(listed.contains(&safety), "it was pruned: {listed:?}");
    let shown = live.run(&["show", &safety]).await.expect(0).stdout;
    assert!(shown.contains(&format!("safety backup before restore of {first}")), "{shown}");
    let beside = target_file(&live.scratch, &live.server, "beside");
    live.run(&["restore", &safety, "--to", &beside]).await.expect(0);
    assert_eq!(claims_digest(&live.server, "beside").await, changed);

    live.run(&["unpin", &safety, "--job", "database"]).await.expect(0);
    live.run(&["backup"]).await.expect(0);
    assert!(!live.scratch.listed().await.contains(&safety), "unpinned it goes like any other");
}

/// One that a prune could take is none.
#[tokio::test]
async fn in_place_a_safety_backup_that_cannot_be_pinned_restores_nothing() {
    let live = Live::new(100).await;
    live.run(&["backup"]).await.expect(0);
    let first = live.scratch.backup_folder().await;
    let id = first.file_name().unwrap().to_str().unwrap();
    live.sql(CHANGES).await;
    let changed = claims_digest(&live.server, CLAIMS).await;
    // Whoever says that he removes it gets in between: then a pin counts for nothing.
    let month = first.parent().unwrap().to_owned();
    let removing = async {
        loop {
            for folder in std::fs::read_dir(&month).unwrap().map(|entry| entry.unwrap().path()) {
                if folder != first {
                    let _ = std::fs::write(folder.join("pruned.json"), "{}");
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let restore = ["restore", id, "--in-place"];
    let refused = tokio::select! {
        run = live.run(&restore) => run.expect(6),
        () = removing => unreachable!("it never ends"),
    };
    refused.explains("safety backup", "could not be pinned");
    assert_eq!(claims_digest(&live.server, CLAIMS).await, changed, "nothing was restored");
}
