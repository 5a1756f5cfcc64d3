//! A bucket that keeps versions: what somebody replaced or deleted there is still read.

use std::sync::Arc;

use backup_core::pipeline::{self, Context};
use backup_core::{
    BackupReader, Catalog, Collect, ErrorKind, PartRole, Result, Storage, Versioned,
};
use backup_storage::{S3, Settings};
use backup_testkit::random;
use backup_testkit::servers::{S3Access, S3Server};

use crate::rig::{DUMP_BYTES, Ear, IMPATIENT, decoders, plan, run_quietly, verify_in};

pub fn bucket(server: &S3Server) -> Arc<S3> {
    let keys = server.keys(S3Access::Admin);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let settings = Settings {
        options: [("endpoint", &*server.endpoint()), ("region", S3Server::REGION)]
            .map(owned)
            .into(),
        secrets: [("access_key_id", keys.access_key), ("secret_access_key", keys.secret_key)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into(),
        ambient_credentials: false,
        ..Settings::default()
    };
    Arc::new(S3::from_url("vault", "s3://locked/p", &settings).unwrap())
}

async fn put(storage: &S3, key: &str, body: Vec<u8>) {
    let mut writer = backup_core::Sink::begin(storage, key).await.unwrap();
    writer.write(body.into()).await.unwrap();
    writer.commit().await.unwrap();
}

async fn read_dump(reader: &BackupReader, context: &Context) -> Result<Vec<u8>> {
    let collect = Collect::default();
    let part = reader.manifest().part(PartRole::Database).unwrap();
    pipeline::run(reader.flow(part, None, Arc::new(collect.clone()))?, context).await?;
    Ok(collect.take().unwrap())
}

#[tokio::test]
async fn a_part_that_was_replaced_or_deleted_is_read_as_it_was_written() {
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    let vault = bucket(&server);
    let all: Vec<Arc<dyn Storage>> = vec![vault.clone()];
    run_quietly(plan(all.clone())).await.unwrap();
    let whole = Catalog::load(&all, None).await.backups.remove(0);
    let part = whole.manifest.part(PartRole::Database).unwrap();
    let (key, bytes) = (whole.key(&part.file), usize::try_from(part.bytes).unwrap());
    let kept: &dyn Versioned = vault.versioned().unwrap();
    let ours = kept.versions(&key).await.unwrap().remove(0).id;
    // Held, so that the delete below hides it and no more, as with a lock.
    kept.hold(&key, Some(&ours), true).await.unwrap();

    for attack in ["none", "same size", "another size", "twice", "deleted"] {
        match attack {
            "none" => {}
            "same size" => put(&vault, &key, random(5, bytes)).await,
            "another size" => put(&vault, &key, random(6, bytes + 1)).await,
            "twice" => {
                put(&vault, &key, random(7, bytes)).await;
                put(&vault, &key, random(8, bytes)).await;
            }
            _ => vault.delete(&key).await.unwrap(),
        }
        let entry = Catalog::load(&all, None).await.backups.remove(0);
        let (ear, context) = Ear::context();
        let reader = BackupReader::best(&entry, &all, decoders()).unwrap();
        let reader = reader.with_patience(IMPATIENT).telling(&context);
        let back = read_dump(&reader, &context).await.unwrap();
        assert!(back == random(1, DUMP_BYTES), "{attack}");
        let told = ear.warnings().iter().any(|warning| warning.contains("was replaced or deleted"));
        assert_eq!(told, attack != "none", "{attack}: {:?}", ear.warnings());
        // Who judges the copy is not told that all is well.
        let report = verify_in(&entry, vault.clone()).await;
        let worst = report.worst().map(|error| error.kind());
        let wanted = (attack != "none").then_some(ErrorKind::Damaged);
        assert_eq!(worst, wanted, "{attack}: {:?}", report.worst());
    }

    // When nothing right is kept, it is damage.
    kept.hold(&key, Some(&ours), false).await.unwrap();
    vault.delete(&key).await.unwrap();
    put(&vault, &key, random(9, bytes)).await;
    let entry = Catalog::load(&all, None).await.backups.remove(0);
    let reader = BackupReader::best(&entry, &all, decoders()).unwrap().with_patience(IMPATIENT);
    let error = read_dump(&reader, &Context::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
}
