//! Buckets of S3 that keep versions and locks, against SeaweedFS.

use std::time::Duration;

use backup_core::{
    ByteRange, Creation, ErrorKind, ObjectVersion, SourceStream, Storage, Versioned,
};
use backup_storage::{LockMode, ObjectLock, ObjectSettings, S3, Settings};
use backup_testkit::servers::{S3Access, S3Server};
use jiff::{SignedDuration, Timestamp};

use crate::objects::{impatient, write};
use crate::s3::{ask, keys};

const FOLDER: &str = "db/2026/01/20260101T000000Z";

async fn server() -> S3Server {
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    server
}

fn open(settings: &Settings) -> S3 {
    S3::from_url("offsite", "s3://locked/p", settings).unwrap()
}

fn plain(server: &S3Server) -> S3 {
    open(&keys(server, S3Access::Admin))
}

fn locking(server: &S3Server) -> S3 {
    let lock = Some(ObjectLock { mode: LockMode::Governance, days: 3 });
    let objects = ObjectSettings { object_lock: lock, ..ObjectSettings::default() };
    open(&Settings { objects, ..keys(server, S3Access::Admin) })
}

fn versioned(storage: &S3) -> &dyn Versioned {
    storage.versioned().unwrap()
}

/// Deletes as somebody does who names no version.
async fn hide(server: &S3Server, key: &str) {
    let keys = server.keys(S3Access::Admin);
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sSf", "-X", "DELETE", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
        .arg(format!("{}:{}", keys.access_key, keys.secret_key))
        .arg(format!("{}/locked/p/{key}", server.endpoint()));
    assert!(curl.status().await.unwrap().success());
}

/// The whole answer of the service about all versions below a key.
async fn listed(server: &S3Server, key: &str) -> String {
    let prefix = format!("p/{key}").replace('/', "%2F");
    ask(server, "locked", &format!("?prefix={prefix}&versions=")).await
}

async fn all_of(mut stream: Box<dyn SourceStream>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

fn soon(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn every_kept_version_is_listed_and_read() {
    let server = server().await;
    let storage = plain(&server);
    let kept = versioned(&storage);
    assert_eq!(kept.versions("x").await.unwrap(), []);
    for content in ["one", "three", "four!!"] {
        write(&storage, "x", content.as_bytes()).await.unwrap();
        write(&storage, "x/beside", b"another key").await.unwrap();
    }
    let shown = |all: &[ObjectVersion]| -> Vec<(u64, bool)> {
        all.iter().map(|version| (version.bytes, version.current)).collect()
    };
    let all = kept.versions("x").await.unwrap();
    assert_eq!(shown(&all), [(6, true), (5, false), (3, false)]);
    hide(&server, "x").await;
    assert_eq!(storage.stat("x").await.unwrap(), None);
    let all = kept.versions("x").await.unwrap();
    assert_eq!(shown(&all), [(6, false), (5, false), (3, false)]);
    let whole = kept.open_version("x", &all[1].id, ByteRange::ALL).await.unwrap();
    assert_eq!(all_of(whole).await, b"three");
    for (range, wanted) in [((1, Some(2)), &b"hr"[..]), ((9, None), b""), ((2, Some(0)), b"")] {
        let range = ByteRange { offset: range.0, length: range.1 };
        let part = kept.open_version("x", &all[1].id, range).await.unwrap();
        assert_eq!(all_of(part).await, wanted, "{range:?}");
    }
    let none = kept.open_version("x", "no-such-version", ByteRange::ALL).await;
    assert!(matches!(none.err().unwrap().kind(), ErrorKind::NotFound | ErrorKind::Unchecked));
    // A bucket that never kept versions has none to tell of.
    server.make_bucket("plain").await.unwrap();
    let forgets = S3::from_url("x", "s3://plain", &keys(&server, S3Access::Admin)).unwrap();
    write(&forgets, "x", b"x").await.unwrap();
    assert_eq!(versioned(&forgets).versions("x").await.unwrap(), []);
}

#[tokio::test]
async fn a_lock_is_extended_and_never_shortened() {
    let server = server().await;
    let storage = locking(&server);
    write(&storage, "x", b"x").await.unwrap();
    let kept = versioned(&storage);
    let first = kept.protection("x", None).await.unwrap().locked_until.unwrap();
    kept.lock_until("x", None, soon(3600)).await.unwrap();
    assert_eq!(kept.protection("x", None).await.unwrap().locked_until, Some(first), "shorter");
    let later = first + SignedDuration::from_hours(24 * 30);
    kept.lock_until("x", None, later).await.unwrap();
    let now = kept.protection("x", None).await.unwrap();
    assert_eq!((now.locked_until, now.held), (Some(later), false));

    // Of one version, which is not the newest.
    let old = kept.versions("x").await.unwrap().remove(0).id;
    write(&plain(&server), "x", b"newer").await.unwrap();
    kept.lock_until("x", Some(&old), later + SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!(kept.protection("x", None).await.unwrap().locked_until, None);
    let old = kept.protection("x", Some(&old)).await.unwrap().locked_until.unwrap();
    assert_eq!(old, later + SignedDuration::from_hours(1));
}

#[tokio::test]
async fn what_is_held_stays_until_it_is_given_free() {
    let server = server().await;
    let storage = plain(&server);
    write(&storage, "x", b"precious").await.unwrap();
    let kept = versioned(&storage);
    for _ in 0..2 {
        kept.hold("x", None, true).await.unwrap();
    }
    assert!(kept.protection("x", None).await.unwrap().held);
    storage.delete("x").await.unwrap();
    let all = kept.versions("x").await.unwrap();
    assert_eq!(all.len(), 1, "hidden, and still there");
    kept.hold("x", Some(&all[0].id), false).await.unwrap();
    assert!(!kept.protection("x", Some(&all[0].id)).await.unwrap().held);
    storage.delete("x").await.unwrap();
    assert_eq!(kept.versions("x").await.unwrap(), []);
}

#[tokio::test]
async fn without_locks_nothing_is_locked_and_it_is_said() {
    let server = S3Server::start().await.unwrap();
    server.make_bucket("plain").await.unwrap();
    let storage = S3::from_url("offsite", "s3://plain", &keys(&server, S3Access::Admin)).unwrap();
    write(&storage, "x", b"x").await.unwrap();
    let kept = versioned(&storage);
    let error = kept.lock_until("x", None, soon(3600)).await.unwrap_err();
    assert!(error.message().starts_with("can't lock x: "), "{error:?}");
    assert!(!kept.hold("x", None, true).await.unwrap(), "there is nothing that holds");
    let nothing = kept.protection("x", None).await.unwrap();
    assert_eq!((nothing.locked_until, nothing.held), (None, false));
}

/// A claim comes and goes with every backup: locked, each would stay.
#[tokio::test]
async fn a_claim_is_never_locked_and_a_manifest_is() {
    let server = server().await;
    let storage = locking(&server);
    let (claim, manifest) = (format!("{FOLDER}/claim.json"), format!("{FOLDER}/manifest.json"));
    for key in [&claim, &manifest] {
        let created = storage.create_new(key, "{}".into()).await.unwrap();
        assert_eq!(created, Creation::Created);
    }
    assert_eq!(versioned(&storage).protection(&claim, None).await.unwrap().locked_until, None);
    storage.delete(&claim).await.unwrap();
    assert!(!listed(&server, &claim).await.contains("VersionId"));
    // No more than what else comes and goes beside a backup that stays.
    for file in ["pruned.json", "pin.json", "readers/0123456789abcdef.json"] {
        let key = format!("{FOLDER}/{file}");
        storage.create_new(&key, "{}".into()).await.unwrap();
        storage.delete(&key).await.unwrap();
        assert!(!listed(&server, &key).await.contains("VersionId"), "{file}");
    }
    assert!(versioned(&storage).protection(&manifest, None).await.unwrap().locked_until.is_some());
}

#[tokio::test]
async fn what_a_lock_kept_of_a_failed_run_goes_when_the_lock_has_ended() {
    let server = server().await;
    let storage = plain(&server);
    let other = FOLDER.replace("20260101T", "20260102T");
    let (part, listed_part) = (format!("{FOLDER}/a.dump"), format!("{other}/a.dump"));
    let manifest = format!("{other}/manifest.json");
    for key in [&part, &listed_part, &manifest] {
        write(&storage, key, b"content").await.unwrap();
        versioned(&storage).lock_until(key, None, soon(6)).await.unwrap();
    }
    storage.delete(&part).await.unwrap();
    for key in [&listed_part, &manifest] {
        hide(&server, key).await;
    }
    assert_eq!(storage.list("").await.unwrap(), []);
    assert_eq!(storage.sweep("db", soon(3600)).await.unwrap(), 0, "still locked");
    assert_eq!(versioned(&storage).versions(&part).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(storage.sweep("other", soon(3600)).await.unwrap(), 0, "another folder");
    assert_eq!(storage.sweep("db", soon(-3600)).await.unwrap(), 0, "too young");
    assert_eq!(storage.sweep("db", soon(3600)).await.unwrap(), 1);
    assert!(!listed(&server, &part).await.contains("VersionId"), "its mark of deletion, too");
    // A backup that was listed, and that somebody hid: its versions are how one gets it back.
    for key in [&listed_part, &manifest] {
        assert_eq!(versioned(&storage).versions(key).await.unwrap().len(), 1, "{key}");
    }
}

/// What could not be asked for a moment is asked again.
#[tokio::test]
async fn a_service_that_was_away_is_asked_again_whether_it_keeps_versions() {
    let mut server = server().await;
    let storage = open(&impatient(keys(&server, S3Access::Admin)));
    server.end().await.unwrap();
    storage.delete("x").await.unwrap_err();
    server.start_again().await.unwrap();
    for content in [b"one", b"two"] {
        write(&storage, "x", content).await.unwrap();
    }
    storage.delete("x").await.unwrap();
    let left = listed(&server, "x").await;
    assert!(!left.contains("VersionId"), "{left}");
}
