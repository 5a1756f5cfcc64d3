//! Thousands of backups on a real S3: what a catalog asks for, and how long that takes.

use std::sync::Arc;
use std::time::Instant;

use backup_core::{BackupId, Catalog, Query, Storage, layout};
use backup_storage::{S3, Settings};
use backup_testkit::servers::{BUCKET, Recorder, S3Access, S3Server};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::rig::{JOB, memory, plan, run_quietly, storages};

/// As many as fourteen years of daily backups.
const BACKUPS: i64 = 5_000;
/// Objects that are planted at once.
const AT_ONCE: usize = 16;

fn bucket(server: &S3Server, endpoint: &str) -> Arc<dyn Storage> {
    let keys = server.keys(S3Access::Admin);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let settings = Settings {
        options: [("endpoint", endpoint), ("region", S3Server::REGION)].map(owned).into(),
        secrets: [("access_key_id", keys.access_key), ("secret_access_key", keys.secret_key)]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into(),
        ambient_credentials: false,
        ..Settings::default()
    };
    Arc::new(S3::from_url("s3", &format!("s3://{BUCKET}/p"), &settings).unwrap())
}

/// Plants a backup's manifest and, for the listing's sake, its other files as empty ones.
async fn plant(storage: &dyn Storage, files: &[(String, Vec<u8>)], from: &str, id: BackupId) {
    for (file, body) in files {
        let body = match file.as_str() {
            layout::MANIFEST => String::from_utf8_lossy(body)
                .replace(&format!("\"{from}\""), &format!("\"{id}\""))
                .into_bytes(),
            _ => body.clone(),
        };
        let key = format!("{}/{file}", id.folder(JOB));
        let mut writer = storage.begin(&key).await.unwrap();
        writer.write(body.into()).await.unwrap();
        writer.commit().await.unwrap();
    }
}

/// Takes minutes: the planting does.
#[tokio::test]
#[ignore = "a measurement: `cargo xtask soak` runs it"]
async fn five_thousand_backups_on_s3() {
    let server = S3Server::start().await.unwrap();
    let seed = memory("seed");
    let report = run_quietly(plan(storages(&[&seed]))).await.unwrap();
    let folder = format!("{}/", report.manifest.backup_id().unwrap().folder(JOB));
    // The manifest and what the catalog looks at beside it; parts count by their size only.
    let files = seed.keys().into_iter().filter_map(|key| {
        let file = key.strip_prefix(&folder)?.to_owned();
        let body = seed.object(&key)?.to_vec();
        (body.len() < 100_000 || file == layout::MANIFEST).then_some((file, body))
    });
    let files: Vec<(String, Vec<u8>)> = files.collect();
    let direct = bucket(&server, &server.endpoint());
    let began = Instant::now();
    let start: Timestamp = "2026-11-20T02:00:00Z".parse().unwrap();
    let (files, from) = (Arc::new(files), Arc::new(report.manifest.id.clone()));
    let mut planting = JoinSet::new();
    for day in 0..BACKUPS {
        if planting.len() >= AT_ONCE {
            planting.join_next().await.unwrap().unwrap();
        }
        let (direct, files, from) = (Arc::clone(&direct), Arc::clone(&files), Arc::clone(&from));
        let at = start.checked_sub(SignedDuration::from_hours(24 * day)).unwrap();
        planting.spawn(async move {
            plant(direct.as_ref(), &files, &from, BackupId::new(at, 1)).await;
        });
    }
    while let Some(planted) = planting.join_next().await {
        planted.unwrap();
    }
    println!("planted {} objects in {:.0?}", BACKUPS as usize * files.len(), began.elapsed());

    for (what, query, wanted) in [
        ("all", Query { job: Some(JOB), ..Query::default() }, 5_000),
        ("the newest 30", Query { job: Some(JOB), limit: Some(30), ..Query::default() }, 30),
    ] {
        let recorder = Recorder::before(server.address()).await.unwrap();
        let all = [bucket(&server, &recorder.endpoint())];
        let began = Instant::now();
        let catalog = Catalog::query(&all, &query).await;
        let took = began.elapsed();
        assert_eq!((catalog.backups.len(), catalog.problems.len()), (wanted, 0), "{what}");
        let heads = recorder.heads();
        let listings = heads.iter().filter(|head| head.contains("list-type=2")).count();
        println!(
            "{what}: {} requests ({listings} listings), {:.2} s",
            heads.len(),
            took.as_secs_f64()
        );
        let pages = BACKUPS as usize * files.len() / 1_000 + 2;
        assert!(heads.len() <= wanted + pages, "{what}: {} requests", heads.len());
    }
}
