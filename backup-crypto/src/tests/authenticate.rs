//! Manifests: authentic, forged, and impossible to tell.

use backup_core::ErrorKind;

use super::gpg::Gpg;
use super::*;
use crate::{Authentic, Authenticator, SecretKey, Signer};

const MANIFEST: &[u8] = b"{\n  \"format\": 1,\n  \"id\": \"20261122T020000Z\"\n}\n";

#[test]
fn a_passphrase_vouches_for_exactly_these_bytes() {
    let authenticator = Authenticator::by_passphrase(passphrase("sesame"));
    let signature = authenticator.sign(MANIFEST).unwrap();
    assert_eq!(authenticator.verify(MANIFEST, &signature).unwrap(), Authentic::ByPassphrase);
    assert_ne!(signature, authenticator.sign(MANIFEST).unwrap(), "the salt is random");

    for round in 0..rounds() {
        let mut random = StdRng::seed_from_u64(round);
        let (at, forged) = flip(MANIFEST, &mut random);
        let error = authenticator.verify(&forged, &signature).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "flip at {at}: {error:?}");
    }
    for forged in [&MANIFEST[1..], &MANIFEST[..MANIFEST.len() - 1], b""] {
        assert_eq!(
            authenticator.verify(forged, &signature).unwrap_err().kind(),
            ErrorKind::Refused
        );
    }
    let other = Authenticator::by_passphrase(passphrase("other"));
    assert_eq!(other.verify(MANIFEST, &signature).unwrap_err().kind(), ErrorKind::Refused);
    let knows_both = other.trusting_passphrase(passphrase("sesame"));
    assert_eq!(knows_both.verify(MANIFEST, &signature).unwrap(), Authentic::ByPassphrase);
    let error = Authenticator::new().verify(MANIFEST, &signature).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked);
}

#[test]
fn the_document_says_how_it_was_made_and_holds_no_secret() {
    let signature = Authenticator::by_passphrase(passphrase("sesame")).sign(MANIFEST).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&signature).unwrap();
    assert_eq!(document["format"], 1);
    assert_eq!(document["method"], "hmac-sha256-argon2id");
    assert_eq!(document["memory_kib"], 19456);
    assert_eq!((&document["passes"], &document["lanes"]), (&2.into(), &1.into()));
    assert_eq!(document["salt"].as_str().unwrap().len(), 32);
    assert!(!String::from_utf8(signature).unwrap().contains("sesame"));
}

#[test]
fn a_document_that_argon2_and_openssl_agree_with_is_accepted() {
    // The mac was computed with the recipe of docs/decisions/manifest-authentication.md too.
    let document = br#"{"format": 1, "method": "hmac-sha256-argon2id",
        "memory_kib": 19456, "passes": 2, "lanes": 1,
        "salt": "bc76e3286b92b6ef8667aace30c5f489",
        "mac": "d95dc969d3283153064abc2a1c00bd5902e1c85537ec3f73b8b5eea76d9119f0"}"#;
    let authenticator = Authenticator::by_passphrase(passphrase("sesame"));
    let authentic = authenticator.verify(b"{\"format\": 1}\n", document).unwrap();
    assert_eq!(authentic, Authentic::ByPassphrase);
}

#[test]
fn a_malformed_or_foreign_document_is_told_apart() {
    let authenticator = Authenticator::by_passphrase(passphrase("sesame"));
    let text = String::from_utf8(authenticator.sign(MANIFEST).unwrap()).unwrap();
    let refused = [
        ("19456", "8"),
        ("19456", "4294967295"),
        ("\"passes\": 2", "\"passes\": 1"),
        ("\"passes\": 2", "\"passes\": 4000000000"),
        ("\"lanes\": 1", "\"lanes\": 0"),
        ("\"salt\": \"", "\"salt\": \"zz"),
        ("\"mac\": \"", "\"mac\": \"0"),
        ("\"mac\": \"", "\"mac\": \"00"),
        ("\"mac\"", "\"tag\""),
        ("}", ""),
    ];
    for (from, to) in refused {
        assert!(text.contains(from), "{from}");
        let error = authenticator.verify(MANIFEST, text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{from} -> {to}: {error:?}");
    }
    let formats = [("\"format\": 1", "\"format\": 2"), ("\"format\": 1", "\"format\": 0")];
    for (from, to) in formats.into_iter().chain([("hmac-sha256-argon2id", "sphincs")]) {
        let error = authenticator.verify(MANIFEST, text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unchecked, "{from} -> {to}: {error:?}");
    }
    for rubbish in [&b""[..], b"rubbish", &[0x88; 300], &[b' '; 100_000]] {
        let error = authenticator.verify(MANIFEST, rubbish).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    }
}

#[test]
fn gpg_verifies_ours_and_we_verify_gpgs() {
    let gpg = Gpg::new();
    gpg.generate("Rosa", "default", "");
    gpg.generate("Ed", "future-default", "lock");
    let manifest = gpg.home().join("manifest.json");
    let signature = gpg.home().join("manifest.json.sig");
    std::fs::write(&manifest, MANIFEST).unwrap();
    for (name, lock) in [("Rosa", ""), ("Ed", "lock")] {
        let key = SecretKey::parse(&gpg.secret(name, lock)).unwrap().remove(0);
        let key = key.unlocked_with(passphrase("wrong")).unlocked_with(passphrase("lock"));
        let authenticator = Authenticator::by_key(key.clone());
        let ours = authenticator.sign(MANIFEST).unwrap();
        std::fs::write(&signature, &ours).unwrap();
        let paths = [signature.to_str().unwrap(), manifest.to_str().unwrap()];
        gpg.run(&["--verify", paths[0], paths[1]], b"").unwrap();

        let by_signer = Authentic::BySigner { fingerprint: key.fingerprint() };
        let public = Authenticator::new()
            .trusting_signer(Signer::parse(&gpg.public(name)).unwrap().remove(0));
        for shape in [&["--armor"][..], &[]] {
            let arguments = ["--passphrase", lock, "-u", name, "--detach-sign"];
            let theirs = gpg.run(&[&arguments[..], shape].concat(), MANIFEST).unwrap();
            for signature in [&ours, &theirs] {
                assert_eq!(public.verify(MANIFEST, signature).unwrap(), by_signer);
                assert_eq!(authenticator.verify(MANIFEST, signature).unwrap(), by_signer);
                let error = public.verify(&MANIFEST[1..], signature).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
            }
        }
    }
}

#[test]
fn a_stranger_proves_nothing() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    gpg.generate("Eve", "future-default", "");
    let by_eve = Authenticator::by_key(gpg.secret_key("Eve")).sign(MANIFEST).unwrap();
    let trusts_ed = Authenticator::by_passphrase(passphrase("sesame"))
        .trusting_signer(Signer::parse(&gpg.public("Ed")).unwrap().remove(0));
    let error = trusts_ed.verify(MANIFEST, &by_eve).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unchecked);
    assert!(error.message().contains(&gpg.secret_key("Eve").key_ids()[0]), "{error}");
}

#[test]
fn a_flipped_bit_in_a_signature_never_passes_for_another_signer() {
    let gpg = Gpg::new();
    gpg.generate("Ed", "future-default", "");
    let authenticator = Authenticator::by_key(gpg.secret_key("Ed"));
    let signature = gpg.run(&["--detach-sign"], MANIFEST).unwrap();
    let by_ed = authenticator.verify(MANIFEST, &signature).unwrap();
    for round in 0..rounds() * 5 {
        let mut random = StdRng::seed_from_u64(round);
        let (at, flipped) = flip(&signature, &mut random);
        match authenticator.verify(MANIFEST, &flipped) {
            Ok(authentic) => assert_eq!(authentic, by_ed, "flip at {at}"),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unchecked),
                "seed {round}, flip at {at}: {error:?}"
            ),
        }
    }
}

#[test]
fn old_signatures_outlive_the_key_but_not_its_revocation_or_weak_hashes() {
    let gpg = Gpg::new();
    let then = ["--faked-system-time", "20200101T000000", "--passphrase", ""];
    let make = ["--quick-generate-key", "Old", "rsa2048", "sign", "2y"];
    gpg.run(&[&then[..], &make].concat(), b"").unwrap();
    let sign = |more: &[&str]| gpg.run(&[more, &["-u", "Old", "--detach-sign"]].concat(), MANIFEST);
    let old = sign(&then).unwrap();
    let signer = |gpg: &Gpg| {
        Authenticator::new().trusting_signer(Signer::parse(&gpg.public("Old")).unwrap().remove(0))
    };
    assert!(signer(&gpg).verify(MANIFEST, &old).is_ok(), "made while the key was valid");

    let weak = sign(&[&then[..], &["--digest-algo", "SHA1"]].concat()).unwrap();
    let error = signer(&gpg).verify(MANIFEST, &weak).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("hash"), "{error}");

    let late = Authenticator::by_key(gpg.secret_key("Old")).sign(MANIFEST).unwrap();
    let error = signer(&gpg).verify(MANIFEST, &late).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "made when it had expired");

    let revocations = std::fs::read_dir(gpg.home().join("openpgp-revocs.d")).unwrap();
    let revocation = revocations.map(|entry| entry.unwrap().path()).next().unwrap();
    let revocation =
        std::fs::read_to_string(revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], revocation.as_bytes()).unwrap();
    let error = signer(&gpg).verify(MANIFEST, &old).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(Authenticator::new().sign(MANIFEST).unwrap_err().kind(), ErrorKind::Usage);
}
