//! Keys that are about to expire, have expired or were revoked: told by everything that uses
//! them, and a backup is made and opens.

use backup_testkit::postgres::PostgresServer;

use crate::support::keys::{KeyFiles, Keyring, word};
use crate::support::{CLAIMS, Scratch, claims_server};

struct Stage {
    _server: PostgresServer,
    scratch: Scratch,
    keyring: Keyring,
}

impl Stage {
    async fn new() -> Self {
        let server = claims_server(15, 50).await;
        let scratch = Scratch::of(&server, CLAIMS);
        let keyring = Keyring::new(scratch.path("keys"));
        Self { _server: server, scratch, keyring }
    }

    /// Encrypts to these keys from now on, and signs with this one.
    fn encrypt_to(&self, keys: &[&KeyFiles], signing: Option<&KeyFiles>) {
        let config = std::fs::read_to_string(self.scratch.path("marb-backup.toml")).unwrap();
        let (head, rest) = config.split_once("[encryption]\n").unwrap();
        let (_, jobs) = rest.split_once("[job.").unwrap();
        let files: Vec<String> =
            keys.iter().map(|key| format!("'{}'", word(&key.public))).collect();
        let signing = signing.map(|key| format!("signing_key = '{}'\n", word(&key.secret)));
        let encryption =
            format!("recipients = [{}]\n{}", files.join(", "), signing.unwrap_or_default());
        self.scratch
            .write("marb-backup.toml", &format!("{head}[encryption]\n{encryption}[job.{jobs}"));
    }

    /// Backs up, and hears of it what everybody else says, too.
    async fn backup_tells(&self, words: &[&str]) {
        let check = self.scratch.run(&["config", "check"]).await.expect(0);
        let doctor = self.scratch.run(&["doctor"]).await;
        let backup = self.scratch.run(&["backup"]).await.expect(0);
        for (who, said) in [
            ("config check", check.stderr),
            ("doctor", doctor.stdout + &doctor.stderr),
            ("backup", backup.stderr),
        ] {
            for word in words {
                assert!(said.contains(word), "{who} does not say {word:?}: {said}");
            }
        }
    }

    async fn notes(&self) -> String {
        let shown = self.scratch.run(&["show", "latest", "--json"]).await.expect(0).json();
        shown["manifest"]["notes"].to_string()
    }

    async fn opens_with(&self, key: &KeyFiles) {
        let secret = word(&key.secret);
        let cat =
            self.scratch.run(&["cat", "latest", "globals.sql", "--secret-key", &secret]).await;
        assert!(cat.expect(0).stdout.contains("ROLE"));
    }
}

#[tokio::test]
async fn a_key_that_soon_expires_is_told_and_one_that_did_still_encrypts() {
    let stage = Stage::new().await;
    let far = stage.keyring.pair("far", "2y", None);
    stage.encrypt_to(&[&far], Some(&far));
    let quiet = stage.scratch.run(&["backup"]).await.expect(0);
    assert!(!quiet.stderr.contains("expire"), "{}", quiet.stderr);
    assert_eq!(stage.notes().await, "null");

    let soon = stage.keyring.pair("soon", "10d", None);
    stage.encrypt_to(&[&soon], Some(&far));
    stage.backup_tells(&[&soon.fingerprint, "expires on", "in 9 days", "--quick-set-expire"]).await;
    assert_eq!(stage.notes().await, "null", "nothing is wrong with the backup");
    stage.opens_with(&soon).await;

    let old = stage.keyring.pair("old", "2y", Some("20200101T000000"));
    stage.encrypt_to(&[&old], Some(&old));
    stage.backup_tells(&[&old.fingerprint, "expired on 2021-12-31", "signing key"]).await;
    let notes = stage.notes().await;
    assert!(notes.contains(&old.fingerprint) && notes.contains("expired on"), "{notes}");
    stage.opens_with(&old).await;
}

#[tokio::test]
async fn nothing_is_encrypted_to_a_revoked_key() {
    let stage = Stage::new().await;
    let (lost, good) =
        (stage.keyring.pair("lost", "2y", None), stage.keyring.pair("good", "2y", None));
    stage.encrypt_to(&[&lost], Some(&good));
    stage.scratch.run(&["backup"]).await.expect(0);
    stage.keyring.revoke("lost", &lost);
    // What was encrypted to it before opens.
    stage.opens_with(&lost).await;

    stage.scratch.run(&["backup"]).await.expect(2).explains("encryption", &lost.fingerprint);
    assert_eq!(stage.scratch.listed().await.len(), 1);

    stage.encrypt_to(&[&lost, &good], Some(&good));
    stage.backup_tells(&[&lost.fingerprint, "is revoked"]).await;
    assert!(stage.notes().await.contains(&lost.fingerprint));
    stage.opens_with(&good).await;
    let secret = word(&lost.secret);
    let arguments = ["cat", "latest", "globals.sql", "--secret-key", &secret];
    stage.scratch.run(&arguments).await.expect(8);
}
