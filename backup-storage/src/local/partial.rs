//! Names of files that are still being written.
//!
//! They end in `.partial`, which [`backup_core::layout::check_key`] refuses for an object: no
//! object is ever taken for a leftover, nor the other way round.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const ENDING: &str = ".partial";
/// Random letters and digits before the ending.
const RANDOM_CHARS: usize = 12;
/// Bytes of the final name kept in front: `NAME_MAX` is 255 on common file systems.
const STEM_BYTES: usize = 255 - ENDING.len() - RANDOM_CHARS - 1;

/// Makes a new file for what will be called `final_name`, mode 0600, in `folder`.
pub(super) fn create(folder: &Path, final_name: &str) -> io::Result<(File, PathBuf)> {
    let mut cut = final_name.len().min(STEM_BYTES);
    while !final_name.is_char_boundary(cut) {
        cut -= 1;
    }
    tempfile::Builder::new()
        .prefix(&format!("{}.", &final_name[..cut]))
        .suffix(ENDING)
        .rand_bytes(RANDOM_CHARS)
        .tempfile_in(folder)?
        // From here on it is ours to remove; after a crash a sweep does.
        .keep()
        .map_err(|refused| refused.error)
}

/// Whether this is a name that [`create`] gives. Stricter than "can't be an object": a sweep
/// leaves somebody's own `notes.partial` alone.
pub(super) fn is_leftover(name: &str) -> bool {
    name.strip_suffix(ENDING).and_then(|rest| rest.rsplit_once('.')).is_some_and(
        |(stem, random)| {
            !stem.is_empty()
                && random.len() == RANDOM_CHARS
                && random.chars().all(|c| c.is_ascii_alphanumeric())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::layout::check_key;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_created_is_recognised_and_private() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "manifest.json", "ü".repeat(127).as_str(), "x".repeat(255).as_str()] {
            let (file, path) = create(folder.path(), name).unwrap();
            let made = path.file_name().unwrap().to_str().unwrap();
            assert!(is_leftover(made) && check_key(made).is_err(), "{made}");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert!(path.exists(), "dropping the temporary handle must not remove the file");
        }
    }

    #[test]
    fn other_names_are_no_leftovers() {
        for name in [
            "notes.partial",
            ".partial",
            "a.short.partial",
            ".abcdefghijkl.partial",
            "a.abcdefghijkl",
            "a.abcdef-hijkl.partial",
        ] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
