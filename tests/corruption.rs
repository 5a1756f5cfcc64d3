//! A bit flipped or the end cut off at random places of every file of a backup of every kind:
//! `verify` finds each, and a restore refuses it before anything live is touched, or, where it
//! does not need the file, brings back exactly what was backed up.
//!
//! Restores run in this process into memory; some of them by the program against a server whose
//! database is live: swapped, in place, some tables, a new one.

mod blow;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup_cli::config::{Config, Environment};
use backup_cli::{Deployment, VerifyOptions};
use backup_core::pipeline::{self, Context};
use backup_core::{
    Catalog, Collect, Digest, Error, ErrorKind, Level, Origin, PartRole, Query, Result, layout,
};
use backup_testkit::postgres::PostgresServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use blow::{Blow, Score};

use crate::support::{CLAIMS, Scratch, cases, claims_digest, claims_server, seed, target_file};

/// Rows of the database: its dump is a few chunks long.
const ROWS: u32 = 1_000;
/// One restore in so many runs against a real server in the soak; in the tests more.
const REAL_ONE_IN: usize = 20;
/// The database that is restored into.
const RESTORED: &str = "restored";
/// What a restore reads nothing from, or what may change in a way that makes no difference (a
/// digit in hex as a capital).
const NOT_NEEDED: [&str; 3] = [layout::RESTORE_NOTE, layout::SHA256SUMS, layout::SIGNATURE];
/// What only a restore into a new database reads, where it is not told to make roles.
const ROLES: &str = "globals.sql";

/// The live database, for one that is to be live again.
const PRISTINE: &str = "pristine";

/// Where a restore goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Swap,
    InPlace,
    Tables,
    New,
}

impl Way {
    /// Whether this way reads a file of the backup at all, of those that any needs.
    fn reads(self, file: &str) -> bool {
        matches!(self, Self::New) || !file.starts_with(ROLES)
    }
}

const WAYS: [Way; 4] = [Way::Swap, Way::InPlace, Way::Tables, Way::New];

/// How a backup is encrypted and signed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key {
    /// Encrypted and signed by a passphrase.
    Passphrase,
    /// Encrypted to a public key; signed by its owner, or not at all.
    Public { signed: bool },
    /// Neither encrypted nor signed.
    None,
}

/// A backup of one kind, and the means to read it.
struct Kind {
    name: String,
    server: PostgresServer,
    scratch: Scratch,
    deployment: Deployment,
    key: Key,
    files: Vec<PathBuf>,
    /// What a restore takes from it: globals, dump.
    plain: Vec<Digest>,
    rows: String,
}

impl Kind {
    async fn new(compression: &str, key: Key) -> Self {
        let server = claims_server(15, ROWS).await;
        let mut job = format!("compression = '{compression}'\n");
        if key == Key::None {
            job.push_str("encrypt = false\n");
        }
        let scratch = Scratch::with_job(&server.url(CLAIMS), &job);
        let passphrase = format!("passphrase = {{ file = '{}' }}", scratch.path("key").display());
        match key {
            Key::Passphrase => {}
            Key::Public { signed } => {
                scratch.edit_config(&passphrase, &make_key(&scratch, signed));
            }
            Key::None => scratch.edit_config(&passphrase, ""),
        }
        scratch.run(&["backup"]).await.expect(0);
        let config = Config::read(&scratch.path("marb-backup.toml")).unwrap();
        let variables = [("PATH".into(), std::env::var_os("PATH").unwrap())];
        let deployment = Deployment::new(config, Environment::new(variables)).unwrap();
        let (files, rows) = (scratch.stored_files(), claims_digest(&server, CLAIMS).await);
        let name = format!("{compression}, {key:?}");
        let mut kind =
            Self { name, server, scratch, deployment, key, files, plain: Vec::new(), rows };
        assert_eq!(kind.verify(Level::Content).await, None, "{}", kind.name);
        assert_eq!(kind.verify(Level::Checksums).await, None, "{}", kind.name);
        kind.plain = kind.restore().await.unwrap();
        let moved_on =
            "DELETE FROM claims WHERE id % 3 = 0; INSERT INTO payers VALUES (99, 'late')";
        kind.server.sql(CLAIMS, moved_on).await.unwrap();
        let keep = format!("CREATE DATABASE {PRISTINE} TEMPLATE {CLAIMS}");
        kind.server.sql("postgres", &keep).await.unwrap();
        assert_eq!(kind.plain.len(), 2);
        kind
    }

    async fn catalog(&self) -> Catalog {
        self.deployment.catalog(&Query::default()).await.unwrap()
    }

    /// The worst that listing and verifying find.
    async fn verify(&self, level: Level) -> Option<ErrorKind> {
        let catalog = self.catalog().await;
        if let Some(problem) = catalog.problems.first() {
            return Some(problem.error.kind());
        }
        let Some(entry) = catalog.backups.first() else { return Some(ErrorKind::NotFound) };
        let options = VerifyOptions { level, repair: false };
        let verified = self.deployment.verify(entry, &options, &Context::default()).await;
        let _ = std::fs::remove_dir_all(self.files[0].parent().unwrap().join(layout::PROOFS));
        match verified {
            Ok(verified) => verified.reports[0].worst().map(Error::kind),
            Err(error) => Some(error.kind()),
        }
    }

    /// What a restore does before and while it writes, into memory: digests of what it would
    /// have brought back.
    async fn restore(&self) -> Result<Vec<Digest>> {
        let (catalog, context) = (self.catalog().await, Context::default());
        let entry = catalog.find("latest")?;
        let reader = self.deployment.reader(entry, &context).await?;
        let contents = reader.contents(&context).await?;
        self.refuse_unproven(entry).await?;
        let part = |role| {
            let gone = || Error::new(ErrorKind::NotFound, "restore", "the backup lacks a part");
            reader.manifest().part(role).ok_or_else(gone)
        };
        let globals = reader.read_part(part(PartRole::Globals)?, Some(&contents), &context).await?;
        let memory = Collect::default();
        let sink = Arc::new(memory.clone());
        let flow = reader.flow(part(PartRole::Database)?, Some(&contents), sink)?;
        let done = pipeline::run(flow, &context).await;
        let committed = memory.take();
        assert_eq!(done.is_ok(), committed.is_some(), "committed, and yet it failed");
        done?;
        Ok(vec![Digest::of(&globals), Digest::of(&committed.unwrap())])
    }

    /// A backup that was signed is restored only when its signature is right.
    async fn refuse_unproven(&self, entry: &backup_core::CatalogEntry) -> Result<()> {
        let options = VerifyOptions { level: Level::Checksums, repair: false };
        let verified = self.deployment.verify(entry, &options, &Context::default()).await?;
        let origin = verified.reports[0].origin;
        match (origin, self.key) {
            (Some(Origin::Proven), _) => Ok(()),
            (Some(Origin::Unsigned), Key::None | Key::Public { signed: false }) => Ok(()),
            _ => Err(Error::refused("restore", format!("{origin:?}"))),
        }
    }

    /// The same for real, by the program, against a database that is live: `None` when it was
    /// refused, and the live one is as it was; else what came back.
    async fn restore_really(&self, way: Way) -> Option<String> {
        let sql = format!(
            "DROP DATABASE IF EXISTS {CLAIMS}; CREATE DATABASE {CLAIMS} TEMPLATE {PRISTINE}"
        );
        for sql in sql.split("; ") {
            self.server.sql("postgres", sql).await.unwrap();
        }
        let before = (claims_digest(&self.server, CLAIMS).await, self.databases().await);
        let to = target_file(&self.scratch, &self.server, RESTORED);
        let mut restore = vec!["restore", "latest"];
        restore.extend(match way {
            Way::Swap => &[][..],
            Way::InPlace => &["--in-place", "--no-safety-backup"],
            Way::Tables => &["--to", "", "--table", "claims", "--table", "payers"],
            Way::New => &["--to", ""],
        });
        if let Some(place) = restore.iter().position(|word| word.is_empty()) {
            restore[place] = &to;
        }
        if self.key == (Key::Public { signed: false }) {
            restore.push("--accept-unsigned");
        }
        let run = self.scratch.run(&restore).await;
        let beside = matches!(way, Way::Tables | Way::New);
        if run.code != 0 {
            let after = (claims_digest(&self.server, CLAIMS).await, self.databases().await);
            assert_eq!(after, before, "{}, {way:?}: {run:#?}", self.name);
            return None;
        }
        let rows = claims_digest(&self.server, if beside { RESTORED } else { CLAIMS }).await;
        let old = "SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname LIKE 'claims\\_before%' OR datname = 'restored'";
        for name in self.server.sql("postgres", old).await.unwrap().split_whitespace() {
            let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
            self.server.sql("postgres", &drop).await.unwrap();
        }
        Some(rows)
    }

    async fn databases(&self) -> String {
        let sql = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
        self.server.sql("postgres", sql).await.unwrap()
    }

    /// Damages one file, looks what is said, and puts it back.
    async fn strike(&self, blow: &Blow, way: Option<Way>, score: &mut Score) {
        let path = &self.files[blow.file];
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, blow.on(&whole)).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let what = format!("{}: {} of {name}", self.name, blow.describe(&whole));
        for (level, found) in
            [(Level::Content, &mut score.found), (Level::Checksums, &mut score.by_checksums)]
        {
            match self.verify(level).await {
                None => score.missed.push(format!("verify, {level:?}: {what}")),
                Some(_) => *found += 1,
            }
        }
        let needed = !NOT_NEEDED.contains(&name);
        match self.restore().await {
            Err(_) => score.refused += 1,
            Ok(plain) if !needed && plain == self.plain => score.exact += 1,
            Ok(_) => score.missed.push(format!("restore: {what}")),
        }
        if let Some(way) = way {
            score.real += 1;
            match self.restore_really(way).await {
                None => {}
                Some(rows) if !(needed && way.reads(name)) && rows == self.rows => {}
                Some(_) => score.missed.push(format!("restore into a server ({way:?}): {what}")),
            }
        }
        score.cases += 1;
        std::fs::write(path, whole).unwrap();
    }

    /// The program says the same.
    async fn strike_with_the_program(&self) {
        let dump = self.files.iter().position(|path| path.display().to_string().contains(".dump"));
        let path = &self.files[dump.unwrap()];
        let whole = std::fs::read(path).unwrap();
        let blow = Blow { file: 0, at: whole.len() / 2, bit: Some(3) };
        std::fs::write(path, blow.on(&whole)).unwrap();
        let run = self.scratch.run(&["verify"]).await.expect(4);
        assert!(run.stdout.contains("DAMAGED"), "{run:#?}");
        for way in WAYS {
            assert_eq!(self.restore_really(way).await, None, "{}, {way:?}", self.name);
        }
        std::fs::write(path, whole).unwrap();
        for way in WAYS {
            let restored = self.restore_really(way).await;
            assert_eq!(restored.as_ref(), Some(&self.rows), "{}, {way:?}", self.name);
        }
    }
}

/// A key pair of gpg's, in files of the scratch; the lines of the config for it.
fn make_key(scratch: &Scratch, signed: bool) -> String {
    let home = scratch.path("gnupg");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg = |arguments: &[&str]| {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]);
        let done = command.args(arguments).env("GNUPGHOME", &home).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let file = |name: &str| scratch.path(name).display().to_string();
    let (public, secret) = (file("public.asc"), file("secret.asc"));
    gpg(&["--quick-generate-key", "B <b@example.org>", "future-default", "default", "never"]);
    gpg(&["--armor", "--output", &public, "--export", "b@example.org"]);
    gpg(&["--armor", "--output", &secret, "--export-secret-keys", "b@example.org"]);
    end_agent(&home);
    let signs = if signed { format!("signing_key = '{secret}'\n") } else { String::new() };
    format!("recipients = ['{public}']\nsecret_keys = ['{secret}']\n{signs}")
}

/// Ends the agent that gpg left behind.
fn end_agent(home: &Path) {
    let done = Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", home).status();
    assert!(done.unwrap().success());
}

async fn sweep(compression: &str, key: Key) {
    let kind = Kind::new(compression, key).await;
    let mut random = StdRng::seed_from_u64(seed());
    let mut score = Score::default();
    let (mut flips, mut cuts) = (cases(14, 500), cases(6, 200));
    let (one_in, shift) = (cases(5, REAL_ONE_IN), random.gen_range(0..WAYS.len()));
    for case in 0..flips + cuts {
        // On a real server bits are flipped and ends cut off in turn, and all ways are gone.
        let real = (case % one_in == 0).then_some(case / one_in);
        let flip = match real {
            Some(real) => flips > 0 && (real % 2 == 0 || cuts == 0),
            None => random.gen_range(0..flips + cuts) < flips,
        };
        *(if flip { &mut flips } else { &mut cuts }) -= 1;
        let way = real.map(|real| WAYS[(real + shift) % WAYS.len()]);
        let blow = Blow::random(&kind.files, flip, &mut random);
        kind.strike(&blow, way, &mut score).await;
    }
    kind.strike_with_the_program().await;
    println!("corruption of {}: {score}", kind.name);
    assert!(score.missed.is_empty(), "{}", score.missed.join("\n"));
    assert_eq!((score.found, score.by_checksums), (score.cases, score.cases));
    assert_eq!(score.refused + score.exact, score.cases);
    assert_eq!(kind.verify(Level::Content).await, None, "put back, and yet not whole");
}

#[tokio::test]
async fn zstd_under_a_passphrase() {
    sweep("zstd", Key::Passphrase).await;
}

#[tokio::test]
async fn zstd_to_a_public_key() {
    sweep("zstd", Key::Public { signed: true }).await;
}

#[tokio::test]
async fn zstd_alone() {
    sweep("zstd", Key::None).await;
}

#[tokio::test]
async fn gzip_under_a_passphrase() {
    sweep("gzip", Key::Passphrase).await;
}

#[tokio::test]
async fn gzip_to_a_public_key() {
    sweep("gzip", Key::Public { signed: false }).await;
}

#[tokio::test]
async fn gzip_alone() {
    sweep("gzip", Key::None).await;
}

#[tokio::test]
async fn uncompressed_under_a_passphrase() {
    sweep("none", Key::Passphrase).await;
}

#[tokio::test]
async fn uncompressed_to_a_public_key() {
    sweep("none", Key::Public { signed: false }).await;
}

#[tokio::test]
async fn neither_compressed_nor_encrypted() {
    sweep("none", Key::None).await;
}
