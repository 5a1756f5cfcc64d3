//! The end of a restore: everything that waits gets its name. Between two of these steps each
//! file is the old one or the new one.

use std::collections::BTreeSet;
use std::io;

use backup_core::{Error, Result};
use rustix::fs::FileType;

use super::FilesReport;
use super::plan::Action;
use super::stage::{Staged, Staging};
use crate::archive::{Kind, shown, slashed};
use crate::attributes::set_on_open;
use crate::folder::{Folder, split};

impl Staging {
    /// Puts everything in place and makes it last.
    ///
    /// # Errors
    /// The first that could not be put in place; the error says how many are.
    pub(super) fn commit(mut self) -> Result<FilesReport> {
        let mut changed = BTreeSet::new();
        let waiting = std::mem::take(&mut self.staged);
        let total = waiting.len();
        let mut waiting = waiting.into_iter();
        while let Some(staged) = waiting.next() {
            if let Err(e) = self.place(&staged) {
                let done = self.report.created + self.report.replaced;
                self.staged = std::iter::once(staged).chain(waiting).collect();
                let path = self.staged[0].path.clone();
                self.undo();
                return Err(incomplete(&path, done, total, &self.plan.options.run, e));
            }
            changed.insert(split(&staged.path).0.to_vec());
        }
        self.finish_folders(&mut changed)?;
        for path in &changed {
            let synced = self.root.descend(path).and_then(|folder| folder.sync());
            synced.map_err(|e| not_durable(path, e))?;
        }
        Ok(self.report)
    }

    fn place(&mut self, staged: &Staged) -> io::Result<()> {
        let (parent, name) = split(&staged.path);
        let folder = self.root.descend(parent)?;
        if staged.action == Action::Replace
            && let Some(look) = folder.look(name)?
        {
            if !matches!(look.kind, FileType::RegularFile | FileType::Symlink) {
                return Err(io::Error::other("something else is there since a moment ago"));
            }
            let aside = [name, b".before-", self.plan.options.run.as_bytes()].concat();
            keep_aside(&folder, name, &aside)?;
            folder.rename(&staged.temporary, name)?;
            self.report.replaced += 1;
            let place = if parent.is_empty() { String::new() } else { slashed(parent) };
            self.report.kept_aside.push(format!("{place}/{}", shown(&aside)));
        } else {
            folder.rename_to_free(&staged.temporary, name)?;
            self.report.created += 1;
        }
        Ok(())
    }

    /// Gives folders their own attributes, now that nothing more comes into them: the deepest
    /// first.
    fn finish_folders(&mut self, changed: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        let planned = std::sync::Arc::clone(&self.plan.planned);
        for (path, planned) in planned.iter().rev() {
            let made = match planned.action {
                Action::Create => true,
                Action::SetAttributes => false,
                Action::Replace | Action::Leave => continue,
            };
            if planned.entry.kind != Kind::Directory {
                continue;
            }
            let (parent, name) = split(path);
            let opened = self.root.descend(parent).and_then(|folder| folder.read_folder(name));
            let set = opened.and_then(|file| {
                let unset = set_on_open(&file, &planned.entry.attributes, &mut self.users)?;
                file.sync_all()?;
                Ok(unset)
            });
            match set {
                Ok(unset) => self.note_unset(path, unset),
                Err(e) => self.note_unset(path, vec![format!("its attributes ({e})")]),
            }
            if made {
                self.report.created += 1;
            } else {
                self.report.replaced += 1;
            }
        }
        for path in &self.made {
            changed.insert(split(path).0.to_vec());
        }
        Ok(())
    }
}

/// A second name for what is about to be replaced. Where the file system has no second names, it
/// is renamed: then there is a moment without the file.
fn keep_aside(folder: &Folder, name: &[u8], aside: &[u8]) -> io::Result<()> {
    match folder.add_name(name, aside) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => folder.rename_to_free(name, aside),
        Ok(()) => Ok(()),
    }
}

fn incomplete(path: &[u8], done: u64, total: usize, run: &str, error: io::Error) -> Error {
    let message =
        format!("{} can't be put in place ({error}); {done} of {total} files are", slashed(path));
    Error::failed("files", message)
        .next_step(format!(
            "see to it and restore again; what was replaced is kept as NAME.before-{run}"
        ))
        .caused_by(error)
}

fn not_durable(path: &[u8], error: io::Error) -> Error {
    let message = format!(
        "everything is in place, but {} may not survive a power cut: {error}",
        slashed(path)
    );
    Error::failed("files", message).next_step("look at the disk").caused_by(error)
}
