//! Source -> transforms -> fan-out -> sinks, for a backup and for a restore alike.
//!
//! ```text
//!  source ──pipe──> stage ──pipe──> stage ──pipe──> fan-out ─┬─pipe──> sink
//!  (task)          (thread)        (thread)         (task)   └─pipe──> sink   (tasks)
//!                                                                │
//!                             run(): joins everything, judges, then commits or aborts
//! ```
//!
//! **Invariants**
//!
//! - *Silence is not success.* Only an explicit end travels as "complete"; a dropped pipe is
//!   a failure.
//! - *One judge.* Workers never commit. [`run`] waits for every one of them and decides.
//! - *No echo over a cause.* A stage that failed because its neighbour did is not reported.
//! - *Abort before close.* A failed run aborts its writers; none of them is merely dropped.
//!
//! **Memory.** A run holds at most
//! `(stages + 1 + sinks) × (PIPE_DEPTH + 2) × CHUNK_BYTES` of chunks (a pipe's content, plus one
//! chunk in the hands of each end), plus what its transforms hold by themselves.

mod cancel;
mod fanout;
mod pipe;
mod progress;
mod stage;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;

pub use cancel::Cancel;
pub use pipe::{PipeReader, PipeReceiver, PipeSender, PipeWriter, pipe};
pub use progress::{Context, Event, Progress, Silent};
pub use stage::Stage;

use crate::{
    Committed, Digest, Digester, Error, ErrorKind, Findings, Frames, Result, Sink, Source,
};
pub(crate) use fanout::within;
use fanout::{Ready, Written};

/// Largest chunk in a pipe, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Most chunks that wait in a pipe.
pub const PIPE_DEPTH: usize = 4;

/// How many sinks must succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Every one.
    #[default]
    All,
    /// So many; never less than one.
    AtLeast(usize),
}

impl Policy {
    /// The number of sinks out of `count` that must succeed.
    pub fn required(self, count: usize) -> usize {
        match self {
            Policy::All => count,
            Policy::AtLeast(n) => n.clamp(1, count.max(1)),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest silence of the source.
    pub source_stall: Duration,
    /// Longest time a sink may take for one chunk, to begin, or to abort.
    pub sink_stall: Duration,
    /// The same for a sink that the policy can do without, while enough others have come
    /// further: it must not hold them up.
    pub optional_stall: Duration,
    /// Longest time a sink may take to commit.
    pub commit: Duration,
}

impl Default for Limits {
    /// For storages: half an hour of silence (a dump may wait for a lock), ten minutes for a
    /// storage to take a chunk or to commit, two minutes for one to take a chunk that others
    /// wait for. (An object store takes none while a large part of an upload is on its way.)
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            source_stall: 30 * MINUTE,
            sink_stall: 10 * MINUTE,
            optional_stall: 2 * MINUTE,
            commit: 10 * MINUTE,
        }
    }
}

/// One stream to carry.
pub struct Flow {
    /// Name of the part, for progress.
    pub part: String,
    /// Expected bytes out of the source, for progress.
    pub estimated_bytes: Option<u64>,
    /// Where the bytes come from.
    pub source: Arc<dyn Source>,
    /// What happens to them, in order.
    pub stages: Vec<Stage>,
    /// Where they go, all of them at once.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Under which key.
    pub key: String,
    /// How many of the sinks must succeed.
    pub policy: Policy,
    /// What the bytes must be when they arrive at the sinks, where it is known: checked
    /// before anything is committed.
    pub expected: Option<Digest>,
    /// How long things may take.
    pub limits: Limits,
}

impl Flow {
    /// A flow without stages to a single sink.
    pub fn new(part: impl Into<String>, source: Arc<dyn Source>, sink: Arc<dyn Sink>) -> Self {
        let part = part.into();
        Self {
            key: part.clone(),
            part,
            estimated_bytes: None,
            source,
            stages: Vec::new(),
            sinks: vec![sink],
            policy: Policy::All,
            expected: None,
            limits: Limits::default(),
        }
    }
}

/// What a successful run says.
#[derive(Debug)]
pub struct Outcome {
    /// Digest of what came out of the source.
    pub read: Digest,
    /// Digest of what went into each sink.
    pub written: Digest,
    /// What the source learned.
    pub findings: Findings,
    /// The frames of what the first stage wrote, where it makes any: those of a later one are
    /// not frames of what came out of the source.
    pub frames: Option<Frames>,
    /// What became of each sink, in the order of the flow. Enough of them are `Ok`.
    pub sinks: Vec<Result<Committed>>,
}

/// Carries one stream from its source to its sinks.
///
/// Cancel it through [`Context::cancel`] and wait: it aborts its writers and returns. Dropping
/// the future instead is a crash, which leaves partial objects (never visible) to be swept.
///
/// # Errors
/// The first real failure, when the policy isn't met. Every writer that was not committed is
/// aborted then; a sink that had already committed keeps its object, and the caller removes it.
pub async fn run(flow: Flow, context: &Context) -> Result<Outcome> {
    context
        .progress
        .event(Event::PartStarted { part: &flow.part, estimated_bytes: flow.estimated_bytes });
    let (first, mut output) = pipe();
    let mut workers: JoinSet<Result<Ended>> = JoinSet::new();
    {
        let (source, limits, context) = (Arc::clone(&flow.source), flow.limits, context.clone());
        workers.spawn(async move { pump(source, first, limits, &context).await });
    }
    for (index, stage) in flow.stages.iter().cloned().enumerate() {
        let (sender, receiver) = pipe();
        let input = std::mem::replace(&mut output, receiver);
        workers.spawn_blocking(move || {
            let frames = stage.work(input, sender)?;
            Ok(Ended::Stage(frames.filter(|_| index == 0)))
        });
    }
    let fan_out =
        fanout::fan_out(output, &flow.sinks, &flow.key, flow.policy, flow.limits, context);
    let (upstream, written) = tokio::join!(join(workers), fan_out);
    judge(&flow, upstream, written, context).await
}

/// What a task or a thread brings home.
enum Ended {
    Source(Digest, Box<Findings>),
    Stage(Option<Frames>),
}

/// What all of them brought home.
struct SourceEnd {
    digest: Digest,
    findings: Findings,
    frames: Option<Frames>,
}

/// Reads the source to its end and sends everything on.
async fn pump(
    source: Arc<dyn Source>,
    output: PipeSender,
    limits: Limits,
    context: &Context,
) -> Result<Ended> {
    let silent = |_| {
        let seconds = limits.source_stall.as_secs_f32();
        Error::failed(source.name().to_owned(), format!("sent nothing for {seconds} s"))
            .next_step("look what it waits for (a lock, the network), then run again")
    };
    let open = async { tokio::time::timeout(limits.source_stall, source.open()).await };
    let mut stream = context.cancel.guard(async { open.await.map_err(silent)? }).await?;
    let mut digester = Digester::default();
    loop {
        let next = async { tokio::time::timeout(limits.source_stall, stream.next_chunk()).await };
        match context.cancel.guard(async { next.await.map_err(silent)? }).await? {
            None => break,
            Some(chunk) => {
                digester.update(&chunk);
                context.progress.event(Event::Read { bytes: chunk.len() as u64 });
                output.send(chunk).await?;
            }
        }
    }
    let findings = stream.findings();
    output.end().await?;
    Ok(Ended::Source(digester.finish(), Box::new(findings)))
}

/// Waits for source and stages; of several failures the first real one counts.
async fn join(mut workers: JoinSet<Result<Ended>>) -> Result<SourceEnd> {
    let mut end = None;
    let mut frames = None;
    let mut cause: Option<Error> = None;
    while let Some(joined) = workers.join_next().await {
        let result = joined.unwrap_or_else(|panicked| {
            Err(Error::failed("pipeline", "a stage died").caused_by(panicked))
        });
        match result {
            Ok(Ended::Source(digest, findings)) => end = Some((digest, findings)),
            Ok(Ended::Stage(noted)) => frames = frames.or(noted),
            Err(error) => cause = Some(worse(cause, error)),
        }
    }
    match (cause, end) {
        (Some(error), _) => Err(error),
        (None, Some((digest, findings))) => Ok(SourceEnd { digest, findings: *findings, frames }),
        (None, None) => Err(Error::failed("pipeline", "the source ended without a word")),
    }
}

/// Of two failures the one to report: the earlier, unless it is an echo.
fn worse(earlier: Option<Error>, later: Error) -> Error {
    match earlier {
        Some(error) if error.kind() != ErrorKind::Disconnected => error,
        _ if later.kind() != ErrorKind::Disconnected => later,
        Some(error) => error,
        None => later,
    }
}

/// Everybody has spoken: commit, or abort and say why.
async fn judge(
    flow: &Flow,
    upstream: Result<SourceEnd>,
    written: Written,
    context: &Context,
) -> Result<Outcome> {
    let Written { digest, sinks } = written;
    let verdict = match (upstream, digest) {
        (Ok(end), Ok(digest)) => check_expected(flow, &digest).map(|()| (end, digest)),
        (Err(a), Err(b)) => Err(worse(Some(a), b)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    };
    let ready = sinks.iter().filter(|sink| sink.is_ok()).count();
    let enough = ready >= flow.policy.required(sinks.len());
    match verdict {
        Ok((end, digest)) if enough && !context.cancel.is_cancelled() => {
            commit(flow, end, digest, sinks, context).await
        }
        verdict => {
            let upstream_cause = verdict.err();
            Err(abort_all(flow, upstream_cause, sinks, context).await)
        }
    }
}

fn check_expected(flow: &Flow, digest: &Digest) -> Result<()> {
    match &flow.expected {
        Some(expected) if expected != digest => Err(Error::damaged(
            flow.part.clone(),
            format!("what came out ({digest}) is not what was recorded ({expected})"),
        )
        .next_step("verify the backup, and restore from another copy or an older backup")),
        _ => Ok(()),
    }
}

async fn commit(
    flow: &Flow,
    end: SourceEnd,
    written: Digest,
    ready: Vec<Result<Ready>>,
    context: &Context,
) -> Result<Outcome> {
    let commits = flow.sinks.iter().zip(ready).map(|(sink, writer)| async move {
        fanout::commit(sink.name(), &flow.key, writer?, flow.limits.commit).await
    });
    let sinks: Vec<Result<Committed>> = join_all(commits).await;
    let committed = sinks.iter().filter(|sink| sink.is_ok()).count();
    if committed < flow.policy.required(sinks.len()) {
        return Err(first_cause(None, sinks));
    }
    context.progress.event(Event::PartFinished {
        part: &flow.part,
        read: end.digest.bytes,
        written: written.bytes,
    });
    let SourceEnd { digest: read, findings, frames } = end;
    Ok(Outcome { read, written, findings, frames, sinks })
}

async fn abort_all(
    flow: &Flow,
    upstream: Option<Error>,
    sinks: Vec<Result<Ready>>,
    context: &Context,
) -> Error {
    let aborts = flow.sinks.iter().zip(sinks).map(|(sink, writer)| async move {
        fanout::abort(sink.name(), writer?, flow.limits.sink_stall, context).await;
        Ok(())
    });
    let failed: Vec<Result<()>> = join_all(aborts).await;
    if context.cancel.is_cancelled() {
        return context.cancel.error();
    }
    first_cause(upstream, failed)
}

fn first_cause<T>(upstream: Option<Error>, sinks: Vec<Result<T>>) -> Error {
    let causes = sinks.into_iter().filter_map(Result::err);
    causes.fold(upstream, |cause, error| Some(worse(cause, error))).unwrap_or_else(|| {
        Error::failed("pipeline", "the run failed without a cause; please report this")
    })
}
