//! Wrong keys and damaged messages: each an error that names the cause, none a panic.

use backup_core::ErrorKind;

use super::gpg::Gpg;
use super::*;

/// Messages of every kind, with what opens them.
fn messages(plain: &[u8]) -> Vec<(&'static str, OpenPgp, Vec<u8>)> {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let symmetric = |more: &[&str]| {
        let arguments =
            [&["--passphrase", "sesame", "--s2k-count", "65536", "--symmetric"], more].concat();
        gpg.run(&arguments, plain).unwrap()
    };
    let key = || OpenPgp::new().with_secret_key(gpg.secret_key("Ed"));
    let to_key = OpenPgp::new().with_recipient(gpg.recipient("Ed"));
    vec![
        ("ours by passphrase", with("sesame"), seal(&with("sesame").cheap(), plain)),
        ("ours to a key", key(), seal(&to_key, plain)),
        ("gpg -c", with("sesame"), symmetric(&[])),
        ("gpg -c -z 0", with("sesame"), symmetric(&["-z", "0"])),
        ("gpg -c --armor", with("sesame"), symmetric(&["--armor"])),
        ("gpg -c bzip2", with("sesame"), symmetric(&["--compress-algo", "bzip2"])),
        ("gpg -s -e", key(), gpg.run(&["-s", "-e", "-r", "Ed"], plain).unwrap()),
    ]
}

#[test]
fn a_cut_or_a_flipped_bit_is_an_error() {
    let plain = sample(1, 70_000);
    for (kind, openpgp, sealed) in messages(&plain) {
        assert!(open(&openpgp, &sealed).unwrap() == plain, "{kind}");
        for round in 0..rounds() {
            let seed = 0xBAD + round;
            let mut random = StdRng::seed_from_u64(seed);
            let at = random.gen_range(0..sealed.len());
            let error = open(&openpgp, &sealed[..at]).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Damaged,
                "{kind}, seed {seed}, cut {at}: {error:?}"
            );
            if !kind.contains("armor") {
                assert!(error.message().contains("cut off"), "{kind}, cut {at}: {error:?}");
            }
            let (at, flipped) = flip(&sealed, &mut random);
            match open(&openpgp, &flipped) {
                // Line ends and comments of the armor may change without changing the message.
                Ok(opened) => {
                    assert!(
                        kind.contains("armor") && opened == plain,
                        "{kind}, seed {seed}, flip {at}"
                    );
                }
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Damaged | ErrorKind::Unchecked | ErrorKind::Refused
                    ),
                    "{kind}, seed {seed}, flip {at}: {error:?}"
                ),
            }
        }
    }
}

#[test]
fn every_cut_near_the_end_and_every_late_flip_is_damage() {
    let plain = sample(2, 9_000);
    for (kind, openpgp, sealed) in messages(&plain) {
        if kind.contains("armor") {
            continue;
        }
        for back in (1..60).chain([1000, 4000]) {
            let error = open(&openpgp, &sealed[..sealed.len() - back]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{kind}, {back} missing: {error:?}");
            let mut flipped = sealed.clone();
            let at = flipped.len() - back;
            flipped[at] ^= 0x10;
            let error = open(&openpgp, &flipped).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{kind}, flip at -{back}: {error:?}");
            assert!(
                error.message().contains("integrity") || error.message().contains("cut off"),
                "{kind}, flip at -{back}: {error:?}"
            );
        }
    }
}

#[test]
fn anything_behind_the_message_is_an_error() {
    let plain = sample(3, 20_000);
    for (kind, openpgp, sealed) in messages(&plain) {
        // The second is a packet header without its length, the third a marker packet.
        let tails: [&[u8]; 6] =
            [b"x", b"\xd2", b"\xca\x03PGP", b"\0", b"more than one byte of rubbish", &sealed];
        for tail in tails {
            let error = open(&openpgp, &[&sealed[..], tail].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{kind} + {tail:.8?}: {error:?}");
            assert!(error.message().contains("follows the end"), "{kind} + {tail:.8?}: {error:?}");
        }
    }
}

#[test]
fn wrong_passphrases_are_named_as_such() {
    let gpg = Gpg::new();
    let cheap = ["--passphrase", "right", "--s2k-count", "65536", "--symmetric"];
    let theirs = gpg.run(&cheap, b"data").unwrap();
    for sealed in [seal(&with("right").cheap(), b"data"), theirs] {
        for n in 0..20 {
            let error = open(&with(&format!("wrong {n}")), &sealed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unchecked, "{error:?}");
            assert!(error.message().contains("the passphrase is wrong"), "{error}");
            assert!(!format!("{error:?}").contains("wrong 1"), "an error carries a secret");
        }
        let error = open(&OpenPgp::new(), &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked);
        assert!(error.message().contains("none is at hand"), "{error}");
        let many = (0..20).fold(OpenPgp::new(), |openpgp, n| {
            openpgp.with_old_passphrase(passphrase(&format!("wrong {n}")))
        });
        assert!(open(&many, &sealed).is_err());
        assert_eq!(open(&many.with_old_passphrase(passphrase("right")), &sealed).unwrap(), b"data");
    }
}

#[test]
fn a_missing_key_is_named() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    gpg.generate("Al", "future-default", "");
    let (ed, al) = (gpg.recipient("Ed"), gpg.recipient("Al"));
    let both = OpenPgp::new().with_recipient(ed.clone()).with_recipient(al.clone());
    let sealed = seal(&both, b"data");
    gpg.generate("Eve", "future-default", "");
    let eve = OpenPgp::new().with_secret_key(gpg.secret_key("Eve"));
    for stranger in [OpenPgp::new(), with("a passphrase"), eve] {
        let error = open(&stranger, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked);
        for recipient in [&ed, &al] {
            assert!(error.message().contains(&recipient.key_id()), "{error}");
        }
    }
    let hidden = gpg.run(&["-e", "-R", "Ed"], b"data").unwrap();
    let error = open(&OpenPgp::new(), &hidden).unwrap_err();
    assert!(error.message().contains("hidden recipient"), "{error}");
}

#[test]
fn what_is_no_encrypted_message_is_refused_by_name() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let stored = gpg.run(&["--store"], b"not a secret").unwrap();
    let signed = gpg.run(&["--sign"], b"not a secret").unwrap();
    for plain in [stored, signed] {
        let error = open(&with("x"), &plain).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.message().contains("is not encrypted"), "{error}");
    }
    let public = gpg.public("Ed");
    let others: [&[u8]; 5] =
        [b"PGDMP\x01\x0e\x00", b"-- SQL\n", &[0xff; 100], b"\x99\x01\x0d\x04", &public];
    for other in others {
        let error = open(&with("x"), other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{other:.9?}: {error:?}");
    }
    assert!(open(&with("x"), b"").unwrap_err().message().contains("cut off"));
}

#[test]
fn a_message_without_integrity_protection_is_refused() {
    let sealed = seal(&with("sesame"), b"data");
    // The session key packet, and behind it the data in the packet of the nineties.
    let session_key = &sealed[..2 + usize::from(sealed[1])];
    let unprotected = [session_key, b"\xc9\x20", &[7; 32]].concat();
    let error = open(&with("sesame"), &unprotected).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("no integrity protection"), "{error}");
}

#[test]
fn a_hostile_message_does_not_fill_the_memory() {
    // A session key packet of a megabyte, and a hundred thousand small packets.
    let long = [&b"\xc1\xff\x00\x10\x00\x00"[..], &[3; 1 << 20]].concat();
    let many = b"\xca\x03PGP".repeat(100_000);
    for (hostile, words) in [(long, "longer than any"), (many, "packets precede the data")] {
        let error = open(&with("sesame"), &hostile).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(error.message().contains(words), "{error}");
    }
}
