//! Flags of `verify`.

use clap::Args;

use super::From;

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 whole, 4 damaged, 8 could not check (no key, no access).

Examples:
  marb-backup verify
  marb-backup verify --all
  marb-backup verify db_backup_20260101_020000.dump.gpg.gz --passphrase-file /key")]
pub struct VerifyArgs {
    /// A backup's id, `latest`, or a file, also one that the old scripts wrote
    #[arg(value_name = "ID|FILE", default_value = "latest")]
    pub what: String,
    /// Every backup there is
    #[arg(long, conflicts_with = "what")]
    pub all: bool,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}
