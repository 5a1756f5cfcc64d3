//! One stream to several sinks, each at work on its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::pipe::{PipeReceiver, PipeSender, pipe};
use super::{Context, Event, Limits, Policy};
use crate::{Digest, Digester, Error, ErrorKind, Result, Sink, SinkWriter};

/// A writer that has everything and waits for the judge.
pub(super) type Ready = Box<dyn SinkWriter>;

/// What became of the stream and of each sink, in the order of the sinks.
pub(super) struct Written {
    pub(super) digest: Result<Digest>,
    pub(super) sinks: Vec<Result<Ready>>,
}

/// Hands every chunk to every sink that still works.
pub(super) async fn fan_out(
    input: PipeReceiver,
    sinks: &[Arc<dyn Sink>],
    key: &str,
    policy: Policy,
    limits: Limits,
    context: &Context,
) -> Written {
    let mut workers = JoinSet::new();
    let mut pipes = Vec::new();
    for (index, sink) in sinks.iter().enumerate() {
        let (sender, receiver) = pipe();
        pipes.push(Some(sender));
        let (sink, key, context) = (Arc::clone(sink), key.to_owned(), context.clone());
        workers.spawn(async move { (index, fill(sink, &key, receiver, limits, &context).await) });
    }
    let digest = distribute(input, pipes, policy.required(sinks.len()), context).await;

    let mut results: Vec<Option<Result<Ready>>> = sinks.iter().map(|_| None).collect();
    while let Some(joined) = workers.join_next().await {
        match joined {
            Ok((index, result)) => results[index] = Some(result),
            Err(panicked) => tracing::error!("a sink's worker died: {panicked}"),
        }
    }
    let died = || Err(Error::failed("pipeline", "a sink's worker died"));
    Written { digest, sinks: results.into_iter().map(|r| r.unwrap_or_else(died)).collect() }
}

/// Reads to the explicit end; gives up when fewer than `required` sinks are left.
async fn distribute(
    mut input: PipeReceiver,
    mut pipes: Vec<Option<PipeSender>>,
    required: usize,
    context: &Context,
) -> Result<Digest> {
    let mut digester = Digester::default();
    while let Some(chunk) = input.recv().await? {
        digester.update(&chunk);
        for slot in &mut pipes {
            if let Some(pipe) = slot
                && pipe.send(chunk.clone()).await.is_err()
            {
                *slot = None;
            }
        }
        if pipes.iter().flatten().count() < required {
            return Err(Error::new(ErrorKind::Disconnected, "pipeline", "too few sinks are left"));
        }
        context.progress.event(Event::Written { bytes: chunk.len() as u64 });
    }
    for pipe in pipes.into_iter().flatten() {
        // A sink that failed in its last moment says so in its own result.
        let _ = pipe.end().await;
    }
    Ok(digester.finish())
}

/// Fills one sink; aborts it on any failure.
async fn fill(
    sink: Arc<dyn Sink>,
    key: &str,
    mut input: PipeReceiver,
    limits: Limits,
    context: &Context,
) -> Result<Ready> {
    let begun = context.cancel.guard(within(sink.name(), limits.sink_stall, sink.begin(key)));
    let mut writer = begun.await?;
    let filled = async {
        while let Some(chunk) = input.recv().await? {
            put(sink.name(), &mut writer, chunk, limits.sink_stall).await?;
        }
        Ok(())
    };
    match context.cancel.guard(filled).await {
        Ok(()) => Ok(writer),
        Err(cause) => {
            drop(input);
            abort(sink.name(), writer, limits, context).await;
            Err(cause)
        }
    }
}

async fn put(name: &str, writer: &mut Ready, chunk: Bytes, stall: Duration) -> Result<()> {
    within(name, stall, writer.write(chunk)).await
}

/// Aborts a writer; what it could not clean up is told, and swept by a later run.
pub(super) async fn abort(name: &str, writer: Ready, limits: Limits, context: &Context) {
    if let Err(error) = within(name, limits.sink_stall, writer.abort()).await {
        context.warn(&format!("{name} could not be cleaned up ({error}); a later run sweeps it"));
    }
}

/// Gives up on a sink that does not answer in time.
pub(crate) async fn within<T>(
    name: &str,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::failed(
            name.to_owned(),
            format!("did not answer for {} s", limit.as_secs_f32()),
        )
        .next_step("look whether it is reachable and not overloaded, then run again")),
    }
}
