//! The command line. What stands in the doc comments is the help.

mod adopt;
mod drill;
mod files;
mod prune;
mod recovery;
mod restore;
mod schedule;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use adopt::AdoptArgs;
pub use drill::DrillArgs;
pub use prune::{PinArgs, PruneArgs, UnpinArgs};
pub use recovery::{RecoverArgs, RecoveryKitArgs, RekeyArgs};
pub use restore::RestoreArgs;
pub use schedule::{Kind, RunArgs, ScheduleArgs};
pub use verify::{LevelArg, VerifyArgs};

/// Backs up PostgreSQL, encrypted, and brings it back.
///
/// A backup that is listed was complete. Everything can be read without this program: each
/// backup carries a RESTORE.md with the commands.
#[derive(Debug, Parser)]
#[command(name = "marb-backup", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// What every verb takes.
    #[command(flatten)]
    pub common: Common,
}

const EXAMPLES: &str = "\
Examples:
  marb-backup demo                          watch the main job on a throwaway database
  marb-backup backup                        run every job of the config
  marb-backup list
  marb-backup verify latest
  marb-backup drill --report drill.html
  marb-backup restore latest                into the live database, beside it and swapped
  marb-backup restore latest --to postgresql:///claims_restored
  marb-backup restore db_backup_20260101_020000.dump.gz --to postgresql:///old

Exit codes:
  0 done   1 failed   2 wrong usage or config   3 incomplete   4 damaged   5 no such backup
  6 refused by a safety check   7 locked   8 could not check   130/143 interrupted";

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The configuration [default: $MARB_BACKUP_CONFIG, ./marb-backup.toml,
    /// /etc/marb-backup/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON document on stdout; progress and messages stay on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more; twice says all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// The marks that this process leaves beside backups while it reads them.
    #[arg(skip)]
    pub marks: backup_core::ReaderMarks,
}

/// One verb each.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run jobs: dump, compress, encrypt, store
    Backup(BackupArgs),
    /// Show what backups there are, in every storage
    List(ListArgs),
    /// Show one backup
    Show(ShowArgs),
    /// Read a backup back, all of it, and say whether it is whole
    Verify(VerifyArgs),
    /// Bring a database back: beside the live one and swapped, or into a new one
    Restore(RestoreArgs),
    /// Restore a backup for a try, compare what comes back, remove it again
    Drill(DrillArgs),
    /// Write a decoded part to stdout, for pipes
    Cat(CatArgs),
    /// Copy one backup from a storage to another, byte for byte, without decrypting
    Copy(CopyArgs),
    /// Copy every backup that a storage lacks from another one
    Sync(SyncArgs),
    /// Take over old dumps as backups
    Adopt(AdoptArgs),
    /// Show what retention keeps and what it would remove, and why; remove it with --apply
    Prune(PruneArgs),
    /// Keep a backup from being pruned
    Pin(PinArgs),
    /// Take a backup's pin away
    Unpin(UnpinArgs),
    /// Encrypt older backups anew, under the keys of today
    Rekey(RekeyArgs),
    /// Write what one needs when this host is gone, without a secret
    RecoveryKit(RecoveryKitArgs),
    /// Bring everything back on a new server, from the storage and the key alone
    Recover(RecoverArgs),
    /// Write or install what makes jobs run by themselves: systemd's units, cron's table
    Schedule(ScheduleArgs),
    /// Stay and do everything on its schedule, for containers
    Run(RunArgs),
    /// Check every prerequisite, with the fix for what is missing
    Doctor(DoctorArgs),
    /// Work on the configuration
    Config(ConfigArgs),
    /// Write a shell's completions to stdout
    Completions(CompletionsArgs),
    /// Write the manual page to stdout
    Man,
    /// Back up, verify and restore a throwaway database, to see how it goes
    Demo(DemoArgs),
}

/// `backup`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  marb-backup backup
  marb-backup backup database
  marb-backup backup --url postgresql:///claims --to file:///backups --passphrase-file /key")]
pub struct BackupArgs {
    /// Jobs of the config [default: all]
    #[arg(value_name = "JOB", conflicts_with = "url")]
    pub jobs: Vec<String>,
    /// Take over a job's folder whose backups came from another database or cluster
    #[arg(long)]
    pub adopt: bool,
    /// Database: a URL without a password, or env:NAME or file:PATH to keep one out of `ps`
    #[arg(long, value_name = "URL", conflicts_with = "config", requires = "to", help_heading = WITHOUT_CONFIG)]
    pub url: Option<String>,
    /// Storage: file:///path, s3://bucket/prefix, gs://, az://, sftp://user@host/path; may be
    /// given several times
    #[arg(long, value_name = "URL", requires = "url", help_heading = WITHOUT_CONFIG)]
    pub to: Vec<String>,
    /// What a config would say about the job.
    #[command(flatten)]
    pub flags: JobFlags,
}

const WITHOUT_CONFIG: &str = "Without a config";

/// What a config would say about a job.
#[derive(Debug, Args)]
#[command(next_help_heading = WITHOUT_CONFIG)]
pub struct JobFlags {
    /// Name of the job: its folder in the storage
    #[arg(long = "job", value_name = "NAME", default_value = "database", requires = "url")]
    pub job_name: String,
    /// `zstd`, `zstd:9`, `gzip`, `gzip:6`, `none`
    #[arg(long, value_name = "CODEC", default_value = "zstd", requires = "url")]
    pub compression: String,
    /// File whose first line is the passphrase
    #[arg(long, value_name = "FILE", requires = "url")]
    pub passphrase_file: Option<PathBuf>,
    /// Public key that can open the backup; may be given several times
    #[arg(long = "recipient", value_name = "FILE", requires = "url")]
    pub recipients: Vec<PathBuf>,
    /// Write the backup unencrypted
    #[arg(long, requires = "url", conflicts_with_all = ["passphrase_file", "recipients"])]
    pub no_encryption: bool,
}

/// Where to read from, without a config.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = WITHOUT_CONFIG)]
pub struct From {
    /// Storage to read: file:///path, s3://bucket/prefix, gs://, az://, sftp://user@host/path;
    /// may be given several times
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub from: Vec<String>,
    /// What opens them.
    #[command(flatten)]
    pub keys: KeyFiles,
    /// Only backups of this job
    #[arg(long, value_name = "NAME", help_heading = None)]
    pub job: Option<String>,
}

/// What opens backups.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyFiles {
    /// File whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Private key that opens backups; may be given several times
    #[arg(long = "secret-key", value_name = "FILE")]
    pub secret_keys: Vec<PathBuf>,
    /// File whose first line opens a protected private key
    #[arg(long, value_name = "FILE")]
    pub secret_key_passphrase_file: Option<PathBuf>,
}

/// `list`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 all storages answered, 8 one could not be read.

Examples:
  marb-backup list
  marb-backup list --since 30d --limit 5
  marb-backup list --from s3://marb2-backups/production")]
pub struct ListArgs {
    /// Only backups since then: 2026-11-01, 2026-11-01T02:00:00Z, or 30d for thirty days back
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Of each job only the newest N
    #[arg(long, value_name = "N")]
    pub limit: Option<std::num::NonZeroUsize>,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// `show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    pub id: String,
    /// List what is inside: tables with their rows, roles, extensions. Needs the key
    #[arg(long)]
    pub contents: bool,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// `cat`
#[derive(Debug, Args)]
#[command(after_help = "\
Bytes come out before the whole part was checked: look at the exit code before you rely on them.

Examples:
  marb-backup cat latest globals.sql
  marb-backup cat latest | pg_restore --list")]
pub struct CatArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name of the part [default: the database dump]
    #[arg(value_name = "PART")]
    pub part: Option<String>,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// Between which storages to copy.
#[derive(Debug, Clone, Args)]
pub struct Between {
    /// Storage to read: its name in the config, or a URL
    #[arg(long, value_name = "STORAGE")]
    pub from: String,
    /// Storage to fill: its name in the config, or a URL
    #[arg(long, value_name = "STORAGE")]
    pub to: String,
    /// Only backups of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

/// `copy`
#[derive(Debug, Args)]
#[command(after_help = "\
Needs no key. What is there already with its size is kept; what differs is copied anew. The
manifest comes last: a copy that fails is not listed.

Examples:
  marb-backup copy latest --from local --to offsite
  marb-backup copy 20261122T020000Z --from s3://marb2-backups/production --to file:///rescued")]
pub struct CopyArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Storages.
    #[command(flatten)]
    pub between: Between,
    /// Read what is there already, and copy it anew where it is damaged
    #[arg(long)]
    pub check: bool,
}

/// `sync`
#[derive(Debug, Args)]
#[command(after_help = "\
Copies oldest first; deletes no backup. Needs no key. Exit code 3 when some backups failed, 8 when it
is not known what is missing.

Examples:
  marb-backup sync --from local --to offsite
  marb-backup sync --from offsite --to file:///mnt/disk --job database")]
pub struct SyncArgs {
    /// Storages.
    #[command(flatten)]
    pub between: Between,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Confirm, by typing it, that the passphrase (or the recipient's key) is kept off this host
    #[arg(long)]
    pub confirm_key: bool,
}

/// `config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// Actions of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Read the configuration and say what is wrong with it
    Check,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells that completions exist for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the folder with server, backups and config
    #[arg(long)]
    pub keep: bool,
}
