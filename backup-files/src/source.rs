//! Files of this host as a tar stream.

use std::io::Write;
use std::path::Path;

use async_trait::async_trait;
use backup_core::pipeline::{PipeReceiver, PipeWriter, pipe};
use backup_core::{Error, Findings, Inventory, Result, Source, SourceStream};
use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::archive::{END, Tally};
use crate::folder::Folder;
use crate::reading::{Pace, Reading};
use crate::select::{FilesSelection, scan};
use crate::users::Users;

/// Most names of skipped files that are kept for the contents.
const NAMED_SKIPPED: usize = 1_000;

/// The files that a selection finds, as a tar stream in a fixed order.
///
/// Everything is looked for before the first byte: what is missing or can't be read fails the
/// reading and is named. Memory: the paths that were found, plus a file of at most 8 MiB.
#[derive(Debug, Clone)]
pub struct FilesSource {
    selection: FilesSelection,
}

impl FilesSource {
    /// The files that `selection` finds when it is opened.
    pub fn new(selection: FilesSelection) -> Self {
        Self { selection }
    }
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &str {
        "files"
    }

    async fn open(&self) -> Result<Box<dyn SourceStream>> {
        let (sender, receiver) = pipe();
        let selection = self.selection.clone();
        // It ends by itself when nobody listens any more.
        let thread = tokio::task::spawn_blocking(move || {
            let mut output = sender.writer();
            let findings = read_all(&selection, &mut output)?;
            output.finish()?;
            Ok(findings)
        });
        let (thread, findings) = (Some(thread), Findings::default());
        Ok(Box::new(FilesStream { pipe: receiver, thread, findings }))
    }
}

struct FilesStream {
    pipe: PipeReceiver,
    thread: Option<JoinHandle<Result<Findings>>>,
    findings: Findings,
}

#[async_trait]
impl SourceStream for FilesStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if let Ok(Some(chunk)) = self.pipe.recv().await {
            return Ok(Some(chunk));
        }
        // The thread ended, well or not: it knows.
        let lost = || Error::failed("files", "the thread that reads is gone; please report this");
        let thread = self.thread.take().ok_or_else(lost)?;
        self.findings = thread.await.map_err(|e| lost().caused_by(e))??;
        Ok(None)
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

fn read_all(selection: &FilesSelection, output: &mut PipeWriter) -> Result<Findings> {
    let scan = scan(selection)?;
    let root = Folder::open(Path::new("/"))
        .map_err(|e| Error::failed("files", "the root folder can't be opened").caused_by(e))?;
    let mut reading = Reading {
        pace: Pace::default(),
        root,
        users: Users::default(),
        tally: Tally::default(),
        output,
    };
    for (path, found) in &scan.found {
        reading.add(path, *found)?;
    }
    let Reading { tally, output, .. } = reading;
    output.write_all(&END).map_err(|e| Error::from_io("files", e))?;
    let mut contents = tally.finish();
    contents.skipped_count = scan.skipped.len() as u64;
    contents.skipped = scan.skipped;
    contents.skipped.truncate(NAMED_SKIPPED);
    contents.missing = scan.missing;
    contents.links_outside = scan.links_outside;
    contents.links_outside.truncate(NAMED_SKIPPED);
    let notes = notes(&contents);
    let inventory = Inventory { files: Some(contents), ..Inventory::default() };
    Ok(Findings { inventory, archive_version: None, notes })
}

/// What a reader of the manifest must know. Public, so without a name.
fn notes(contents: &backup_core::FilesContents) -> Vec<String> {
    let told = [
        (contents.skipped_count, "sockets, fifos, devices or mounts were skipped"),
        (contents.missing.len() as u64, "optional paths were not there"),
        (
            contents.links_outside.len() as u64,
            "symbolic links that were asked for lead to files that are not in the backup",
        ),
    ];
    let told = told.into_iter().filter(|(count, _)| *count > 0);
    told.map(|(count, what)| format!("files: {count} {what}; `show --contents` names them"))
        .collect()
}
