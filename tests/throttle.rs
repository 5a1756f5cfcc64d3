//! A storage with a limited rate keeps it, and every promise of a storage.

use std::sync::Arc;
use std::time::Duration;

use backup_core::{ByteRange, ErrorKind, MIN_RATE, Sink, Storage, Throttled};
use backup_testkit::{Memory, conformance};
use tokio::time::Instant;

use crate::rig::memory;

const RATE: u64 = 1_000_000;

fn throttled(memory: &Arc<Memory>) -> Throttled {
    Throttled::new(memory.clone(), RATE).unwrap()
}

async fn write(storage: &Throttled, key: &str, bytes: usize, chunk: usize) {
    let mut writer = storage.begin(key).await.unwrap();
    for at in (0..bytes).step_by(chunk) {
        writer.write(vec![0; chunk.min(bytes - at)].into()).await.unwrap();
    }
    writer.commit().await.unwrap();
}

async fn read(storage: &Throttled, key: &str) -> usize {
    let mut stream = storage.open(key, ByteRange::ALL).await.unwrap();
    let mut bytes = 0;
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        bytes += chunk.len();
    }
    bytes
}

/// So many bytes at [`RATE`], within a tenth.
fn assert_rate(began: Instant, bytes: usize, what: &str) {
    let (took, wanted) = (began.elapsed().as_secs_f64(), bytes as f64 / RATE as f64);
    assert!((took / wanted - 1.0).abs() < 0.1, "{what}: {took} s instead of {wanted} s");
}

#[tokio::test(start_paused = true)]
async fn writing_takes_its_time_whatever_the_chunks() {
    const BYTES: usize = 5_000_000;
    for chunk in [1_000, 65_536, 262_144, BYTES] {
        let storage = throttled(&memory("memory"));
        let began = Instant::now();
        write(&storage, "a", BYTES, chunk).await;
        assert_rate(began, BYTES, &format!("written in chunks of {chunk}"));
        let began = Instant::now();
        assert_eq!(read(&storage, "a").await, BYTES);
        assert_rate(began, BYTES, "read");
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_shares_one_rate() {
    let storage = throttled(&memory("memory"));
    write(&storage, "old", 2_000_000, 100_000).await;
    let began = Instant::now();
    tokio::join!(
        write(&storage, "a", 2_000_000, 65_536),
        write(&storage, "b", 2_000_000, 10_000),
        read(&storage, "old"),
        async { storage.create_new("c", vec![0; 2_000_000].into()).await.unwrap() },
    );
    assert_rate(began, 8_000_000, "four at once");
}

#[tokio::test(start_paused = true)]
async fn a_pause_saves_up_for_one_second_at_most() {
    let storage = throttled(&memory("memory"));
    write(&storage, "a", 100_000, 100_000).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let began = Instant::now();
    write(&storage, "b", 6_000_000, 100_000).await;
    assert_rate(began, 5_000_000, "after an hour");
}

#[tokio::test(start_paused = true)]
async fn what_carries_no_data_is_not_held_up() {
    let storage = throttled(&memory("memory"));
    write(&storage, "f/a", 1_000, 1_000).await;
    let began = Instant::now();
    for _ in 0..1_000 {
        storage.stat("f/a").await.unwrap();
        storage.list("").await.unwrap();
        assert_eq!(storage.folders("").await.unwrap(), ["f"]);
        storage.delete("never").await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_throttled_storage_keeps_every_promise() {
    let fast = Throttled::new(memory("memory"), 1_000_000_000).unwrap();
    conformance::storage(&fast).await.unwrap();
    for (rate, fine) in [(0, false), (MIN_RATE - 1, false), (MIN_RATE, true), (u64::MAX, true)] {
        let made = Throttled::new(memory("memory"), rate);
        assert_eq!(made.is_ok(), fine, "{rate}");
        assert!(made.err().is_none_or(|error| error.kind() == ErrorKind::Usage));
    }
}
