//! `rekey` over storages in memory, broken at every call: the old or the new backup is always
//! whole and listed, and the next run finishes.

mod broken;

use std::io::{Read, Write};
use std::sync::Arc;

use backup_compress::Zstd;
use backup_core::pipeline::{Context, Limits};
use backup_core::{
    Authenticate, BackupPlan, BackupReader, BackupSummary, Catalog, CatalogEntry, Decision,
    Decoders, Error, ErrorKind, Foreign, OldCopy, PruneRules, RekeyPlan, RekeyReport, Result,
    RetentionPolicy, Storage, Transform, clear_remains, layout, plan_prune, rekey, successor,
    verify,
};
use backup_testkit::Memory;
use backup_testkit::servers::S3Server;
use jiff::{SignedDuration, Timestamp};

use crate::kept_versions::bucket;
use crate::rig::{
    IMPATIENT, JOB, Mask, SEAL, Seal, decoders, memory, plan_at, run_quietly, storages,
};

/// The encryption of today.
struct Veil;

impl Transform for Veil {
    fn name(&self) -> &str {
        "veil"
    }

    fn extension(&self) -> &str {
        "veiled"
    }

    fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        let mut masked = Vec::new();
        Mask.encode(input, &mut masked)?;
        masked.iter_mut().for_each(|byte| *byte ^= 0x33);
        output.write_all(&masked).map_err(|e| Error::from_io("veil", e))
    }

    fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
        self.encode(input, output)
    }
}

const NEW_SEAL: Seal = Seal("of today");

/// Knows the old signature and the new one.
struct BothSeals;

impl Authenticate for BothSeals {
    fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        NEW_SEAL.sign(manifest)
    }

    fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<()> {
        SEAL.verify(manifest, signature).or_else(|_| NEW_SEAL.verify(manifest, signature))
    }
}

fn zstd() -> Arc<dyn Transform> {
    Arc::new(Zstd { level: 1, threads: 1 })
}

fn today() -> Decoders {
    Decoders::default().with(zstd()).with(Arc::new(Veil))
}

fn all() -> Decoders {
    decoders().with(Arc::new(Veil))
}

fn started() -> Timestamp {
    "2026-11-22T02:00:00Z".parse().unwrap()
}

async fn backed_up(memories: &[&Arc<Memory>]) {
    run_quietly(plan_at(started(), storages(memories))).await.unwrap();
}

fn rekey_plan<'a>(
    catalog: &'a Catalog,
    entry: &'a CatalogEntry,
    storages: &'a [Arc<dyn Storage>],
) -> RekeyPlan<'a> {
    let step = std::time::Duration::from_secs(10);
    RekeyPlan {
        entry,
        successor: successor(catalog, entry),
        storages,
        decoders: all(),
        reading_back: today(),
        trusted: Some(&BothSeals),
        transforms: vec![zstd(), Arc::new(Veil)],
        keys: vec!["NEW".to_owned()],
        sign: Some(Arc::new(NEW_SEAL)),
        accept_unsigned: false,
        tool: "test 2".to_owned(),
        host: "there".to_owned(),
        limits: Limits { source_stall: step, sink_stall: step, optional_stall: step, commit: step },
        patience: IMPATIENT,
    }
}

/// Encrypts the oldest backup that is not under the new key, as a run of the verb does.
pub async fn rekey_oldest(storages: &[Arc<dyn Storage>]) -> Result<Option<RekeyReport>> {
    let catalog = Catalog::load(storages, Some(JOB)).await;
    let old = |entry: &&CatalogEntry| entry.manifest.parts[0].keys != ["NEW"];
    for entry in &catalog.backups {
        if entry.manifest.rekeyed.is_some() {
            clear_remains(&entry.manifest, storages, "there", &Context::default()).await?;
        }
    }
    let Some(entry) = catalog.backups.iter().find(old) else { return Ok(None) };
    rekey(&rekey_plan(&catalog, entry, storages), &Context::default()).await.map(Some)
}

/// Asserts that every listed backup is whole, that there is one in each memory, and gives back
/// the names of their first parts' keys.
async fn assert_one_whole(memories: &[&Arc<Memory>], what: &str) -> Vec<String> {
    let all_storages = storages(memories);
    let catalog = Catalog::load(&all_storages, None).await;
    assert!(catalog.problems.is_empty(), "{what}: {:?}", catalog.problems);
    for memory in memories {
        let there =
            |entry: &CatalogEntry| entry.copies.iter().any(|c| c.storage == memory_name(memory));
        assert!(catalog.backups.iter().any(there), "{what}: nothing is listed in a storage");
    }
    for entry in &catalog.backups {
        for copy in &entry.copies {
            let storage = all_storages.iter().find(|s| s.name() == copy.storage).unwrap();
            let reader =
                BackupReader::new(entry, Arc::clone(storage), all()).with_patience(IMPATIENT);
            let report = verify(&reader, Some(&BothSeals), &|_, _| None, &Context::default()).await;
            assert!(report.worst().is_none(), "{what}: {:?}", report.worst());
        }
    }
    catalog.backups.iter().map(|entry| entry.manifest.parts[0].keys.concat()).collect()
}

fn memory_name(memory: &Arc<Memory>) -> String {
    backup_core::Sink::name(memory.as_ref()).to_owned()
}

/// Asserts that nothing but the new backup is there.
async fn assert_done(memories: &[&Arc<Memory>], what: &str) {
    assert_eq!(assert_one_whole(memories, what).await, ["NEW"], "{what}");
    for memory in memories {
        let old = layout::BackupId::new(started(), 1).folder(JOB) + "/";
        let left: Vec<String> = memory.keys().into_iter().filter(|k| k.starts_with(&old)).collect();
        assert_eq!(left, [""; 0], "{what}: something of the old one is left");
    }
}

#[tokio::test]
async fn a_backup_is_the_same_under_another_key() {
    let (first, second) = (memory("first"), memory("second"));
    backed_up(&[&first, &second]).await;
    let all_storages = storages(&[&first, &second]);
    let before = Catalog::load(&all_storages, None).await;
    let old = &before.backups[0];
    let reader = BackupReader::best(old, &all_storages, all()).unwrap();
    let old_contents = reader.contents(&Context::default()).await.unwrap();

    let report = rekey_oldest(&all_storages).await.unwrap().unwrap();
    assert!(report.created && report.is_complete(), "{report:?}");
    assert_done(&[&first, &second], "plain").await;

    let after = Catalog::load(&all_storages, None).await;
    let new = &after.backups[0];
    assert!(new.missing_in.is_empty(), "in both storages");
    let (old, new_manifest) = (&old.manifest, &new.manifest);
    assert_eq!(new_manifest.id, "20261122T020000Z-2");
    let rekeyed = new_manifest.rekeyed.clone().unwrap();
    assert_eq!((rekeyed.from.as_str(), rekeyed.host.as_str()), ("20261122T020000Z", "there"));
    assert_eq!(
        (old.started, old.finished, &old.tool, &old.host, &old.source, &old.app_version),
        (
            new_manifest.started,
            new_manifest.finished,
            &new_manifest.tool,
            &new_manifest.host,
            &new_manifest.source,
            &new_manifest.app_version
        )
    );
    let reader = BackupReader::best(new, &all_storages, today()).unwrap();
    let contents = reader.contents(&Context::default()).await.unwrap();
    assert_eq!(contents.parts, old_contents.parts);
    assert!(rekey_oldest(&all_storages).await.unwrap().is_none(), "nothing is left to do");
}

#[tokio::test]
async fn what_is_pinned_stays_pinned() {
    let memory = memory("first");
    backed_up(&[&memory]).await;
    let old = layout::BackupId::new(started(), 1).folder(JOB);
    memory
        .plant(&format!("{old}/pin.json"), r#"{"backup": "20261122T020000Z", "reason": "audit"}"#);
    rekey_oldest(&storages(&[&memory])).await.unwrap();
    assert_done(&[&memory], "pinned").await;
    let pin = memory.object(&format!("{old}-2/pin.json")).expect("the pin is gone");
    let pin: serde_json::Value = serde_json::from_slice(&pin).unwrap();
    assert_eq!(pin, serde_json::json!({ "backup": "20261122T020000Z-2", "reason": "audit" }));
}

/// Whatever retention says: as long as both are there, nobody has read the new one to its end.
async fn assert_no_prune_takes_the_old_one(storages: &[Arc<dyn Storage>]) {
    struct Newest;
    impl RetentionPolicy for Newest {
        fn decide(&self, backups: &[BackupSummary], _now: Timestamp) -> Vec<Decision> {
            backups.iter().map(|_| Decision::Expire("not the newest".to_owned())).collect()
        }
    }
    let rules = PruneRules {
        job: JOB,
        policy: &Newest,
        now: Timestamp::now(),
        host: "there".to_owned(),
        foreign: Foreign::Keep,
        max_delete: None,
        lock_days: Default::default(),
    };
    let catalog = Catalog::load(storages, Some(JOB)).await;
    let plan = plan_prune(&catalog, storages, &rules).await;
    assert!(plan.deletions().is_empty(), "{plan:?}");
}

/// Somebody on another host restores the old one: it stays until he is done.
#[tokio::test]
async fn a_backup_that_is_read_stays_until_the_next_run() {
    let memory = memory("first");
    backed_up(&[&memory]).await;
    let all_storages = storages(&[&memory]);
    let old = layout::BackupId::new(started(), 1).folder(JOB);
    let mark = format!("{old}/readers/abcdef.json");
    memory.plant(&mark, "{}");
    let report = rekey_oldest(&all_storages).await.unwrap().unwrap();
    let told = report.copies[0].1.as_ref().unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Locked, "{told}");
    assert!(memory.object(&format!("{old}/manifest.json")).is_some());
    memory.delete(&mark).await.unwrap();
    rekey_oldest(&all_storages).await.unwrap();
    assert_done(&[&memory], "read").await;
}

/// A locked copy stays beside the new one until its lock is over.
#[tokio::test]
async fn a_locked_copy_goes_when_it_is_unlocked() {
    const LOCK: SignedDuration = SignedDuration::from_secs(6);
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    let vault = bucket(&server);
    let all_storages: Vec<Arc<dyn Storage>> = vec![vault.clone()];
    run_quietly(plan_at(started(), all_storages.clone())).await.unwrap();
    let entry = Catalog::load(&all_storages, None).await.backups.remove(0);
    let (kept, key) = (vault.versioned().unwrap(), entry.key("app.dump.zst.masked"));
    kept.hold(&key, None, true).await.unwrap();
    let held = rekey_oldest(&all_storages).await.unwrap().unwrap();
    assert!(held.created && matches!(held.copies[0].1, Ok(OldCopy::Locked(None))), "{held:?}");
    kept.hold(&key, None, false).await.unwrap();
    let until = Timestamp::now().checked_add(LOCK).unwrap();
    kept.lock_until(&key, None, until).await.unwrap();
    let locked = rekey_oldest(&all_storages).await.unwrap().unwrap();
    assert!(matches!(locked.copies[0].1, Ok(OldCopy::Locked(Some(_)))), "{locked:?}");
    assert!(!locked.is_complete() && locked.id == held.id);
    assert_eq!(Catalog::load(&all_storages, None).await.backups.len(), 2);

    tokio::time::sleep(LOCK.unsigned_abs() + std::time::Duration::from_secs(1)).await;
    let done = rekey_oldest(&all_storages).await.unwrap().unwrap();
    assert!(done.is_complete() && !done.created && done.id == held.id, "{done:?}");
    let left = Catalog::load(&all_storages, None).await.backups;
    assert_eq!(left.iter().map(|entry| entry.id).collect::<Vec<_>>(), [held.id]);
}

/// Two hosts may have given one id to two backups, in storages that did not see each other.
#[tokio::test]
async fn another_backup_of_the_same_id_is_not_touched() {
    let (first, second) = (memory("first"), memory("second"));
    backed_up(&[&first]).await;
    let other =
        BackupPlan { host: "elsewhere".to_owned(), ..plan_at(started(), storages(&[&second])) };
    run_quietly(other).await.unwrap();
    let before = second.keys();
    let all_storages = storages(&[&first, &second]);
    rekey_oldest(&all_storages).await.unwrap();
    assert_eq!(second.keys(), before);
    assert_done(&[&first], "the first").await;
}
