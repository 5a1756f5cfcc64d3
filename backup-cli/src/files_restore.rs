//! Bringing the files of a backup back, into a folder or in place.

use std::sync::Arc;
use std::time::Duration;

use backup_core::pipeline::{self, Context, Flow, Limits};
use backup_core::{
    BackupReader, CatalogEntry, Contents, Error, ErrorKind, LEGACY, Manifest, Part, PartRole,
    Result, Sink,
};
use backup_files::{Dialect, FilesPlan, FilesPlanner, FilesReport, FilesRestore, FilesTarget};
use jiff::Timestamp;

use crate::Deployment;
use crate::lock::JobLock;

/// Longest time for all renames at the end, each of which waits for the disk.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Longest time for the bytes of one chunk: what is there is read and compared meanwhile.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The lock that keeps two restores of files apart.
const LOCK: &str = "restore-files";

/// How files are restored.
#[derive(Debug, Clone)]
pub struct FilesRestoreOptions {
    /// Where to.
    pub target: FilesTarget,
    /// Only what these patterns find, with everything below; all when empty. A pattern with a
    /// slash stands for an absolute path, one without for a name anywhere.
    pub paths: Vec<String>,
    /// Go on though nothing proves who wrote the backup.
    pub accept_unsigned: bool,
}

/// What a restore of files brought back.
#[derive(Debug)]
pub struct FilesRestoreSummary {
    /// The backup's id.
    pub from: String,
    /// Names this run: what it replaced is kept as `.NAME.before-RUN`.
    pub run: String,
    /// What was done.
    pub report: FilesReport,
}

impl Deployment {
    /// Reads the files of a backup to their end, changes nothing, and says what
    /// [`restore_files`](Self::restore_files) would do. `with_text` tells the lines that differ;
    /// they may be secrets.
    ///
    /// # Errors
    /// As [`restore_files`](Self::restore_files).
    pub async fn plan_files(
        &self,
        entry: &CatalogEntry,
        options: &FilesRestoreOptions,
        with_text: bool,
        context: &Context,
    ) -> Result<FilesPlan> {
        let opened = self.open_files(entry, options, context).await?;
        opened.plan(options, &run_name(), with_text, context).await
    }

    /// Brings the files of a backup back. They are read twice: once to check all of it, once to
    /// write. Nothing has its name before everything is written and was checked.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the backup holds no files, or none that a pattern finds;
    /// [`ErrorKind::Refused`] when something is in the way, a name leads elsewhere, nothing
    /// proves who wrote the backup, or nobody knows where the files of a legacy one were: nothing
    /// was changed. Otherwise the first cause, which says what is in place.
    pub async fn restore_files(
        &self,
        entry: &CatalogEntry,
        options: &FilesRestoreOptions,
        context: &Context,
    ) -> Result<FilesRestoreSummary> {
        let _lock = JobLock::take(&self.state_dir(), LOCK)?;
        let opened = self.open_files(entry, options, context).await?;
        let run = run_name();
        context.step("checking the files of the backup");
        let plan = opened.plan(options, &run, false, context).await?;
        context.step("restoring files");
        let restore = FilesRestore::new(plan);
        opened.read_into(Arc::new(restore.clone()), context).await?;
        let report = restore.report().ok_or_else(without_word)?;
        Ok(FilesRestoreSummary { from: entry.id.to_string(), run, report })
    }

    async fn open_files(
        &self,
        entry: &CatalogEntry,
        options: &FilesRestoreOptions,
        context: &Context,
    ) -> Result<OpenedFiles> {
        let reader = self.reader(entry, context).await?;
        let next = "put them into a folder with --into FOLDER, look, and copy them";
        refuse_unknown_root(reader.manifest(), &options.target, "restore", next)?;
        let part = reader.manifest().part(PartRole::Files).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "restore", "the backup holds no files")
                .next_step("name a backup of a job with `files`")
        })?;
        let contents = reader.contents(context).await?;
        self.check_origin(&reader, options.accept_unsigned, context).await?;
        self.warn_of_other_version(reader.manifest(), context).await;
        Ok(OpenedFiles { reader, part, contents })
    }
}

/// The files of a backup whose origin was checked.
struct OpenedFiles {
    reader: BackupReader,
    part: Part,
    contents: Contents,
}

impl OpenedFiles {
    async fn plan(
        &self,
        options: &FilesRestoreOptions,
        run: &str,
        with_text: bool,
        context: &Context,
    ) -> Result<FilesPlan> {
        let planner = FilesPlanner::new(backup_files::FilesRestoreOptions {
            dialect: dialect_of(self.reader.manifest()),
            target: options.target.clone(),
            paths: options.paths.clone(),
            run: run.to_owned(),
            with_text,
        });
        self.read_into(Arc::new(planner.clone()), context).await?;
        planner.plan().ok_or_else(without_word)
    }

    async fn read_into(&self, sink: Arc<dyn Sink>, context: &Context) -> Result<()> {
        let flow = self.reader.flow(&self.part, Some(&self.contents), sink)?;
        let limits =
            Limits { sink_stall: CHUNK_TIMEOUT, commit: COMMIT_TIMEOUT, ..Limits::default() };
        let done = pipeline::run(Flow { limits, ..flow }, context).await;
        done.map(drop).map_err(|error| self.reader.advise(error))
    }
}

/// Who wrote the tar archive of a backup: what was taken over is stock tar's.
pub(crate) fn dialect_of(manifest: &Manifest) -> Dialect {
    if manifest.kind == LEGACY { Dialect::Stock } else { Dialect::Own }
}

/// Refuses to put the files of an archive that was taken over where they were: `tar -C FOLDER`
/// leaves no trace of FOLDER in it, and `.env` of it may have been that of any folder.
pub(crate) fn refuse_unknown_root(
    manifest: &Manifest,
    target: &FilesTarget,
    stage: &'static str,
    next: &'static str,
) -> Result<()> {
    if manifest.kind != LEGACY || !matches!(target, FilesTarget::InPlace(_)) {
        return Ok(());
    }
    let message = format!(
        "{} of job {} was taken over from other scripts, and nobody knows which folder its names \
         began in",
        manifest.id, manifest.job
    );
    Err(Error::refused(stage, message).next_step(next))
}

fn without_word() -> Error {
    Error::failed("files", "it ended without a report; please report this")
}

/// Names a run by its millisecond.
fn run_name() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}
