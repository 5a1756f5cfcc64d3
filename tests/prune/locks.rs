//! A bucket that locks what it keeps: locks are honoured and extended, a pin holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::pipeline::Context;
use backup_core::{
    Catalog, CatalogEntry, PruneRules, Storage, Versioned, apply_prune, layout, pin, unpin,
};
use backup_storage::S3;
use backup_testkit::servers::S3Server;
use jiff::{SignedDuration, Timestamp};

use super::{KeepLast, keep_last, planned, pruned, verdicts, wanted_pin};
use crate::copies::at;
use crate::kept_versions::bucket;
use crate::rig::{plan_at, run_quietly};

/// A bucket that keeps versions and may lock.
pub struct Vault {
    _server: S3Server,
    pub s3: Arc<S3>,
    pub all: Vec<Arc<dyn Storage>>,
}

impl Vault {
    /// Whether each file of a backup is held, but the pin, which is none of them.
    pub async fn assert_held(&self, entry: &CatalogEntry, held: bool) {
        let files = self.s3.list(&entry.folder()).await.unwrap();
        assert!(files.len() > 6, "{files:?}");
        for object in files.iter().filter(|object| !object.key.ends_with(layout::PIN)) {
            let found = self.kept().protection(&object.key, None).await.unwrap();
            assert_eq!(found.held, held, "{}", object.key);
        }
    }

    /// `count` backups in a bucket that keeps versions and may lock.
    pub async fn with(count: i64) -> Self {
        let server = S3Server::start().await.unwrap();
        server.make_locked_bucket("locked").await.unwrap();
        let s3 = bucket(&server);
        let all: Vec<Arc<dyn Storage>> = vec![s3.clone()];
        for n in 0..count {
            run_quietly(plan_at(at(n), all.clone())).await.unwrap();
        }
        Self { _server: server, s3, all }
    }

    pub fn kept(&self) -> &dyn Versioned {
        self.s3.versioned().unwrap()
    }

    pub async fn backups(&self) -> Vec<CatalogEntry> {
        Catalog::load(&self.all, None).await.backups
    }

    async fn listed(&self) -> Vec<i64> {
        self.backups().await.iter().map(|entry| super::seconds(entry.id)).collect()
    }
}

/// So many days from now.
pub fn days(n: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * n)
}

/// By the clock of the locks.
fn rules(policy: &KeepLast) -> PruneRules<'_> {
    PruneRules { now: Timestamp::now(), ..keep_last(policy) }
}

#[tokio::test]
async fn what_is_locked_or_held_stays_and_the_rest_goes_with_every_version() {
    let vault = Vault::with(4).await;
    let entries = vault.backups().await;
    let until = days(5);
    vault.kept().lock_until(&entries[0].key(layout::MANIFEST), None, until).await.unwrap();
    vault.kept().hold(&entries[1].key(layout::MANIFEST), None, true).await.unwrap();
    let policy = KeepLast(1);
    let plan = planned(&vault.all, &rules(&policy)).await;
    let told = verdicts(&plan, "vault");
    let locked = format!("skip: locked until {}", until.strftime("%Y-%m-%d %H:%M UTC"));
    assert_eq!(told[0].1, locked);
    assert_eq!(told[1].1, "skip: held (a legal hold)");
    assert!(told[2].1.starts_with("remove: "), "{told:?}");
    let report = apply_prune(&plan, &vault.all, &Context::default()).await.unwrap();
    assert_eq!(report.storages[0].deleted.len(), 1, "{report:?}");
    assert_eq!(report.storages[0].deleted[0].held_bytes, 0);
    assert_eq!(vault.listed().await, [0, 1, 3]);
    let parts = entries[2].manifest.parts.iter().map(|part| part.file.as_str());
    for file in parts.chain([layout::MANIFEST, layout::PRUNED, layout::CLAIM]) {
        let left = vault.kept().versions(&entries[2].key(file)).await.unwrap();
        assert_eq!(left, [], "{file}");
    }
}

/// Somebody locked a part, and not its manifest.
#[tokio::test]
async fn bytes_that_a_delete_does_not_free_are_told() {
    let vault = Vault::with(2).await;
    let entry = vault.backups().await.remove(0);
    let part = &entry.manifest.parts[0];
    vault.kept().lock_until(&entry.key(&part.file), None, days(1)).await.unwrap();
    let report = pruned(&vault.all, &rules(&KeepLast(1))).await.unwrap();
    let deleted = report.storages[0].deleted[0];
    assert_eq!((deleted.id, deleted.held_bytes), (entry.id, part.bytes));
    assert_eq!(vault.listed().await, [1]);
    assert_eq!(vault.kept().versions(&entry.key(&part.file)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_kept_is_locked_for_longer_and_nothing_else_is() {
    let vault = Vault::with(2).await;
    let policy = KeepLast(1);
    let locking =
        || PruneRules { lock_days: BTreeMap::from([("vault".to_owned(), 10)]), ..rules(&policy) };
    let plan = planned(&vault.all, &locking()).await;
    let extended = |plan: &backup_core::PrunePlan| -> Vec<bool> {
        plan.storages[0].backups.iter().map(|one| one.extend_lock.is_some()).collect()
    };
    assert_eq!(extended(&plan), [false, true]);
    let kept = vault.backups().await.remove(1);
    let report = apply_prune(&plan, &vault.all, &Context::default()).await.unwrap();
    assert_eq!(report.storages[0].extended.len(), 1);
    assert_eq!(vault.listed().await, [1]);
    let parts = kept.manifest.parts.iter().map(|part| part.file.as_str());
    let others = [layout::RESTORE_NOTE, layout::SHA256SUMS, layout::SIGNATURE, layout::MANIFEST];
    for file in parts.chain(others) {
        let found = vault.kept().protection(&kept.key(file), None).await.unwrap();
        assert!(found.locked_until.is_some_and(|until| until > days(9)), "{file}: {found:?}");
    }
    // Not again before half of it is over.
    assert_eq!(extended(&planned(&vault.all, &locking()).await), [false]);
    let later = PruneRules { now: days(6), ..locking() };
    assert_eq!(extended(&planned(&vault.all, &later).await), [true]);
}

#[tokio::test]
async fn a_pin_holds_every_file_and_unpin_gives_them_free() {
    let vault = Vault::with(2).await;
    let entry = vault.backups().await.remove(0);
    let wanted = wanted_pin(&entry);
    let held = async |key: &str| vault.kept().protection(key, None).await.unwrap().held;
    let done = pin(&entry, &vault.all, &wanted).await;
    done[0].1.as_ref().unwrap();
    let files = vault.s3.list(&entry.folder()).await.unwrap();
    assert!(files.len() > 6);
    for object in &files {
        assert_eq!(held(&object.key).await, !object.key.ends_with(layout::PIN), "{}", object.key);
    }
    let policy = KeepLast(1);
    let told = verdicts(&planned(&vault.all, &rules(&policy)).await, "vault");
    assert_eq!(told[0].1, "keep: pinned");
    // Not even by hand.
    vault.s3.delete(&entry.key(layout::SHA256SUMS)).await.unwrap();
    assert_eq!(vault.kept().versions(&entry.key(layout::SHA256SUMS)).await.unwrap().len(), 1);

    let entry = vault.backups().await.remove(0);
    let done = unpin(&entry, &vault.all).await;
    done[0].1.as_ref().unwrap();
    for object in files.iter().filter(|o| !o.key.ends_with(layout::PIN)) {
        if !object.key.ends_with(layout::SHA256SUMS) {
            assert!(!held(&object.key).await, "{}", object.key);
        }
    }
    pruned(&vault.all, &rules(&policy)).await.unwrap();
    assert_eq!(vault.listed().await, [1]);
}
