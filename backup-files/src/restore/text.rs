//! Which lines differ.

use std::time::Duration;

use similar::TextDiff;

/// Longest search for the shortest difference.
const SEARCH: Duration = Duration::from_millis(500);

/// The lines that differ between two texts, in the form of `diff -u`; `None` when one of them is
/// no text.
pub(super) fn unified(name: &str, now: &[u8], backup: &[u8]) -> Option<String> {
    let is_text = |bytes: &[u8]| !bytes.contains(&0);
    if !is_text(now) || !is_text(backup) {
        return None;
    }
    let (now, backup) = (std::str::from_utf8(now).ok()?, std::str::from_utf8(backup).ok()?);
    let diff = TextDiff::configure().timeout(SEARCH).diff_lines(now, backup);
    let mut unified = diff.unified_diff();
    Some(unified.header(&format!("{name} now"), &format!("{name} in the backup")).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_texts_are_compared_and_other_bytes_are_not() {
        let text = unified("/a", b"one\ntwo\n", b"one\nthree\n").unwrap();
        assert!(text.contains("-two\n+three\n"), "{text}");
        assert_eq!(unified("/a", b"\0", b"text"), None);
        assert_eq!(unified("/a", b"text", b"\xff"), None);
    }
}
