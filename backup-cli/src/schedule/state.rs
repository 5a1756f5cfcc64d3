//! `schedule.json` in the state folder: what ran last, so that a missed time is caught up.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::LastRuns;

/// The file's name in the state folder.
pub const STATE_FILE: &str = "schedule.json";
/// The layout of the file.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    tasks: LastRuns,
}

/// The last runs, on disk.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in a state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(STATE_FILE) }
    }

    /// What it says; nothing when there is none. One that can't be understood is an error: to
    /// take it for empty would forget what was missed.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn read(&self) -> Result<LastRuns> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(LastRuns::new()),
            Err(e) => return Err(self.unusable("can't be read", e)),
        };
        let document: Document = serde_json::from_slice(&text)
            .map_err(|e| self.unusable("is not what this program writes", e.into()))?;
        if document.format > FORMAT {
            let message = format!("{} was written by a newer version", self.path.display());
            return Err(Error::usage("schedule", message).next_step("update this program"));
        }
        Ok(document.tasks)
    }

    /// Writes it, whole or not at all, also when the power fails.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn write(&self, runs: &LastRuns) -> Result<()> {
        let document = Document { format: FORMAT, tasks: runs.clone() };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let mut file = tempfile::Builder::new().prefix(".schedule-").tempfile_in(folder)?;
            file.write_all(&serde_json::to_vec_pretty(&document)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|e| e.error)?;
            std::fs::File::open(folder)?.sync_all()
        };
        write().map_err(|e| self.unusable("can't be written", e))
    }

    fn unusable(&self, what: &str, cause: std::io::Error) -> Error {
        Error::failed("schedule", format!("{} {what}", self.path.display()))
            .next_step("let this user write to `state_dir`, or move the file away")
            .caused_by(cause)
    }
}
