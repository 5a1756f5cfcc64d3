//! Reading goes on: from where it stood, and from another storage when the first one dies.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::{self, Context};
use backup_core::{
    Authenticate, BackupReader, Catalog, CatalogEntry, Collect, ErrorKind, Origin, PartRole,
    Patience, Result, Storage, layout, verify,
};
use backup_testkit::{FaultyReads, Memory, ReadFault, random};

use crate::rig::{
    DUMP_BYTES, Ear, IMPATIENT, SEAL, decoders, memory, plan, run_quietly, storages, verify_in,
};

const QUICK: Patience = Patience { stall: Duration::from_millis(200), ..IMPATIENT };

/// Two storages with the same backup.
async fn twice() -> (Arc<Memory>, Arc<Memory>) {
    let (first, second) = (memory("first"), memory("second"));
    run_quietly(plan(storages(&[&first, &second]))).await.unwrap();
    (first, second)
}

async fn entry_of(memories: &[&Arc<Memory>]) -> CatalogEntry {
    Catalog::load(&storages(memories), None).await.backups.remove(0)
}

fn key_of(memory: &Memory, part: &str) -> String {
    memory.keys().into_iter().find(|key| key.contains(part)).unwrap()
}

/// Reads the dump, decoded, in the way a restore does.
async fn read_dump(reader: &BackupReader, context: &Context) -> Result<Vec<u8>> {
    let collect = Collect::default();
    let part = reader.manifest().part(PartRole::Database).unwrap();
    let flow = reader.flow(part, None, Arc::new(collect.clone()))?;
    pipeline::run(flow, context).await?;
    Ok(collect.take().unwrap())
}

fn best(entry: &CatalogEntry, all: &[Arc<dyn Storage>]) -> BackupReader {
    BackupReader::best(entry, all, decoders()).unwrap().with_patience(QUICK)
}

#[tokio::test]
async fn a_storage_that_dies_in_the_middle_is_replaced_by_the_next() {
    let (first, second) = twice().await;
    let entry = entry_of(&[&first, &second]).await;
    let bytes = first.object(&key_of(&first, "app.dump")).unwrap().len() as u64;
    for at in [0, 1, 100_000, bytes - 1] {
        for fault in [ReadFault::Open, ReadFault::FailAt(at), ReadFault::StallAt(at)] {
            let dying = FaultyReads::new(first.clone(), fault).only_keys_with("app.dump");
            let whole = FaultyReads::new(second.clone(), ReadFault::Open).times(0);
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(dying.clone()), Arc::new(whole.clone())];
            let (ear, context) = Ear::context();
            let reader = best(&entry, &all).telling(&context);
            assert_eq!(reader.storage().name(), "first");
            let back = read_dump(&reader, &context).await.unwrap();
            assert!(back == random(1, DUMP_BYTES), "{fault:?}");

            let warnings = ear.warnings();
            let [warning] = &warnings[..] else { panic!("{fault:?}: {warnings:?}") };
            assert!(warning.contains("storage first failed"), "{warning}");
            let went_on = if fault == ReadFault::Open { 0 } else { at };
            let where_to = format!("going on at byte {went_on} from storage second");
            assert!(warning.ends_with(&where_to), "{warning}");
            let offsets: Vec<u64> = whole.opened().into_iter().map(|(_, offset)| offset).collect();
            assert_eq!(offsets, [went_on], "{fault:?}");

            // The dead one is not asked again for the next part.
            let asked = dying.opened().len();
            assert_eq!(reader.storage().name(), "second");
            read_dump(&reader, &context).await.unwrap();
            assert_eq!(dying.opened().len(), asked, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stood() {
    let (only, _) = twice().await;
    let entry = entry_of(&[&only]).await;
    for fault in
        [ReadFault::FailAt(100_000), ReadFault::StallAt(100_000), ReadFault::EndAt(100_000)]
    {
        for times in 0..=QUICK.tries + 1 {
            let storage = FaultyReads::new(only.clone(), fault).times(times);
            let all: Vec<Arc<dyn Storage>> = vec![Arc::new(storage.clone())];
            let back = read_dump(&best(&entry, &all), &Context::default()).await;
            let what = format!("{fault:?}, {times} times");
            let offsets: Vec<u64> = storage.opened().into_iter().map(|(_, at)| at).collect();
            let mut expected = vec![100_000; times as usize + 1];
            expected[0] = 0;
            // A second empty answer is the end of the object.
            let bound = if matches!(fault, ReadFault::EndAt(_)) { 1 } else { QUICK.tries };
            if times <= bound {
                assert!(back.unwrap() == random(1, DUMP_BYTES), "{what}");
                assert_eq!(offsets, expected, "{what}");
            } else {
                let error = back.unwrap_err();
                assert_ne!(error.kind(), ErrorKind::Disconnected, "{what}: {error}");
                assert!(offsets.len() as u32 <= QUICK.tries + 1, "{what}: {offsets:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_line_that_breaks_often_takes_as_many_tries_as_it_needs() {
    let (only, _) = twice().await;
    let entry = entry_of(&[&only]).await;
    let storage = FaultyReads::new(only.clone(), ReadFault::FailAfter(10_000));
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(storage.clone())];
    let back = read_dump(&best(&entry, &all), &Context::default()).await.unwrap();
    assert!(back == random(1, DUMP_BYTES));
    assert!(storage.opened().len() > 25, "{:?}", storage.opened().len());
}

#[tokio::test(start_paused = true)]
async fn a_silent_storage_is_given_up_after_its_patience() {
    let storage = memory("silent");
    storage.plant("a", vec![7; 100_000]);
    let silent = FaultyReads::new(storage, ReadFault::StallAt(65_536));
    let object = backup_core::StoredObject::unchecked(Arc::new(silent.clone()), "a");
    let began = tokio::time::Instant::now();
    let error = backup_core::read_small(&object).await.unwrap_err();
    let took = began.elapsed();
    assert!(error.message().contains("gave nothing for 60 s"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unchecked);
    // Three minutes are over after the third silence.
    assert!(took >= Duration::from_secs(180) && took < Duration::from_secs(300), "{took:?}");
}

#[tokio::test]
async fn a_copy_with_another_manifest_is_never_mixed_in() {
    let (first, second) = twice().await;
    let key = key_of(&second, layout::MANIFEST);
    let text = String::from_utf8(second.object(&key).unwrap().to_vec()).unwrap();
    second.plant(&key, text.replace("\"here\"", "\"there\""));
    let entry = entry_of(&[&first, &second]).await;
    assert_eq!(entry.copies.len(), 2);
    let dying = FaultyReads::new(first, ReadFault::FailAt(5)).only_keys_with("app.dump");
    let other = FaultyReads::new(second, ReadFault::Open).times(0);
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(dying), Arc::new(other.clone())];
    read_dump(&best(&entry, &all), &Context::default()).await.unwrap_err();
    assert!(other.opened().is_empty(), "{:?}", other.opened());
}

#[tokio::test]
async fn damage_is_told_and_not_worked_around() {
    let (first, second) = twice().await;
    let entry = entry_of(&[&first, &second]).await;
    let key = key_of(&first, "app.dump");
    let mut bytes = first.object(&key).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let short = bytes[..middle].to_vec();
    for (damaged, shown) in [(bytes, "was altered"), (short, "is cut off")] {
        first.plant(&key, damaged);
        let all = storages(&[&first, &second]);
        let reader = best(&entry, &all);
        let part = reader.manifest().part(PartRole::Database).unwrap();
        let error = reader.check_stored(part, &Context::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.message().contains("in storage first") && error.message().contains(shown));
        assert!(error.advice().unwrap().contains("another copy is in storage second"), "{error:?}");
        let error = reader.advise(read_dump(&reader, &Context::default()).await.unwrap_err());
        assert!(error.advice().unwrap().contains("storage second"), "{error:?}");
    }
}

#[tokio::test]
async fn damage_across_two_storages_names_both() {
    let (first, second) = twice().await;
    let entry = entry_of(&[&first, &second]).await;
    let key = key_of(&first, "app.dump");
    let mut bytes = first.object(&key).unwrap().to_vec();
    bytes[0] ^= 1;
    first.plant(&key, bytes);
    let dying = FaultyReads::new(first, ReadFault::FailAt(1_000)).only_keys_with("app.dump");
    let all: Vec<Arc<dyn Storage>> = vec![Arc::new(dying), second];
    let reader = best(&entry, &all);
    let part = reader.manifest().part(PartRole::Database).unwrap();
    let error = reader.check_stored(part, &Context::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("in storage first and then second"), "{error}");
}

#[tokio::test]
async fn small_files_are_read_from_another_copy_when_one_is_damaged() {
    let (first, second) = twice().await;
    let entry = entry_of(&[&first, &second]).await;
    for file in ["contents.json", "globals.sql"] {
        let key = key_of(&first, file);
        let mut bytes = first.object(&key).unwrap().to_vec();
        bytes[20] ^= 1;
        first.plant(&key, bytes);
    }
    let seal = Some(&SEAL as &dyn Authenticate);
    let signature = key_of(&first, layout::SIGNATURE);
    for damaged in [Some("forged"), None] {
        match damaged {
            Some(text) => first.plant(&signature, text),
            None => first.delete(&signature).await.unwrap(),
        }
        let (ear, context) = Ear::context();
        let reader = best(&entry, &storages(&[&first, &second]));
        assert_eq!(reader.origin(seal).await.unwrap(), Origin::Proven);
        let contents = reader.contents(&context).await.unwrap();
        let globals = reader.manifest().part(PartRole::Globals).unwrap();
        let sql = reader.read_part(globals, Some(&contents), &context).await.unwrap();
        assert_eq!(sql.len(), 5_000);
        let warnings = ear.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().all(|line| line.ends_with("trying the copy in storage second")));

        let alone = BackupReader::new(&entry, first.clone(), decoders()).with_patience(QUICK);
        assert_eq!(alone.contents(&context).await.unwrap_err().kind(), ErrorKind::Damaged);
        let origin = alone.origin(seal).await;
        match damaged {
            Some(_) => assert_eq!(origin.unwrap_err().kind(), ErrorKind::Refused),
            None => assert_eq!(origin.unwrap(), Origin::Unsigned),
        }
    }
    second.plant(&signature, "forged");
    let reader = best(&entry, &storages(&[&first, &second]));
    assert_eq!(reader.origin(seal).await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn verify_judges_one_copy_by_itself() {
    let (first, second) = twice().await;
    let entry = entry_of(&[&first, &second]).await;
    let dying =
        FaultyReads::new(first.clone(), ReadFault::FailAt(1_000)).only_keys_with("app.dump");
    let report = verify_in(&entry, Arc::new(dying)).await;
    assert_eq!(report.worst().map(|error| error.kind()), Some(ErrorKind::Unchecked));

    let limping = FaultyReads::new(first, ReadFault::FailAfter(20_000));
    let reader = BackupReader::new(&entry, Arc::new(limping), decoders()).with_patience(QUICK);
    let report = verify(&reader, Some(&SEAL), &|_, _| None, &Context::default()).await;
    assert!(report.worst().is_none(), "{:?}", report.worst());
}

/// Each storage lost another part: what is left of all of them is the whole backup.
#[tokio::test]
async fn parts_lost_in_different_storages_are_pieced_together() {
    let (first, second) = twice().await;
    let globals = key_of(&first, "globals.sql");
    first.delete(&key_of(&first, "app.dump")).await.unwrap();
    second.plant(&globals, "cut off");
    let entry = entry_of(&[&first, &second]).await;
    let all = storages(&[&first, &second]);
    let reader = best(&entry, &all);
    let back = read_dump(&reader, &Context::default()).await.unwrap();
    assert!(back == random(1, DUMP_BYTES));
    let part = reader.manifest().part(PartRole::Globals).unwrap();
    let collect = Collect::default();
    let flow = reader.flow(part, None, Arc::new(collect.clone())).unwrap();
    pipeline::run(flow, &Context::default()).await.unwrap();
    assert!(collect.take().unwrap() == backup_testkit::text(2, 5_000));
    // Of one alone it is not the whole backup, nor where a part is nowhere.
    for alone in &all {
        let error = BackupReader::best(&entry, std::slice::from_ref(alone), decoders()).err();
        assert_eq!(error.unwrap().kind(), ErrorKind::Damaged, "{}", alone.name());
    }
    first.delete(&globals).await.unwrap();
    let entry = entry_of(&[&first, &second]).await;
    let error = BackupReader::best(&entry, &all, decoders()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
}
