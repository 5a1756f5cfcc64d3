//! Flags of `restore` that are about files.

use std::path::PathBuf;

use clap::Args;

/// Restoring the files of a backup.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct Files {
    /// Restore the backup's files below this folder; it is made when it does not exist, and
    /// nothing in it is replaced
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["to", "in_place", "swap", "tables"])]
    pub into: Option<PathBuf>,
    /// Of a backup that holds a database, too, restore the files only; with --in-place they go
    /// where they were, and what they replace stays as .NAME.before-RUN
    #[arg(long, conflicts_with_all = ["to", "swap", "tables"])]
    pub files: bool,
    /// Only these files, with everything below: `/etc/nginx`, `*.service`; may be given several
    /// times
    #[arg(long = "path", value_name = "PATTERN", conflicts_with_all = ["to", "swap", "tables"])]
    pub paths: Vec<String>,
    /// Show which lines differ; they may be secrets
    #[arg(long, requires = "dry_run")]
    pub show_diff: bool,
}

impl Files {
    /// Whether files are asked for.
    pub fn are_meant(&self) -> bool {
        self.files || self.into.is_some() || !self.paths.is_empty()
    }
}
