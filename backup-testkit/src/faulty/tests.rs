//! Each faulty end breaks exactly where it was told to.

use std::sync::Arc;
use std::time::Duration;

use backup_core::{ByteRange, Error, Result, Sink, Source, SourceStream, Storage, Transform};

use super::*;
use crate::{Given, Memory, conformance, text};

/// Time enough for whatever doesn't stall.
const SOON: Duration = Duration::from_millis(50);

async fn drain(stream: &mut dyn SourceStream) -> (usize, Result<()>) {
    let mut read = 0;
    loop {
        match stream.next_chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => return (read, Ok(())),
            Err(error) => return (read, Err(error)),
        }
    }
}

fn source(fault: SourceFault) -> FaultySource {
    FaultySource::new(Arc::new(Given::new(text(1, 1_000), 300)), fault)
}

#[tokio::test]
async fn a_source_fails_at_the_byte() {
    for at in [0, 1, 299, 300, 301, 999, 1_000] {
        let mut stream = source(SourceFault::FailAt(at)).open().await.unwrap();
        let (read, end) = drain(stream.as_mut()).await;
        assert_eq!((read as u64, end.unwrap_err().stage()), (at, INJECTED));
    }
    // Behind the end it strikes at the end.
    let mut stream = source(SourceFault::FailAt(5_000)).open().await.unwrap();
    assert_eq!(drain(stream.as_mut()).await.0, 1_000);
    assert!(source(SourceFault::Open).open().await.is_err());
}

#[tokio::test]
async fn a_source_stalls_dies_or_dribbles() {
    let mut stream = source(SourceFault::StallAt(500)).open().await.unwrap();
    assert!(tokio::time::timeout(SOON, drain(stream.as_mut())).await.is_err());

    let mut stream = source(SourceFault::DieAt(500)).open().await.unwrap();
    let task = tokio::spawn(async move { drain(stream.as_mut()).await.0 });
    assert!(task.await.unwrap_err().is_panic());

    let dribble = source(SourceFault::ShortChunks(7));
    conformance::source(&dribble, &text(1, 1_000)).await.unwrap();
    let first = dribble.open().await.unwrap().next_chunk().await.unwrap();
    assert_eq!(first.unwrap().len(), 7);
}

async fn write(sink: &dyn Sink, key: &str) -> Result<()> {
    let mut writer = sink.begin(key).await?;
    for piece in text(2, 1_000).chunks(300) {
        if let Err(error) = writer.write(piece.to_vec().into()).await {
            writer.abort().await?;
            return Err(error);
        }
    }
    writer.commit().await.map(drop)
}

#[tokio::test]
async fn a_sink_breaks_where_told() {
    for fault in [
        SinkFault::Begin,
        SinkFault::FailAt(0),
        SinkFault::FailAt(299),
        SinkFault::FailAt(300),
        SinkFault::FailAt(999),
        SinkFault::Commit,
    ] {
        let memory = Memory::new("m");
        let storage = FaultyStorage::new(Arc::new(memory.clone()), fault);
        assert_eq!(write(&storage, "a").await.unwrap_err().stage(), INJECTED, "{fault:?}");
        assert!(memory.keys().is_empty() && memory.unfinished() == 0, "{fault:?}");
    }
    for fault in [SinkFault::FailAt(1_000), SinkFault::Abort] {
        let memory = Memory::new("m");
        write(&FaultyStorage::new(Arc::new(memory.clone()), fault), "a").await.unwrap();
        assert_eq!(memory.object("a").unwrap(), text(2, 1_000));
    }
}

#[tokio::test]
async fn a_sink_stalls_or_leaves_something_behind() {
    for fault in [SinkFault::StallAt(500), SinkFault::StallCommit] {
        let memory = Memory::new("m");
        let storage = FaultyStorage::new(Arc::new(memory.clone()), fault);
        assert!(tokio::time::timeout(SOON, write(&storage, "a")).await.is_err(), "{fault:?}");
        assert!(memory.keys().is_empty());
    }
    let memory = Memory::new("m");
    let storage = FaultyStorage::new(Arc::new(memory.clone()), SinkFault::Abort);
    let writer = storage.begin("a").await.unwrap();
    assert!(writer.abort().await.is_err());
    assert_eq!((memory.keys().len(), memory.unfinished()), (0, 1));
}

#[tokio::test]
async fn only_chosen_keys_break() {
    let memory = Memory::new("m");
    let storage =
        FaultyStorage::new(Arc::new(memory), SinkFault::Commit).only_keys_with("manifest");
    write(&storage, "x/data").await.unwrap();
    assert!(write(&storage, "x/manifest.json").await.is_err());
    // Where nothing is to break, it is a storage like any other.
    conformance::storage(&storage).await.unwrap();
}

#[tokio::test]
async fn every_call_is_counted_and_can_fail() {
    async fn work(storage: &dyn Storage) -> Result<()> {
        write(storage, "a").await?;
        let mut stream = storage.open("a", ByteRange::ALL).await?;
        drain(stream.as_mut()).await.1?;
        storage.stat("a").await?;
        storage.list("").await?;
        storage.create_new("b", "x".into()).await?;
        storage.sweep("", jiff::Timestamp::now()).await?;
        storage.delete("a").await
    }
    let counted = CountedStorage::new(Arc::new(Memory::new("m")), FailCalls::Never);
    work(&counted).await.unwrap();
    let calls = counted.calls();
    assert_eq!(
        calls.join(","),
        "begin a,write a,write a,write a,write a,commit a,open a,next_chunk a,next_chunk a,\
         stat a,list,create_new b,sweep,delete a"
    );
    for k in 1..=calls.len() {
        let only = CountedStorage::new(Arc::new(Memory::new("m")), FailCalls::Only(k as u64));
        let error: Error = work(&only).await.unwrap_err();
        assert!(error.message().contains(&calls[k - 1]), "{k}: {error}");
        let down = CountedStorage::new(Arc::new(Memory::new("m")), FailCalls::From(k as u64));
        assert!(work(&down).await.is_err());
        assert!(down.stat("a").await.is_err(), "it stays down");
    }
    conformance::storage(&counted).await.unwrap();
}

/// Hands its bytes through.
struct Through;

impl Transform for Through {
    fn name(&self) -> &str {
        "through"
    }

    fn extension(&self) -> &str {
        "through"
    }

    fn encode(&self, input: &mut dyn std::io::Read, output: &mut dyn std::io::Write) -> Result<()> {
        std::io::copy(input, output).map(drop).map_err(|e| Error::from_io("through", e))
    }

    fn decode(&self, input: &mut dyn std::io::Read, output: &mut dyn std::io::Write) -> Result<()> {
        self.encode(input, output)
    }
}

#[test]
fn a_transform_breaks_in_one_direction() {
    let data = text(3, 1_000);
    let run = |transform: &FaultyTransform, decode: bool| {
        let mut out = Vec::new();
        let result = if decode {
            transform.decode(&mut &data[..], &mut out)
        } else {
            transform.encode(&mut &data[..], &mut out)
        };
        (result.map_err(|e| e.stage().to_owned()), out.len())
    };
    for at in [0, 1, 500, 1_000] {
        let failing = TransformFault::FailAt(at);
        let encoding = FaultyTransform::encoding(Arc::new(Through), failing);
        let decoding = FaultyTransform::decoding(Arc::new(Through), failing);
        let broken = (Err(INJECTED.to_owned()), usize::try_from(at).unwrap());
        assert_eq!(
            [run(&encoding, false), run(&encoding, true)],
            [broken.clone(), (Ok(()), 1_000)]
        );
        assert_eq!([run(&decoding, false), run(&decoding, true)], [(Ok(()), 1_000), broken]);
    }
    let lying = FaultyTransform::encoding(Arc::new(Through), TransformFault::StopAt(500));
    assert_eq!(run(&lying, false), (Ok(()), 500));
    let dying = FaultyTransform::encoding(Arc::new(Through), TransformFault::DieAt(500));
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&dying, false)));
    assert!(died.is_err());
}
