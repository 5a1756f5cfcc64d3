//! S3 whose answers get lost on the way: what became of the request is found out.

use backup_core::{ByteRange, Creation, ErrorKind, Storage};
use backup_storage::S3;
use backup_testkit::random;
use backup_testkit::servers::{BUCKET, S3Access, S3Server};

use crate::forgetful::Forgetful;
use crate::objects::{PART, impatient, read, write};
use crate::s3::{keys, open, pending};

fn behind(relay: &Forgetful, server: &S3Server, access: S3Access) -> S3 {
    let mut settings = keys(server, access);
    settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
    S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap()
}

#[tokio::test]
async fn a_lost_answer_is_settled_and_leaves_nothing() {
    let server = S3Server::start().await.unwrap();
    let admin = open(&server, "p", S3Access::Admin);
    let long = random(1, 2 * PART + 5);
    for (mark, data) in [
        ("PUT /backups/p/x", &long[..7]),
        ("POST /backups/p/x?uploads", &long),
        ("partNumber=2&", &long),
        ("POST /backups/p/x?uploadId", &long),
    ] {
        for access in [S3Access::Admin, S3Access::WriteOnly] {
            // Whoever may not look can't settle, and may not list what is pending.
            let may_not = access == S3Access::WriteOnly && mark.starts_with("POST");
            if may_not {
                continue;
            }
            let relay = Forgetful::once(server.address(), mark, 0).await;
            let storage = behind(&relay, &server, access);
            let committed = write(&storage, "x", data).await.unwrap();
            assert!(relay.struck(), "{mark}");
            assert_eq!(committed.bytes, data.len() as u64, "{mark}");
            assert!(read(&admin, "x", ByteRange::ALL).await.unwrap() == *data, "{mark}");
            assert_eq!(pending(&admin).await, 0, "{mark}");
            admin.delete("x").await.unwrap();
        }
    }
    let relay = Forgetful::once(server.address(), "PUT /backups/p/claim", 0).await;
    let storage = behind(&relay, &server, S3Access::Admin);
    assert_eq!(storage.create_new("claim", "a".into()).await.unwrap(), Creation::Created);
    assert!(relay.struck());
    assert_eq!(storage.create_new("claim", "a".into()).await.unwrap(), Creation::Taken);
}

/// "Not there" may be said of a missing bucket; while nobody says which it is, it doesn't count.
#[tokio::test]
async fn without_an_answer_about_the_bucket_nothing_passes_for_absent() {
    let server = S3Server::start().await.unwrap();
    let relay = Forgetful::always(server.address(), "list-type=2").await;
    let mut settings = impatient(keys(&server, S3Access::Admin));
    settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
    let storage = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap();
    let error = storage.stat("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked, "{error:?}");
    assert!(relay.struck() && error.message().contains("can't look into it"), "{error:?}");
    let error = storage.open("x", ByteRange::ALL).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unchecked, "{error:?}");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stood() {
    let server = S3Server::start().await.unwrap();
    let data = random(1, 3 * PART);
    write(&open(&server, "p", S3Access::Admin), "x", &data).await.unwrap();
    for length in [None, Some(2 * PART as u64)] {
        let relay = Forgetful::once(server.address(), "GET /backups/p/x", PART).await;
        let storage = behind(&relay, &server, S3Access::Admin);
        let range = ByteRange { offset: 3, length };
        let end = length.map_or(data.len(), |_| 2 * PART + 3);
        assert!(read(&storage, "x", range).await.unwrap() == data[3..end], "{length:?}");
        assert!(relay.struck());
    }
}

#[tokio::test]
async fn a_commit_that_is_never_answered_is_settled_by_looking() {
    let server = S3Server::start().await.unwrap();
    let admin = open(&server, "p", S3Access::Admin);
    let long = random(1, 2 * PART + 5);
    let cases = [("PUT /backups/p/x", &long[..7]), ("POST /backups/p/x?uploadId", &long[..])];
    for (mark, data) in cases {
        let relay = Forgetful::always(server.address(), mark).await;
        let mut settings = impatient(keys(&server, S3Access::Admin));
        settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
        let url = format!("s3://{BUCKET}/p");
        let storage = S3::from_url("offsite", &url, &settings).unwrap();
        let committed = write(&storage, "x", data).await.unwrap();
        assert!(relay.struck(), "{mark}");
        assert_eq!(committed.bytes, data.len() as u64, "{mark}");
        assert!(read(&admin, "x", ByteRange::ALL).await.unwrap() == *data, "{mark}");
        assert_eq!(pending(&admin).await, 0, "{mark}");
        if data.len() > PART {
            continue;
        }
        // Who may not look has to say that it does not know.
        let keys = server.keys(S3Access::WriteOnly);
        settings.secrets.insert("access_key_id".into(), keys.access_key.into());
        settings.secrets.insert("secret_access_key".into(), keys.secret_key.into());
        let blind = S3::from_url("offsite", &url, &settings).unwrap();
        let error = write(&blind, "x", data).await.unwrap_err();
        assert!(error.message().contains("whether it is there can't be told"), "{error:?}");
    }
}
