//! Files of this host as a tar stream.

use std::io::Write;
use std::path::Path;

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Findings, Inventory, Result, Source, SourceStream};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::archive::{END, Tally};
use crate::channel::{Produced, Producer, produced};
use crate::folder::Folder;
use crate::reading::Reading;
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
        let (mut producer, receiver) = produced();
        let selection = self.selection.clone();
        // It ends by itself when nobody listens any more.
        tokio::task::spawn_blocking(move || {
            let outcome = read_all(&selection, &mut producer);
            producer.finish(outcome);
        });
        Ok(Box::new(FilesStream { receiver, findings: Findings::default() }))
    }
}

struct FilesStream {
    receiver: mpsc::Receiver<Produced>,
    findings: Findings,
}

#[async_trait]
impl SourceStream for FilesStream {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        match self.receiver.recv().await {
            Some(Produced::Data(chunk)) => Ok(Some(chunk)),
            Some(Produced::End(findings)) => {
                self.findings = *findings;
                Ok(None)
            }
            Some(Produced::Failed(error)) => Err(error),
            None => Err(Error::new(
                ErrorKind::Failed,
                "files",
                "the thread that reads ended without a word; please report this",
            )),
        }
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

fn read_all(selection: &FilesSelection, output: &mut Producer) -> Result<Findings> {
    let scan = scan(selection)?;
    let root = Folder::open(Path::new("/"))
        .map_err(|e| Error::failed("files", "the root folder can't be opened").caused_by(e))?;
    let mut reading = Reading { root, users: Users::default(), tally: Tally::default(), output };
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
