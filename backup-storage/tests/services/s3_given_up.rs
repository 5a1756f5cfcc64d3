//! Writers of S3 whose caller stops waiting, and commits that are never answered.

use std::time::{Duration, Instant};

use backup_core::{Sink, Storage};
use backup_storage::S3;
use backup_testkit::random;
use backup_testkit::servers::{BUCKET, S3Access, S3Server};
use jiff::{SignedDuration, Timestamp};

use crate::forgetful::Forgetful;
use crate::objects::{PART, write};
use crate::s3::keys;

fn open(server: &S3Server, via: Option<&Forgetful>) -> S3 {
    let mut settings = keys(server, S3Access::Admin);
    settings.commit_timeout = Duration::from_secs(2);
    if let Some(relay) = via {
        settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
    }
    S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap()
}

/// How many unfinished uploads there are; removes them.
async fn pending(storage: &S3) -> u64 {
    storage.sweep("", Timestamp::now() + SignedDuration::from_hours(1)).await.unwrap()
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let server = S3Server::start().await.unwrap();
    let direct = open(&server, None);
    for aborts in [true, false] {
        let late = Duration::from_millis(1_500);
        let relay = Forgetful::late(server.address(), "POST /backups/p/x?uploads", late).await;
        let storage = open(&server, Some(&relay));
        let mut writer = storage.begin("x").await.unwrap();
        let write = writer.write(random(1, 2 * PART).into());
        let given_up = tokio::time::timeout(Duration::from_millis(700), write).await;
        assert!(given_up.is_err() && relay.struck(), "the start was answered too early");
        if aborts {
            writer.abort().await.unwrap();
        } else {
            // What nobody waits for is removed on the side.
            drop(writer);
            tokio::time::sleep(3 * late).await;
        }
        assert_eq!(pending(&direct).await, 0, "aborted: {aborts}");
    }
}

#[tokio::test]
async fn a_commit_after_a_write_that_was_given_up_fails() {
    let server = S3Server::start().await.unwrap();
    let late = Duration::from_millis(1_500);
    let relay = Forgetful::late(server.address(), "POST /backups/p/x?uploads", late).await;
    let storage = open(&server, Some(&relay));
    let mut writer = storage.begin("x").await.unwrap();
    let write = writer.write(random(1, 2 * PART).into());
    assert!(tokio::time::timeout(Duration::from_millis(700), write).await.is_err());
    let error = writer.commit().await.unwrap_err();
    assert!(error.message().contains("was not written whole"), "{error:?}");
    let direct = open(&server, None);
    assert_eq!(direct.list("").await.unwrap(), []);
    tokio::time::sleep(2 * late).await;
    assert_eq!(pending(&direct).await, 0);
}

#[tokio::test]
async fn a_commit_that_takes_too_long_is_settled_and_cleaned_up() {
    let server = S3Server::start().await.unwrap();
    let direct = open(&server, None);
    let data = random(1, 2 * PART);

    // Nobody hears of the completion: nothing stays.
    let relay = Forgetful::swallowing(server.address(), "POST /backups/p/x?uploadId").await;
    let began = Instant::now();
    let error = write(&open(&server, Some(&relay)), "x", &data).await.unwrap_err();
    assert!(relay.struck() && began.elapsed() < Duration::from_secs(15), "{error:?}");
    assert!(error.message().contains("did not answer for 2 s"), "{error:?}");
    assert!(!error.message().contains("stays"), "{error:?}");
    assert_eq!(direct.list("").await.unwrap(), []);
    assert_eq!(pending(&direct).await, 0);

    // Neither can the upload be aborted: what stays is named.
    let relay = Forgetful::swallowing(server.address(), "/backups/p/x?uploadId").await;
    let error = write(&open(&server, Some(&relay)), "x", &data).await.unwrap_err();
    let told = "its unfinished upload stays until it is swept";
    assert!(error.message().contains(told), "{error:?}");
    assert_eq!(pending(&direct).await, 1);

    // It was done, and the answer is late.
    let late = Duration::from_secs(15);
    let relay = Forgetful::late(server.address(), "POST /backups/p/x?uploadId", late).await;
    let began = Instant::now();
    let committed = write(&open(&server, Some(&relay)), "x", &data).await.unwrap();
    assert!(relay.struck() && began.elapsed() < late);
    assert_eq!(committed.bytes, data.len() as u64);
    assert_eq!(pending(&direct).await, 0);
}
