//! gpg opens ours, and we open gpg's.

use pgp::composed::MessageBuilder;
use pgp::crypto::aead::{AeadAlgorithm, ChunkSize};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::types::StringToKey;
use rand::rngs::OsRng;

use super::gpg::Gpg;
use super::*;
use backup_core::ErrorKind;

use crate::{SecretKey, recognise};

/// Around the length of a chunk, where the framing changes.
const LENGTHS: [usize; 6] = [0, 1, 5000, 1024 * 1024 - 40, 1024 * 1024, 3_000_001];

#[test]
fn gpg_opens_what_a_passphrase_sealed() {
    let gpg = Gpg::new();
    for length in LENGTHS {
        let plain = sample(1, length);
        let sealed = seal(&with("open sesame"), &plain);
        assert_eq!(recognise(&sealed), Some("openpgp"));
        assert!(gpg.decrypt("open sesame", &sealed) == plain, "{length} bytes");
    }
    let listed = gpg
        .run(
            &["--passphrase", "open sesame", "--list-packets", "-v"],
            &seal(&with("open sesame"), b"x"),
        )
        .unwrap();
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.contains("cipher 9, aead 0,s2k 3, hash 8"), "{listed}");
    assert!(listed.contains("count 65011712"), "{listed}");
    assert!(listed.contains("mdc_method: 2"), "{listed}");
    assert!(!listed.contains("compressed"), "{listed}");
}

#[test]
fn gpg_opens_what_public_keys_sealed_each_alone() {
    let gpg = Gpg::new();
    gpg.generate("Rosa", "default", "");
    gpg.generate("Ed", "future-default", "");
    let (rosa, ed) = (gpg.recipient("Rosa"), gpg.recipient("Ed"));
    let plain = sample(2, 2_000_000);

    let all = with("sesame").with_recipient(rosa.clone()).with_recipient(ed.clone());
    let sealed = seal(&all, &plain);
    assert_eq!(recognise(&sealed), Some("openpgp"));
    // gpg takes the secret key without minding the passphrase it was given.
    assert!(gpg.decrypt("none", &sealed) == plain);
    assert!(Gpg::new().decrypt("sesame", &sealed) == plain);
    for (name, recipient) in [("Rosa", rosa), ("Ed", ed)] {
        let other = Gpg::new();
        other.run(&["--import"], &gpg.secret(name, "")).unwrap();
        assert!(other.decrypt("none", &sealed) == plain, "{name} of both");
        let alone = seal(&OpenPgp::new().with_recipient(recipient), &plain);
        assert!(other.decrypt("", &alone) == plain, "{name} alone");
        let ours = OpenPgp::new().with_secret_key(gpg.secret_key(name));
        assert!(open(&ours, &sealed).unwrap() == plain);
        assert!(open(&ours, &alone).unwrap() == plain);
    }
    assert!(open(&with("sesame"), &sealed).unwrap() == plain);
}

#[test]
fn we_open_what_gpg_sealed_with_a_passphrase() {
    let gpg = Gpg::new();
    let ways: [&[&str]; 10] = [
        &["--cipher-algo", "AES256"],
        &["--cipher-algo", "AES256", "-z", "0"],
        &["--cipher-algo", "AES256", "--compress-algo", "zlib"],
        &["--cipher-algo", "AES256", "--compress-algo", "zip"],
        &["--cipher-algo", "AES256", "--compress-algo", "bzip2"],
        &["--cipher-algo", "AES256", "--armor"],
        &["--cipher-algo", "AES256", "--armor", "-z", "0", "--comment", "from the old script"],
        &["--cipher-algo", "AES128"],
        &["--cipher-algo", "CAMELLIA256"],
        &["--cipher-algo", "3DES", "--s2k-mode", "1", "--s2k-digest-algo", "SHA1"],
    ];
    for way in ways {
        for length in [0, 5000, 2_000_000] {
            let plain = sample(3, length);
            let arguments = [&["--passphrase", "open sesame", "--symmetric"], way].concat();
            let sealed = gpg.run(&arguments, &plain).unwrap();
            assert_eq!(recognise(&sealed), Some("openpgp"), "{way:?}");
            assert!(open(&with("open sesame"), &sealed).unwrap() == plain, "{way:?} {length}");
        }
    }
    // Of a file gpg knows the length beforehand, and writes it in front.
    let file = gpg.home().join("dump");
    std::fs::write(&file, sample(4, 300_000)).unwrap();
    for more in [&[][..], &["-z", "0"]] {
        let arguments = ["--passphrase", "open sesame", "--symmetric", "--output", "-"];
        let arguments = [&arguments[..], more, &[file.to_str().unwrap()]].concat();
        let sealed = gpg.run(&arguments, b"").unwrap();
        assert!(open(&with("open sesame"), &sealed).unwrap() == sample(4, 300_000), "{more:?}");
    }
}

#[test]
fn we_open_what_gpg_sealed_to_keys() {
    let gpg = Gpg::new();
    gpg.generate("Rosa", "default", "");
    gpg.generate("Ed", "future-default", "");
    let keys = OpenPgp::new()
        .with_secret_key(gpg.secret_key("Rosa"))
        .with_secret_key(gpg.secret_key("Ed"));
    let ways: [&[&str]; 9] = [
        &["-e", "-r", "Rosa"],
        &["-e", "-r", "Ed"],
        &["-e", "-r", "Ed", "-r", "Rosa", "-z", "0"],
        &["-e", "-R", "Ed"],
        &["-e", "-R", "Rosa", "-R", "Ed"],
        &["-s", "-e", "-u", "Ed", "-r", "Rosa"],
        &["-s", "-e", "-u", "Rosa", "-u", "Ed", "-r", "Ed", "-z", "0"],
        &["-s", "-e", "-u", "Rosa", "-r", "Ed", "--armor", "--compress-algo", "bzip2"],
        &["-c", "-e", "-r", "Rosa", "--passphrase", "sesame"],
    ];
    for way in ways {
        let plain = sample(5, 1_500_000);
        let sealed = gpg.run(way, &plain).unwrap();
        assert_eq!(recognise(&sealed), Some("openpgp"), "{way:?}");
        assert!(open(&keys, &sealed).unwrap() == plain, "{way:?}");
    }
}

#[test]
fn a_locked_secret_key_opens_with_its_own_passphrase() {
    let gpg = Gpg::new();
    gpg.generate("Rosa", "default", "lock");
    gpg.generate("Ed", "future-default", "lock");
    let plain = sample(6, 10_000);
    for name in ["Rosa", "Ed"] {
        let sealed = seal(&OpenPgp::new().with_recipient(gpg.recipient(name)), &plain);
        let key = SecretKey::parse(&gpg.secret(name, "lock")).unwrap().remove(0);

        let locked = open(&OpenPgp::new().with_secret_key(key.clone()), &sealed).unwrap_err();
        assert_eq!(locked.kind(), ErrorKind::Unchecked);
        assert!(locked.message().contains("is locked"), "{locked}");
        assert!(locked.message().contains(&key.fingerprint()), "{locked}");

        let wrong = key.clone().unlocked_with(passphrase("wrong"));
        let error = open(&OpenPgp::new().with_secret_key(wrong.clone()), &sealed).unwrap_err();
        assert!(error.message().contains("is locked"), "{error}");

        let right = wrong.unlocked_with(passphrase("lock"));
        assert!(open(&OpenPgp::new().with_secret_key(right), &sealed).unwrap() == plain);
    }
}

#[test]
fn the_passphrase_of_a_file_is_the_one_that_gpg_takes() {
    let gpg = Gpg::new();
    let file = gpg.home().join("key");
    let contents: [&[u8]; 6] =
        [b"plain", b"line\n", b"first\nsecond\n", b" spaces \n", b"windows\r\n", b"\xc3\xa4\xff\n"];
    for content in contents {
        std::fs::write(&file, content).unwrap();
        let arguments = ["--passphrase-file", file.to_str().unwrap(), "--symmetric"];
        let theirs = gpg.run(&arguments, b"data").unwrap();
        let ours = OpenPgp::new().with_passphrase(Passphrase::from_file_bytes(content).unwrap());
        assert_eq!(open(&ours, &theirs).unwrap(), b"data", "{content:?}");
        let arguments = ["--passphrase-file", file.to_str().unwrap(), "--decrypt"];
        assert_eq!(gpg.run(&arguments, &seal(&ours, b"data")).unwrap(), b"data", "{content:?}");
    }
}

#[test]
fn the_newer_format_of_the_standard_opens_too() {
    let plain = sample(7, 500_000);
    let mut builder = MessageBuilder::from_reader("", &plain[..]).seipd_v2(
        OsRng,
        SymmetricKeyAlgorithm::AES256,
        AeadAlgorithm::Ocb,
        ChunkSize::default(),
    );
    let to_key = StringToKey::new_argon2(OsRng, 1, 4, 16);
    builder.encrypt_with_password(OsRng, to_key, &"sesame".into()).unwrap();
    let sealed = builder.to_vec(OsRng).unwrap();
    assert_eq!(recognise(&sealed), Some("openpgp"));
    assert!(open(&with("sesame"), &sealed).unwrap() == plain);
    assert_eq!(open(&with("other"), &sealed).unwrap_err().kind(), ErrorKind::Unchecked);
}
