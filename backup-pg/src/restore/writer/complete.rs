//! The end of a restore: what is left goes to the server, is proven there, and can be seen.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use backup_core::Result;
use backup_core::pipeline::Cancel;
use bytes::Bytes;
use futures_util::future::join_all;

use super::super::STAGE;
use super::super::compare::{Expectations, Witness, compare};
use super::super::live::Transaction;
use super::super::parallel::Parallel;
use super::super::run::Run;
use super::{Progress, RestoreWriter, Work, over, statistics, with_message, with_rows};
use crate::Psql;
use crate::archive::ArchiveSummary;
use crate::client::too_slow;
use crate::sql::quote_ident;

/// Lines of pg_restore's warnings that a report repeats.
const WARNING_LINES: usize = 20;

/// What ANALYZE gets when the comparison took all the time there was.
const LEAST_ANALYZE_TIME: Duration = Duration::from_secs(1);

impl RestoreWriter {
    /// All bytes are here: the proof comes before the last of them is let through.
    ///
    /// On an error the children are ended; `undo` has to drop the database.
    pub(super) async fn complete(&mut self) -> Result<()> {
        let summary = std::mem::take(&mut self.reader).finish()?;
        let cancel = self.cancel.clone();
        let (work, held) = match std::mem::replace(&mut self.progress, Progress::Over) {
            Progress::Streaming { work, held } => (work, held),
            Progress::Parallel(parallel) => {
                return self.complete_parallel(*parallel, &summary).await;
            }
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

    async fn complete_parallel(
        &mut self,
        mut parallel: Parallel,
        summary: &ArchiveSummary,
    ) -> Result<()> {
        let (cancel, limit) = (self.cancel.clone(), self.options.timeout);
        let finished = bounded(&cancel, limit, "did not finish", parallel.finish()).await;
        // Ends the sessions that are left before anything else is done.
        parallel.abort().await;
        self.report.notes.extend(warnings(&finished?));
        self.prove(summary).await?;
        self.publish().await
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
        let (expected, whole) = (self.expectations(summary), self.analyze_statement());
        let jobs = self.prepared.as_ref().map_or(1, |prepared| prepared.jobs);
        let psql = self.target.psql().with_timeout(limit);
        let shares = match (jobs > 1 && self.options.selection.is_none(), whole) {
            (true, Some(whole)) => {
                cancel.guard(async { Ok(statistics::shares(&psql, jobs, whole).await) }).await?
            }
            (false, Some(whole)) => vec![whole],
            (_, None) => Vec::new(),
        };
        let mut shares = shares.into_iter();
        // The session that counts gets the first share when it is done.
        let first = shares.next();
        let proving = async {
            let comparing = compare(Witness::Outside(psql.clone()), &expected, &mut self.report);
            bounded(&cancel, limit, "the comparison did not end", comparing).await?;
            let left = limit.saturating_sub(started.elapsed()).max(LEAST_ANALYZE_TIME);
            cancel.guard(async { Ok(gather(&psql.with_timeout(left), first).await) }).await
        };
        let others = join_all(shares.map(|share| gather(&psql, Some(share))));
        let others = cancel.guard(async { Ok(others.await) });
        let (note, others) = tokio::try_join!(proving, others)?;
        self.report.notes.extend(note.into_iter().chain(others.into_iter().flatten()).next());
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
}

/// Gathers statistics. Data without them is whole, so a failure is only told.
async fn gather(psql: &Psql, statement: Option<String>) -> Option<String> {
    let error = psql.execute(&statement?).await.err()?;
    Some(format!("statistics are missing, run ANALYZE: {}", error.message()))
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
