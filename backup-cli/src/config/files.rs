//! `files = { … }` of a job: which files are backed up.

use backup_core::Result;
use backup_files::FilesSelection;
use serde::Deserialize;

/// Which files of this host a job backs up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// Patterns of absolute paths; each must find something. What they find goes with everything
    /// below it.
    pub paths: Vec<String>,
    /// The same, but may find nothing. What is there must be readable.
    #[serde(default)]
    pub optional: Vec<String>,
    /// Left out: absolute patterns, or names without a slash that count everywhere.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Skip what is mounted below.
    #[serde(default)]
    pub one_file_system: bool,
}

impl FilesConfig {
    /// What to look for.
    pub fn selection(&self) -> FilesSelection {
        FilesSelection {
            paths: self.paths.clone(),
            optional: self.optional.clone(),
            exclude: self.exclude.clone(),
            one_file_system: self.one_file_system,
        }
    }

    /// Checks the patterns, without looking at any file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming the first that is wrong.
    pub fn check(&self) -> Result<()> {
        if self.paths.is_empty() && self.optional.is_empty() {
            return Err(backup_core::Error::usage("files", "`files` names no path")
                .next_step("add `paths = [\"/etc/nginx\"]`"));
        }
        self.selection().check()
    }
}
