//! Files back from a tar stream, read twice.
//!
//! ```text
//! first    FilesPlanner   reads all of it, writes nothing: what is there, what would change    plan.rs
//! second   FilesRestore   writes what changes beside its place, then renames all of it         stage.rs
//! ```
//!
//! Streamed plain bytes are not authentic before their end, and a file that is in place acts at
//! once. So the second reading writes only what the first one saw: each file's digest is
//! compared before anything is renamed. A crash between two renames leaves each file old or new.

mod choice;
mod commit;
mod compare;
mod plan;
mod stage;
mod text;

use std::path::PathBuf;

use backup_core::FileKind;

use crate::archive::Dialect;

pub use plan::{FilesPlan, FilesPlanner};
pub use stage::FilesRestore;

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesTarget {
    /// Below this folder, which is made when it does not exist. No file in it is replaced.
    Folder(PathBuf),
    /// Where they were, below this folder: `/`. What is replaced is kept as `.NAME.before-RUN`.
    InPlace(PathBuf),
}

impl FilesTarget {
    pub(crate) fn path(&self) -> &std::path::Path {
        match self {
            Self::Folder(path) | Self::InPlace(path) => path,
        }
    }
}

/// What is restored, and how.
#[derive(Debug, Clone)]
pub struct FilesRestoreOptions {
    /// Who wrote the archive.
    pub dialect: Dialect,
    /// Where to.
    pub target: FilesTarget,
    /// Only what these patterns find, with everything below; all when empty. A pattern with a
    /// slash stands for an absolute path, one without for a name anywhere.
    pub paths: Vec<String>,
    /// Names this run: `20261122T020000Z`. Letters, digits and dashes.
    pub run: String,
    /// Tell differing lines of texts. They may be secrets.
    pub with_text: bool,
}

/// What a restore does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Absolute path on the host that was backed up.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// What happens to it.
    pub what: Change,
    /// Lines that differ, where they were asked for and both are text.
    pub text: Option<String>,
}

/// What happens to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is not there.
    Created,
    /// Its content differs, and these attributes.
    Replaced {
        /// Size of what is there, in bytes.
        from: u64,
        /// Size of what comes, in bytes.
        to: u64,
        /// What else differs.
        attributes: Vec<String>,
    },
    /// Only these attributes differ.
    Attributes(Vec<String>),
    /// It is as it was.
    Unchanged,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesReport {
    /// Files, folders and links that were made.
    pub created: u64,
    /// Files and links that were replaced, and folders whose attributes were set.
    pub replaced: u64,
    /// Files that were as they should be, and were left alone.
    pub unchanged: u64,
    /// Bytes of the files that were written.
    pub bytes: u64,
    /// Where what was replaced is now.
    pub kept_aside: Vec<String>,
    /// What could not be set, a line each: an owner, without being root.
    pub unset: Vec<String>,
}
