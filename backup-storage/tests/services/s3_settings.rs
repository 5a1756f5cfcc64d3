//! What the settings of S3 send, written down on the way.

use std::time::Duration;

use backup_core::{ByteRange, Creation, ErrorKind, Storage};
use backup_storage::{ObjectSettings, S3, ServerEncryption, Settings};
use backup_testkit::random;
use backup_testkit::servers::{BUCKET, Recorder, S3Access, S3Server};

use crate::objects::{PART, read, write};
use crate::s3::keys;

fn url() -> String {
    format!("s3://{BUCKET}/p")
}

/// The heads of the requests that make an object of this size, with these settings.
async fn sent(server: &S3Server, objects: ObjectSettings, size: usize) -> Vec<String> {
    let relay = Recorder::before(server.address()).await.unwrap();
    let mut settings = Settings {
        objects,
        retry_deadline: Duration::from_millis(500),
        ..keys(server, S3Access::Admin)
    };
    settings.options.insert("endpoint".into(), relay.endpoint());
    let storage = S3::from_url("offsite", &url(), &settings).unwrap();
    // SeaweedFS has no keys to encrypt with, and fails; what matters here is what it was told.
    let _ = write(&storage, "x", &random(1, size)).await;
    let heads = relay.heads();
    assert!(!heads.is_empty());
    heads
}

#[tokio::test]
async fn encryption_is_asked_for_when_an_object_is_made() {
    let server = S3Server::start().await.unwrap();
    let with = |encryption| ObjectSettings { encryption, ..ObjectSettings::default() };
    let word = "x-amz-server-side-encryption: ";
    let key = "x-amz-server-side-encryption-aws-kms-key-id: ";
    for (size, line) in [(5, "PUT /backups/p/x HTTP"), (2 * PART, "POST /backups/p/x?uploads")] {
        let made = async |encryption| {
            let heads = sent(&server, with(encryption), size).await;
            heads.into_iter().find(|head| head.starts_with(line)).unwrap()
        };
        let plain = made(None).await;
        assert!(!plain.contains("encryption"), "{plain}");
        let service = made(Some(ServerEncryption::Service)).await;
        assert!(service.contains(&format!("{word}AES256")) && !service.contains(key), "{service}");
        let own = made(Some(ServerEncryption::KeyService(None))).await;
        assert!(own.contains(&format!("{word}aws:kms")) && !own.contains(key), "{own}");
        let named = made(Some(ServerEncryption::KeyService(Some("arn:key/1".into())))).await;
        assert!(named.contains(&format!("{word}aws:kms")), "{named}");
        assert!(named.contains(&format!("{key}arn:key/1")), "{named}");
        let signed = named.lines().find(|head| head.starts_with("authorization: ")).unwrap();
        assert!(signed.contains("x-amz-server-side-encryption"), "not signed: {signed}");
    }
}

#[tokio::test]
async fn without_conditional_puts_claims_look_first_and_say_so() {
    let server = S3Server::start().await.unwrap();
    let relay = Recorder::before(server.address()).await.unwrap();
    let mut settings = keys(&server, S3Access::Admin);
    settings.options.insert("conditional".into(), "no".into());
    settings.options.insert("endpoint".into(), relay.endpoint());
    let storage = S3::from_url("offsite", &url(), &settings).unwrap();
    assert!(!storage.excludes(), "two hosts are not kept apart: ids get random letters");
    assert_eq!(storage.create_new("claim", "a".into()).await.unwrap(), Creation::Created);
    assert_eq!(storage.create_new("claim", "b".into()).await.unwrap(), Creation::Taken);
    assert_eq!(read(&storage, "claim", ByteRange::ALL).await.unwrap(), b"a");
    assert!(relay.heads().iter().all(|head| !head.contains("if-none-match")));
    let usual = S3::from_url("offsite", &url(), &keys(&server, S3Access::Admin)).unwrap();
    assert!(usual.excludes());
    let mut wrong = keys(&server, S3Access::Admin);
    wrong.options.insert("conditional".into(), "perhaps".into());
    let error = S3::from_url("offsite", &url(), &wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error:?}");
}
