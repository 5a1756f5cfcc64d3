//! One stream to several storages: who fails or stalls neither slows nor spoils the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::pipeline::{self, Context, Flow, Limits, Outcome, Policy};
use backup_core::{Committed, Digest, Error, Result, Sink, SinkWriter, Source};
use backup_testkit::{FaultySink, Flavour, Generated, Memory, SinkFault};
use bytes::Bytes;

use crate::rig::memory;

const LONG: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_millis(300);
const LIMITS: Limits =
    Limits { source_stall: LONG, sink_stall: LONG, optional_stall: GRACE, commit: LONG };

fn data(bytes: u64) -> Arc<dyn Source> {
    Arc::new(Generated::new(Flavour::Random, 1, bytes))
}

async fn carry(
    bytes: u64,
    sinks: Vec<Arc<dyn Sink>>,
    required: usize,
) -> (Result<Outcome>, Duration) {
    let flow = Flow {
        sinks,
        key: "job/part".to_owned(),
        policy: Policy::AtLeast(required),
        limits: LIMITS,
        ..Flow::new("part", data(bytes), memory("unused"))
    };
    let (began, context) = (Instant::now(), Context::default());
    let run = tokio::time::timeout(Duration::from_secs(60), pipeline::run(flow, &context));
    (run.await.expect("a run must end"), began.elapsed())
}

fn faulty(memory: &Arc<Memory>, fault: SinkFault) -> Arc<dyn Sink> {
    Arc::new(FaultySink::new(memory.clone(), fault))
}

/// Takes so long for each chunk, for `begin`, or for an abort.
#[derive(Clone)]
struct Slow {
    inner: Arc<Memory>,
    begin: Duration,
    chunk: Duration,
    abort: Duration,
}

impl Slow {
    fn new(inner: &Arc<Memory>) -> Self {
        let none = Duration::ZERO;
        Self { inner: inner.clone(), begin: none, chunk: none, abort: none }
    }
}

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        tokio::time::sleep(self.begin).await;
        Ok(Box::new(SlowWriter { slow: self.clone(), inner: self.inner.begin(key).await? }))
    }
}

struct SlowWriter {
    slow: Slow,
    inner: Box<dyn SinkWriter>,
}

#[async_trait]
impl SinkWriter for SlowWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        tokio::time::sleep(self.slow.chunk).await;
        self.inner.write(chunk).await
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        tokio::time::sleep(self.slow.abort).await;
        self.inner.abort().await
    }
}

fn assert_given_up(result: &Result<Committed>, name: &str) {
    let error = result.as_ref().unwrap_err();
    assert_eq!(error.stage(), name);
    assert!(error.message().contains("while others waited for it"), "{error}");
}

#[tokio::test]
async fn a_stalled_storage_that_is_not_needed_is_given_up_soon() {
    // Also when all of it would fit into the pipes.
    for bytes in [1_000, 5_000_000] {
        for position in 0..3 {
            let stalled = memory("stalled");
            let (one, two) = (memory("one"), memory("two"));
            let mut sinks: Vec<Arc<dyn Sink>> = vec![one.clone(), two.clone()];
            sinks.insert(position, faulty(&stalled, SinkFault::StallAt(500)));
            let (outcome, took) = carry(bytes, sinks, 2).await;
            let outcome = outcome.unwrap();
            assert!(took >= GRACE && took < Duration::from_secs(5), "{took:?}");
            assert_given_up(&outcome.sinks[position], "stalled");
            for whole in [one, two] {
                assert_eq!(Digest::of(&whole.object("job/part").unwrap()), outcome.written);
            }
            assert!(stalled.keys().is_empty() && stalled.unfinished() == 0);
        }
    }
}

#[tokio::test]
async fn who_does_not_even_begin_is_given_up_soon() {
    let (fine, slow) = (memory("fine"), memory("slow"));
    let sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(Slow { begin: LONG, ..Slow::new(&slow) }), fine];
    let (outcome, took) = carry(5_000_000, sinks, 1).await;
    assert_given_up(&outcome.unwrap().sinks[0], "slow");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn several_may_be_given_up_but_never_too_many() {
    let stalled = [memory("a"), memory("b"), memory("c")];
    let mut sinks: Vec<Arc<dyn Sink>> =
        stalled.iter().map(|sink| faulty(sink, SinkFault::StallAt(100_000))).collect();
    sinks.push(memory("fine"));
    let (outcome, took) = carry(5_000_000, sinks, 1).await;
    let outcome = outcome.unwrap();
    (0..3).for_each(|index| assert_given_up(&outcome.sinks[index], stalled[index].name()));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_storage_that_is_needed_gets_its_full_time() {
    // Twice the grace for one call: needed, so it is waited for.
    let slow = memory("slow");
    for required in [2, 1] {
        let sluggish = Slow { begin: 2 * GRACE, ..Slow::new(&slow) };
        let sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(sluggish), memory("fine")];
        let (outcome, _) = carry(5_000_000, sinks, required).await;
        assert_eq!(outcome.unwrap().sinks[0].is_ok(), required == 2);
    }
}

#[tokio::test]
async fn when_all_stall_nobody_is_given_up_early() {
    let pause = Slow { chunk: 2 * GRACE, ..Slow::new(&memory("one")) };
    let other = Slow { chunk: 2 * GRACE, ..Slow::new(&memory("two")) };
    let sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(pause), Arc::new(other)];
    let (outcome, _) = carry(200_000, sinks, 1).await;
    let sinks = outcome.unwrap().sinks;
    assert!(sinks.iter().any(Result::is_ok), "{sinks:?}");
}

#[tokio::test]
async fn a_slow_storage_that_moves_is_waited_for() {
    // Each chunk takes less than the grace, all of them many times as long.
    let slow = memory("slow");
    let steady = Slow { chunk: GRACE / 6, ..Slow::new(&slow) };
    let sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(steady), memory("fine")];
    let (outcome, took) = carry(2_000_000, sinks, 1).await;
    let outcome = outcome.unwrap();
    assert!(outcome.sinks.iter().all(Result::is_ok), "{:?}", outcome.sinks);
    assert_eq!(Digest::of(&slow.object("job/part").unwrap()), outcome.written);
    assert!(took > 3 * GRACE, "{took:?}");
}

#[tokio::test]
async fn who_fails_and_then_hangs_in_its_abort_holds_nobody_up() {
    let stuck = memory("stuck");
    let failing: Arc<dyn Sink> = Arc::new(FailThenHang(Slow { abort: LONG, ..Slow::new(&stuck) }));
    let (outcome, took) = carry(5_000_000, vec![failing, memory("fine")], 1).await;
    let outcome = outcome.unwrap();
    assert!(outcome.sinks[0].is_err() && outcome.sinks[1].is_ok());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

struct FailThenHang(Slow);

#[async_trait]
impl Sink for FailThenHang {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(FailingWriter(self.0.begin(key).await?)))
    }
}

struct FailingWriter(Box<dyn SinkWriter>);

#[async_trait]
impl SinkWriter for FailingWriter {
    async fn write(&mut self, _chunk: Bytes) -> Result<()> {
        Err(Error::failed("stuck", "the disk is on fire"))
    }

    async fn commit(self: Box<Self>) -> Result<Committed> {
        self.0.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.0.abort().await
    }
}

#[tokio::test]
async fn commits_happen_at_the_same_time() {
    const EACH: Duration = Duration::from_millis(500);
    struct SlowCommit(Arc<Memory>);
    struct Writer(Box<dyn SinkWriter>);
    #[async_trait]
    impl Sink for SlowCommit {
        fn name(&self) -> &str {
            self.0.name()
        }
        async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
            Ok(Box::new(Writer(self.0.begin(key).await?)))
        }
    }
    #[async_trait]
    impl SinkWriter for Writer {
        async fn write(&mut self, chunk: Bytes) -> Result<()> {
            self.0.write(chunk).await
        }
        async fn commit(self: Box<Self>) -> Result<Committed> {
            tokio::time::sleep(EACH).await;
            self.0.commit().await
        }
        async fn abort(self: Box<Self>) -> Result<()> {
            self.0.abort().await
        }
    }
    let sinks =
        ["a", "b", "c", "d"].map(|name| Arc::new(SlowCommit(memory(name))) as Arc<dyn Sink>);
    let (outcome, took) = carry(1_000, sinks.to_vec(), 4).await;
    assert!(outcome.unwrap().sinks.iter().all(Result::is_ok));
    assert!(took < 2 * EACH, "{took:?}");
}
