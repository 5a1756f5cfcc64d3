//! Bringing a backup back, and one table of it: ours beside gpg, zstd and pg_restore by hand, on the
//! same stored file.

use std::path::{Path, PathBuf};

use backup_testkit::postgres::PostgresServer;

use crate::subjects::{DATABASE, Subject, environment, prepare_key};
use crate::{Outcome, Ratio};

/// What is read off the figures.
pub const RATIOS: [Ratio; 3] = [
    ("(p) ours : (n) by hand", 'p', 'n', "at most 1.00"),
    ("(p) ours : (o) by hand, with statistics", 'p', 'o', "-"),
    ("(q) one table by hand : (r) ours", 'q', 'r', "at least 3.00"),
];

/// The table that is brought back alone: some 20 MB of the 1 GB, at the end of the archive.
const ONE_TABLE: &str = "create table visits as
    select n as id, n % 5000 as patient, date '2022-01-01' + n % 900 as day, md5(n::text) || md5((n * 3)::text) as note
    from generate_series(1, 200000) n; alter table visits add primary key (id)";

/// Adds the table, and makes the backup that all of them read.
pub async fn subjects(
    server: &PostgresServer,
    tools: &Path,
    folder: &Path,
) -> Outcome<Vec<Subject>> {
    server.sql(DATABASE, ONE_TABLE).await?;
    let key = prepare_key(folder)?;
    let program = std::env::var("MARB_BACKUP_PROGRAM")?;
    let environment = environment(server, folder)?;
    let store = folder.join("store");
    let (key, store_url) = (key.display(), store.display());
    run(
        &format!(
            "{program} backup --quiet --url env:BENCH_URL --to file://{store_url} --passphrase-file {key} > /dev/null"
        ),
        &environment,
    )?;
    let part = part_of(&store)?.ok_or("the backup left no part")?;
    let decode = format!(
        "gpg --batch --quiet --pinentry-mode loopback --passphrase-file {key} --decrypt {} | zstd -q -d > $OUT/archive",
        part.display()
    );
    let tool = |name: &str| format!("{}/{name}", tools.display());
    let anew = format!("{} --if-exists --force restored", tool("dropdb"));
    let by_hand = |restore: &str| {
        format!(
            "{anew}; {} -T template0 restored; {decode}; {} --exit-on-error -d restored {restore} $OUT/archive",
            tool("createdb"),
            tool("pg_restore")
        )
    };
    let ours = |flags: &str| {
        format!(
            "{anew}; TMPDIR=$OUT {program} restore latest --quiet --from file://{store_url} --passphrase-file {key} \
             --to env:BENCH_RESTORED {flags} > /dev/null"
        )
    };
    let subject = |letter, what, script: String| Subject {
        letter,
        what,
        script,
        environment: environment.clone(),
        output: folder.join("out"),
    };
    let analyze = format!("{} --analyze-only -q -d restored", tool("vacuumdb"));
    Ok(vec![
        subject('n', "`gpg -d | zstd -d > f; pg_restore -j2 f`", by_hand("-j2")),
        subject(
            'o',
            "the same, then `vacuumdb --analyze-only`",
            format!("{}; {analyze}", by_hand("-j2")),
        ),
        subject(
            'p',
            "marb-backup restore --jobs 2 (compares rows, gathers statistics)",
            ours("--jobs 2"),
        ),
        subject(
            'q',
            "one table: `gpg -d | zstd -d > f; pg_restore -t visits f`",
            by_hand("-t visits"),
        ),
        subject('r', "one table: marb-backup restore --table visits", ours("--table visits")),
    ])
}

fn run(script: &str, environment: &[(String, String)]) -> Outcome<()> {
    let status = std::process::Command::new("bash")
        .args(["-ec", script])
        .envs(environment.iter().cloned())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{script}: {status}").into()) }
}

/// The stored dump below a folder.
fn part_of(folder: &Path) -> Outcome<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = part_of(&path)? {
                return Ok(Some(found));
            }
        } else if path.to_string_lossy().contains(".dump.zst.gpg") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
