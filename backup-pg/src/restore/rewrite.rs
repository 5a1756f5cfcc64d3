//! Puts other tablespaces into an archive's table of contents on its way to pg_restore.

use crate::archive::Toc;
use crate::database::TablespaceMap;

/// The head of an archive with renamed tablespaces. `head` starts at the archive's first byte
/// and reaches behind its table of contents at least.
///
/// The offsets of data blocks in it are off afterwards; nobody who reads from a pipe uses them.
pub(super) fn rename_tablespaces(head: Vec<u8>, toc: &Toc, map: &TablespaceMap) -> Vec<u8> {
    let renamed = |name: &str| map.renamed.get(name).filter(|new| *new != name);
    if map.ignore || !toc.entries.iter().any(|entry| renamed(&entry.tablespace).is_some()) {
        return head;
    }
    let mut out = Vec::with_capacity(head.len());
    let mut kept = 0;
    for entry in &toc.entries {
        let Some(new) = renamed(&entry.tablespace) else { continue };
        let (Ok(start), Ok(end)) = (
            usize::try_from(entry.tablespace_bytes.start),
            usize::try_from(entry.tablespace_bytes.end),
        ) else {
            continue;
        };
        out.extend_from_slice(head.get(kept..start).unwrap_or_default());
        let length = (new.len() as u64).to_le_bytes();
        out.push(0); // the sign of the length
        out.extend_from_slice(&length[..toc.header.int_bytes]);
        out.extend_from_slice(new.as_bytes());
        kept = end;
    }
    out.extend_from_slice(head.get(kept..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArchiveReader;

    #[test]
    fn only_the_tablespaces_named_change() {
        let archive = include_bytes!("../archive/fixtures/tablespace.dump").to_vec();
        let read = |bytes: &[u8]| {
            let mut reader = ArchiveReader::new();
            reader.feed(bytes).unwrap();
            reader.finish().unwrap()
        };
        let before = read(&archive);
        let map = TablespaceMap {
            ignore: false,
            renamed: [("fast ssd".to_owned(), "a much longer \"name\" 😀".to_owned())].into(),
        };
        let after = read(&rename_tablespaces(archive.clone(), before.toc(), &map));
        assert_eq!(after.inventory(), before.inventory());
        let mut renamed = 0;
        for (old, new) in before.toc().entries.iter().zip(&after.toc().entries) {
            if old.tablespace == "fast ssd" {
                assert_eq!(new.tablespace, "a much longer \"name\" 😀");
                renamed += 1;
            } else {
                assert_eq!((&old.tablespace, &old.defn), (&new.tablespace, &new.defn));
            }
        }
        assert!(renamed >= 2, "a table and its index");
        let nothing = TablespaceMap { ignore: true, ..map };
        assert_eq!(rename_tablespaces(archive.clone(), before.toc(), &nothing), archive);
    }
}
