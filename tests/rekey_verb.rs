//! `rekey` as a user runs it: keys of every kind change hands, a wrong key touches nothing, and
//! SIGKILL at any moment leaves a whole backup.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::keys::{KeyFiles, Keyring, word};
use crate::support::{
    CLAIMS, Finished, PASSPHRASE, Scratch, cases, claims_server, finish_started, seed,
};

/// Rows of a database that takes a moment to encrypt anew.
const ROWS: u32 = 40_000;

/// What `[encryption]` says from now on.
fn encryption(scratch: &Scratch, lines: &str) {
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let (head, rest) = config.split_once("[encryption]\n").unwrap();
    let (_, jobs) = rest.split_once("[job.").unwrap();
    scratch.write("marb-backup.toml", &format!("{head}[encryption]\n{lines}\n[job.{jobs}"));
}

fn to_recipient(key: &KeyFiles, secrets: &[&KeyFiles]) -> String {
    let secrets: Vec<String> =
        secrets.iter().map(|key| format!("'{}'", word(&key.secret))).collect();
    format!(
        "recipients = ['{}']\nsecret_keys = [{}]\nsigning_key = '{}'\n",
        word(&key.public),
        secrets.join(", "),
        word(&key.secret)
    )
}

/// The only backup verifies under the keys of today, and is the same data.
async fn only_backup(scratch: &Scratch) -> (String, Finished) {
    let listed = scratch.listed().await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    let cat = scratch.run(&["cat", "latest", "globals.sql"]).await.expect(0);
    scratch.run(&["verify", "latest"]).await.expect(0);
    (listed[0].clone(), cat)
}

#[tokio::test]
async fn a_backup_goes_from_a_passphrase_to_a_key_to_another_key_and_back() {
    let server = claims_server(15, 200).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let (first, roles) = only_backup(&scratch).await;
    let keyring = Keyring::new(scratch.path("keys"));
    let (one, two) = (keyring.pair("one", "never", None), keyring.pair("two", "never", None));
    let old_key = word(&scratch.path("key"));

    encryption(&scratch, &to_recipient(&one, &[&one]));
    let before = scratch.stored_files();
    // Neither the old passphrase nor a wrong one is taken for damage, or touches anything.
    scratch.run(&["rekey", "--all"]).await.expect(8);
    scratch.write("wrong", "wrong\n");
    let wrong = word(&scratch.path("wrong"));
    let rekey = ["rekey", &first, "--old-passphrase-file"];
    scratch.run(&[&rekey[..], &[&wrong]].concat()).await.expect(8).explains("openpgp", "opened");
    let dry = ["rekey", "--all", "--dry-run", "--old-passphrase-file", &old_key];
    let planned = scratch.run(&dry).await.expect(0);
    assert!(planned.stdout.contains("would be encrypted anew"), "{planned:?}");
    assert_eq!(scratch.stored_files(), before);

    let all = ["rekey", "--all", "--old-passphrase-file", &old_key, "--json"];
    let done = scratch.run(&all).await.expect(0).json();
    assert_eq!(done["backups"][0]["state"], "done", "{done}");
    let (second, same) = only_backup(&scratch).await;
    assert_eq!((second.as_str(), &same.stdout), (&*format!("{first}-2"), &roles.stdout));
    let again = scratch.run(&all).await.expect(0).json();
    assert_eq!(again["backups"][0]["state"], "current", "{again}");

    // A public key alone can't read back what it would write.
    encryption(&scratch, &to_recipient(&two, &[&one]));
    let before = scratch.stored_files();
    scratch
        .run(&["rekey", "--all"])
        .await
        .expect(8)
        .explains("rekey", "nothing could be read back");
    assert_eq!(scratch.stored_files(), before);
    encryption(
        &scratch,
        &(to_recipient(&two, &[&one, &two])
            + &format!("trusted_signers = ['{}']\n", word(&one.public))),
    );
    scratch.run(&["rekey", "latest"]).await.expect(0);
    let (_, same) = only_backup(&scratch).await;
    assert_eq!(same.stdout, roles.stdout);
    encryption(&scratch, &to_recipient(&two, &[&two]));
    only_backup(&scratch).await;

    encryption(
        &scratch,
        &format!(
            "passphrase = {{ file = '{old_key}' }}\nsecret_keys = ['{}']\ntrusted_signers = ['{}']\n",
            word(&two.secret),
            word(&two.public)
        ),
    );
    scratch.run(&["rekey", "--all"]).await.expect(0);
    encryption(&scratch, &format!("passphrase = {{ file = '{old_key}' }}"));
    let (_, same) = only_backup(&scratch).await;
    assert_eq!(same.stdout, roles.stdout);
}

#[tokio::test]
async fn a_forged_backup_does_not_become_a_real_one() {
    let server = claims_server(15, 50).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let manifest = scratch.backup_folder().await.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"kind\": \"logical\"", "\"kind\": \"Logical\""))
        .unwrap();
    scratch.write("new-key", "another passphrase\n");
    let (old, new) = (word(&scratch.path("key")), word(&scratch.path("new-key")));
    encryption(&scratch, &format!("passphrase = {{ file = '{new}' }}"));
    let before = scratch.stored_files();
    scratch.run(&["rekey", "latest", "--old-passphrase-file", &old]).await.expect(6);
    assert_eq!(scratch.stored_files(), before);
}

/// Whether the backup is whole under the passphrase in this file.
async fn is_whole(scratch: &Scratch, id: &str, key: &str) -> bool {
    scratch.run(&["verify", id, "--passphrase-file", key]).await.code == 0
}

#[tokio::test]
async fn sigkill_at_any_moment_leaves_a_whole_backup_and_the_next_run_finishes() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    scratch.run(&["backup"]).await.expect(0);
    let mut random = StdRng::seed_from_u64(seed());
    let mut passphrases = [PASSPHRASE.to_owned(), "the other passphrase".to_owned()];
    let mut usual = Duration::from_millis(1500);
    let mut struck = 0;
    for case in 0..cases(4, 60) {
        scratch.write("old", &format!("{}\n", passphrases[0]));
        scratch.write("key", &format!("{}\n", passphrases[1]));
        let (old, new) = (word(&scratch.path("old")), word(&scratch.path("key")));
        let arguments = ["rekey", "--all", "--old-passphrase-file", &old];
        let after = usual.mul_f64(random.gen_range(0.05..1.0));
        let child = scratch.start(&arguments);
        let id = Pid::from_raw(child.id().unwrap().try_into().unwrap());
        tokio::time::sleep(after).await;
        // Not waited for yet, so the id is still this process's.
        kill(id, Signal::SIGKILL).unwrap();
        let killed = finish_started(child).await;
        struck += usize::from(killed.code == 137);
        let listed = scratch.listed().await;
        assert!(!listed.is_empty(), "case {case}, after {after:?}: nothing is listed");
        for id in &listed {
            let whole = is_whole(&scratch, id, &old).await || is_whole(&scratch, id, &new).await;
            assert!(whole, "case {case}, after {after:?}: {id} is listed and not whole");
        }
        let started = Instant::now();
        scratch.run(&arguments).await.expect(0);
        if listed.len() == 1 && killed.code == 137 {
            usual = started.elapsed();
        }
        only_backup(&scratch).await;
        passphrases.swap(0, 1);
    }
    assert!(struck > 0, "no run was killed before its end");
}
