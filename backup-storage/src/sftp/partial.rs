//! Names of files that are still being written, the same as those of the local storage.
//!
//! They end in `.partial`, which [`backup_core::layout::check_key`] refuses for an object: no
//! object is ever taken for a leftover, nor the other way round.

use rand::Rng;
use rand::distributions::Alphanumeric;

const ENDING: &str = ".partial";
/// Random letters and digits before the ending.
const RANDOM_CHARS: usize = 12;
/// Bytes of the final name kept in front: `NAME_MAX` is 255 on common file systems.
const STEM_BYTES: usize = 255 - ENDING.len() - RANDOM_CHARS - 1;

/// A fresh path beside `target` for what will get that name.
pub(super) fn beside(target: &str) -> String {
    let (folder, name) = target.rsplit_once('/').unwrap_or(("", target));
    let mut cut = name.len().min(STEM_BYTES);
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    let random: String =
        rand::thread_rng().sample_iter(Alphanumeric).take(RANDOM_CHARS).map(char::from).collect();
    format!("{folder}/{}.{random}{ENDING}", &name[..cut])
}

/// Whether this is a name that [`beside`] gives. Stricter than "can't be an object": a sweep
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
