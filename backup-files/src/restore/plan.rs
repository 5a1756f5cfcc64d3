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
use crate::archive::{Dialect, Entry, Kind, Visit, below_no_folder, shown, walk};
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
    pub number: u64,
    /// Of a second name of a file the entry that has the data.
    pub source: Option<u64>,
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
        digests: (options.dialect == Dialect::Stock).then(BTreeMap::new),
        is_folder: BTreeMap::new(),
        planned: BTreeMap::new(),
    };
    walk(input, options.dialect, &mut seeing)?;
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
    /// Of every file by its entry, where second names may follow: in what stock tar wrote.
    digests: Option<BTreeMap<u64, String>>,
    /// Every name, also of what is not wanted.
    is_folder: BTreeMap<Vec<u8>, bool>,
    planned: BTreeMap<Vec<u8>, Planned>,
}

impl Visit for Seeing {
    fn entry(&mut self, entry: Entry, number: u64, data: &mut dyn Read) -> Result<()> {
        self.is_folder.insert(entry.path.clone(), entry.kind == Kind::Directory);
        let is_wanted = self.choice.takes(&entry.path);
        let is_file = matches!(entry.kind, Kind::File { .. });
        // A second name of it may be wanted.
        let may_be_source = is_file && self.digests.is_some();
        if !is_wanted && !may_be_source {
            return Ok(());
        }
        let keep = self.with_text
            && is_wanted
            && entry.size() <= TEXT_BYTES
            && self.text_bytes + entry.size() <= ALL_TEXT_BYTES;
        let mut text = (keep && is_file).then(Vec::new);
        let sha256 = digest(data, text.as_mut())?;
        self.text_bytes += text.as_ref().map_or(0, |text| text.len() as u64);
        if let Some(digests) = &mut self.digests
            && is_file
        {
            digests.insert(number, sha256.clone());
        }
        if is_wanted {
            let (source, action) = (None, Action::Create);
            self.plan(Planned { number, source, sha256, action, text, entry });
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: Entry, number: u64, source: u64) -> Result<()> {
        self.is_folder.insert(entry.path.clone(), false);
        if !self.choice.takes(&entry.path) {
            return Ok(());
        }
        let sha256 = self.digests.as_ref().and_then(|digests| digests.get(&source)).cloned();
        let sha256 = sha256.ok_or_else(|| {
            let name = shown(&entry.path);
            Error::failed("files", format!("the data of {name:?} was not read; please report this"))
        })?;
        let (source, action, text) = (Some(source), Action::Create, None);
        self.plan(Planned { number, source, sha256, action, text, entry });
        Ok(())
    }
}

impl Seeing {
    fn plan(&mut self, planned: Planned) {
        self.planned.insert(planned.entry.path.clone(), planned);
    }

    /// A name below a link of the archive would be written to wherever the link leads.
    fn refuse_ways_through_files(&self) -> Result<()> {
        let files = self.is_folder.iter().filter(|(_, is_folder)| !**is_folder);
        let files = files.map(|(path, _)| &path[..]);
        let Some((path, file)) = below_no_folder(files, &self.planned) else { return Ok(()) };
        let (path, file) = (shown(path), shown(file));
        let message = format!("{path:?} lies below {file:?}, which is no folder in the archive");
        let next = match self.digests.is_some() {
            true => "stock tar writes such: restore what else there is with --path",
            false => "this program writes no such names: do not trust this archive",
        };
        Err(Error::refused("files", message).next_step(next))
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
