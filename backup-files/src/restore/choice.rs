//! Which files of an archive are wanted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backup_core::{Error, ErrorKind, Result};
use globset::GlobMatcher;

use crate::select::matcher;

/// Patterns, and which of them found something.
pub(super) struct Choice(Vec<Wanted>);

struct Wanted {
    text: String,
    matcher: GlobMatcher,
    is_path: bool,
    found: bool,
}

impl Choice {
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        let wanted = patterns.iter().map(|text| {
            let is_path = text.contains('/');
            let whole = match text.starts_with('/') || !is_path {
                true => text.clone(),
                false => format!("/{text}"),
            };
            let matcher = matcher(whole.trim_end_matches('/'))?;
            Ok(Wanted { text: text.clone(), matcher, is_path, found: false })
        });
        Ok(Self(wanted.collect::<Result<_>>()?))
    }

    /// Whether a pattern finds this path or a folder above it.
    pub(super) fn takes(&mut self, path: &[u8]) -> bool {
        let whole = [b"/", path].concat();
        let ends = (1..=whole.len()).filter(|end| *end == whole.len() || whole[*end] == b'/');
        let above: Vec<&[u8]> = ends.map(|end| &whole[..end]).collect();
        let mut taken = self.0.is_empty();
        for wanted in &mut self.0 {
            let finds = |path: &&[u8]| {
                let looked = if wanted.is_path { path } else { crate::folder::split(path).1 };
                wanted.matcher.is_match(OsStr::from_bytes(looked))
            };
            if above.iter().any(finds) {
                wanted.found = true;
                taken = true;
            }
        }
        taken
    }

    /// Refuses when a pattern found nothing.
    pub(super) fn check_found(&self) -> Result<()> {
        let missing: Vec<&str> =
            self.0.iter().filter(|wanted| !wanted.found).map(|wanted| &*wanted.text).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("the backup has nothing at {}", missing.join(", "));
        Err(Error::new(ErrorKind::NotFound, "files", message)
            .next_step("`show --contents` lists what it has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_what_is_below() {
        let patterns = ["/etc/nginx", "*.service", "opt/*/.env"].map(str::to_owned);
        let mut choice = Choice::new(&patterns).unwrap();
        for path in ["etc/nginx", "etc/nginx/a/b", "x/y.service", "opt/app/.env"] {
            assert!(choice.takes(path.as_bytes()), "{path}");
        }
        for path in ["etc", "etc/nginx2", "opt/a/b/.env", "y.service2"] {
            assert!(!choice.takes(path.as_bytes()), "{path}");
        }
        choice.check_found().unwrap();
        let mut choice = Choice::new(&["/no".to_owned()]).unwrap();
        assert!(!choice.takes(b"yes"));
        assert_eq!(choice.check_found().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(Choice::new(&[]).unwrap().takes(b"anything"));
    }
}
