//! Google Cloud Storage, against fake-gcs-server.
//!
//! The emulator enforces no preconditions. So what rests on them is not shown here: that of two
//! callers of `create_new` one wins, and that a long object is created only where there is none.
//! That is why the suite for sinks runs here, and not the one for storages.

use backup_core::{ByteRange, ErrorKind, Storage};
use backup_storage::{Gcs, Settings};
use backup_testkit::servers::{BUCKET, GcsServer};
use backup_testkit::{conformance, random};
use jiff::{SignedDuration, Timestamp};

use crate::objects::{
    PART, assert_error, impatient, pages_are_turned, read, settings, sizes_come_back, write,
};

fn at(server: &GcsServer) -> Settings {
    settings(&[("endpoint", &server.endpoint()), ("anonymous", "yes")], &[])
}

fn open(server: &GcsServer) -> Gcs {
    Gcs::from_url("offsite", &format!("gs://{BUCKET}/some/prefix"), &at(server)).unwrap()
}

#[tokio::test]
async fn keeps_the_promises_of_a_sink() {
    let server = GcsServer::start().await.unwrap();
    let storage = open(&server);
    let seen: &dyn Storage = &storage;
    conformance::sink(&storage, &seen).await.unwrap();
}

#[tokio::test]
async fn all_sizes_and_all_pages() {
    let server = GcsServer::start().await.unwrap();
    let storage = open(&server);
    sizes_come_back(&storage).await;
    pages_are_turned(&storage).await;
}

#[tokio::test]
async fn objects_are_read_listed_and_deleted() {
    let server = GcsServer::start().await.unwrap();
    let storage = open(&server);
    let data = random(1, 2 * PART + 5);
    write(&storage, "a/long", &data).await.unwrap();
    write(&storage, "a/long", &data[1..]).await.unwrap();
    assert!(read(&storage, "a/long", ByteRange::ALL).await.unwrap() == data[1..], "replaced");
    write(&storage, "ab/x", b"x").await.unwrap();
    let past = ByteRange { offset: data.len() as u64 + 10, length: Some(5) };
    assert_eq!(read(&storage, "a/long", past).await.unwrap(), b"");
    assert_eq!(storage.folders("").await.unwrap(), ["a", "ab"]);
    assert_eq!(storage.list("a").await.unwrap().len(), 1);
    for _ in 0..2 {
        storage.delete("a/long").await.unwrap();
        assert_eq!(storage.stat("a/long").await.unwrap(), None);
    }
    let gone = storage.open("a/long", ByteRange::ALL).await.err().unwrap();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let future = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("", future).await.unwrap(), 0, "sessions expire by themselves");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = GcsServer::start().await.unwrap();
    let endpoint = server.endpoint();
    let storage = Gcs::from_url("offsite", "gs://missing/p", &impatient(at(&server))).unwrap();
    let error = storage.list("").await.unwrap_err();
    assert_error(
        &error,
        ErrorKind::Unchecked,
        &format!(
            "storage offsite: can't list it: there is no bucket missing at {endpoint}\n-> create \
             the bucket, or correct the storage's url and endpoint"
        ),
    );
    let error = write(&storage, "x", b"x").await.unwrap_err();
    assert!(error.message().contains("there is no bucket missing"), "{error:?}");
    let error = storage.stat("x").await.unwrap_err();
    assert!(error.message().contains("there is no bucket missing"), "{error:?}");
    let findings = open(&server).probe().await.unwrap();
    assert!(findings[0].remedy.is_some(), "the emulator ignores conditions: {findings:?}");

    let error = Gcs::from_url("offsite", "gs://b/p", &settings(&[], &[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("credential_json"));
}
