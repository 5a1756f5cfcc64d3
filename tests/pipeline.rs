//! The pipeline's promises, each with an end that breaks it.

use std::sync::Arc;
use std::time::Duration;

use backup_compress::Zstd;
use backup_core::pipeline::{self, CHUNK_BYTES, Context, Flow, Limits, Outcome, Policy, Stage};
use backup_core::{Digest, Error, ErrorKind, Result, Sink, Source, Storage, Transform};
use backup_testkit::{
    FaultySink, FaultySource, FaultyTransform, Flavour, Generated, Given, INJECTED, Memory,
    SinkFault, SourceFault, TransformFault, random,
};

const MEGABYTE: u64 = 1_000_000;

fn zstd() -> Arc<dyn Transform> {
    Arc::new(Zstd { level: 3, threads: 1 })
}

fn data() -> Arc<dyn Source> {
    Arc::new(Generated::new(Flavour::Text, 1, 3 * MEGABYTE))
}

struct Case {
    source: Arc<dyn Source>,
    stages: Vec<Stage>,
    sinks: Vec<Arc<dyn Sink>>,
    policy: Policy,
    expected: Option<Digest>,
    limits: Limits,
}

const SHORT: Duration = Duration::from_millis(300);
const LIMITS: Limits =
    Limits { source_stall: SHORT, sink_stall: SHORT, optional_stall: SHORT, commit: SHORT };

impl Case {
    fn new(source: Arc<dyn Source>, sinks: &[&Arc<Memory>]) -> Self {
        let sinks = sinks.iter().map(|&memory| Arc::clone(memory) as Arc<dyn Sink>).collect();
        Self {
            source,
            stages: vec![Stage::encode(zstd())],
            sinks,
            policy: Policy::All,
            expected: None,
            limits: LIMITS,
        }
    }

    async fn run(self) -> Result<Outcome> {
        self.run_in(&Context::default()).await
    }

    async fn run_in(self, context: &Context) -> Result<Outcome> {
        let first = Arc::clone(&self.sinks[0]);
        let flow = Flow {
            stages: self.stages,
            sinks: self.sinks,
            key: "job/part".to_owned(),
            policy: self.policy,
            expected: self.expected,
            limits: self.limits,
            ..Flow::new("part", self.source, first)
        };
        tokio::time::timeout(Duration::from_secs(20), pipeline::run(flow, context))
            .await
            .expect("a run must end")
    }
}

fn memory(name: &str) -> Arc<Memory> {
    Arc::new(Memory::new(name))
}

fn assert_untouched(memory: &Memory) {
    assert_eq!(memory.keys(), Vec::<String>::new(), "something is visible");
    assert_eq!(memory.unfinished(), 0, "something was dropped instead of aborted");
}

fn injected(error: &Error) -> bool {
    error.stage() == INJECTED
}

#[tokio::test]
async fn what_goes_out_comes_back() {
    let there = memory("there");
    let outcome = Case::new(data(), &[&there]).run().await.unwrap();
    let stored = there.object("job/part").unwrap();
    assert_eq!(Digest::of(&stored), outcome.written);

    let back = memory("back");
    let mut case = Case::new(Arc::new(Given::new(stored, 1000)), &[&back]);
    case.stages = vec![Stage::decode(zstd())];
    case.expected = Some(outcome.read.clone());
    let returned = case.run().await.unwrap();
    assert_eq!(returned.written, outcome.read);
}

#[tokio::test]
async fn silence_is_not_success() {
    // The producer is gone without a word: zstd could close a valid frame over what it has.
    for at in [0, 1, MEGABYTE] {
        for fault in [SourceFault::DieAt(at), SourceFault::FailAt(at), SourceFault::Open] {
            let sink = memory("sink");
            let source = Arc::new(FaultySource::new(data(), fault));
            let error = Case::new(source, &[&sink]).run().await.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Disconnected, "an echo was reported: {error}");
            assert_untouched(&sink);
        }
    }
}

#[tokio::test]
async fn a_transform_that_breaks_or_stops_early_commits_nothing() {
    for at in [0, 1, MEGABYTE] {
        for fault in
            [TransformFault::FailAt(at), TransformFault::DieAt(at), TransformFault::StopAt(at)]
        {
            let sink = memory("sink");
            let mut case = Case::new(data(), &[&sink]);
            let faulty: Arc<dyn Transform> = Arc::new(FaultyTransform::encoding(zstd(), fault));
            case.stages = vec![Stage::encode(faulty), Stage::encode(zstd())];
            let error = case.run().await.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Disconnected, "{fault:?} at {at}: {error}");
            assert_untouched(&sink);
        }
    }
}

#[tokio::test]
async fn one_failing_sink_fails_all_when_all_are_wanted() {
    for fault in [
        SinkFault::Begin,
        SinkFault::FailAt(0),
        SinkFault::FailAt(100_000),
        SinkFault::StallAt(100_000),
    ] {
        let (good, bad) = (memory("good"), memory("bad"));
        let mut case = Case::new(data(), &[&good]);
        case.stages.clear();
        case.sinks.push(Arc::new(FaultySink::new(bad.clone(), fault)));
        let error = case.run().await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Disconnected, "{fault:?}: {error}");
        assert_untouched(&good);
        assert!(bad.keys().is_empty());
    }
}

#[tokio::test]
async fn a_commit_that_fails_is_a_failure() {
    for fault in [SinkFault::Commit, SinkFault::StallCommit] {
        let bad = memory("bad");
        let mut case = Case::new(data(), &[&bad]);
        case.sinks = vec![Arc::new(FaultySink::new(bad.clone(), fault))];
        let error = case.run().await.unwrap_err();
        let told = error.message().contains("job/part may be there, or stay unfinished until");
        assert_eq!(told, fault == SinkFault::StallCommit, "{error}");
        assert!(bad.keys().is_empty());
    }
}

#[tokio::test]
async fn an_optional_sink_may_fail() {
    for fault in
        [SinkFault::Begin, SinkFault::FailAt(100_000), SinkFault::Commit, SinkFault::StallCommit]
    {
        let (good, bad) = (memory("good"), memory("bad"));
        let mut case = Case::new(data(), &[&good]);
        case.sinks.push(Arc::new(FaultySink::new(bad.clone(), fault)));
        case.policy = Policy::AtLeast(1);
        let outcome = case.run().await.unwrap();
        assert!(outcome.sinks[0].is_ok() && outcome.sinks[1].is_err(), "{fault:?}");
        let stored = good.object("job/part").unwrap();
        assert_eq!(Digest::of(&stored), outcome.written);
    }
}

#[tokio::test]
async fn the_real_cause_is_reported_and_not_its_echo() {
    let sink = memory("sink");
    let source = Arc::new(FaultySource::new(data(), SourceFault::FailAt(MEGABYTE)));
    let mut case = Case::new(source, &[&sink]);
    case.stages = vec![Stage::encode(zstd()), Stage::decode(zstd()), Stage::encode(zstd())];
    let error = case.run().await.unwrap_err();
    assert!(injected(&error), "{error}");
}

#[tokio::test]
async fn other_bytes_than_expected_are_never_committed() {
    let sink = memory("sink");
    let mut case = Case::new(data(), &[&sink]);
    case.expected = Some(Digest::of(b"something else"));
    let error = case.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_untouched(&sink);
}

#[tokio::test]
async fn bytes_behind_the_end_are_damage() {
    let there = memory("there");
    Case::new(data(), &[&there]).run().await.unwrap();
    let mut stored = there.object("job/part").unwrap().to_vec();
    stored.extend_from_slice(b"trailing garbage");
    let back = memory("back");
    let mut case = Case::new(Arc::new(Given::new(stored, 4096)), &[&back]);
    case.stages = vec![Stage::decode(zstd())];
    let error = case.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_untouched(&back);
}

#[tokio::test]
async fn cancelling_aborts_everything() {
    let sink = memory("sink");
    let source = Arc::new(FaultySource::new(data(), SourceFault::StallAt(MEGABYTE)));
    let context = Context::default();
    let cancel = context.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.interrupt("interrupted by a test");
    });
    let error = Case::new(source, &[&sink]).run_in(&context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_untouched(&sink);
}

#[tokio::test]
async fn a_source_that_stalls_is_given_up() {
    let sink = memory("sink");
    let source = Arc::new(FaultySource::new(data(), SourceFault::StallAt(MEGABYTE)));
    let error = Case::new(source, &[&sink]).run().await.unwrap_err();
    assert!(error.message().contains("sent nothing"), "{error}");
    assert_untouched(&sink);
}

#[tokio::test]
async fn chunks_of_any_size_arrive_whole() {
    for size in [1, 7, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES] {
        let bytes = random(size as u64, 3 * CHUNK_BYTES / 2);
        let sink = memory("sink");
        let mut case = Case::new(Arc::new(Given::new(bytes.clone(), size)), &[&sink]);
        case.stages.clear();
        case.run().await.unwrap();
        assert_eq!(sink.object("job/part").unwrap(), bytes);
    }
}

#[tokio::test]
async fn nothing_at_all_is_a_part_too() {
    let sink = memory("sink");
    Case::new(Arc::new(Given::new(Vec::new(), 10)), &[&sink]).run().await.unwrap();
    assert!(sink.stat("job/part").await.unwrap().is_some());
}
