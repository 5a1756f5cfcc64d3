//! The recovery kit: says what one needs, and no secret, wherever one was planted.

use crate::support::keys::{Keyring, word};
use crate::support::{CLAIMS, Scratch, claims_server, finish};

/// What all secrets here have in common.
const PLANTED: &str = "planted-kit-";

#[tokio::test]
async fn the_kit_says_all_that_is_needed_and_no_secret() {
    let server = claims_server(15, 50).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let keyring = Keyring::new(scratch.path("keys"));
    let key = keyring.pair("ops", "never", None);
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let passphrase = format!("passphrase = {{ file = '{}' }}", word(&scratch.path("key")));
    let planted = config
        .replace(
            &passphrase,
            &format!(
                "passphrase = '{PLANTED}passphrase'\nrecipients = ['{}']\nsecret_keys = ['{}']\n\
                 secret_key_passphrase = '{PLANTED}key-passphrase'",
                word(&key.public),
                word(&key.secret)
            ),
        )
        .replace(
            "[encryption]",
            &format!(
                "[storage.offsite]\nurl = 's3://bucket/{PLANTED}env-file'\n\
                 options = {{ region = 'mars-1', endpoint = 'http://127.0.0.1:1' }}\n\
                 secrets = {{ access_key_id = {{ env = 'OFFSITE_ID' }}, secret_access_key = '{PLANTED}secret-key' }}\n\
                 request_timeout = '1s'\nretry_deadline = '1s'\n[encryption]\n# {PLANTED}comment"
            ),
        );
    let restore = format!(
        "[restore]\nstart = [['curl', '-H', 'Authorization: Bearer {PLANTED}bearer', 'http://me:{PLANTED}login@h/']]\n\
         health = {{ url = 'http://localhost:8000/health?token={PLANTED}token' }}\n\
         admin_url = 'postgresql://root:{PLANTED}admin@db/postgres'\n"
    );
    scratch.write(".env", &format!("OFFSITE_ID={PLANTED}env-file\nOTHER={PLANTED}other\n"));
    let all = format!("env_file = '{}'\n{planted}{restore}", word(&scratch.path(".env")));
    scratch.write("marb-backup.toml", &all);
    let made = scratch.run(&["backup", "--json"]).await.expect(0).json();
    let id = made["backups"][0]["manifest"]["id"].as_str().unwrap().to_owned();

    let kit = scratch.path("kit");
    let mut command = scratch.command(&["recovery-kit", "--out", &word(&kit)]);
    // A storage that is down is told, and no reason not to write the kit.
    command.arg("-vv");
    let run = finish(command).await.expect(3);
    let page = std::fs::read_to_string(kit.join("recovery-kit.md")).unwrap();
    let config = std::fs::read_to_string(kit.join("recovery-config.toml")).unwrap();
    for text in [&page, &config, &run.stdout, &run.stderr] {
        assert!(!text.contains(PLANTED), "{text}");
    }
    let printed = scratch.run(&["recovery-kit"]).await.expect(3).stdout;
    let json = scratch.run(&["recovery-kit", "--json"]).await.expect(3).stdout;
    assert!(!printed.contains(PLANTED) && !json.contains(PLANTED));
    assert!(printed.contains("## 4. On a new machine"));

    for needed in [
        id.as_str(),
        &key.fingerprint,
        "the passphrase",
        "mars-1",
        "OFFSITE_ID",
        "MARB_BACKUP_OFFSITE_SECRET_ACCESS_KEY",
        "TEST_DATABASE_URL",
        "postgresql-client-15",
        "marb-backup recover --config recovery-config.toml",
        "pg_restore --create",
        "sha256sum -c SHA256SUMS",
        "storage offsite",
        &word(&scratch.path("backups")),
    ] {
        assert!(page.contains(needed), "{needed} is not in the kit:\n{page}");
    }
    // What was written can be used: the configuration alone finds the backup and opens it.
    scratch.write("marb-backup.toml", &config);
    std::fs::write(scratch.path("key"), format!("{PLANTED}passphrase\n")).unwrap();
    let mut command = scratch.command(&["cat", "latest", "globals.sql"]);
    command.env("MARB_BACKUP_PASSPHRASE", format!("{PLANTED}passphrase"));
    command
        .env("MARB_BACKUP_KEY_PASSPHRASE", "x")
        .env("MARB_BACKUP_OFFSITE_SECRET_ACCESS_KEY", "x");
    // Only that the newest may be in the storage which is down keeps it from reading.
    finish(command).await.expect(8).explains("catalog", "so a newer backup may exist");
    let mut command = scratch.command(&["cat", &id, "globals.sql"]);
    command.env("MARB_BACKUP_PASSPHRASE", format!("{PLANTED}passphrase"));
    command
        .env("MARB_BACKUP_KEY_PASSPHRASE", "x")
        .env("MARB_BACKUP_OFFSITE_SECRET_ACCESS_KEY", "x");
    assert!(finish(command).await.expect(0).stdout.contains("ROLE"));
}
