//! S3, against SeaweedFS.

use std::time::Duration;

use backup_core::{ByteRange, Creation, ErrorKind, Sink, Storage};
use backup_storage::{LockMode, ObjectLock, ObjectSettings, S3, Settings};
use backup_testkit::servers::{BUCKET, S3Access, S3Server};
use backup_testkit::{conformance, random};
use jiff::{SignedDuration, Timestamp};

use crate::objects::{
    PART, assert_error, impatient, pages_are_turned, read, settings, sizes_come_back, write,
};

pub fn keys(server: &S3Server, access: S3Access) -> Settings {
    let keys = server.keys(access);
    settings(
        &[("endpoint", &server.endpoint()), ("region", S3Server::REGION)],
        &[("access_key_id", keys.access_key), ("secret_access_key", keys.secret_key)],
    )
}

pub fn open(server: &S3Server, prefix: &str, access: S3Access) -> S3 {
    let url = format!("s3://{BUCKET}/{prefix}");
    S3::from_url("offsite", &url, &keys(server, access)).unwrap()
}

#[tokio::test]
async fn keeps_the_promises_of_a_storage() {
    let server = S3Server::start().await.unwrap();
    for prefix in ["", "deep/er"] {
        let storage = open(&server, prefix, S3Access::Admin);
        conformance::storage(&storage).await.unwrap();
    }
}

#[tokio::test]
async fn all_sizes_and_all_pages() {
    let server = S3Server::start().await.unwrap();
    let storage = open(&server, "p", S3Access::Admin);
    sizes_come_back(&storage).await;
    pages_are_turned(&storage).await;
}

/// How many unfinished uploads there are: a sweep of everything removes and counts them.
pub async fn pending(storage: &S3) -> u64 {
    storage.sweep("", Timestamp::now() + SignedDuration::from_hours(1)).await.unwrap()
}

#[tokio::test]
async fn an_abort_leaves_nothing_pending_and_a_crash_is_swept() {
    let server = S3Server::start().await.unwrap();
    let storage = open(&server, "p", S3Access::Admin);
    let data = random(1, 3 * PART);

    let mut writer = storage.begin("run/a").await.unwrap();
    writer.write(data.clone().into()).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(pending(&storage).await, 0, "an abort leaves nothing");

    for key in ["run/a", "run/b", "other/c"] {
        let mut writer = storage.begin(key).await.unwrap();
        writer.write(data.clone().into()).await.unwrap();
        drop(writer);
    }
    assert_eq!(storage.list("").await.unwrap(), []);
    let before = Timestamp::now() - SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("", before).await.unwrap(), 0, "young uploads are spared");
    let after = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("run", after).await.unwrap(), 2, "of one folder only");
    assert_eq!(storage.sweep("ru", after).await.unwrap(), 0, "a prefix is a folder");
    assert_eq!(pending(&storage).await, 1);
    assert_eq!(pending(&storage).await, 0);
}

#[tokio::test]
async fn credentials_that_may_only_write_are_enough() {
    let server = S3Server::start().await.unwrap();
    let writer = open(&server, "p", S3Access::WriteOnly);
    let reader = open(&server, "p", S3Access::ReadOnly);
    let data = random(1, 2 * PART + 5);
    for size in [0, 7, data.len()] {
        let key = format!("size/{size}");
        write(&writer, &key, &data[..size]).await.unwrap();
        assert!(read(&reader, &key, ByteRange::ALL).await.unwrap() == data[..size]);
    }
    assert_eq!(writer.create_new("claim", "a".into()).await.unwrap(), Creation::Created);
    assert_eq!(writer.create_new("claim", "b".into()).await.unwrap(), Creation::Taken);
    assert_eq!(read(&reader, "claim", ByteRange::ALL).await.unwrap(), b"a");
    let mut aborted = writer.begin("aborted").await.unwrap();
    aborted.write(data.into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(pending(&open(&server, "p", S3Access::Admin)).await, 0);

    let refused = reader.begin("x").await.unwrap().commit().await.unwrap_err();
    assert_error(
        &refused,
        ErrorKind::Failed,
        "storage offsite: can't write x: permission refused\n-> grant these credentials \
         s3:PutObject and s3:AbortMultipartUpload (to write), s3:GetObject and s3:ListBucket \
         (to read), s3:DeleteObject (to prune)",
    );
    let unread = writer.list("").await.unwrap_err();
    assert_error(
        &unread,
        ErrorKind::Unchecked,
        "storage offsite: can't list it: permission refused\n-> grant these credentials \
         s3:PutObject and s3:AbortMultipartUpload (to write), s3:GetObject and s3:ListBucket \
         (to read), s3:DeleteObject (to prune)",
    );
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = S3Server::start().await.unwrap();
    let endpoint = server.endpoint();
    let admin = server.keys(S3Access::Admin);
    let with = |endpoint: &str, bucket: &str, id: &str, secret: &str| {
        let options = [("endpoint", endpoint), ("region", S3Server::REGION)];
        let secrets = [("access_key_id", id), ("secret_access_key", secret)];
        let settings = impatient(settings(&options, &secrets));
        S3::from_url("offsite", &format!("s3://{bucket}/p"), &settings).unwrap()
    };
    let (id, secret) = (admin.access_key, admin.secret_key);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("http://127.0.0.1:{port}");
    let plain_as_tls = endpoint.replace("http://", "https://");
    let cases = [
        (
            with(&endpoint, BUCKET, id, "planted-wrong-secret"),
            "the secret of the credentials is wrong\n-> correct the secrets `access_key_id` and \
             `secret_access_key`"
                .to_owned(),
        ),
        (
            with(&endpoint, BUCKET, "NOBODY", secret),
            "the service does not know the access key\n-> correct the secrets `access_key_id` \
             and `secret_access_key`"
                .to_owned(),
        ),
        (
            with(&closed, BUCKET, id, secret),
            format!(
                "nothing listens at {closed}\n-> see that the service runs, and check the option \
                 `endpoint`"
            ),
        ),
        (
            with("http://no-such-host.invalid", BUCKET, id, secret),
            "the host of http://no-such-host.invalid is not known\n-> check the option \
             `endpoint`, the region and this host's DNS"
                .to_owned(),
        ),
        (
            with(&plain_as_tls, BUCKET, id, secret),
            format!(
                "no secure connection to {plain_as_tls}: received corrupt message of type \
                 InvalidContentType\n-> install the certificate's authority on this host, or \
                 correct the option `endpoint`"
            ),
        ),
    ];
    for (storage, wanted) in cases {
        let before = std::time::Instant::now();
        let failed = |verb: &str| format!("storage offsite: can't {verb}: {wanted}");
        let small = write(&storage, "a/x", b"x").await.unwrap_err();
        assert_error(&small, ErrorKind::Failed, &failed("write a/x"));
        let long = write(&storage, "a/x", &random(1, 2 * PART)).await.unwrap_err();
        assert_error(&long, ErrorKind::Failed, &failed("write a/x"));
        let created = storage.create_new("a/c", "x".into()).await.unwrap_err();
        assert_error(&created, ErrorKind::Failed, &failed("create a/c"));
        let unread = storage.list("a").await.unwrap_err();
        assert_error(&unread, ErrorKind::Unchecked, &failed("list a"));
        let unopened = storage.open("a/x", ByteRange::ALL).await.err().unwrap();
        let looked = storage.stat("a/x").await.unwrap_err();
        for error in [&unopened, &looked] {
            assert_eq!(error.kind(), ErrorKind::Unchecked, "{error:?}");
            assert!(error.message().contains(wanted.split_once('\n').unwrap().0), "{error:?}");
        }
        let shown = format!("{small:?} {long:?} {created:?} {unread:?} {unopened:?} {looked:?}");
        assert!(!shown.contains(secret) && !shown.contains("planted"), "{shown}");
        assert!(!shown.contains("X-Amz") && !shown.contains("Signature="), "{shown}");
        assert!(before.elapsed() < Duration::from_secs(45), "{:?}", before.elapsed());
    }
}

/// SeaweedFS makes a missing bucket for whoever writes to it and may. So here is only read; what S3
/// says to a writer is among the unit tests.
#[tokio::test]
async fn a_missing_bucket_is_no_empty_storage() {
    let server = S3Server::start().await.unwrap();
    let settings = impatient(keys(&server, S3Access::Admin));
    let storage = S3::from_url("offsite", "s3://missing/p", &settings).unwrap();
    let endpoint = server.endpoint();
    for (verb, error) in [
        ("list it", storage.list("").await.unwrap_err()),
        ("list a", storage.folders("a").await.unwrap_err()),
        ("look into it", storage.stat("a/x").await.unwrap_err()),
        ("read a/x", storage.open("a/x", ByteRange::ALL).await.err().unwrap()),
    ] {
        let wanted = format!(
            "storage offsite: can't {verb}: there is no bucket missing at {endpoint}\n-> create \
             the bucket, or correct the storage's url and endpoint"
        );
        assert_error(&error, ErrorKind::Unchecked, &wanted);
    }
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up_in_time() {
    // Takes connections and says nothing: what a firewall that drops packets looks like later.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let secrets = [("access_key_id", "a"), ("secret_access_key", "b")];
    let settings = impatient(settings(&[("endpoint", &endpoint)], &secrets));
    let storage = S3::from_url("offsite", "s3://bucket", &settings).unwrap();
    let before = std::time::Instant::now();
    let error = storage.list("").await.unwrap_err();
    assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unchecked);
    assert!(error.message().contains(&format!("{endpoint} did not answer for")), "{error}");
}

#[tokio::test]
async fn a_service_that_is_away_for_a_moment_is_waited_for() {
    let mut server = S3Server::start().await.unwrap();
    let storage = open(&server, "p", S3Access::Admin);
    let data = random(3, 3 * PART);
    let mut writer = storage.begin("long").await.unwrap();
    writer.write(data[..2 * PART].to_vec().into()).await.unwrap();
    server.end().await.unwrap();
    let (rest, started) = tokio::join!(
        async {
            writer.write(data[2 * PART..].to_vec().into()).await?;
            writer.commit().await
        },
        async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            server.start_again().await
        }
    );
    started.unwrap();
    assert_eq!(rest.unwrap().bytes, data.len() as u64);
    assert!(read(&storage, "long", ByteRange::ALL).await.unwrap() == data);
    assert_eq!(pending(&storage).await, 0);
}

/// The server's own word on an object, asked without the code under test.
pub async fn ask(server: &S3Server, key: &str, query: &str) -> String {
    let keys = server.keys(S3Access::Admin);
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "-D", "-", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
        .arg(format!("{}:{}", keys.access_key, keys.secret_key))
        .arg(format!("{}/{key}{query}", server.endpoint()))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn objects_carry_tags_metadata_and_a_storage_class() {
    let server = S3Server::start().await.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let objects = ObjectSettings {
        tags: [pair("RetentionDays", "90"), pair("made by", "marb & co")].into(),
        metadata: [pair("host", "db1")].into(),
        storage_class: Some("STANDARD_IA".into()),
        ..ObjectSettings::default()
    };
    let settings = Settings { objects, ..keys(&server, S3Access::Admin) };
    let storage = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap();
    for (key, size) in [("small", 5), ("long", 2 * PART)] {
        write(&storage, key, &random(1, size)).await.unwrap();
        let path = format!("{BUCKET}/p/{key}");
        let tags = ask(&server, &path, "?tagging=").await;
        for wanted in ["<Key>RetentionDays</Key><Value>90</Value>", "marb &amp; co"] {
            assert!(tags.contains(wanted), "{key}: {tags}");
        }
        let headers = ask(&server, &path, "").await.to_lowercase();
        assert!(headers.contains("x-amz-meta-host: db1"), "{key}: {headers}");
        assert!(headers.contains("x-amz-storage-class: standard_ia"), "{key}: {headers}");
    }
}

#[tokio::test]
async fn locked_objects_are_skipped_and_hidden() {
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    let plain = keys(&server, S3Access::Admin);
    let lock = Some(ObjectLock { mode: LockMode::Governance, days: 3 });
    let objects = ObjectSettings { object_lock: lock, ..ObjectSettings::default() };
    let locking = Settings { objects, ..plain.clone() };
    let locking = S3::from_url("offsite", "s3://locked/p", &locking).unwrap();
    let plain = S3::from_url("offsite", "s3://locked/p", &plain).unwrap();

    for (key, size) in [("small", 5), ("long", 2 * PART)] {
        let committed = write(&locking, key, &random(1, size)).await.unwrap();
        assert!(committed.version.is_some_and(|version| version.len() > 4), "{key}");
        let retention = ask(&server, &format!("locked/p/{key}"), "?retention=").await;
        assert!(retention.contains("GOVERNANCE"), "{key}: {retention}");
        let until = retention.split("<RetainUntilDate>").nth(1).unwrap();
        let until: Timestamp = until.split('<').next().unwrap().parse().unwrap();
        assert!(until > Timestamp::now() + SignedDuration::from_hours(3 * 24 - 1), "{until}");

        locking.delete(key).await.unwrap();
        assert_eq!(plain.stat(key).await.unwrap(), None, "hidden");
        let versions = ask(&server, "locked", &format!("?prefix=p%2F{key}&versions=")).await;
        assert!(versions.contains("<Version>"), "what is locked stays: {versions}");
    }

    // Without a lock nothing stays, of several versions neither.
    for content in [b"one", b"two"] {
        write(&plain, "free", content).await.unwrap();
    }
    plain.delete("free").await.unwrap();
    let versions = ask(&server, "locked", "?prefix=p%2Ffree&versions=").await;
    assert!(!versions.contains("<Version>"), "{versions}");
    assert!(!versions.contains("<DeleteMarker>"), "{versions}");
}

#[tokio::test]
async fn a_probe_says_what_the_service_keeps() {
    let server = S3Server::start().await.unwrap();
    let storage = open(&server, "p", S3Access::Admin);
    let findings = storage.probe().await.unwrap();
    let conditional = findings.iter().find(|finding| finding.ability == "conditional").unwrap();
    assert_eq!(conditional.remedy, None, "{findings:?}");
    assert!(findings.iter().all(|finding| !finding.fatal), "{findings:?}");
    assert_eq!(storage.list("").await.unwrap(), [], "the probe object is gone");

    let settings = keys(&server, S3Access::Admin);
    let lock = Some(ObjectLock { mode: LockMode::Governance, days: 3 });
    let objects = ObjectSettings { object_lock: lock, ..ObjectSettings::default() };
    let settings = Settings { objects, ..settings };
    let storage = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap();
    let findings = storage.probe().await.unwrap();
    let lock = findings.iter().find(|finding| finding.ability == "object_lock").unwrap();
    assert!(lock.remedy.as_ref().unwrap().contains("`object_lock`"), "{findings:?}");
    assert!(lock.fatal, "the bucket has no locks, so every put is refused: {findings:?}");

    let writer = open(&server, "p", S3Access::WriteOnly);
    let findings = writer.probe().await.unwrap();
    assert!(findings.iter().any(|finding| finding.ability == "delete"), "{findings:?}");
}
