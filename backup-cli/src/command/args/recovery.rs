//! Flags of the verbs for bad days: `rekey`, `recovery-kit`, `recover`.

use std::path::PathBuf;

use clap::Args;

use super::{From, KeyFiles};

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

/// `recovery-kit`
#[derive(Debug, Args)]
#[command(after_help = "\
Writes where the backups are, which keys and credentials are needed (names and fingerprints, never
themselves), the newest backups, the commands for a new machine, the way by hand, and the
configuration without its secrets. Look through it once: what hooks and commands say is kept, apart
from what looks like a secret.

Examples:
  marb-backup recovery-kit
  marb-backup recovery-kit --out /mnt/usb/claims-server")]
pub struct RecoveryKitArgs {
    /// A folder for the page (recovery-kit.md) and the configuration beside it
    /// (recovery-config.toml), or a file for the page alone [default: stdout]
    #[arg(long, value_name = "DIR|FILE")]
    pub out: Option<PathBuf>,
}

/// `recover`
#[derive(Debug, Args)]
#[command(after_help = "\
Finds the newest backup of each job, checks that each is ours, shows what comes back, and brings it
back: databases with their roles, then files, then the hooks `migrate` and `start` and the health
check of the configuration. A database that is there and holds something is refused. When it fails,
what came back stays; go on with --job NAME for the rest.

Exit codes: 0 done, 3 something is left: a job of the configuration has no backup, an owner or ACL
could not be set, the migrations did not run, a role needs a password (each is named), 5 no backup,
6 forged or something is in the way, 8 a key is missing or a storage can't be read.

Examples:
  marb-backup recover --from s3://marb2-backups/production --passphrase-file /root/key \\
        --to postgresql://postgres@localhost/postgres --dry-run
  marb-backup recover --config recovery-config.toml --to postgresql:///postgres --in-place --yes")]
pub struct RecoverArgs {
    /// Storage to read: file:///path, s3://bucket/prefix, gs://, az://, sftp://user@host/path;
    /// may be given several times. Credentials and endpoint come from the usual variables, or
    /// from the storage of the same URL in --config [default: all storages of --config]
    #[arg(long, value_name = "URL")]
    pub from: Vec<String>,
    /// What opens them.
    #[command(flatten)]
    pub keys: KeyFiles,
    /// Public key whose signature proves that a backup is ours; may be given several times
    #[arg(long = "trusted-signer", value_name = "FILE")]
    pub trusted_signers: Vec<PathBuf>,
    /// Only this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// A database of the new server, as a role that may create databases and roles: a URL without
    /// a password, or env:NAME or file:PATH [default: each job's own URL of --config]
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Put files below this folder, to be looked at; their hooks do not run
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    pub config_out: Option<PathBuf>,
    /// Put files where they were; what is replaced is kept aside
    #[arg(long)]
    pub in_place: bool,
    /// Where they were, below this folder
    #[arg(long, value_name = "DIR", default_value = "/", requires = "in_place")]
    pub root: PathBuf,
    /// Only show what would come back
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Go on though nothing proves who wrote a backup; a restore runs its SQL
    #[arg(long)]
    pub accept_unsigned: bool,
}
