//! Which keys may be encrypted to.

use std::time::{Duration, SystemTime};

use backup_core::ErrorKind;

use super::gpg::Gpg;
use super::*;
use crate::{Authenticator, Certificate, Recipient, SecretKey, Signer};

/// Makes a key with the clock set back, valid for two years from then.
fn expired(gpg: &Gpg, name: &str) {
    gpg.run(
        &[
            "--faked-system-time",
            "20200101T000000",
            "--passphrase",
            "",
            "--quick-generate-key",
            name,
            "future-default",
            "default",
            "2y",
        ],
        b"",
    )
    .unwrap();
}

/// Revokes a key by the certificate that gpg made for it.
fn revoke(gpg: &Gpg, name: &str) {
    let file = format!("{}.rev", fingerprint(gpg, name));
    let certificate = std::fs::read_to_string(gpg.home().join("openpgp-revocs.d").join(file));
    let certificate = certificate.unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], certificate.as_bytes()).unwrap();
}

fn fingerprint(gpg: &Gpg, name: &str) -> String {
    let listed = gpg.run(&["--with-colons", "--list-keys", name], b"").unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let line = listed.lines().find(|line| line.starts_with("fpr")).unwrap();
    line.split(':').nth(9).unwrap().to_owned()
}

#[test]
fn a_public_key_file_is_read_in_every_shape() {
    let gpg = Gpg::new();
    gpg.generate("Rosa <rosa@example.org>", "default", "");
    gpg.generate("Ed", "future-default", "");
    let binary = gpg.run(&["--export"], b"").unwrap();
    let armored = gpg.run(&["--export", "--armor"], b"").unwrap();
    let joined = [gpg.public("Rosa"), b"\n".to_vec(), gpg.public("Ed")].concat();
    for file in [binary, armored, joined] {
        let recipients = Recipient::parse(&file).unwrap();
        let names: Vec<_> = recipients.iter().filter_map(Recipient::user_id).collect();
        assert_eq!(names, ["Rosa <rosa@example.org>", "Ed"]);
        assert_eq!(recipients[1].fingerprint(), fingerprint(&gpg, "Ed"));
        assert_eq!(recipients[0].expires(), None);
        assert_eq!(Signer::parse(&file).unwrap().len(), 2);
    }
    let ids = gpg.secret_key("Ed").key_ids();
    assert!(ids.contains(&gpg.recipient("Ed").key_id()), "{ids:?}");
    assert_eq!(gpg.secret_key("Ed").fingerprint(), fingerprint(&gpg, "Ed"));
}

#[test]
fn an_expiry_date_is_told() {
    let gpg = Gpg::new();
    let arguments = ["--passphrase", "", "--quick-generate-key", "Ed", "future-default"];
    gpg.run(&[&arguments[..], &["default", "30d"]].concat(), b"").unwrap();
    let left = gpg.recipient("Ed").expires().unwrap().duration_since(SystemTime::now()).unwrap();
    let days = Duration::from_hours(24);
    assert!(left > days * 29 && left <= days * 30, "{left:?}");
}

#[test]
fn a_key_that_may_not_be_used_is_refused_with_the_reason() {
    let gpg = Gpg::new();
    gpg.run(
        &["--passphrase", "", "--quick-generate-key", "Notary", "ed25519", "sign", "never"],
        b"",
    )
    .unwrap();
    gpg.generate("Lost", "future-default", "");
    revoke(&gpg, "Lost");
    for (name, reason) in [("Notary", "no key for encryption"), ("Lost", "is revoked")] {
        let error = Recipient::parse(&gpg.public(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains(reason), "{name}: {error}");
        assert!(error.message().contains(&fingerprint(&gpg, name)), "{name}: {error}");
        assert!(error.advice().is_some());
    }
}

#[test]
fn an_extended_expiry_date_counts() {
    let gpg = Gpg::new();
    expired(&gpg, "Old");
    let old = fingerprint(&gpg, "Old");
    assert!(gpg.recipient("Old").is_expired(SystemTime::now()));
    gpg.run(&["--passphrase", "", "--quick-set-expire", &old, "1y"], b"").unwrap();
    let recipient = gpg.recipient("Old");
    assert!(recipient.expires().unwrap() > SystemTime::now());
    let sealed = seal(&OpenPgp::new().with_recipient(recipient), b"data");
    assert_eq!(gpg.decrypt("", &sealed), b"data");
}

#[test]
fn what_is_encrypted_to_an_expired_or_later_revoked_key_opens() {
    let gpg = Gpg::new();
    expired(&gpg, "Old");
    let recipient = gpg.recipient("Old");
    assert!(recipient.is_expired(SystemTime::now()) && recipient.expires().is_some());
    let sealed = seal(&OpenPgp::new().with_recipient(recipient), b"data");
    // Both by gpg and here.
    assert_eq!(gpg.decrypt("", &sealed), b"data");
    let ours = OpenPgp::new().with_secret_key(gpg.secret_key("Old"));
    assert_eq!(open(&ours, &sealed).unwrap(), b"data");

    gpg.generate("Lost", "future-default", "");
    let sealed = seal(&OpenPgp::new().with_recipient(gpg.recipient("Lost")), b"data");
    revoke(&gpg, "Lost");
    let ours = OpenPgp::new().with_secret_key(gpg.secret_key("Lost"));
    assert_eq!(open(&ours, &sealed).unwrap(), b"data");
    assert_eq!(gpg.decrypt("", &sealed), b"data");
}

#[test]
fn a_revoked_certificate_is_told_beside_the_others() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    gpg.generate("Lost", "future-default", "");
    revoke(&gpg, "Lost");
    let all = Certificate::parse(&gpg.run(&["--export"], b"").unwrap()).unwrap();
    let told: Vec<String> = all
        .iter()
        .map(|one| match one {
            Certificate::Usable(recipient) => format!("good {}", recipient.fingerprint()),
            Certificate::Revoked { fingerprint } => format!("revoked {fingerprint}"),
        })
        .collect();
    let expected = [("good", "Ed"), ("revoked", "Lost")]
        .map(|(how, name)| format!("{how} {}", fingerprint(&gpg, name)));
    assert_eq!(told, expected);
}

#[test]
fn an_expired_key_still_signs_and_tells_since_when() {
    let gpg = Gpg::new();
    expired(&gpg, "Old");
    let key = gpg.secret_key("Old");
    assert!(key.signing_expires().unwrap().unwrap() < SystemTime::now());
    let signer = Signer::parse(&gpg.public("Old")).unwrap().remove(0);
    assert_eq!(signer.expires().unwrap(), key.signing_expires().unwrap());
    let signature = Authenticator::by_key(key.clone()).sign(b"manifest").unwrap();
    let known = Authenticator::new().trusting_signer(signer);
    assert_eq!(known.verify(b"manifest", &signature).unwrap_err().kind(), ErrorKind::Refused);
    // A later date makes good what was signed meanwhile.
    let old = fingerprint(&gpg, "Old");
    gpg.run(&["--passphrase", "", "--quick-set-expire", &old, "1y"], b"").unwrap();
    let extended = Signer::parse(&gpg.public("Old")).unwrap().remove(0);
    Authenticator::new().trusting_signer(extended).verify(b"manifest", &signature).unwrap();
    gpg.generate("Lost", "future-default", "");
    revoke(&gpg, "Lost");
    assert!(gpg.secret_key("Lost").signing_expires().is_err());
}

#[test]
fn a_new_subkey_takes_over_and_a_revoked_one_is_left() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let first = gpg.recipient("Ed").key_id();
    let ed = fingerprint(&gpg, "Ed");
    std::thread::sleep(Duration::from_millis(1100));
    gpg.run(&["--passphrase", "", "--quick-add-key", &ed, "cv25519", "encr", "never"], b"")
        .unwrap();
    let second = gpg.recipient("Ed").key_id();
    assert_ne!(first, second);
    let edit = format!("key {second}\nrevkey\ny\n0\n\ny\nsave\n");
    gpg.run(&["--command-fd", "0", "--passphrase", "", "--edit-key", &ed], edit.as_bytes())
        .unwrap();
    assert_eq!(gpg.recipient("Ed").key_id(), first);
}

#[test]
fn the_other_half_of_a_key_is_refused_with_the_command_for_the_right_one() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let error = Recipient::parse(&gpg.secret("Ed", "")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("--export "), "{error:?}");
    let error = SecretKey::parse(&gpg.public("Ed")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.advice().unwrap().contains("--export-secret-keys"), "{error:?}");
}

#[test]
fn a_file_without_a_key_is_a_usage_error() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let armored = gpg.public("Ed");
    let files: [&[u8]; 6] = [
        b"",
        b"no key\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
        &[0x99; 50],
        &[0; 10],
        &armored[..armored.len() / 2],
    ];
    for file in files {
        for error in [Recipient::parse(file).unwrap_err(), SecretKey::parse(file).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Usage, "{file:.20?}: {error:?}");
        }
    }
}

#[test]
fn a_tampered_certificate_is_not_used() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let binary = gpg.run(&["--export", "Ed"], b"").unwrap();
    for round in 0..rounds() * 5 {
        let mut random = StdRng::seed_from_u64(round);
        let (at, flipped) = flip(&binary, &mut random);
        let Ok(recipients) = Recipient::parse(&flipped) else { continue };
        // The flip was in something unsigned, such as the issuer hint: the key is the same.
        assert_eq!(recipients[0].key_id(), gpg.recipient("Ed").key_id(), "seed {round}, flip {at}");
    }
}
