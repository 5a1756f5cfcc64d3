//! The second reading: what changes is written beside its place, readable by nobody else, with
//! everything that belongs to it. Only at the commit it gets its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{Digester, Error, Result, Sink, SinkWriter};

use super::compare::{is_no_folder, unusable};
use super::plan::{Action, FilesPlan, Planned};
use super::{FilesReport, FilesTarget};
use crate::archive::{Entry, Kind, Visit, slashed, walk};
use crate::attributes::{set_on_link, set_on_open};
use crate::folder::{Folder, split};
use crate::users::Users;
use crate::worker::Worker;

/// How the names of files begin that are not in place yet. What a killed restore left is removed
/// by the next one.
const STAGED: &str = ".marb-restore-";
/// Bytes that are written at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// Mode of folders that the archive does not have, above what it has.
const FOLDER_MODE: u32 = 0o755;

/// A sink that restores what a [`FilesPlan`] says. Two of them must not run at the same time
/// into one target: the caller holds a lock.
///
/// Clones share their [`report`](Self::report).
#[derive(Debug, Clone)]
pub struct FilesRestore {
    plan: FilesPlan,
    report: Arc<Mutex<Option<FilesReport>>>,
}

impl FilesRestore {
    /// A restore that does what `plan` says; the archive must be the one that was planned.
    pub fn new(plan: FilesPlan) -> Self {
        Self { plan, report: Arc::default() }
    }

    /// What was done; `None` before a commit succeeded.
    pub fn report(&self) -> Option<FilesReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Sink for FilesRestore {
    fn name(&self) -> &str {
        "files"
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        let plan = self.plan.clone();
        let report = Arc::clone(&self.report);
        let work = move |input: &mut dyn Read| stage(plan, input);
        let keep = move |staging: Staging| {
            let done = staging.commit()?;
            *report.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            Ok(())
        };
        Ok(Box::new(Worker::start(work, keep)))
    }
}

fn stage(plan: FilesPlan, input: &mut dyn Read) -> Result<Staging> {
    let mut staging = Staging::begin(plan)?;
    let dialect = staging.plan.options.dialect;
    match walk(input, dialect, &mut staging).and_then(|()| staging.check_complete()) {
        Ok(()) => Ok(staging),
        Err(error) => {
            staging.undo();
            Err(error)
        }
    }
}

/// A file that waits beside its place.
pub(super) struct Staged {
    pub path: Vec<u8>,
    pub temporary: Vec<u8>,
    pub action: Action,
}

/// Everything that was written so far, and is not in place.
pub(super) struct Staging {
    pub plan: FilesPlan,
    pub root: Folder,
    pub users: Users,
    pub staged: Vec<Staged>,
    /// Folders that were made, in this order; the root is not among them.
    pub made: Vec<Vec<u8>>,
    made_root: bool,
    swept: BTreeSet<Vec<u8>>,
    pub report: FilesReport,
    /// What is written of an entry's data under other names.
    second_names: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Visit for Staging {
    fn entry(&mut self, entry: Entry, number: u64, data: &mut dyn Read) -> Result<()> {
        let all = Arc::clone(&self.plan.planned);
        let mut files = Vec::new();
        if let Some(planned) = all.get(&entry.path).filter(|planned| planned.number == number) {
            refuse_change(planned, &entry)?;
            match (planned.action, &entry.kind) {
                (Action::Leave | Action::SetAttributes, _) => {}
                (Action::Create, Kind::Directory) => drop(self.folder(&entry.path)?),
                (_, Kind::Link { target }) => self.link(target, planned)?,
                _ => files.push(planned),
            }
        }
        let second = self.second_names.remove(&number).unwrap_or_default();
        files.extend(second.iter().filter_map(|path| all.get(path)));
        if files.is_empty() { Ok(()) } else { self.files(&files, data) }
    }

    /// Its data was written with that of its source.
    fn hard_link(&mut self, entry: Entry, number: u64, _source: u64) -> Result<()> {
        let planned = self.plan.planned.get(&entry.path);
        planned
            .filter(|planned| planned.number == number)
            .map_or(Ok(()), |planned| refuse_change(planned, &entry))
    }
}

/// Refuses what is not as it was planned.
fn refuse_change(planned: &Planned, entry: &Entry) -> Result<()> {
    if planned.entry == *entry { Ok(()) } else { Err(changed(&entry.path)) }
}

/// The archive is not the one that was planned.
fn changed(path: &[u8]) -> Error {
    let message = format!("{} is another one than a moment ago", slashed(path));
    Error::damaged("files", message)
        .next_step("the stored backup changed while it was read: verify it; nothing was replaced")
}

impl Staging {
    fn begin(plan: FilesPlan) -> Result<Self> {
        let target = &plan.options.target;
        let mut made_root = false;
        if let FilesTarget::Folder(path) = target {
            use std::os::unix::fs::DirBuilderExt;
            made_root = !path.exists();
            let mut maker = std::fs::DirBuilder::new();
            maker.recursive(true).mode(0o700).create(path).map_err(|e| unusable(target, e))?;
        }
        let root = Folder::open(target.path()).map_err(|e| unusable(target, e))?;
        let unchanged = plan.counts().2;
        let mut second_names: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (path, planned) in plan.planned.iter() {
            if let (Some(source), Action::Create | Action::Replace) =
                (planned.source, planned.action)
            {
                second_names.entry(source).or_default().push(path.clone());
            }
        }
        Ok(Self {
            root,
            plan,
            users: Users::default(),
            staged: Vec::new(),
            made: Vec::new(),
            made_root,
            swept: BTreeSet::new(),
            report: FilesReport { unchanged, ..FilesReport::default() },
            second_names,
        })
    }

    /// A folder below the target, made with all above it where it is missing.
    fn folder(&mut self, path: &[u8]) -> Result<Folder> {
        let failed = |e: io::Error| {
            let why =
                if is_no_folder(&e) { "there is a link or a file" } else { "it can't be made" };
            Error::failed(
                "files",
                format!("{} is needed as a folder, and {why}: {e}", slashed(path)),
            )
            .next_step("restore as root, or into another folder; nothing was replaced")
            .caused_by(e)
        };
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let mut at = self.root.descend(b"").map_err(failed)?;
        let mut so_far = Vec::new();
        for part in parts {
            if !so_far.is_empty() {
                so_far.push(b'/');
            }
            so_far.extend_from_slice(part);
            // Its own mode comes last, when everything is in it.
            let mode = if self.plan.planned.contains_key(&so_far) { 0o700 } else { FOLDER_MODE };
            if at.look(part).map_err(failed)?.is_none()
                && at.make_folder(part, mode).map_err(failed)?
            {
                self.made.push(so_far.clone());
            }
            at = at.descend(part).map_err(failed)?;
        }
        if self.swept.insert(path.to_vec()) {
            self.sweep(&at);
        }
        Ok(at)
    }

    /// Removes what a killed restore left. Whoever may not look into the folder leaves it.
    fn sweep(&self, folder: &Folder) {
        for name in folder.names().unwrap_or_default() {
            if name.starts_with(STAGED.as_bytes()) {
                let _ = folder.remove(&name);
            }
        }
    }

    /// A name beside the place of `planned`, and the folder of both.
    fn beside(&mut self, planned: &Planned) -> Result<(Folder, Vec<u8>)> {
        let path = &planned.entry.path;
        let folder = self.folder(split(path).0)?;
        let temporary = format!("{STAGED}{}-{}", self.plan.options.run, planned.number);
        let temporary = temporary.into_bytes();
        // Noted first: what is half-written is removed as well.
        let (path, action) = (path.clone(), planned.action);
        self.staged.push(Staged { path, temporary: temporary.clone(), action });
        Ok((folder, temporary))
    }

    /// Writes one entry's data under each of its names. Of more than may be open at once, too: the
    /// first is copied, and of the others one is open at a time.
    fn files(&mut self, planned: &[&Planned], data: &mut dyn Read) -> Result<()> {
        let Some((first, others)) = planned.split_first() else { return Ok(()) };
        let mut written = self.file(first, data)?;
        for other in others {
            written.rewind().map_err(|e| unwritable(&first.entry.path, e))?;
            self.file(other, &mut written)?;
        }
        Ok(())
    }

    fn file(&mut self, planned: &Planned, data: &mut dyn Read) -> Result<File> {
        let failed = |e: io::Error| unwritable(&planned.entry.path, e);
        let (folder, temporary) = self.beside(planned)?;
        let mut file = folder.create(&temporary).map_err(failed)?;
        let mut digester = Digester::default();
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            let n = data.read(&mut buffer).map_err(|e| Error::from_io("files", e))?;
            if n == 0 {
                break;
            }
            digester.update(&buffer[..n]);
            write_block(&mut file, &buffer[..n]).map_err(failed)?;
        }
        self.finish_file(planned, &file, &digester.finish().sha256)?;
        Ok(file)
    }

    fn finish_file(&mut self, planned: &Planned, file: &File, sha256: &str) -> Result<()> {
        let Entry { path, attributes, .. } = &planned.entry;
        let failed = |e: io::Error| unwritable(path, e);
        file.set_len(planned.entry.size()).map_err(failed)?;
        if *sha256 != planned.sha256 {
            return Err(changed(path));
        }
        let unset = set_on_open(file, attributes, &mut self.users).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.report.bytes += planned.entry.size();
        self.note_unset(path, unset);
        Ok(())
    }

    fn link(&mut self, target: &[u8], planned: &Planned) -> Result<()> {
        let Entry { path, attributes, .. } = &planned.entry;
        let (folder, temporary) = self.beside(planned)?;
        folder.make_link(&temporary, target).map_err(|e| unwritable(path, e))?;
        let unset = set_on_link(&folder, &temporary, attributes, &mut self.users)
            .map_err(|e| unwritable(path, e))?;
        self.note_unset(path, unset);
        Ok(())
    }

    pub(super) fn note_unset(&mut self, path: &[u8], unset: Vec<String>) {
        let lines = unset.into_iter().map(|what| format!("{}: {what}", slashed(path)));
        self.report.unset.extend(lines);
    }

    /// Everything that was planned must have come.
    fn check_complete(&self) -> Result<()> {
        let waiting: BTreeSet<&[u8]> = self.staged.iter().map(|staged| &staged.path[..]).collect();
        let wanted = |planned: &BTreeMap<Vec<u8>, Planned>| {
            let missing = planned.iter().find(|(path, planned)| {
                let is_written = matches!(planned.action, Action::Create | Action::Replace);
                let is_folder = planned.entry.kind == Kind::Directory;
                is_written && !is_folder && !waiting.contains(&path[..])
            });
            missing.map(|(path, _)| path.clone())
        };
        wanted(&self.plan.planned).map_or(Ok(()), |path| Err(changed(&path)))
    }

    /// Removes everything that is not in place.
    pub(super) fn undo(&mut self) {
        for staged in self.staged.drain(..) {
            if let Ok(folder) = self.root.descend(split(&staged.path).0) {
                let _ = folder.remove(&staged.temporary);
            }
        }
        // The deepest first; one that holds something stays.
        for path in self.made.drain(..).rev() {
            let (parent, name) = split(&path);
            if let Ok(folder) = self.root.descend(parent) {
                let _ = folder.remove_folder(name);
            }
        }
        if self.made_root {
            let _ = std::fs::remove_dir(self.plan.options.target.path());
        }
    }
}

/// Holes stay holes.
fn write_block(file: &mut File, block: &[u8]) -> io::Result<()> {
    if block.len() == BLOCK_BYTES && block.iter().all(|byte| *byte == 0) {
        file.seek(SeekFrom::Current(block.len() as i64)).map(drop)
    } else {
        file.write_all(block)
    }
}

pub(super) fn unwritable(path: &[u8], error: io::Error) -> Error {
    let message = format!("{} can't be written: {error}", slashed(path));
    Error::failed("files", message)
        .next_step("look at the rights and the space there; nothing was replaced")
        .caused_by(error)
}
