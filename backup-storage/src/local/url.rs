//! The folder that a `file://` URL names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::percent::percent_decode;

/// Takes `file:///absolute/path` (or `file://localhost/absolute/path`) apart.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn folder_of(url: &str) -> Result<PathBuf, String> {
    let wrong = |why: &str| Err(format!("{url:?} {why}"));
    let Some((scheme, rest)) = url.split_once("://") else {
        return wrong("is no file:// URL");
    };
    if !scheme.eq_ignore_ascii_case("file") {
        return wrong("is no file:// URL");
    }
    let Some((host, _)) = rest.split_once('/') else {
        return wrong("has no path: a file URL has three slashes in front");
    };
    if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
        return wrong("names a host, or is relative: a file URL has three slashes in front");
    }
    let encoded = &rest[host.len()..];
    if encoded.contains(['?', '#']) {
        return wrong("has a query or a fragment: write ? as %3F and # as %23");
    }
    match percent_decode(encoded) {
        None => wrong("has a % without two hex digits: write % itself as %25"),
        Some(bytes) if bytes.contains(&0) => wrong("has a NUL in it"),
        Some(bytes) => Ok(PathBuf::from(OsString::from_vec(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        for (url, path) in [
            ("file:///var/backups", "/var/backups"),
            ("FILE://localhost/a", "/a"),
            ("file:///my%20backups/%C3%BC%23%3f", "/my backups/ü#?"),
            ("file:///plain space/100%25", "/plain space/100%"),
            ("file:///a+b", "/a+b"),
        ] {
            assert_eq!(folder_of(url), Ok(PathBuf::from(path)), "{url}");
        }
    }

    #[test]
    fn bad_urls_say_why() {
        for (url, why) in [
            ("s3://bucket/x", "no file:// URL"),
            ("/var/backups", "no file:// URL"),
            ("file:/var", "no file:// URL"),
            ("file://backups", "three slashes"),
            ("file://backups/x", "three slashes"),
            ("file://./x", "three slashes"),
            ("file:///a?b=c", "query"),
            ("file:///a#b", "fragment"),
            ("file:///a%2", "hex"),
            ("file:///a%zz", "hex"),
            ("file:///a%+1", "hex"),
            ("file:///a%00b", "NUL"),
        ] {
            let error = folder_of(url).unwrap_err();
            assert!(error.contains(why) && error.contains(url), "{url}: {error}");
        }
    }
}
