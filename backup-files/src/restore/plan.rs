//! The first reading: the whole archive is checked, nothing is written, and it is known what
//! would change.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{Digester, Error, Result, Sink, SinkWriter};

use super::choice::Choice;
use super::compare::compare;
use super::{Change, FileChange, FilesRestoreOptions};
use crate::archive::{Entry, Kind, Visit, shown, walk};
use crate::worker::Worker;

/// Files up to this size are compared line by line, in bytes.
const TEXT_BYTES: u64 = 256 << 10;
/// Most bytes of texts that are kept for that.
const ALL_TEXT_BYTES: u64 = 16 << 20;

/// What a restore will do, made by a [`FilesPlanner`].
#[derive(Debug, Clone)]
pub struct FilesPlan {
    /// What happens to each file, in the order of the archive.
    pub changes: Vec<FileChange>,
    pub(super) planned: Arc<BTreeMap<Vec<u8>, Planned>>,
    pub(super) options: FilesRestoreOptions,
}

impl FilesPlan {
    /// How many files are made, are changed, and stay.
    pub fn counts(&self) -> (u64, u64, u64) {
        self.changes.iter().fold((0, 0, 0), |(created, changed, same), change| match change.what {
            Change::Created => (created + 1, changed, same),
            Change::Unchanged => (created, changed, same + 1),
            _ => (created, changed + 1, same),
        })
    }
}

/// A file as the first reading saw it.
#[derive(Debug)]
pub(super) struct Planned {
    pub entry: Entry,
    /// Its place in the archive: of two with one name the later counts.
    pub ordinal: u64,
    /// Digest of a regular file.
    pub sha256: String,
    pub action: Action,
    /// Content, where lines are to be compared.
    pub text: Option<Vec<u8>>,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    /// Another one is there.
    Replace,
    /// It is a folder that is there.
    SetAttributes,
    Leave,
}

/// A sink that reads an archive and compares it with what is in the target.
///
/// Clones share their [`plan`](Self::plan).
#[derive(Debug, Clone)]
pub struct FilesPlanner {
    options: FilesRestoreOptions,
    plan: Arc<Mutex<Option<FilesPlan>>>,
}

impl FilesPlanner {
    /// A planner that has seen nothing yet.
    pub fn new(options: FilesRestoreOptions) -> Self {
        Self { options, plan: Arc::default() }
    }

    /// The plan for the archive committed last; `None` before a commit succeeded.
    pub fn plan(&self) -> Option<FilesPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for FilesPlanner {
    fn name(&self) -> &str {
        "files"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        let (options, plan) = (self.options.clone(), Arc::clone(&self.plan));
        let work = move |input: &mut dyn Read| make(&options, input);
        let keep = move |made: FilesPlan| {
            *plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
            Ok(())
        };
        Ok(Box::new(Worker::start(work, keep)))
    }
}

fn make(options: &FilesRestoreOptions, input: &mut dyn Read) -> Result<FilesPlan> {
    let mut seeing = Seeing {
        choice: Choice::new(&options.paths)?,
        with_text: options.with_text,
        text_bytes: 0,
        ordinal: 0,
        is_folder: BTreeMap::new(),
        planned: BTreeMap::new(),
    };
    walk(input, &mut seeing)?;
    seeing.choice.check_found()?;
    seeing.refuse_ways_through_files()?;
    let mut planned = seeing.planned;
    let changes = compare(&mut planned, &options.target)?;
    planned.values_mut().for_each(|file| file.text = None);
    Ok(FilesPlan { changes, planned: Arc::new(planned), options: options.clone() })
}

struct Seeing {
    choice: Choice,
    with_text: bool,
    text_bytes: u64,
    ordinal: u64,
    /// Every name, also of what is not wanted.
    is_folder: BTreeMap<Vec<u8>, bool>,
    planned: BTreeMap<Vec<u8>, Planned>,
}

impl Visit for Seeing {
    fn entry(&mut self, entry: Entry, data: &mut dyn Read) -> Result<()> {
        self.ordinal += 1;
        self.is_folder.insert(entry.path.clone(), entry.kind == Kind::Directory);
        if !self.choice.takes(&entry.path) {
            return Ok(());
        }
        let keep = self.with_text
            && entry.size() <= TEXT_BYTES
            && self.text_bytes + entry.size() <= ALL_TEXT_BYTES;
        let mut text = (keep && matches!(entry.kind, Kind::File { .. })).then(Vec::new);
        let sha256 = digest(data, text.as_mut())?;
        self.text_bytes += text.as_ref().map_or(0, |text| text.len() as u64);
        let planned =
            Planned { ordinal: self.ordinal, sha256, action: Action::Create, text, entry };
        self.planned.insert(planned.entry.path.clone(), planned);
        Ok(())
    }
}

impl Seeing {
    /// A name below a link of the archive would be written to wherever the link leads.
    fn refuse_ways_through_files(&self) -> Result<()> {
        for path in self.planned.keys() {
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            for (at, _) in slashes {
                if self.is_folder.get(&path[..at]) == Some(&false) {
                    let message = format!(
                        "{:?} lies below {:?}, which is no folder in the archive",
                        shown(path),
                        shown(&path[..at])
                    );
                    return Err(Error::refused("files", message).next_step(
                        "this program writes no such names: do not trust this archive",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Reads to the end; keeps what is read where it is wanted.
pub(super) fn digest(data: &mut dyn Read, mut keep: Option<&mut Vec<u8>>) -> Result<String> {
    const BLOCK_BYTES: usize = 64 * 1024;
    let mut digester = Digester::default();
    let mut buffer = vec![0; BLOCK_BYTES];
    loop {
        let n = data.read(&mut buffer).map_err(|e| Error::from_io("files", e))?;
        if n == 0 {
            return Ok(digester.finish().sha256);
        }
        digester.update(&buffer[..n]);
        if let Some(keep) = &mut keep {
            keep.extend_from_slice(&buffer[..n]);
        }
    }
}
