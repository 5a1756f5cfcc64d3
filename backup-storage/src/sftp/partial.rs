//! Names for files that are still being written.

use rand::Rng;
use rand::distributions::Alphanumeric;

use crate::partial::{ENDING, RANDOM_CHARS, prefix};

/// A fresh path beside `target` for what will get that name.
pub(super) fn beside(target: &str) -> String {
    let (folder, name) = target.rsplit_once('/').unwrap_or(("", target));
    let random: String =
        rand::thread_rng().sample_iter(Alphanumeric).take(RANDOM_CHARS).map(char::from).collect();
    format!("{folder}/{}{random}{ENDING}", prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial::is_leftover;
    use backup_core::layout::check_key;

    #[test]
    fn what_is_made_is_recognised() {
        for name in ["a", "manifest.json", "ü".repeat(127).as_str(), "x".repeat(255).as_str()] {
            let path = beside(&format!("/root/folder/{name}"));
            let made = path.strip_prefix("/root/folder/").unwrap();
            assert!(is_leftover(made) && check_key(made).is_err(), "{made}");
            assert!(made.len() <= 255);
        }
        assert_ne!(beside("/a/b"), beside("/a/b"));
    }
}
