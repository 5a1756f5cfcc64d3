//! One restore: the head of the archive first, then its data, then the proof.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;

use super::compare::compare;
use super::rewrite::rename_tablespaces;
use super::run::{Orders, Run};
use super::target::Target;
use super::{RestoreOptions, RestoreReport, STAGE, preflight};
use crate::archive::{ArchiveReader, Toc};
use crate::client::too_slow;
use crate::database::{database_facts, database_tablespace};
use crate::{Psql, ToolSearch};

/// Lines of pg_restore's warnings that a report repeats.
const WARNING_LINES: usize = 20;

/// What ANALYZE gets when the comparison took all the time there was.
const LEAST_ANALYZE_TIME: Duration = Duration::from_secs(1);

pub(super) struct RestoreWriter {
    target: Target,
    search: ToolSearch,
    options: RestoreOptions,
    cancel: Cancel,
    reader: ArchiveReader,
    progress: Progress,
    report: RestoreReport,
    published: Arc<Mutex<Option<RestoreReport>>>,
}

enum Progress {
    /// The table of contents is not complete; these are its bytes so far.
    Head(Vec<u8>),
    /// pg_restore runs; these bytes are held back.
    Running { run: Box<Run>, held: Bytes },
    /// Ended, well or not.
    Over,
}

impl RestoreWriter {
    pub fn new(
        target: Target,
        search: ToolSearch,
        options: RestoreOptions,
        cancel: Cancel,
        published: Arc<Mutex<Option<RestoreReport>>>,
    ) -> Self {
        Self {
            target,
            search,
            options,
            cancel,
            reader: ArchiveReader::new(),
            progress: Progress::Head(Vec::new()),
            report: RestoreReport::default(),
            published,
        }
    }

    /// The table of contents is there: checks, makes the database, starts pg_restore.
    async fn start(&mut self, head: Vec<u8>) -> Result<Progress> {
        let Some(toc) = self.reader.toc() else { return Ok(Progress::Head(head)) };
        let server = self.target.server();
        let tools = preflight::choose_tools(&self.search, server, toc.header.version).await?;
        let own_tablespace =
            if self.target.is_existing() { None } else { database_tablespace(toc) };
        let map = &self.options.tablespaces;
        preflight::check_tablespaces(server, toc, map, own_tablespace.as_deref()).await?;
        let roles = preflight::check_roles(server, toc, &self.options).await?;
        preflight::create_roles(server, &roles).await?;
        self.report.created = !self.target.is_existing();
        self.report.pg_restore = tools.version().to_string();
        self.report.notes.extend(roles.differences);
        self.report.created_roles = roles.creates;
        self.report.cannot_log_in = roles.cannot_log_in;
        self.report.notes.extend(encoding_note(&self.target, toc));
        self.target.prepare(toc, map, self.options.no_owners).await?;
        let connection = self.target.connection();
        let run = Box::new(Run::start(&Orders {
            tools: &tools,
            connection: &connection,
            server_major: self.target.server().version().major,
            single_transaction: self.target.is_existing(),
            no_tablespaces: map.ignore,
            no_owners: self.options.no_owners,
        })?);
        let held = rename_tablespaces(head, toc, map).into();
        Ok(Progress::Running { run, held })
    }

    /// All bytes are here: the proof comes before the last of them is let through.
    ///
    /// On an error the children are ended; `undo` has to drop the database.
    async fn complete(&mut self) -> Result<()> {
        let summary = std::mem::take(&mut self.reader).finish()?;
        let Progress::Running { mut run, held } =
            std::mem::replace(&mut self.progress, Progress::Over)
        else {
            return Err(Error::failed(STAGE, "the restore had ended before"));
        };
        let (cancel, limit) = (self.cancel.clone(), self.options.timeout);
        let finishing = async {
            run.write(&held).await?;
            run.finish(limit).await
        };
        let said = bounded(&cancel, limit, "did not finish", finishing).await;
        // Ends the children of one that was given up, before anything else is done.
        drop(run);
        self.report.notes.extend(warnings(&said?));
        let started = Instant::now();
        let psql = self.target.psql();
        let comparing = compare(&psql, &summary, limit, &mut self.report);
        bounded(&cancel, limit, "the comparison did not end", comparing).await?;
        if self.options.analyze {
            let left = limit.saturating_sub(started.elapsed()).max(LEAST_ANALYZE_TIME);
            cancel.guard(self.analyze(&psql.with_timeout(left))).await?;
        }
        // What can be seen is either all or nothing: no stop in the middle of this.
        self.publish().await
    }

    async fn analyze(&mut self, psql: &Psql) -> Result<()> {
        if let Err(error) = psql.execute("ANALYZE").await {
            let note = format!("statistics are missing, run ANALYZE: {}", error.message());
            self.report.notes.push(note);
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<()> {
        let not_set = self.target.publish().await?;
        self.report.notes.extend(not_set);
        self.report.database = self.target.name().to_owned();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.report.clone());
        Ok(())
    }

    /// A database that was there before stays, with what was restored into it. Looked up,
    /// because nobody knows whether the transaction of one that was given up came through.
    async fn name_what_stays(&self, error: Error) -> Error {
        if !self.target.is_existing() {
            return error;
        }
        let database = self.target.name();
        let stays = "and is not dropped because it existed before";
        match self.target.is_filled().await {
            Ok(false) => error,
            Ok(true) => error.next_step(format!(
                "do not use the database {database}: it holds what was restored, {stays}"
            )),
            Err(_) => error.next_step(format!(
                "look into the database {database} before you use it: it may hold what was restored, {stays}"
            )),
        }
    }

    /// Ends everything and drops the database if it is ours. `Err` names what is left.
    async fn undo(&mut self) -> Result<()> {
        if let Progress::Running { run, .. } = &mut self.progress {
            run.abort();
        }
        self.progress = Progress::Over;
        self.target.drop_made().await
    }
}

#[async_trait]
impl SinkWriter for RestoreWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let was_complete = self.reader.is_complete();
        self.reader.feed(&chunk)?;
        match &mut self.progress {
            Progress::Head(head) => {
                head.extend_from_slice(&chunk);
                if self.reader.toc().is_some() {
                    let head = std::mem::take(head);
                    self.progress = self.start(head).await?;
                }
                Ok(())
            }
            // Behind the data pg_restore reads nothing, and what is held back must stay so.
            Progress::Running { .. } if was_complete => Ok(()),
            Progress::Running { run, held } => {
                let bytes = std::mem::replace(held, chunk);
                run.write(&bytes).await
            }
            Progress::Over => Err(Error::failed(STAGE, "the restore had ended before")),
        }
    }

    async fn commit(mut self: Box<Self>) -> Result<Committed> {
        let bytes = self.reader.offset();
        let Err(error) = self.complete().await else {
            return Ok(Committed { bytes, version: None });
        };
        match self.undo().await {
            Ok(()) => Err(self.name_what_stays(error).await),
            Err(left) => {
                let message = format!("{}; {}", error.message(), left.message());
                let advice = left.advice().unwrap_or_default().to_owned();
                Err(Error::new(error.kind(), STAGE, message).next_step(advice).caused_by(error))
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.undo().await
    }
}

/// Work that ends, after `limit` or when somebody asks for a stop at the latest.
async fn bounded<T>(
    cancel: &Cancel,
    limit: Duration,
    failure: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let in_time = async {
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(too_slow(STAGE, failure, limit)
                .next_step("look at what the server is doing: select * from pg_stat_activity")),
        }
    };
    cancel.guard(in_time).await
}

fn encoding_note(target: &Target, toc: &Toc) -> Option<String> {
    let archived = database_facts(toc)?.encoding;
    let existing = target.server().encoding();
    (target.is_existing() && !archived.is_empty() && archived != existing).then(|| {
        format!("the database has the encoding {existing}, the backup's had {archived}: text was converted")
    })
}

fn warnings(said: &str) -> Vec<String> {
    let warns = |line: &&str| line.contains("warning:") || line.contains("WARNING:");
    said.lines().filter(warns).take(WARNING_LINES).map(str::to_owned).collect()
}
