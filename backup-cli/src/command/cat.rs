//! `cat`: a decoded part on stdout, for pipes.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::pipeline;
use backup_core::{Committed, Error, ErrorKind, PartRole, Query, Result, Sink, SinkWriter};
use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::args::CatArgs;
use super::{Session, catalog, setup};

/// Writes a part to stdout.
///
/// # Errors
/// When there is no such part, or it is damaged: some of it may have come out by then.
pub async fn run(args: CatArgs, session: &Session) -> Result<u8> {
    let deployment = setup::for_reading(&args.from, &session.common)?;
    let context = &session.context;
    let query = Query::for_backup(args.from.job.as_deref(), &args.id)?;
    let catalog = catalog(&deployment, &query, session).await?;
    let reader = deployment.reader(catalog.find(&args.id)?, context).await?;
    let parts = &reader.manifest().parts;
    let part = match &args.part {
        Some(name) => parts.iter().find(|part| part.name == *name || part.file == *name),
        None => {
            let of = |role| reader.manifest().part(role);
            of(PartRole::Database).or_else(|| of(PartRole::Files))
        }
    };
    let Some(part) = part else {
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        return Err(Error::new(ErrorKind::NotFound, "cat", "the backup has no such part")
            .next_step(format!("it has {}", names.join(", "))));
    };
    let flow = reader.flow(part, None, Arc::new(Stdout))?;
    let quiet = context.without_progress();
    pipeline::run(flow, &quiet).await.map_err(|error| reader.advise(error))?;
    Ok(0)
}

/// Standard output. What was written can't be taken back; only the exit code tells.
struct Stdout;

#[async_trait]
impl Sink for Stdout {
    fn name(&self) -> &str {
        "stdout"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writing { stdout: tokio::io::stdout(), bytes: 0 }))
    }
}

struct Writing {
    stdout: tokio::io::Stdout,
    bytes: u64,
}

fn unwritable(e: std::io::Error) -> Error {
    Error::failed("stdout", "the reader of the pipe went away, or stdout is full").caused_by(e)
}

#[async_trait]
impl SinkWriter for Writing {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.bytes += chunk.len() as u64;
        self.stdout.write_all(&chunk).await.map_err(unwritable)
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        self.stdout.flush().await.map_err(unwritable)?;
        Ok(Committed { bytes: self.bytes, version: None })
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
