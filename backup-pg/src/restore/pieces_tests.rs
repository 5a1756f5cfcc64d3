//! Everything is in the pieces once, and rows stay together.

use super::*;
use crate::ArchiveReader;

const ARCHIVES: [&[u8]; 2] = [
    include_bytes!("../archive/fixtures/pg15-none.dump"),
    include_bytes!("../archive/fixtures/pg18-none.dump"),
];

fn toc_of(archive: &[u8]) -> Toc {
    let mut reader = ArchiveReader::new();
    reader.feed(archive).unwrap();
    reader.toc().unwrap().clone()
}

/// Pieces of `archive`, which comes in chunks of so many bytes.
fn cut(archive: &[u8], restored: &Toc, chunk_bytes: usize, piece_bytes: usize) -> Vec<Piece> {
    let mut reader = ArchiveReader::new();
    let mut cutter = Cutter::with_size(restored, piece_bytes);
    let mut pieces = Vec::new();
    for (i, chunk) in archive.chunks(chunk_bytes).enumerate() {
        let offset = (i * chunk_bytes) as u64;
        reader.feed(chunk).unwrap();
        let start = restored.end;
        let data = chunk.get(start.saturating_sub(offset) as usize..).unwrap_or_default();
        if !data.is_empty() {
            pieces.extend(cutter.take(data, offset.max(start), reader.blocks()));
        }
    }
    pieces
}

/// The blocks that pieces become when all go to one session.
fn blocks_of(pieces: &[Piece]) -> Vec<u8> {
    let (mut blocks, mut open) = (BytesMut::new(), None);
    for piece in pieces {
        if open != Some(piece.dump_id) {
            assert_eq!(open, None, "the block before has its last piece");
            blocks.put_u8(piece.kind);
            put_int(&mut blocks, piece.dump_id as u64, 4);
        }
        blocks.put_slice(&piece.chunks);
        open = Some(piece.dump_id).filter(|_| !piece.last);
        if piece.last {
            put_int(&mut blocks, 0, 4);
        }
    }
    assert_eq!(open, None);
    blocks.to_vec()
}

/// The content of every block behind the head: of tables as it is, of large objects each behind its
/// number, without the zero that ends them.
fn contents(blocks: &[u8]) -> BTreeMap<i64, Vec<u8>> {
    let int = |at: usize| value_of(&blocks[at..at + 5]);
    let mut all = BTreeMap::<i64, Vec<u8>>::new();
    let mut at = 0;
    // pg_dump 18 writes its table of contents once more behind them.
    while matches!(blocks.get(at), Some(&TABLE_BLOCK | &LARGE_OBJECTS_BLOCK)) {
        let large_objects = blocks[at] == LARGE_OBJECTS_BLOCK;
        let content = all.entry(int(at + 1) as i64).or_default();
        at += 6;
        loop {
            if large_objects {
                let oid = int(at);
                at += 5;
                if oid == 0 {
                    break;
                }
                content.extend(oid.to_le_bytes());
            }
            while int(at) > 0 {
                content.extend(&blocks[at + 5..at + 5 + int(at)]);
                at += 5 + int(at);
            }
            at += 5;
            if !large_objects {
                break;
            }
        }
    }
    all
}

#[test]
fn pieces_hold_everything_once() {
    for archive in ARCHIVES {
        let toc = toc_of(archive);
        let wanted = contents(&archive[toc.end as usize..]);
        for (chunk, size) in
            [(1, 1), (7, 40), (100, 90), (4096, 200), (1 << 20, 1000), (64, 1 << 30)]
        {
            let pieces = cut(archive, &toc, chunk, size);
            assert_eq!(contents(&blocks_of(&pieces)), wanted, "{chunk} {size}");
            assert_eq!(pieces.len() == wanted.len(), size == 1 << 30, "{chunk} {size}");
            assert!(pieces.iter().all(|piece| piece.chunks.len() < 2 * size + chunk + 100));
        }
    }
}

/// Whatever may go to another session is whole rows.
#[test]
fn rows_stay_together() {
    let archive = ARCHIVES[0];
    let toc = toc_of(archive);
    let mut seen = [false; 2];
    for (chunk, size) in [(1, 1), (7, 40), (100, 90), (4096, 30)] {
        let mut before = Vec::new();
        for piece in cut(archive, &toc, chunk, size) {
            seen[usize::from(piece.whole)] = true;
            if piece.kind == TABLE_BLOCK && piece.whole {
                let start = [&[TABLE_BLOCK, 0, 1, 0, 0, 0], &before[..]].concat();
                let content = contents(&[&start, &piece.chunks[..], &[0; 5]].concat());
                assert!(content[&1].ends_with(b"\n") || content[&1].is_empty(), "{content:?}");
            }
            before = if piece.whole { Vec::new() } else { [&before, &piece.chunks[..]].concat() };
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn only_what_is_wanted_is_in_them() {
    let archive = ARCHIVES[0];
    let mut toc = toc_of(archive);
    let all = contents(&archive[toc.end as usize..]);
    toc.entries.retain(|entry| !entry.has_data || entry.dump_id % 2 == 0);
    let found = contents(&blocks_of(&cut(archive, &toc, 50, 1 << 20)));
    assert!(!found.is_empty() && found.len() < all.len());
    let wanted: BTreeMap<_, _> = all.into_iter().filter(|(id, _)| id % 2 == 0).collect();
    assert_eq!(found, wanted);
}

#[test]
fn rows_end_before_the_mark_of_the_end() {
    let span = BlockSpan { dump_id: 1, large_objects: false, start: 0, end: None };
    let ends = |before: &str, content: &str| {
        let mut block = Block::new(&span, true);
        block.append(before.as_bytes(), 4);
        block.row_end(content.as_bytes())
    };
    assert_eq!(ends("", "1\ta\n2\tb\n"), Some(4));
    assert_eq!(ends("1\ta", "\n2"), Some(1));
    // The mark, whole and torn apart, and the empty lines behind it.
    assert_eq!(ends("1\n", "\\.\n\n\n"), None);
    assert_eq!(ends("1\n\\", ".\n\n\n"), None);
    assert_eq!(ends("1\n\\.", "\n\n\n"), None);
    assert_eq!(ends("\\.\n", "\n\n"), None);
    // A text that ends as the mark does is passed over, the next row is not.
    assert_eq!(ends("", "a\\\\.\nb.\n"), Some(8));
    assert_eq!(ends("", "no end"), None);
}
