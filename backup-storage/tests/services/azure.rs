//! Azure Blob Storage, against Azurite.

use backup_core::{ErrorKind, Sink, Storage};
use backup_storage::{Azure, Settings};
use backup_testkit::conformance;
use backup_testkit::proxy::{FaultProxy, Plan};
use backup_testkit::servers::{AzureServer, BUCKET};
use jiff::{SignedDuration, Timestamp};

use crate::objects::{
    PART, assert_error, impatient, pages_are_turned, settings, sizes_come_back, write,
};

fn with_key(server: &AzureServer, key: &str) -> Settings {
    let options = [("endpoint", server.endpoint()), ("account_name", AzureServer::ACCOUNT.into())];
    let options: Vec<_> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings(&options, &[("account_key", key)])
}

fn open(server: &AzureServer, prefix: &str) -> Azure {
    let settings = with_key(server, AzureServer::KEY);
    Azure::from_url("offsite", &format!("az://{BUCKET}/{prefix}"), &settings).unwrap()
}

#[tokio::test]
async fn keeps_the_promises_of_a_storage() {
    let server = AzureServer::start().await.unwrap();
    for prefix in ["", "deep/er"] {
        conformance::storage(&open(&server, prefix)).await.unwrap();
    }
}

#[tokio::test]
async fn all_sizes_and_all_pages() {
    let server = AzureServer::start().await.unwrap();
    let storage = open(&server, "p");
    sizes_come_back(&storage).await;
    pages_are_turned(&storage).await;
}

#[tokio::test]
async fn an_abort_and_a_crash_leave_nothing_visible() {
    let server = AzureServer::start().await.unwrap();
    let storage = open(&server, "p");
    for aborts in [true, false] {
        let mut writer = storage.begin("run/a").await.unwrap();
        writer.write(vec![7; 3 * PART].into()).await.unwrap();
        if aborts {
            writer.abort().await.unwrap();
        }
        assert_eq!(storage.list("").await.unwrap(), []);
        assert_eq!(storage.stat("run/a").await.unwrap(), None);
    }
    let future = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("", future).await.unwrap(), 0, "blocks expire by themselves");
    write(&storage, "run/a", &vec![8; 2 * PART]).await.unwrap();
}

#[tokio::test]
async fn a_token_that_may_only_write_is_enough() {
    let server = AzureServer::start().await.unwrap();
    let token = server.sas("cw").unwrap();
    let settings = settings(&[("endpoint", &server.endpoint())], &[("sas_token", &token)]);
    let storage = Azure::from_url("offsite", &format!("az://{BUCKET}/p"), &settings).unwrap();
    write(&storage, "small", b"x").await.unwrap();
    write(&storage, "long", &vec![8; 2 * PART]).await.unwrap();
    assert_eq!(open(&server, "p").list("").await.unwrap().len(), 2);

    let error = storage.list("").await.unwrap_err();
    let shown = format!("{error:?}");
    assert!(!shown.contains("sig=") && !shown.contains(&token), "{shown}");
    assert_eq!(error.kind(), ErrorKind::Unchecked, "{shown}");
    assert!(error.message().contains("permission refused"), "{shown}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let server = AzureServer::start().await.unwrap();
    let endpoint = server.endpoint();
    let wrong = impatient(with_key(&server, "cGxhbnRlZC13cm9uZy1zZWNyZXQ="));
    let storage = Azure::from_url("offsite", &format!("az://{BUCKET}/p"), &wrong).unwrap();
    let refused = "the service does not accept the credentials\n-> correct the option \
                   `account_name` and the secret `account_key` or `sas_token`; a token may have \
                   expired";
    let error = storage.list("").await.unwrap_err();
    let wanted = format!("storage offsite: can't list it: {refused}");
    assert_error(&error, ErrorKind::Unchecked, &wanted);
    assert!(!format!("{error:?}").contains("cGxhbnRlZC"), "{error:?}");
    let error = storage.begin("x").await.unwrap().commit().await.unwrap_err();
    let wanted = format!("storage offsite: can't write x: {refused}");
    assert_error(&error, ErrorKind::Failed, &wanted);

    let settings = impatient(with_key(&server, AzureServer::KEY));
    let storage = Azure::from_url("offsite", "az://missing/p", &settings).unwrap();
    let wanted = format!(
        "there is no container missing at {endpoint}\n-> create the container, or correct the \
         storage's url and endpoint"
    );
    let error = write(&storage, "x", b"x").await.unwrap_err();
    assert_error(&error, ErrorKind::Failed, &format!("storage offsite: can't write x: {wanted}"));
    let error = storage.stat("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked, "{error:?}");
    assert!(error.message().contains("there is no container missing"), "{error:?}");
}

#[tokio::test]
async fn no_route_is_named_within_the_deadline() {
    let server = AzureServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.address(), Plan::unanswered()).unwrap();
    let endpoint = format!("http://{}/{}", proxy.address(), AzureServer::ACCOUNT);
    let mut settings = impatient(with_key(&server, AzureServer::KEY));
    settings.options.insert("endpoint".into(), endpoint.clone());
    let storage = Azure::from_url("offsite", &format!("az://{BUCKET}/p"), &settings).unwrap();
    let began = std::time::Instant::now();
    let error = storage.list("").await.unwrap_err();
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{error:?}");
    assert!(error.message().contains(&format!("{endpoint} did not answer for")), "{error:?}");
    assert!(error.advice().unwrap().contains("check the network"), "{error:?}");
    assert!(write(&storage, "x", b"x").await.is_err());
}
