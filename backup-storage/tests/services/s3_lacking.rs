//! Services that lack something, as a probe finds out: SeaweedFS behind a relay that refuses it.

use backup_core::{ByteRange, Storage, Versioned};
use backup_storage::{Finding, ObjectSettings, S3, Settings};
use backup_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use backup_testkit::random;
use backup_testkit::servers::{BUCKET, S3Access, S3Server};
use jiff::{SignedDuration, Timestamp};

use crate::forgetful::Forgetful;
use crate::objects::{PART, impatient, read, write};
use crate::s3::keys;

async fn probed(
    server: &S3Server,
    refused: &'static str,
    objects: &ObjectSettings,
) -> Vec<Finding> {
    let relay = Forgetful::refusing(server.address(), refused).await;
    let mut settings = Settings { objects: objects.clone(), ..keys(server, S3Access::Admin) };
    settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
    let storage = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap();
    let findings = storage.probe().await.unwrap();
    assert!(relay.struck(), "{refused}");
    findings
}

/// The findings with something to do, as ability, remedy and whether no backup can succeed.
fn missing(findings: &[Finding]) -> Vec<(&str, &str, bool)> {
    let with_remedy = findings
        .iter()
        .filter_map(|finding| Some((finding.ability, finding.remedy.as_deref()?, finding.fatal)));
    with_remedy.collect()
}

#[tokio::test]
async fn a_probe_blames_the_setting_that_is_refused_and_no_other() {
    let server = S3Server::start().await.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let objects = ObjectSettings {
        tags: [pair("RetentionDays", "90")].into(),
        metadata: [pair("host", "db1")].into(),
        storage_class: Some("STANDARD_IA".into()),
        ..ObjectSettings::default()
    };
    for (refused, ability, remedy) in [
        ("x-amz-checksum-crc32c:", "checksum", "checksum = \"none\""),
        ("x-amz-tagging:", "tags", "leave `tags` out, or grant s3:PutObjectTagging"),
        ("x-amz-meta-host:", "metadata", "leave `metadata` out, or shorten it"),
        (
            "x-amz-storage-class:",
            "storage_class",
            "leave `storage_class` out, or use one that the service has",
        ),
    ] {
        let findings = probed(&server, refused, &objects).await;
        assert_eq!(missing(&findings), [(ability, remedy, true)], "{findings:?}");
    }
    // Not even without any of them: then it is no setting's fault.
    let relay = Forgetful::refusing(server.address(), "PUT /backups/").await;
    let mut settings = Settings { objects, ..keys(&server, S3Access::Admin) };
    settings.options.insert("endpoint".into(), format!("http://{}", relay.address));
    let storage = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &settings).unwrap();
    let error = storage.probe().await.unwrap_err();
    assert!(error.message().contains("does not know such a request"), "{error:?}");

    let direct = keys(&server, S3Access::Admin);
    let direct = S3::from_url("offsite", &format!("s3://{BUCKET}/p"), &direct).unwrap();
    assert_eq!(direct.list("").await.unwrap(), [], "no probe object stays");
}

#[tokio::test]
async fn a_probe_says_what_to_set_where_conditions_are_refused() {
    let server = S3Server::start().await.unwrap();
    let findings = probed(&server, "if-none-match:", &ObjectSettings::default()).await;
    let remedy = "conditional = \"no\": the ids of backups then get random letters";
    assert_eq!(missing(&findings), [("conditional", remedy, false)], "{findings:?}");
}

#[tokio::test]
async fn a_wrong_checksum_is_refused() {
    let server = S3Server::start().await.unwrap();
    let storage = S3::from_url("o", &format!("s3://{BUCKET}/p"), &keys(&server, S3Access::Admin));
    let findings = storage.unwrap().probe().await.unwrap();
    let found = findings.iter().find(|finding| finding.ability == "checksum").unwrap();
    assert_eq!((found.message.as_str(), &found.remedy), ("a wrong checksum is refused", &None));
}

/// A bit that flips on the way is never stored: the part is sent again, or the upload fails.
#[tokio::test]
async fn a_bit_that_flips_on_the_way_is_never_stored() {
    let server = S3Server::start().await.unwrap();
    let direct = S3::from_url("o", &format!("s3://{BUCKET}/p"), &keys(&server, S3Access::Admin));
    let direct = direct.unwrap();
    let data = random(1, 2 * PART + 5);
    // In a part, in the last one, and in an object of a single request.
    for (at, bytes) in [(1_000_000, data.len()), (9_000_000, data.len()), (300_000, 1_000_000)] {
        let flip = Plan::after_bytes(at, Direction::Up, Fault::Flip);
        for plan in [flip, flip.for_ever()] {
            let proxy = FaultProxy::start(server.address(), plan).unwrap();
            let mut settings = impatient(keys(&server, S3Access::Admin));
            settings.options.insert("endpoint".into(), format!("http://{}", proxy.address()));
            let url = format!("s3://{BUCKET}/p");
            let storage = S3::from_url("offsite", &url, &settings).unwrap();
            let written = write(&storage, "x", &data[..bytes]).await;
            assert!(proxy.strikes() > 0);
            if plan == flip {
                written.unwrap();
                let back = read(&direct, "x", ByteRange::ALL).await.unwrap();
                assert!(back == data[..bytes], "{at}");
                direct.delete("x").await.unwrap();
            } else {
                assert!(written.is_err(), "{at}");
                assert_eq!(direct.stat("x").await.unwrap(), None, "{at}");
            }
        }
    }
}

/// A lock outlives the probe: what it kept is hidden, and removed by a later sweep.
#[tokio::test]
async fn a_probe_object_that_was_locked_is_swept_later() {
    let server = S3Server::start().await.unwrap();
    server.make_locked_bucket("locked").await.unwrap();
    let storage = S3::from_url("o", "s3://locked/p", &keys(&server, S3Access::Admin)).unwrap();
    let key = ".marb-probe-0123456789abcdef0123456789abcdef";
    write(&storage, key, b"probe").await.unwrap();
    let kept: &dyn Versioned = storage.versioned().unwrap();
    let version = kept.versions(key).await.unwrap().remove(0).id;
    kept.hold(key, Some(&version), true).await.unwrap();
    storage.delete(key).await.unwrap();
    kept.hold(key, Some(&version), false).await.unwrap();
    assert_eq!(kept.versions(key).await.unwrap().len(), 1, "hidden only");

    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    assert_eq!(storage.sweep("", now - hour).await.unwrap(), 0, "young");
    assert_eq!(storage.sweep("", now + hour).await.unwrap(), 1);
    assert_eq!(kept.versions(key).await.unwrap(), []);
}
