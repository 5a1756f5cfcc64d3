//! Flags of `verify`.

use std::num::NonZeroUsize;

use backup_core::Level;
use clap::{Args, ValueEnum};

use super::From;

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Each storage's copy is judged by itself. Damage is told with its file, storage and bytes (counted
from 0), and with who has it whole.

Exit codes: 0 whole (or whole again), 4 damaged, 6 not ours, 8 could not check (no key, no access).

Examples:
  marb-backup verify
  marb-backup verify --all --jobs 4
  marb-backup verify --since 30d --sample 10%
  marb-backup verify latest --repair
  marb-backup verify --all --level checksums
  marb-backup verify db_backup_20260101_020000.dump.gpg.gz --passphrase-file /key")]
pub struct VerifyArgs {
    /// A backup's id, `latest`, or a file, also one that the old scripts wrote
    #[arg(value_name = "ID|FILE", default_value = "latest")]
    pub what: String,
    /// Every backup there is
    #[arg(long, conflicts_with = "what")]
    pub all: bool,
    /// Every backup since then: 2026-11-01, 2026-11-01T02:00:00Z, or 30d for thirty days back
    #[arg(long, value_name = "WHEN", conflicts_with = "what")]
    pub since: Option<String>,
    /// Of all these only so many, chosen at random: 10%, and at least one
    #[arg(long, value_name = "PERCENT", conflicts_with = "what")]
    pub sample: Option<String>,
    /// Choose the same sample again
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub seed: Option<u64>,
    /// How much to look at: `checksums` (the stored bytes against the manifest; needs no key) or
    /// `content` (decrypt, decompress, read the whole archive, count rows)
    #[arg(long, value_enum, default_value_t = LevelArg::Content, hide_possible_values = true)]
    pub level: LevelArg,
    /// Replace what is damaged by what another storage has whole, then verify again
    #[arg(long)]
    pub repair: bool,
    /// So many backups at the same time, at most 16
    #[arg(long, value_name = "N", default_value = "1", value_parser = jobs)]
    pub jobs: NonZeroUsize,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// Most backups that are verified at the same time: each takes memory, threads and connections.
const MOST_JOBS: usize = 16;

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let number: NonZeroUsize = text.parse().map_err(|_| "no number from 1 on".to_owned())?;
    if number.get() > MOST_JOBS {
        return Err(format!("at most {MOST_JOBS}"));
    }
    Ok(number)
}

/// Levels of `verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// The stored bytes against the manifest; needs no key
    Checksums,
    /// Decrypt, decompress, read the whole archive, count rows
    Content,
}

impl std::convert::From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Checksums => Level::Checksums,
            LevelArg::Content => Level::Content,
        }
    }
}
