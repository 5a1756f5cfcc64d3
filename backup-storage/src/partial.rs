//! Names of files that are still being written, on a disk of this host or of a server.
//!
//! They end in `.partial`, which [`backup_core::layout::check_key`] refuses for an object: no
//! object is ever taken for a leftover, nor the other way round.

/// How they end.
pub(crate) const ENDING: &str = ".partial";
/// Random letters and digits before the ending.
pub(crate) const RANDOM_CHARS: usize = 12;
/// Bytes of the final name kept in front: `NAME_MAX` is 255 on common file systems.
const STEM_BYTES: usize = 255 - ENDING.len() - RANDOM_CHARS - 1;

/// What stands before the random letters in the name of a file that will be `final_name`.
pub(crate) fn prefix(final_name: &str) -> String {
    let mut cut = final_name.len().min(STEM_BYTES);
    while !final_name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}.", &final_name[..cut])
}

/// Whether this is a name made of [`prefix`], random letters and [`ENDING`]. Stricter than "can't
/// be an object": a sweep leaves somebody's own `notes.partial` alone.
pub(crate) fn is_leftover(name: &str) -> bool {
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
