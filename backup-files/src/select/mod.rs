//! Which files: patterns, and what they find on this host.

mod exclude;
mod pattern;
mod scan;

use backup_core::Result;

pub(crate) use pattern::matcher;
pub(crate) use scan::{Found, scan};

/// What is backed up: patterns of absolute paths. `*`, `?`, `[a-z]` and `{a,b}` stand for a part
/// of one name, `**` for any number of folders; unlike in a shell they find hidden names, too.
/// What they find goes with everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesSelection {
    /// Each must find something.
    pub paths: Vec<String>,
    /// May find nothing. What they find must be readable all the same.
    pub optional: Vec<String>,
    /// Left out, with everything below: a pattern with a slash stands for an absolute path, one
    /// without for a name anywhere.
    pub exclude: Vec<String>,
    /// Stay on the file systems that the patterns lead to: mounts below are skipped, and named.
    pub one_file_system: bool,
}

impl FilesSelection {
    /// Looks whether the patterns are patterns at all, without looking at any file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) naming the first that is wrong.
    pub fn check(&self) -> Result<()> {
        for text in self.paths.iter().chain(&self.optional) {
            pattern::check(text)?;
        }
        exclude::Excluded::new(&self.exclude).map(drop)
    }
}
