//! Google Cloud Storage, against fake-gcs-server.
//!
//! The emulator enforces no preconditions. So what rests on them is not shown here: that of two
//! callers of `create_new` one wins, and that a long object is created only where there is none.
//! That is why the suite for storages runs here without them.

use backup_core::{ByteRange, ErrorKind, Storage};
use backup_storage::{Gcs, Settings};
use backup_testkit::proxy::{FaultProxy, Plan};
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
async fn keeps_the_promises_of_a_storage() {
    let server = GcsServer::start().await.unwrap();
    let storage = open(&server);
    conformance::storage_without_preconditions(&storage).await.unwrap();
    // With them it would pass on Google's own service alone.
    conformance::storage(&storage).await.unwrap_err();
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
    // The emulator ignores conditions; the option `conditional` is S3's, and refused here.
    let remedy = findings[0].remedy.as_deref().unwrap();
    assert!(remedy.contains("use Google's own service"), "{findings:?}");
    let mut refused = at(&server);
    refused.options.insert("conditional".into(), "no".into());
    assert!(Gcs::from_url("offsite", "gs://b/p", &refused).is_err());

    let error = Gcs::from_url("offsite", "gs://b/p", &settings(&[], &[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("credential_json"));
}

/// A server that answers everything the same, as Google does where something is wrong.
async fn canned(status: &'static str, body: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let _ = client.read(&mut request).await;
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\nconnection: close\r\n\r\n"
                );
                let _ = client.write_all((head + body).as_bytes()).await;
                let _ = client.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn wrong_credentials_a_refused_permission_and_no_route_are_named() {
    let at = |endpoint: &str| {
        let settings = impatient(settings(&[("endpoint", endpoint), ("anonymous", "yes")], &[]));
        Gcs::from_url("offsite", &format!("gs://{BUCKET}/p"), &settings).unwrap()
    };
    let invalid = r#"{"error":{"code":401,"message":"Invalid Credentials","errors":[{"reason":"authError"}]}}"#;
    let forbidden = r#"{"error":{"code":403,"message":"x does not have storage.objects.create access","errors":[{"reason":"forbidden"}]}}"#;
    for (status, body, cause, advice) in [
        (
            "401 Unauthorized",
            invalid,
            "the service does not accept the credentials",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        ("403 Forbidden", forbidden, "permission refused", "the role Storage Object Creator"),
    ] {
        let storage = at(&format!("http://{}", canned(status, body).await));
        for error in [
            write(&storage, "x", b"x").await.unwrap_err(),
            storage.list("").await.unwrap_err(),
            storage.stat("x").await.unwrap_err(),
        ] {
            assert!(error.message().ends_with(cause), "{error:?}");
            assert!(error.advice().unwrap().contains(advice), "{error:?}");
        }
    }
    let proxy = FaultProxy::start("127.0.0.1:9".parse().unwrap(), Plan::unanswered()).unwrap();
    let endpoint = format!("http://{}", proxy.address());
    let began = std::time::Instant::now();
    let error = write(&at(&endpoint), "x", b"x").await.unwrap_err();
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{error:?}");
    assert!(error.message().contains(&format!("{endpoint} did not answer for")), "{error:?}");
    // A write that nobody answered may have been done; a listing changes nothing.
    let error = at(&endpoint).list("").await.unwrap_err();
    assert!(error.message().contains(&format!("{endpoint} did not answer for")), "{error:?}");
    assert!(error.advice().unwrap().contains("check the network"), "{error:?}");
}
