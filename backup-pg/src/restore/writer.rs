//! One restore: the head of the archive first, then its data, then the proof.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;

use super::compare::{Expectations, Place, Witness, compare, count_existing};
use super::live::Transaction;
use super::prepare::Prepared;
use super::run::{Orders, Run};
use super::spool::{Spool, Spooling};
use super::target::Target;
use super::{RestoreOptions, RestoreReport, STAGE, edits, preflight};
use crate::archive::{ArchiveReader, ArchiveSummary, SelectedPart, Toc, rewrite_head};
use crate::client::too_slow;
use crate::sql::quote_ident;
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
    prepared: Option<Prepared>,
    /// Rows of tables that were there before and get more.
    before: BTreeMap<Place, u64>,
    progress: Progress,
    report: RestoreReport,
    published: Arc<Mutex<Option<RestoreReport>>>,
}

enum Progress {
    /// The table of contents is not complete; these are its bytes so far.
    Head(Vec<u8>),
    /// The server takes it in as it comes; these bytes are held back.
    Streaming { work: Work, held: Bytes },
    /// It is set aside until all of it was checked.
    Spooling(Box<Spooling>),
    /// Ended, well or not.
    Over,
}

/// Who restores.
enum Work {
    /// A database that nobody uses.
    Quiet(Box<Run>),
    /// One that others use.
    Live(Box<Transaction>),
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
            prepared: None,
            before: BTreeMap::new(),
            progress: Progress::Head(Vec::new()),
            report: RestoreReport::default(),
            published,
        }
    }

    /// Whether others may be at work in the database.
    fn is_live(&self) -> bool {
        self.options.in_place || self.options.selection.is_some() && self.target.is_existing()
    }

    /// The table of contents is there: checks, then starts pg_restore or sets the rest aside.
    async fn start(&mut self, head: Vec<u8>) -> Result<Progress> {
        let Some(toc) = self.reader.toc().cloned() else { return Ok(Progress::Head(head)) };
        let prepared = Prepared::find(&toc, &self.target, &self.search, &self.options).await?;
        self.report.created = !self.target.is_existing();
        self.report.pg_restore = prepared.tools.version().to_string();
        self.report.notes.clone_from(&prepared.notes);
        self.report.in_place.clone_from(&prepared.in_place);
        let mut written = prepared.restored.clone();
        edits::rename_tablespaces(&mut written, &self.options.tablespaces);
        let new = rewrite_head(&head, &toc, &written)?;
        let data = head.get(usize::try_from(toc.end).unwrap_or(usize::MAX)..).unwrap_or_default();
        let spools = prepared.jobs > 1 || self.options.selection.is_some();
        self.prepared = Some(prepared);
        if !spools {
            let held = [new.bytes.as_slice(), data].concat().into();
            return Ok(Progress::Streaming { work: self.begin(None).await?, held });
        }
        // Of some tables nobody knows the size before they came.
        let whole = self.options.selection.is_none();
        let needed = self.options.expected_bytes.filter(|_| whole);
        let spool = Spool::create(&self.options.spool_dir, needed)?;
        let widths = (toc.header.int_bytes, toc.header.offset_bytes);
        let mut spooling = Spooling::start(spool, new, widths).await?;
        spooling.take(data, toc.end, self.reader.blocks()).await?;
        Ok(Progress::Spooling(Box::new(spooling)))
    }

    /// Changes the server for the first time: roles, the database, the children's sessions.
    async fn begin(&mut self, spooled: Option<File>) -> Result<Work> {
        let Some(prepared) = &self.prepared else { return Err(over()) };
        preflight::create_roles(self.target.server(), &prepared.roles).await?;
        self.report.notes.extend(prepared.roles.differences.iter().cloned());
        self.report.created_roles.clone_from(&prepared.roles.creates);
        self.report.cannot_log_in.clone_from(&prepared.roles.cannot_log_in);
        let map = &self.options.tablespaces;
        let (no_owners, purpose) = (self.options.no_owners, self.options.purpose.as_ref());
        self.target.prepare(&prepared.restored, map, no_owners, purpose).await?;
        let live = self.is_live();
        let connection = self.target.connection();
        let orders = Orders {
            tools: &prepared.tools,
            connection: &connection,
            server_major: self.target.server().version().major,
            single_transaction: self.target.is_existing() && !live,
            no_tablespaces: map.ignore,
            no_owners: self.options.no_owners,
            clean: self.options.in_place,
            jobs: prepared.jobs,
            spooled,
        };
        let schema = prepared.new_schema.as_ref();
        let schema = schema.map(|schema| format!("CREATE SCHEMA {}", quote_ident(schema)));
        if !live {
            if let Some(create) = schema {
                self.target.psql().execute(&create).await?;
            }
            return Ok(Work::Quiet(Box::new(Run::start(orders)?)));
        }
        let adds = self.adds_rows();
        let mut transaction = Transaction::begin(&orders, adds, self.options.timeout).await?;
        if adds {
            let places = with_rows(&prepared.restored);
            self.before = count_existing(Witness::Inside(&mut transaction), places).await?;
        }
        if let Some(create) = schema {
            transaction.query_text(&create).await?;
        }
        transaction.start_script(orders).await?;
        Ok(Work::Live(Box::new(transaction)))
    }

    /// Whether rows go into tables that others add rows to.
    fn adds_rows(&self) -> bool {
        let selection = self.options.selection.as_ref();
        selection.is_some_and(|selection| selection.what == SelectedPart::DataOnly)
    }

    /// All bytes are here: the proof comes before the last of them is let through.
    ///
    /// On an error the children are ended; `undo` has to drop the database.
    async fn complete(&mut self) -> Result<()> {
        let summary = std::mem::take(&mut self.reader).finish()?;
        let cancel = self.cancel.clone();
        let (work, held) = match std::mem::replace(&mut self.progress, Progress::Over) {
            Progress::Streaming { work, held } => (work, held),
            Progress::Spooling(spooling) => {
                let spool = spooling.finish().await?;
                self.report.spooled_bytes = spool.bytes();
                let file = spool.into_file().await?;
                (cancel.guard(self.begin(Some(file))).await?, Bytes::new())
            }
            Progress::Head(_) | Progress::Over => return Err(over()),
        };
        match work {
            Work::Quiet(run) => self.complete_quietly(*run, &held, &summary).await,
            Work::Live(transaction) => self.complete_live(*transaction, &held, &summary).await,
        }
    }

    async fn complete_quietly(
        &mut self,
        mut run: Run,
        held: &[u8],
        summary: &ArchiveSummary,
    ) -> Result<()> {
        let (cancel, limit) = (self.cancel.clone(), self.options.timeout);
        let finishing = async {
            if !held.is_empty() {
                run.write(held).await?;
            }
            run.finish(limit).await
        };
        let said = bounded(&cancel, limit, "did not finish", finishing).await;
        // Ends the children of one that was given up, before anything else is done.
        drop(run);
        self.report.notes.extend(warnings(&said?));
        self.prove(summary).await?;
        // What can be seen is either all or nothing: no stop in the middle of this.
        self.publish().await
    }

    /// Counts every table again and gathers statistics: at the same time, where more than one
    /// session is allowed.
    async fn prove(&mut self, summary: &ArchiveSummary) -> Result<()> {
        let (cancel, limit, started) = (self.cancel.clone(), self.options.timeout, Instant::now());
        let (expected, analyze) = (self.expectations(summary), self.analyze_statement());
        let jobs = self.prepared.as_ref().map_or(1, |prepared| prepared.jobs);
        let psql = self.target.psql().with_timeout(limit);
        let comparing = compare(Witness::Outside(psql.clone()), &expected, &mut self.report);
        let comparing = bounded(&cancel, limit, "the comparison did not end", comparing);
        let gather = async |limit| Ok(gather(&psql.with_timeout(limit), analyze).await);
        let note = if jobs > 1 {
            tokio::try_join!(comparing, cancel.guard(gather(limit)))?.1
        } else {
            comparing.await?;
            let left = limit.saturating_sub(started.elapsed()).max(LEAST_ANALYZE_TIME);
            cancel.guard(gather(left)).await?
        };
        self.report.notes.extend(note);
        Ok(())
    }

    /// Nothing of it can be seen by others before the last step.
    async fn complete_live(
        &mut self,
        mut transaction: Transaction,
        held: &[u8],
        summary: &ArchiveSummary,
    ) -> Result<()> {
        let (cancel, limit) = (self.cancel.clone(), self.options.timeout);
        let expected = self.expectations(summary).among_others();
        let finishing = async {
            if !held.is_empty() {
                transaction.write(held).await?;
            }
            let said = transaction.finish_script().await?;
            compare(Witness::Inside(&mut transaction), &expected, &mut self.report).await?;
            Ok(said)
        };
        let said = match bounded(&cancel, limit, "did not finish", finishing).await {
            Ok(said) => said,
            Err(error) => {
                transaction.abort();
                return Err(with_message(&error, "the database is as it was before"));
            }
        };
        // No stop in the middle of this.
        let said = said + &transaction.commit().await?;
        self.report.notes.extend(warnings(&said));
        let psql = self.target.psql().with_timeout(limit);
        self.report.notes.extend(gather(&psql, self.analyze_statement()).await);
        self.publish().await
    }

    fn expectations(&mut self, summary: &ArchiveSummary) -> Expectations {
        match &self.prepared {
            Some(prepared) => {
                Expectations::of(summary, &prepared.restored, &self.before, &mut self.report)
            }
            None => Expectations::default(),
        }
    }

    /// What gathers the statistics of everything that was restored, where that is wanted.
    fn analyze_statement(&self) -> Option<String> {
        if !self.options.analyze {
            return None;
        }
        let (Some(_), Some(prepared)) = (&self.options.selection, &self.prepared) else {
            return Some("ANALYZE".to_owned());
        };
        let tables = with_rows(&prepared.restored);
        let tables: Vec<String> = tables
            .iter()
            .map(|(schema, name)| format!("{}.{}", quote_ident(schema), quote_ident(name)))
            .collect();
        (!tables.is_empty()).then(|| format!("ANALYZE {}", tables.join(", ")))
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
        if !self.target.is_existing() || self.is_live() {
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
        if let Progress::Streaming { work, .. } = &mut self.progress {
            match work {
                Work::Quiet(run) => run.abort(),
                Work::Live(transaction) => transaction.abort(),
            }
        }
        self.progress = Progress::Over;
        self.target.drop_made().await
    }
}

#[async_trait]
impl SinkWriter for RestoreWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let (was_complete, offset) = (self.reader.is_complete(), self.reader.offset());
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
            Progress::Streaming { .. } if was_complete => Ok(()),
            Progress::Streaming { work, held } => {
                let bytes = std::mem::replace(held, chunk);
                match work {
                    Work::Quiet(run) => run.write(&bytes).await,
                    Work::Live(transaction) => transaction.write(&bytes).await,
                }
            }
            Progress::Spooling(spooling) => {
                spooling.take(&chunk, offset, self.reader.blocks()).await
            }
            Progress::Over => Err(over()),
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
                let advice = left.advice().unwrap_or_default().to_owned();
                Err(with_message(&error, left.message()).next_step(advice))
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.undo().await
    }
}

fn over() -> Error {
    Error::failed(STAGE, "the restore had ended before")
}

/// Gathers statistics. Data without them is whole, so a failure is only told.
async fn gather(psql: &Psql, statement: Option<String>) -> Option<String> {
    let error = psql.execute(&statement?).await.err()?;
    Some(format!("statistics are missing, run ANALYZE: {}", error.message()))
}

/// The same error, saying more.
fn with_message(error: &Error, more: &str) -> Error {
    let said = Error::new(error.kind(), STAGE, format!("{}; {more}", error.message()));
    match error.advice() {
        Some(advice) => said.next_step(advice.to_owned()),
        None => said,
    }
}

/// Tables whose rows are restored.
fn with_rows(restored: &Toc) -> Vec<Place> {
    let rows = restored.entries.iter().filter(|entry| entry.desc == "TABLE DATA" && entry.exact);
    rows.map(|entry| (entry.namespace.clone(), entry.tag.clone())).collect()
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

fn warnings(said: &str) -> Vec<String> {
    let warns = |line: &&str| line.contains("warning:") || line.contains("WARNING:");
    said.lines().filter(warns).take(WARNING_LINES).map(str::to_owned).collect()
}
