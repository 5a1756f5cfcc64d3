//! One file of an archive: its name, what it is, and what belongs to it.

use std::collections::BTreeMap;

use backup_core::{Error, FileKind, ListedFile, Result};

use super::MAX_PATH_BYTES;

/// A file as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path without the leading slash: `etc/nginx/nginx.conf`.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File { size: u64 },
    Directory,
    Link { target: Vec<u8> },
}

/// What belongs to a file beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub owner: Owner,
    pub group: Owner,
    pub mtime: Mtime,
    /// Extended attributes by their full names, without those that hold ACLs.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access ACL, in the text form of `getfacl -E`, entries separated by commas.
    pub acl: Option<String>,
    /// Default ACL of a directory.
    pub default_acl: Option<String>,
}

/// A user or a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub id: u32,
    /// `None` where the number has no name on the host.
    pub name: Option<String>,
}

impl Owner {
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}

/// When the content changed last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mtime {
    pub seconds: i64,
    /// Always forward, below a thousand million.
    pub nanos: u32,
}

impl Entry {
    /// Refuses a name that could lead out of the folder that it is restored into.
    pub(crate) fn check_path(&self) -> Result<()> {
        let path = &self.path;
        let harmless = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
        let fits = path.len() <= MAX_PATH_BYTES && !path.contains(&0);
        if fits && path.split(|b| *b == b'/').all(harmless) {
            return Ok(());
        }
        Err(Error::refused(
            "tar",
            format!("the name {:?} is not below the folder it belongs to", shown(path)),
        )
        .next_step("this program writes no such names: do not trust this archive"))
    }

    pub(crate) fn size(&self) -> u64 {
        if let Kind::File { size } = self.kind { size } else { 0 }
    }

    /// As `show` and `verify` tell it.
    pub(crate) fn listed(&self) -> ListedFile {
        let (kind, target) = match &self.kind {
            Kind::File { .. } => (FileKind::File, None),
            Kind::Directory => (FileKind::Directory, None),
            Kind::Link { target } => (FileKind::Link, Some(shown(target))),
        };
        ListedFile {
            path: shown(&self.path),
            kind,
            mode: self.attributes.mode,
            owner: self.attributes.owner.label(),
            group: self.attributes.group.label(),
            bytes: self.size(),
            target,
        }
    }
}

/// The first of `names` that lies below one of `files`, and that file: whoever wrote it would write
/// to wherever a link leads.
pub(crate) fn below_no_folder<'a, T>(
    files: impl Iterator<Item = &'a [u8]>,
    names: &'a BTreeMap<Vec<u8>, T>,
) -> Option<(&'a [u8], &'a [u8])> {
    files.into_iter().find_map(|file| {
        let below = [file, b"/"].concat();
        let (name, _) = names.range(below.clone()..).next()?;
        name.starts_with(&below).then_some((&name[..], file))
    })
}

/// A name for people: what is no UTF-8 or would move the cursor is written as an escape.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}

/// The same with the leading slash, as it was on the host.
pub(crate) fn slashed(name: &[u8]) -> String {
    format!("/{}", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_on_one_line_and_told_apart() {
        for (name, text) in [
            (&b"etc/a b"[..], "etc/a b"),
            (b"a\nb", "a\\nb"),
            (b"a\\nb", "a\\\\nb"),
            (b"\xff\xc3\xa4", "\\xFF\u{e4}"),
            (b"\x1b[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(shown(name), text);
        }
    }

    #[test]
    fn a_name_below_a_file_is_found_whatever_sorts_between_them() {
        let names = ["a", "a-", "a.b", "a0", "b/c", "b/c/d", "b/cd/e"];
        let names: BTreeMap<Vec<u8>, ()> = names.map(|name| (name.into(), ())).into();
        let found = |file: &'static str| below_no_folder([file.as_bytes()].into_iter(), &names);
        assert_eq!(found("b"), Some((&b"b/c"[..], &b"b"[..])));
        assert_eq!(found("b/c"), Some((&b"b/c/d"[..], &b"b/c"[..])));
        for file in ["a", "a.b", "b/c/d", "b/cd/e", "c"] {
            assert_eq!(found(file), None, "{file}");
        }
        let names: BTreeMap<Vec<u8>, ()> =
            ["a", "a.b", "a/c", "a0"].map(|name| (name.into(), ())).into();
        let found = below_no_folder([&b"a"[..]].into_iter(), &names);
        assert_eq!(found, Some((&b"a/c"[..], &b"a"[..])));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let named = |path: &[u8]| Entry {
            path: path.to_vec(),
            kind: Kind::Directory,
            attributes: Attributes::default(),
        };
        for good in [&b"a"[..], b"a/b", b"..a/b..", b"a/...", b"\xff"] {
            named(good).check_path().unwrap();
        }
        let long = vec![b'a'; MAX_PATH_BYTES + 1];
        for bad in
            [&b""[..], b"/a", b"a/", b"a//b", b"..", b"a/../b", b"../a", b"a/.", b"a\0b", &long]
        {
            assert!(named(bad).check_path().is_err(), "{}", shown(bad));
        }
    }
}
