//! Parts that grow and run out, against a real service and with few parts.

use backup_testkit::servers::{BUCKET, Recorder, S3Access, S3Server};
use jiff::{SignedDuration, Timestamp};

use super::super::parts::FIRST_PART_BYTES;
use super::*;
use crate::Settings;

const MIB: u64 = 1 << 20;

async fn store(server: &S3Server, relay: &Recorder) -> Arc<Store> {
    let keys = server.keys(S3Access::Admin);
    let mut settings = Settings { ambient_credentials: false, ..Settings::default() };
    settings.options.insert("endpoint".into(), relay.endpoint());
    settings.secrets.insert("access_key_id".into(), keys.access_key.to_owned().into());
    settings.secrets.insert("secret_access_key".into(), keys.secret_key.to_owned().into());
    let url = format!("s3://{BUCKET}/p");
    Arc::new(super::super::s3::store("offsite".into(), &url, &settings).unwrap())
}

/// Writes `bytes` in pieces of a MiB.
async fn write(writer: &mut Writer, bytes: u64) -> Result<()> {
    for _ in 0..bytes / MIB {
        writer.write(vec![7; MIB as usize].into()).await?;
    }
    Ok(())
}

/// The sizes of the parts that were sent, in MiB.
fn sent(relay: &Recorder) -> Vec<u64> {
    let heads = relay.heads();
    let parts = heads.iter().filter(|head| head.contains("partNumber="));
    let size = |head: &String| {
        let size = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        size.and_then(|size| size.parse::<u64>().ok()).unwrap() / MIB
    };
    let mut sizes: Vec<u64> = parts.map(size).collect();
    sizes.sort_unstable();
    sizes
}

#[tokio::test]
async fn parts_double_up_to_the_largest_and_the_last_is_what_is_left() {
    let server = S3Server::start().await.unwrap();
    let relay = Recorder::before(server.address()).await.unwrap();
    let store = store(&server, &relay).await;
    let mut writer = Writer::new(Arc::clone(&store), "long");
    writer.growth =
        Growth { most_parts: 6, double_every: 2, largest: 2 * FIRST_PART_BYTES, fixed: None };
    // 8, 8, 16, 16, 16 and 5 of the sixth.
    write(&mut writer, 69 * MIB).await.unwrap();
    let committed = Box::new(writer).commit().await.unwrap();
    assert_eq!(committed.bytes, 69 * MIB);
    assert_eq!(sent(&relay), [5, 8, 8, 16, 16, 16]);
    assert_eq!(store.look("long").await.unwrap().unwrap().info.bytes, 69 * MIB);
}

#[tokio::test]
async fn what_is_longer_than_all_parts_fails_and_leaves_nothing() {
    let server = S3Server::start().await.unwrap();
    let relay = Recorder::before(server.address()).await.unwrap();
    let store = store(&server, &relay).await;
    for (fixed, advice) in [
        (Some(5 * MIB), "set a larger `part_size`, or none: parts then grow"),
        (None, "split what is backed up into several jobs"),
    ] {
        let mut writer = Writer::new(Arc::clone(&store), "long");
        writer.growth = Growth { most_parts: 2, double_every: 1, largest: FIRST_PART_BYTES, fixed };
        let most = writer.growth.longest_object();
        // To the last byte it fits.
        write(&mut writer, most).await.unwrap();
        let error = writer.write(vec![7].into()).await.unwrap_err();
        let told = format!("long is too long: the service takes 2 parts, which hold {most} bytes");
        assert_eq!((error.message(), error.advice()), (told.as_str(), Some(advice)));
        Box::new(writer).abort().await.unwrap();
        assert!(store.look("long").await.unwrap().is_none());
        let future = Timestamp::now() + SignedDuration::from_hours(1);
        assert_eq!(store.service.sweep("", future).await.unwrap(), 0, "nothing is pending");
    }
}
