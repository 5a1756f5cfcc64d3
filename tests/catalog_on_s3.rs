//! What a catalog of many backups asks of a real S3, request by request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use backup_core::{Catalog, Query, Storage};
use backup_testkit::servers::Recorder;
use futures_util::{StreamExt as _, stream};

use crate::catalog_requests::{Seed, id_before};
use crate::rig::JOB;
use crate::support::cases;
use crate::support::stores::Service;

const DAY: i64 = 24 * 3600;
/// Objects that S3 shows in one answer.
const PAGE: usize = 1000;
/// Uploads at the same time while the backups are planted.
const PLANTERS: usize = 16;

/// How many requests of each kind were made: the listings, and the objects that were read.
fn tally(recorder: &Recorder, from: usize) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for head in recorder.heads().iter().skip(from) {
        let line = head.lines().next().unwrap();
        let kind = match (line.split(' ').next().unwrap(), line.contains("list-type=2")) {
            ("GET", true) => "list",
            ("GET", false) => "get",
            _ => "other",
        };
        *tally.entry(kind).or_default() += 1;
    }
    tally
}

#[tokio::test]
async fn a_manifest_is_a_request_and_a_thousand_objects_are_a_page() {
    let backups = cases(150, 5_000) as i64;
    let service = Service::start("s3").await;
    let recorder = Recorder::before(service.address()).await.unwrap();
    let (planted, seed) = (service.storage("many", service.address()), Seed::new().await);
    let objects: Vec<_> =
        (0..backups).flat_map(|day| seed.objects(JOB, id_before(day * DAY))).collect();
    let total = objects.len();
    let uploads = stream::iter(objects).map(|(key, body)| {
        let planted = Arc::clone(&planted);
        async move { planted.create_new(&key, body).await.map(drop) }
    });
    let uploaded: Vec<_> = uploads.buffer_unordered(PLANTERS).collect().await;
    uploaded.into_iter().collect::<Result<Vec<()>, _>>().unwrap();

    let via = recorder.endpoint().trim_start_matches("http://").parse().unwrap();
    let storages: Vec<Arc<dyn Storage>> = vec![service.storage("many", via)];
    let began = Instant::now();
    let catalog = Catalog::load(&storages, Some(JOB)).await;
    let took = began.elapsed();
    assert_eq!((catalog.backups.len() as i64, catalog.problems.len()), (backups, 0));
    let all = tally(&recorder, 0);
    println!("{backups} backups, {total} objects on S3: {all:?}, {took:.1?}");
    let expected = [("get", backups as usize), ("list", total.div_ceil(PAGE))];
    assert_eq!(all, BTreeMap::from(expected));

    let before = recorder.heads().len();
    let began = Instant::now();
    let newest = Query { job: Some(JOB), limit: Some(5), ..Query::default() };
    assert_eq!(Catalog::query(&storages, &newest).await.backups.len(), 5);
    let few = tally(&recorder, before);
    println!("the newest 5 of them: {few:?}, {:.2?}", began.elapsed());
    assert!(few["get"] == 5 && few["list"] <= 3, "{few:?}");
}
