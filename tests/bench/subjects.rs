//! What is compared: the commands, each as an operator would write it.

use std::path::{Path, PathBuf};

use backup_testkit::postgres::PostgresServer;

use crate::{Outcome, Ratio};

/// The database that all of them dump.
pub const DATABASE: &str = "bench";

/// What is read off the figures.
pub const RATIOS: [Ratio; 4] = [
    ("(c) ours : (b) best stock pipe", 'c', 'b', "at most 1.00"),
    ("(a) old script : (c) ours", 'a', 'c', "at least 4.00"),
    ("(d) ours, no encryption : (f) stock pipe without", 'd', 'f', "-"),
    ("(d) ours, no encryption : (e) floor", 'd', 'e', "at most 1.25"),
];

/// One command to measure.
pub struct Subject {
    /// Its name in the tables.
    pub letter: char,
    /// What it is.
    pub what: &'static str,
    /// A bash script.
    pub script: String,
    /// Environment it needs.
    pub environment: Vec<(String, String)>,
    /// What it writes; removed before each run.
    pub output: PathBuf,
}

/// A passphrase's file, and a home for gpg.
pub fn prepare_key(folder: &Path) -> Outcome<PathBuf> {
    let key = folder.join("key");
    std::fs::write(&key, "a passphrase for the benchmark\n")?;
    let home = folder.join("gnupg");
    std::fs::create_dir(&home)?;
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(key)
}

/// What every command finds: the server, by libpq's variables and ours.
pub fn environment(server: &PostgresServer, folder: &Path) -> Outcome<Vec<(String, String)>> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    Ok(vec![
        pair("PGHOST", server.host().to_owned()),
        pair("PGPORT", server.port().to_string()),
        pair("PGUSER", backup_testkit::postgres::SUPERUSER.to_owned()),
        pair("PGPASSWORD", backup_testkit::postgres::PASSWORD.to_owned()),
        pair("PGDATABASE", DATABASE.to_owned()),
        pair("BENCH_URL", server.url(DATABASE)),
        pair("BENCH_RESTORED", server.url("restored")),
        pair("GNUPGHOME", folder.join("gnupg").display().to_string()),
        pair("XDG_STATE_HOME", folder.join("state").display().to_string()),
        pair("OUT", folder.join("out").display().to_string()),
    ])
}

/// The five of the issue, and the stock pipe without encryption.
pub fn subjects(server: &PostgresServer, tools: &Path, folder: &Path) -> Outcome<Vec<Subject>> {
    let key = prepare_key(folder)?;
    let program = std::env::var("MARB_BACKUP_PROGRAM")?;
    let output = folder.join("out");

    let gpg = format!(
        "gpg --batch --quiet --pinentry-mode loopback --passphrase-file {} --symmetric --cipher-algo AES256",
        key.display()
    );
    let dump = format!("{}/pg_dump -Fc", tools.display());
    let ours = format!("{program} backup --quiet --url env:BENCH_URL --to file://$OUT");
    let environment = environment(server, folder)?;
    let subject = |letter, what, script: String| Subject {
        letter,
        what,
        script,
        environment: environment.clone(),
        output: output.clone(),
    };
    Ok(vec![
        subject(
            'a',
            "old script: `pg_dump -Fc > f; gpg --symmetric f; gzip f.gpg`",
            format!("{dump} > $OUT/f; {gpg} -o $OUT/f.gpg $OUT/f; rm $OUT/f; gzip $OUT/f.gpg"),
        ),
        subject(
            'b',
            "`pg_dump -Fc -Z0 | zstd -T0 -3 | gpg --symmetric -z 0`",
            format!("{dump} -Z0 | zstd -q -T0 -3 | {gpg} -z 0 > $OUT/f"),
        ),
        subject(
            'c',
            "marb-backup, zstd:3, OpenPGP",
            format!("{ours} --passphrase-file {} > /dev/null", key.display()),
        ),
        subject(
            'd',
            "marb-backup, zstd:3, no encryption",
            format!("{ours} --no-encryption > /dev/null"),
        ),
        subject(
            'f',
            "`pg_dump -Fc -Z0 | zstd -T0 -3`",
            format!("{dump} -Z0 | zstd -q -T0 -3 > $OUT/f"),
        ),
        subject('e', "floor: `pg_dump -Fc -Z0 > /dev/null`", format!("{dump} -Z0 > /dev/null")),
    ])
}
