//! What is pinned stays pinned and held when it is copied or encrypted anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::{BackupId, Catalog, Error, ErrorKind, OldCopy, Storage, copy, pin, sync, unpin};
use backup_testkit::{Call, Intercepted, Memory};

use super::locks::Vault;
use super::wanted_pin;
use crate::rekey::rekey_oldest;
use crate::rig::{Ear, memory, storages};

/// A storage without locks that has backups, the first of them pinned.
async fn with_a_pin(name: &str) -> (Arc<Memory>, Vec<Arc<dyn Storage>>) {
    let here = memory(name);
    super::history(&[&here], 2).await;
    let all = storages(&[&here]);
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    pin(&entry, &all, &wanted_pin(&entry)).await[0].1.as_ref().unwrap();
    (here, all)
}

#[tokio::test]
async fn a_pinned_backup_that_is_copied_is_held_where_that_can_be() {
    let vault = Vault::with(0).await;
    let (_here, all) = with_a_pin("here").await;
    let (ear, context) = Ear::context();
    let wanted = |_: &Catalog, _: &BTreeSet<BackupId>| BTreeSet::new();
    sync(&all[0], &vault.all[0], None, &wanted, &context).await.unwrap();
    let backups = vault.backups().await;
    let [pinned, other] = &backups[..] else { panic!("two were synced") };
    assert!(pinned.is_pinned() && !other.is_pinned());
    vault.assert_held(pinned, true).await;
    vault.assert_held(other, false).await;
    assert_eq!(ear.warnings(), Vec::<String>::new());

    // Back to a storage that can't hold anything: it is said, and the pin comes.
    let there = memory("there");
    let to = storages(&[&there]).remove(0);
    for entry in [pinned, other] {
        copy(entry, &vault.all[0], &to, false, &context).await.unwrap();
    }
    let back = Catalog::load(&[to], None).await.backups;
    assert_eq!([back[0].is_pinned(), back[1].is_pinned()], [true, false]);
    let id = pinned.id;
    let told =
        format!("{id} is held in storage vault by a legal hold; storage there has no object");
    assert!(
        matches!(&ear.warnings()[..], [only] if only.starts_with(&told)),
        "{:?}",
        ear.warnings()
    );
}

/// A key that may do everything but hold.
#[tokio::test]
async fn a_hold_that_fails_is_told_and_the_copy_stands() {
    let vault = Vault::with(0).await;
    let (_here, all) = with_a_pin("here").await;
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    let to = Intercepted::new(vault.s3.clone()).before(|call, _| match call {
        Call::Hold => Err(Error::new(ErrorKind::Refused, "storage vault", "it may not hold")),
        _ => Ok(()),
    });
    let to: Arc<dyn Storage> = Arc::new(to);
    let (ear, context) = Ear::context();
    copy(&entry, &all[0], &to, false, &context).await.unwrap();
    let there = vault.backups().await.remove(0);
    assert!(there.is_pinned());
    let told =
        format!("{} is pinned in storage vault, but not all of its files are held", entry.id);
    assert!(ear.warnings().iter().any(|line| line.starts_with(&told)), "{:?}", ear.warnings());
    let advice = format!("`marb-backup pin {} --reason TEXT`", entry.id);
    assert!(ear.warnings()[0].ends_with(&advice), "{:?}", ear.warnings());
}

/// The new one is held, and the old one is not ours to give free.
#[tokio::test]
async fn a_pinned_backup_that_is_encrypted_anew_is_held() {
    let vault = Vault::with(1).await;
    let old = vault.backups().await.remove(0);
    pin(&old, &vault.all, &wanted_pin(&old)).await[0].1.as_ref().unwrap();
    let report = rekey_oldest(&vault.all).await.unwrap().unwrap();
    assert!(matches!(report.copies[0].1, Ok(OldCopy::Locked(None))), "{report:?}");
    let backups = vault.backups().await;
    let [_, new] = &backups[..] else { panic!("both are there") };
    assert!(new.is_pinned() && new.id == report.id);
    vault.assert_held(new, true).await;

    // Somebody gives the old one free, and the next run removes it.
    unpin(&old, &vault.all).await[0].1.as_ref().unwrap();
    let report = rekey_oldest(&vault.all).await.unwrap().unwrap();
    assert!(report.is_complete(), "{report:?}");
    let backups = vault.backups().await;
    let [new] = &backups[..] else { panic!("the new one alone is there") };
    assert!(new.is_pinned());
    vault.assert_held(new, true).await;
}
