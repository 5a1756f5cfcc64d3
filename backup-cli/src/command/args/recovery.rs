//! Flags of the verbs for bad days: `rekey`, `recovery-kit`, `recover`.

use std::path::PathBuf;

use clap::Args;

use super::From;

/// `rekey`
#[derive(Debug, Args)]
#[command(after_help = "\
Each backup is decrypted and encrypted under [encryption] of today, as a new backup of the same time
beside the old one. The new one is read back to its end before the old one is removed; nothing plain
is written anywhere. Killed at any moment, the old or the new one is whole and listed, and the next
run goes on. Backups that are under the keys of today already are left as they are.

Exit codes: 0 done, 3 some are not, 6 not ours, 8 a key is missing (nothing was touched).

Examples:
  marb-backup rekey --all --dry-run
  marb-backup rekey 20261122T020000Z --secret-key old.asc --secret-key new.asc
  marb-backup rekey --all --old-passphrase-file /root/old-key")]
pub struct RekeyArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub id: Option<String>,
    /// Every backup there is
    #[arg(long, conflicts_with = "id")]
    pub all: bool,
    /// Say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// File whose first line is a passphrase of former days; may be given several times
    #[arg(long = "old-passphrase-file", value_name = "FILE")]
    pub old_passphrase_files: Vec<PathBuf>,
    /// Go on though nothing proves who wrote an old backup, or nothing signs the new one
    #[arg(long)]
    pub accept_unsigned: bool,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}
