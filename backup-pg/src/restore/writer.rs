//! One restore: the head of the archive first, then its data, then the proof.

mod complete;
mod statistics;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::pipeline::Cancel;
use backup_core::{Committed, Error, Result, SinkWriter};
use bytes::Bytes;

use super::compare::{Place, Witness, count_existing};
use super::live::Transaction;
use super::parallel::{Parallel, Sessions};
use super::prepare::Prepared;
use super::run::{Orders, Run};
use super::spool::{Spool, Spooling};
use super::target::Target;
use super::{RestoreOptions, RestoreReport, STAGE, edits, preflight};
use crate::ToolSearch;
use crate::archive::{ArchiveCompression, ArchiveReader, SelectedPart, Toc, rewrite_head};
use crate::sql::quote_ident;

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
    /// Several sessions take it in as it comes; the last of it is held back.
    Parallel(Box<Parallel>),
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
        let chosen = prepared.jobs > 1 || self.options.selection.is_some();
        // Rows can be told apart only where nothing compresses them.
        let plain = toc.header.compression == ArchiveCompression::None;
        self.prepared = Some(prepared);
        if chosen && plain && !self.target.is_existing() {
            return Ok(Progress::Parallel(Box::new(
                self.begin_parallel(head, toc, written).await?,
            )));
        }
        let new = rewrite_head(&head, &toc, &written)?;
        let data = head.get(usize::try_from(toc.end).unwrap_or(usize::MAX)..).unwrap_or_default();
        if !chosen {
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

    /// Changes the server for the first time: roles, the database.
    async fn prepare_target(&mut self) -> Result<()> {
        let Some(prepared) = &self.prepared else { return Err(over()) };
        preflight::create_roles(self.target.server(), &prepared.roles).await?;
        self.report.notes.extend(prepared.roles.differences.iter().cloned());
        self.report.created_roles.clone_from(&prepared.roles.creates);
        self.report.cannot_log_in.clone_from(&prepared.roles.cannot_log_in);
        let map = &self.options.tablespaces;
        let (no_owners, purpose) = (self.options.no_owners, self.options.purpose.as_ref());
        self.target.prepare(&prepared.restored, map, no_owners, purpose).await?;
        if let Some(schema) = &prepared.new_schema
            && !self.is_live()
        {
            self.target.psql().execute(&create_schema(schema)).await?;
        }
        Ok(())
    }

    /// Makes the database and what its data needs.
    async fn begin_parallel(&mut self, head: Vec<u8>, toc: Toc, written: Toc) -> Result<Parallel> {
        self.prepare_target().await?;
        let Some(prepared) = &self.prepared else { return Err(over()) };
        let sessions = Sessions {
            tools: prepared.tools.clone(),
            connection: self.target.connection(),
            server_major: self.target.server().version().major,
            no_tablespaces: self.options.tablespaces.ignore,
            no_owners: self.options.no_owners,
            jobs: prepared.jobs,
            timeout: self.options.timeout,
            spool_dir: self.options.spool_dir.clone(),
        };
        Parallel::start(sessions, head, toc, written).await
    }

    /// Makes the database and starts the children's sessions.
    async fn begin(&mut self, spooled: Option<File>) -> Result<Work> {
        self.prepare_target().await?;
        let Some(prepared) = &self.prepared else { return Err(over()) };
        let (map, live) = (&self.options.tablespaces, self.is_live());
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
        if !live {
            return Ok(Work::Quiet(Box::new(Run::start(orders)?)));
        }
        let adds = self.adds_rows();
        let mut transaction = Transaction::begin(&orders, adds, self.options.timeout).await?;
        if adds {
            let places = with_rows(&prepared.restored);
            self.before = count_existing(Witness::Inside(&mut transaction), places).await?;
        }
        if let Some(schema) = &prepared.new_schema {
            transaction.query_text(&create_schema(schema)).await?;
        }
        transaction.start_script(orders).await?;
        Ok(Work::Live(Box::new(transaction)))
    }

    /// Whether rows go into tables that others add rows to.
    fn adds_rows(&self) -> bool {
        let selection = self.options.selection.as_ref();
        selection.is_some_and(|selection| selection.what == SelectedPart::DataOnly)
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
        match &mut self.progress {
            Progress::Streaming { work: Work::Quiet(run), .. } => run.abort(),
            Progress::Streaming { work: Work::Live(transaction), .. } => transaction.abort(),
            Progress::Parallel(parallel) => parallel.abort().await,
            Progress::Head(_) | Progress::Spooling(_) | Progress::Over => {}
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
                let Some(end) = self.reader.toc().map(|toc| toc.end) else { return Ok(()) };
                let head = std::mem::take(head);
                let behind = head.get(usize::try_from(end).unwrap_or(usize::MAX)..);
                let behind = behind.unwrap_or_default().to_vec();
                self.progress = self.start(head).await?;
                // Only now: whoever gives up here ends the sessions that are at work.
                match &mut self.progress {
                    Progress::Parallel(parallel) => {
                        parallel.take(&behind, end, self.reader.blocks()).await
                    }
                    _ => Ok(()),
                }
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
            Progress::Parallel(parallel) => {
                parallel.take(&chunk, offset, self.reader.blocks()).await
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

fn create_schema(name: &str) -> String {
    format!("CREATE SCHEMA {}", quote_ident(name))
}

fn over() -> Error {
    Error::failed(STAGE, "the restore had ended before")
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
