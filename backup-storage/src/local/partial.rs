//! Making files that are still being written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::partial::{ENDING, RANDOM_CHARS, prefix};

/// Makes a new file for what will be called `final_name`, mode 0600, in `folder`.
pub(super) fn create(folder: &Path, final_name: &str) -> io::Result<(File, PathBuf)> {
    tempfile::Builder::new()
        .prefix(&prefix(final_name))
        .suffix(ENDING)
        .rand_bytes(RANDOM_CHARS)
        .tempfile_in(folder)?
        // From here on it is ours to remove; after a crash a sweep does.
        .keep()
        .map_err(|refused| refused.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial::is_leftover;
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
}
