//! Reading a message at any place.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use backup_core::{ErrorKind, ReadAt};
use bytes::Bytes;
use pgp::composed::MessageBuilder;
use pgp::crypto::aead::{AeadAlgorithm, ChunkSize};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::types::StringToKey;
use rand::rngs::OsRng;

use super::gpg::Gpg;
use super::*;

/// Plain bytes of a message whose first chunk is just full.
const FIRST_CHUNK: usize = (1 << 20) - 6;

fn at(openpgp: &OpenPgp, sealed: &[u8]) -> Result<Option<Box<dyn ReadAt>>> {
    openpgp.decode_at(Box::new(Bytes::copy_from_slice(sealed)))
}

/// Notes what is asked for.
struct Asked {
    bytes: Bytes,
    ranges: Arc<Mutex<Vec<Range<u64>>>>,
}

impl ReadAt for Asked {
    fn length(&self) -> u64 {
        self.bytes.length()
    }

    fn read_at(&self, range: Range<u64>) -> Result<Vec<u8>> {
        self.ranges.lock().unwrap().push(range.clone());
        self.bytes.read_at(range)
    }
}

#[test]
fn every_range_is_what_decoding_gives() {
    let gpg = Gpg::new();
    gpg.generate("ours", "future-default", "");
    let to_key = OpenPgp::new().with_recipient(gpg.recipient("ours"));
    let with_key = OpenPgp::new().with_secret_key(gpg.secret_key("ours"));
    let both = with("open sesame").cheap().with_recipient(gpg.recipient("ours"));
    let phrase = with("open sesame").cheap();
    let mut random = StdRng::seed_from_u64(31);
    let edges = [0, 1, 150, 200, 8_500, FIRST_CHUNK - 1, FIRST_CHUNK, FIRST_CHUNK + 1];
    let later = [
        FIRST_CHUNK + (1 << 20) - 20,
        FIRST_CHUNK + (1 << 20),
        // Around where the last chunk of the encryption is empty, or the MDC is cut in two.
        FIRST_CHUNK + (1 << 20) - 54,
        FIRST_CHUNK + (1 << 20) - 40,
        3_500_000,
    ];
    let lengths =
        edges.into_iter().chain(later).chain((0..4).map(|_| random.gen_range(0..4 << 20)));
    for length in lengths.collect::<Vec<_>>() {
        let plain = sample(length as u64, length);
        for (sealing, opening) in [(&phrase, &phrase), (&to_key, &with_key), (&both, &with_key)] {
            let there = at(opening, &seal(sealing, &plain)).unwrap().unwrap();
            assert_eq!(there.length(), length as u64);
            for _ in 0..20 {
                let (a, b) = (random.gen_range(0..=length), random.gen_range(0..=length));
                let (a, b) = (a.min(b), a.max(b));
                let read = there.read_at(a as u64..b as u64).unwrap();
                assert!(read == plain[a..b], "{a}..{b} of {length}");
            }
            assert!(there.read_at(0..length as u64 + 1).is_err());
        }
    }
}

/// Where the chunks end is found for every length of the last one.
#[test]
fn every_length_around_the_end_of_a_chunk_is_found() {
    let phrase = with("open sesame").cheap();
    let plain = sample(32, (1 << 20) + 300);
    for length in (1 << 20) - 100..(1 << 20) + 300 {
        let there = at(&phrase, &seal(&phrase, &plain[..length])).unwrap();
        let there = there.unwrap_or_else(|| panic!("{length} bytes are not found"));
        assert_eq!(there.length(), length as u64);
        assert!(
            there.read_at(length as u64 - 9..length as u64).unwrap() == plain[length - 9..length]
        );
    }
}

#[test]
fn a_range_is_one_request_of_its_size() {
    let phrase = with("open sesame").cheap();
    let plain = sample(33, 10 << 20);
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let bytes = seal(&phrase, &plain).into();
    let asked = Asked { bytes, ranges: Arc::clone(&ranges) };
    let there = phrase.decode_at(Box::new(asked)).unwrap().unwrap();
    let opening: u64 = ranges.lock().unwrap().drain(..).map(|range| range.end - range.start).sum();
    assert!(opening < 70_000, "{opening} bytes to open it");
    assert!(there.read_at(3_000_000..6_000_000).unwrap() == plain[3_000_000..6_000_000]);
    let [only] = &ranges.lock().unwrap()[..] else { panic!("{ranges:?}") };
    let size = only.end - only.start;
    assert!((3_000_000..3_000_100).contains(&size), "{size}");
}

#[test]
fn what_is_not_laid_out_like_ours_is_left_to_decoding() {
    let gpg = Gpg::new();
    let phrase = with("open sesame");
    let plain = sample(34, 1_500_000);
    let symmetric = ["--passphrase", "open sesame", "--symmetric"];
    let others: [&[&str]; 4] = [&["-z", "0"], &["--armor"], &["--cipher-algo", "AES128"], &[]];
    for other in others {
        let sealed = gpg.run(&[other, &symmetric[..]].concat(), &plain).unwrap();
        assert!(at(&phrase, &sealed).unwrap().is_none(), "{other:?}");
        assert!(open(&phrase, &sealed).unwrap() == plain);
    }
    for other in [&b""[..], b"\xd2", b"PGDMP\x01\x0e", &[0xff; 100], &sample(35, 100_000)] {
        assert!(at(&phrase, other).unwrap().is_none());
    }
    // Cut, or with something behind: the places can't be counted.
    let sealed = seal(&phrase, &plain);
    for cut in [1, 30, 1000, 1_200_000, sealed.len() - 1] {
        assert!(at(&phrase, &sealed[..cut]).is_ok_and(|there| there.is_none()), "{cut}");
    }
    assert!(at(&phrase, &[&sealed[..], b"x"].concat()).unwrap().is_none());
}

/// Laid out as ours, but with another cipher, or in the newer format.
#[test]
fn other_ciphers_are_left_to_decoding() {
    let plain = sample(39, 1_500_000);
    let to_key = || StringToKey::new_iterated(OsRng, HashAlgorithm::Sha256, 0);
    for cipher in [SymmetricKeyAlgorithm::AES128, SymmetricKeyAlgorithm::AES256] {
        let mut message = MessageBuilder::from_reader("", &plain[..]).seipd_v1(OsRng, cipher);
        message.partial_chunk_size(1 << 20).unwrap();
        message.encrypt_with_password(to_key(), &"sesame".into()).unwrap();
        let there = at(&with("sesame"), &message.to_vec(OsRng).unwrap()).unwrap();
        assert_eq!(there.is_some(), cipher == SymmetricKeyAlgorithm::AES256, "{cipher:?}");
    }
    let (aead, size) = (AeadAlgorithm::Ocb, ChunkSize::default());
    let message = MessageBuilder::from_reader("", &plain[..]);
    let mut message = message.seipd_v2(OsRng, SymmetricKeyAlgorithm::AES256, aead, size);
    message.partial_chunk_size(1 << 20).unwrap();
    message.encrypt_with_password(OsRng, to_key(), &"sesame".into()).unwrap();
    assert!(at(&with("sesame"), &message.to_vec(OsRng).unwrap()).unwrap().is_none());
}

#[test]
fn a_missing_key_is_told() {
    let sealed = seal(&with("open sesame").cheap(), &sample(36, 1000));
    let Err(error) = at(&with("another"), &sealed) else { panic!("it opened") };
    assert_eq!(error.kind(), ErrorKind::Unchecked);
    assert!(error.message().contains("the passphrase is wrong"), "{error}");
}

/// A flipped bit changes what is read there, or is noticed; it never reaches further than the
/// block behind it, and nothing panics.
#[test]
fn a_flipped_bit_stays_where_it_is() {
    let phrase = with("open sesame").cheap();
    let plain = sample(37, 2_300_000);
    let sealed = seal(&phrase, &plain);
    let mut random = StdRng::seed_from_u64(38);
    for _ in 0..100 {
        let mut flipped = sealed.clone();
        let place = random.gen_range(0..sealed.len());
        flipped[place] ^= 1 << random.gen_range(0..8);
        let Ok(Some(there)) = at(&phrase, &flipped) else { continue };
        let wrong = (0..plain.len() / 1000).filter(|n| {
            let (start, end) = (n * 1000, (n + 1) * 1000);
            let read = there.read_at(start as u64..end as u64);
            read.map_or(true, |bytes| bytes != plain[start..end])
        });
        assert!(wrong.count() <= 2, "byte {place}");
    }
}
