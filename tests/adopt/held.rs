//! What is said to be a backup already is one: whoever reads it deletes the original.

use super::{OLD, Old, fates};

/// Ids of [`OLD`]: two o'clock in Berlin, in winter.
const IDS: [&str; 4] =
    ["20251231T010000Z", "20260101T010000Z", "20260102T010000Z", "20260103T010000Z"];

#[tokio::test]
async fn a_dump_whose_backup_is_damaged_is_not_there() {
    let old = Old::new().await;
    old.adopt(&["--apply"]).await.expect(0);
    let folder = |index: usize| {
        let id = IDS[index];
        old.scratch.path("backups/database").join(&id[..4]).join(&id[4..6]).join(id)
    };
    // One is gone, one is cut, and of one a verification found that a byte changed.
    std::fs::remove_file(folder(0).join(OLD[0].0)).unwrap();
    std::fs::write(folder(1).join(OLD[1].0), "cut").unwrap();
    let changed = folder(2).join(OLD[2].0);
    let mut bytes = std::fs::read(&changed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&changed, &bytes).unwrap();
    old.scratch.run(&["verify", IDS[2]]).await.expect(4);

    let again = old.adopt(&["--apply"]).await.expect(4);
    assert_eq!(fates(&again.json()), ["failed", "failed", "failed", "there"]);
    for id in &IDS[..3] {
        assert!(again.stderr.contains(&format!("`marb-backup verify {id} --repair`")), "{again:?}");
    }
    assert!(again.stderr.contains("remove that backup, then adopt again"), "{again:?}");
    assert_eq!(old.scratch.listed().await, IDS, "none was taken twice");

    for index in 0..3 {
        std::fs::remove_dir_all(folder(index)).unwrap();
    }
    let mended = old.adopt(&["--apply"]).await.expect(0).json();
    assert_eq!(fates(&mended), ["adopted", "adopted", "adopted", "there"]);
    old.scratch.run(&["verify", IDS[2]]).await.expect(0);
}

/// Two manifests of one id would be a problem of the catalog for ever.
#[tokio::test]
async fn a_second_storage_gets_a_copy_and_no_backup_of_the_same_id() {
    let old = Old::new().await;
    let second = format!("[storage.second]\nurl = 'file://{}'", old.scratch.path("two").display());
    old.scratch.edit_config("[encryption]", &format!("{second}\n[encryption]"));
    old.adopt(&["--apply"]).await.expect(0);

    let there = old.adopt_to("second", &["--apply"]).await.expect(3);
    assert_eq!(fates(&there.json()), ["failed"; 4]);
    for id in IDS {
        let told = format!("marb-backup copy {id} --from local --to second");
        assert!(there.stderr.contains(&told), "{there:?}");
        old.scratch.run(&["copy", id, "--from", "local", "--to", "second"]).await.expect(0);
    }
    assert_eq!(fates(&old.adopt_to("second", &["--apply"]).await.expect(0).json()), ["there"; 4]);

    // Another dump of the same second does not take the id of the one that lies elsewhere.
    std::fs::remove_dir_all(old.scratch.path("two")).unwrap();
    old.server.sql(super::CLAIMS, "DELETE FROM claims WHERE id > 10").await.unwrap();
    old.write(OLD[0].0, OLD[0].1).await;
    let other = old.adopt_to("second", &["--apply"]).await.expect(3).json();
    assert_eq!(fates(&other), ["adopted", "failed", "failed", "failed"]);
    assert_eq!(other["files"][0]["backup"], format!("{}-2", IDS[0]), "{other:#}");
    old.scratch.run(&["list"]).await.expect(0);
    assert_eq!(old.scratch.listed().await.len(), 5);
}
