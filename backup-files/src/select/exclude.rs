//! What is left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backup_core::Result;
use globset::{GlobSet, GlobSetBuilder};

use super::pattern;

/// Patterns of what is left out.
pub(super) struct Excluded {
    paths: GlobSet,
    names: GlobSet,
}

impl Excluded {
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        let (mut paths, mut names) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in patterns {
            if text.contains('/') {
                pattern::check(text)?;
                paths.add(pattern::matcher(text.trim_end_matches('/'))?.glob().clone());
            } else {
                names.add(pattern::matcher(text)?.glob().clone());
            }
        }
        let built = |builder: GlobSetBuilder| {
            builder.build().map_err(|e| {
                backup_core::Error::usage("files", "`exclude` is too much to look for").caused_by(e)
            })
        };
        Ok(Self { paths: built(paths)?, names: built(names)? })
    }

    /// Whether the file with this path, without its leading slash, is left out.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        let name = crate::folder::split(path).1;
        let whole = [b"/", path].concat();
        self.names.is_match(OsStr::from_bytes(name))
            || self.paths.is_match(OsStr::from_bytes(&whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_everywhere_and_a_path_once() {
        let patterns = ["*.log", "/opt/app/cache", "/opt/**/tmp/*"].map(str::to_owned);
        let excluded = Excluded::new(&patterns).unwrap();
        for path in ["a.log", "opt/x/b.log", "opt/app/cache", "opt/a/b/tmp/c", "opt/tmp/c"] {
            assert!(excluded.has(path.as_bytes()), "{path}");
        }
        for path in ["a.log/x", "srv/opt/app/cache", "opt/app/cache2", "opt/a/tmp", "cache"] {
            assert!(!excluded.has(path.as_bytes()), "{path}");
        }
        assert!(Excluded::new(&["a/b".to_owned()]).is_err());
        assert!(Excluded::new(&["[".to_owned()]).is_err());
    }
}
