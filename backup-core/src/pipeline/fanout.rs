//! One stream to several sinks, each at work on its own.
//!
//! The slowest sink sets the pace, as long as it moves. One that does not is given up: after
//! [`Limits::sink_stall`] in any case, and after [`Limits::optional_stall`] already where the
//! policy can do without it and enough others have come further.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::standing::Standings;
use super::{Context, Event, Limits, Policy};
use super::{PipeReceiver, PipeSender, pipe};
use crate::{Committed, Digest, Digester, Error, ErrorKind, Result, Sink, SinkWriter};

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
    let required = policy.required(sinks.len());
    let standings = Standings::new(sinks.len(), required);
    for (index, sink) in sinks.iter().enumerate() {
        let (sender, receiver) = pipe();
        pipes.push(Some(sender));
        let (sink, standings, context) = (Arc::clone(sink), standings.clone(), context.clone());
        let (worker, key) = (Worker { index, sink, standings, limits, context }, key.to_owned());
        workers.spawn(async move { (index, worker.work(&key, receiver).await) });
    }
    let digest = distribute(input, pipes, required, context).await;

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

/// Whoever fills one of the sinks.
struct Worker {
    index: usize,
    sink: Arc<dyn Sink>,
    standings: Standings,
    limits: Limits,
    context: Context,
}

impl Worker {
    async fn work(&self, key: &str, input: PipeReceiver) -> Result<Ready> {
        let filled = self.fill(key, input).await;
        match &filled {
            Ok(_) => self.standings.is_ready(self.index),
            Err(_) => self.standings.is_out(self.index),
        }
        filled
    }

    /// Fills the sink; aborts it on any failure.
    async fn fill(&self, key: &str, mut input: PipeReceiver) -> Result<Ready> {
        let cancel = &self.context.cancel;
        let mut writer = cancel.guard(self.patiently(self.sink.begin(key))).await?;
        let filled = async {
            while let Some(chunk) = input.recv().await? {
                self.patiently(writer.write(chunk)).await?;
                self.standings.took(self.index);
            }
            Ok(())
        };
        match cancel.guard(filled).await {
            Ok(()) => Ok(writer),
            Err(cause) => {
                drop(input);
                // The others go on without it now, and must not wait for its end either.
                self.standings.is_out(self.index);
                let limit = self.standings.patience_for_the_failed(self.limits);
                abort(self.sink.name(), writer, limit, &self.context).await;
                Err(cause)
            }
        }
    }

    /// Waits for one call of the sink, but not longer than the others can be asked to.
    async fn patiently<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (name, limits) = (self.sink.name(), &self.limits);
        let mut call = pin!(within(name, limits.sink_stall, call));
        if let Ok(done) = tokio::time::timeout(limits.optional_stall, &mut call).await {
            return done;
        }
        tokio::select! {
            biased;
            done = &mut call => done,
            () = self.standings.is_dispensable(self.index) => Err(self.given_up()),
        }
    }

    fn given_up(&self) -> Error {
        let seconds = self.limits.optional_stall.as_secs_f32();
        let message = format!("took nothing for {seconds} s while others waited for it");
        Error::failed(self.sink.name().to_owned(), message)
            .next_step("look whether it is reachable and not overloaded, then run again")
    }
}

/// Aborts a writer; what it could not clean up is told, and swept by a later run.
pub(super) async fn abort(name: &str, writer: Ready, limit: Duration, context: &Context) {
    if let Err(error) = within(name, limit, writer.abort()).await {
        context.warn(&format!("{name} could not be cleaned up ({error}); a later run sweeps it"));
    }
}

/// Commits; a sink that does not even clean up in time leaves something, which is told.
pub(super) async fn commit(
    name: &str,
    key: &str,
    writer: Ready,
    limit: Duration,
) -> Result<Committed> {
    match tokio::time::timeout(limit, writer.commit()).await {
        Ok(done) => done,
        Err(_) => Err(Error::failed(
            name.to_owned(),
            format!(
                "did not answer for {} s: {key} may be there, or stay unfinished until it is swept",
                limit.as_secs_f32()
            ),
        )
        .next_step("look whether it is reachable and not overloaded, then run again")),
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
