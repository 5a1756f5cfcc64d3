//! The archive as stock tar sees it, at the ends of what a header holds.

use std::io::{Read, Write};
use std::process::Command;

use super::*;
use crate::archive::{Mtime, Visit, walk};

/// Keeps the first entry and ends the walk: what follows is too long to be read.
struct First(Option<Entry>);

impl Visit for First {
    fn entry(&mut self, entry: Entry, _number: u64, _data: &mut dyn Read) -> Result<()> {
        self.0 = Some(entry);
        Err(backup_core::Error::failed("test", "seen"))
    }

    fn hard_link(&mut self, _entry: Entry, _number: u64, _source: u64) -> Result<()> {
        unreachable!("no archive of this program has one")
    }
}

fn read_back(bytes: &[u8]) -> Entry {
    let mut first = First(None);
    walk(&mut &bytes[..], Dialect::Own, &mut first).unwrap_err();
    first.0.unwrap()
}

/// Everything that no header has room for.
fn extreme() -> Entry {
    let owner = |id, name: &str| Owner { id, name: Some(name.repeat(20)) };
    let xattrs = [(b"user.a=b%".to_vec(), b"line\nend\0".to_vec())].into();
    Entry {
        path: ["ü".repeat(100).as_bytes(), b"/\xff\n", "n".repeat(255).as_bytes()].concat(),
        kind: Kind::File { size: 9 << 30 },
        attributes: Attributes {
            mode: 0o6755,
            owner: owner(4_000_000_000, "öwner"),
            group: owner(4_000_000_001, "group"),
            mtime: Mtime { seconds: -5, nanos: 1 },
            xattrs,
            acl: Some("user::rw-,user:4000000002:r--,group::r--,mask::r--,other::---".to_owned()),
            default_acl: None,
        },
    }
}

#[test]
fn what_no_header_has_room_for_survives() {
    let entry = extreme();
    assert_eq!(read_back(&head(&entry).unwrap()), entry);
    let link = Entry {
        kind: Kind::Link { target: b"t/".repeat(300) },
        path: b"short".to_vec(),
        ..extreme()
    };
    assert_eq!(read_back(&head(&link).unwrap()), link);
    for length in [98, 99, 100, 101] {
        for kind in [Kind::Directory, Kind::File { size: 1 << 33 }] {
            let entry = Entry { path: vec![b'p'; length], kind, ..extreme() };
            assert_eq!(read_back(&head(&entry).unwrap()), entry, "{length}");
        }
    }
}

#[test]
fn stock_tar_reads_a_file_over_eight_gibibytes() {
    let place = Place::new();
    let entry = Entry { path: b"large".to_vec(), ..extreme() };
    let mut file = std::fs::File::create(place.path("a.tar")).unwrap();
    let before = head(&entry).unwrap();
    file.write_all(&before).unwrap();
    file.set_len(before.len() as u64 + entry.size() + END.len() as u64).unwrap();
    let listed = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(place.path("a.tar"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.status.success(), "{listed:?}");
    assert!(text.contains("-rwsr-sr-x 4000000000/4000000001 9663676416 "), "{text}");
}
