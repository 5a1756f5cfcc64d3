//! What the digests show, and what they don't.

use super::*;

const KEY: RowKey = RowKey([1, 2, 3, u64::MAX]);

fn digest_of(rows: &[&str], piece: usize) -> String {
    let mut text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    text.push_str("\\.\n\n\n");
    let mut digest = RowDigest::new(&KEY);
    let lines: u64 = text.as_bytes().chunks(piece).map(|piece| digest.take(piece)).sum();
    assert_eq!(lines, rows.len() as u64 + 3);
    digest.finish(3).to_hex()
}

#[test]
fn neither_the_order_nor_the_pieces_matter() {
    let long = "x".repeat(100_000);
    let rows = ["1\ta", "2\t\\N", "", &long, "", "3\tb\\nc"];
    let whole = digest_of(&rows, usize::MAX);
    for piece in [1, 2, 7, 31, 32, 33, 4096] {
        assert_eq!(digest_of(&rows, piece), whole, "in pieces of {piece}");
    }
    let mut swapped = rows;
    swapped.reverse();
    swapped.swap(0, 3);
    assert_eq!(digest_of(&swapped, 5), whole);
}

#[test]
fn no_rows_are_zero_and_one_row_is_its_hash() {
    assert_eq!(digest_of(&[], 3), "0".repeat(64));
    let mut hasher = HighwayHasher::new(Key(KEY.0));
    hasher.append(b"1\ta");
    let mut sum = HashSum::default();
    sum.add(hasher.finalize256());
    assert_eq!(digest_of(&["1\ta"], 2), sum.to_hex());
}

#[test]
fn a_changed_a_moved_and_a_doubled_row_show() {
    let rows = digest_of(&["1\ta", "2\tb"], 9);
    // As many rows and bytes each time.
    for others in [["1\ta", "2\tc"], ["1\tb", "2\ta"], ["1\ta", "1\ta"], ["1\t", "a2\tb"]] {
        assert_ne!(digest_of(&others, 9), rows, "{others:?}");
    }
    // What XOR would lose: a pair of equal rows for another pair.
    assert_ne!(digest_of(&["9", "1", "1"], 9), digest_of(&["9", "2", "2"], 9));
    assert_ne!(digest_of(&["9", "1", "1"], 9), digest_of(&["9"], 9));
    assert_ne!(digest_of(&[""], 9), digest_of(&["", ""], 9));
}

#[test]
fn the_sum_wraps_and_comes_back() {
    let mut sum = HashSum([u64::MAX; 4]);
    sum.add([1, 0, 0, 0]);
    assert_eq!(sum, HashSum::default());
    let hashes = [[7, u64::MAX, 0, 5], [u64::MAX; 4], [0, 0, 0, 1 << 63]];
    for hash in hashes {
        sum.add(hash);
    }
    for hash in hashes {
        sum.subtract(hash);
    }
    assert_eq!(sum, HashSum::default());
    sum.add([1, 2, 3, 0xff << 56]);
    assert!(sum.to_hex().starts_with("ff00000000000000") && sum.to_hex().ends_with("0001"));
}

#[test]
fn the_key_decides_survives_and_is_not_shown() {
    let (a, b) = (RowKey::random(), RowKey::random());
    assert_ne!(a.0, b.0);
    let of = |key: &RowKey| {
        let mut digest = RowDigest::new(key);
        digest.take(b"row\n\\.\n\n\n");
        digest.finish(3).to_hex()
    };
    assert_ne!(of(&a), of(&b));
    let mut inventory = Inventory {
        row_digests: Some(backup_core::RowDigests {
            algorithm: ALGORITHM.to_owned(),
            key: a.to_hex(),
            settings: Default::default(),
        }),
        ..Inventory::default()
    };
    assert_eq!(of(&RowKey::of(&inventory).unwrap().unwrap()), of(&a));
    assert!(!format!("{a:?} {inventory:?}").contains(&a.to_hex()[..8]));
    assert!(RowKey::of(&Inventory::default()).unwrap().is_none());
    let spoil = |inventory: &mut Inventory, key: &str, algorithm: &str| {
        let digests = inventory.row_digests.as_mut().unwrap();
        (digests.key, digests.algorithm) = (key.to_owned(), algorithm.to_owned());
        RowKey::of(inventory).unwrap_err().kind()
    };
    use backup_core::ErrorKind;
    assert_eq!(spoil(&mut inventory, "00ff", ALGORITHM), ErrorKind::Damaged);
    assert_eq!(spoil(&mut inventory, &a.to_hex(), "md7"), ErrorKind::Unchecked);
}

/// The hash is what its name says: the first vector of the reference implementation.
#[test]
fn the_hash_is_highwayhash() {
    let key = Key([0x0706050403020100, 0x0F0E0D0C0B0A0908, 0x1716151413121110, 0x1F1E1D1C1B1A1918]);
    let hash = HighwayHasher::new(key).hash256(b"");
    assert_eq!(hash[0], 0xDD44482AC2C874F5);
}
