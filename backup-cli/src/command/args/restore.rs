//! Flags of `restore`.

use std::num::NonZeroUsize;

use clap::Args;

use super::From;
use super::files::Files;

const HOW: &str = "How it goes in";
const AFTERWARDS: &str = "After a restore";
const TABLES: &str = "Some tables";

/// `restore`
#[derive(Debug, Args)]
#[command(after_help = "\
Without --to the backup goes into the database of its job. It is restored beside the live one and
compared, `checks` and `migrate` of [restore] run on it, and only then the services stop, the two
databases exchange their names, the services start. What fails at any step is put back. Nothing is
dropped: the old database stays, closed, as NAME_before_RUN, until --cleanup.

With --to the database is made when it does not exist; one with tables in it is refused, unless
--swap or --in-place is given. The hooks of [restore] do not run for it.

The files of a backup go into a folder with --into, or with --files --in-place to where they were.
All of them are checked before one is replaced, and what is replaced is kept beside it.

Examples:
  marb-backup restore latest --dry-run                    what would be done, and what is in the way
  marb-backup restore latest
  marb-backup restore --rollback                          back to the database before that
  marb-backup restore --continue                          finish a restore that was killed
  marb-backup restore --cleanup --dry-run
  marb-backup restore latest --to postgresql:///claims_restored
  marb-backup restore 20261122T020000Z --to env:STAGING_URL --swap
  marb-backup restore latest --table claims --table 'audit.*' --to postgresql:///look
  marb-backup restore latest --job config --into /tmp/look
  marb-backup restore latest --job config --in-place --path /etc/nginx --dry-run --show-diff
  marb-backup restore db_backup_20260101_020000.dump.gz --to postgresql:///old --jobs 4")]
pub struct RestoreArgs {
    /// A backup's id, `latest`, or a file, also one that the old scripts wrote
    #[arg(value_name = "ID|FILE", required_unless_present_any = ["rollback", "resume", "cleanup"])]
    pub what: Option<String>,
    /// Database to restore into, instead of the job's: a URL without a password, env:NAME or
    /// file:PATH
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Say what would be done and what is in the way; touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Restore though nothing proves who wrote the backup
    #[arg(long)]
    pub accept_unsigned: bool,
    /// How it goes in.
    #[command(flatten)]
    pub how: How,
    /// Which tables.
    #[command(flatten)]
    pub tables: Tables,
    /// Files.
    #[command(flatten)]
    pub files: Files,
    /// After a restore.
    #[command(flatten)]
    pub afterwards: Afterwards,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// How a backup goes into a database.
#[derive(Debug, Args)]
#[command(next_help_heading = HOW)]
pub struct How {
    /// Restore beside the database in --to, and swap
    #[arg(long, requires = "to", conflicts_with = "in_place")]
    pub swap: bool,
    /// Restore onto the database itself, in one transaction, after a safety backup. Objects that
    /// the backup lacks stay
    #[arg(long)]
    pub in_place: bool,
    /// Without the safety backup
    #[arg(long, requires = "in_place")]
    pub no_safety_backup: bool,
    /// Back the live database up first, also where the old one is kept anyway
    #[arg(long, conflicts_with_all = ["to", "no_safety_backup"])]
    pub safety_backup: bool,
    /// Restore with N processes at the same time, into a database that is made for it
    #[arg(long, value_name = "N", default_value = "1")]
    pub jobs: NonZeroUsize,
    /// Create roles that the server lacks, from the backup; it is so already with --to
    #[arg(long, conflicts_with = "no_globals")]
    pub with_globals: bool,
    /// Leave roles and tablespaces alone
    #[arg(long)]
    pub no_globals: bool,
    /// Give to role NEW what belongs to role OLD in the backup; may be given several times
    #[arg(long = "role", value_name = "OLD=NEW")]
    pub roles: Vec<String>,
    /// Everything belongs to the role that restores; nobody else gets rights
    #[arg(long)]
    pub no_owner: bool,
    /// Put what lay in tablespace OLD into NEW
    #[arg(long = "tablespace", value_name = "OLD=NEW")]
    pub tablespaces: Vec<String>,
    /// Put everything into the database's default tablespace
    #[arg(long, conflicts_with = "tablespaces")]
    pub no_tablespaces: bool,
    /// Go on though replication slots and subscriptions stay with the old database
    #[arg(long)]
    pub accept_replication_break: bool,
    /// Go on though the backup leaves tables, their rows or large objects out: they will be missing
    #[arg(long)]
    pub accept_missing_rows: bool,
    /// Keep the new database when it fails before it is live
    #[arg(long)]
    pub keep_failed: bool,
}

/// A selection of tables.
#[derive(Debug, Args)]
#[command(next_help_heading = TABLES)]
pub struct Tables {
    /// Only this table, `claims` or `audit.*`; may be given several times. Into a database that
    /// exists, all of them in one transaction
    #[arg(long = "table", value_name = "PATTERN", conflicts_with_all = ["in_place", "swap"])]
    pub tables: Vec<String>,
    /// Only their rows
    #[arg(long, requires = "tables", conflicts_with = "schema_only")]
    pub data_only: bool,
    /// Only their definitions
    #[arg(long, requires = "tables")]
    pub schema_only: bool,
    /// Into this schema instead of their own
    #[arg(long, value_name = "SCHEMA", requires = "tables")]
    pub into_schema: Option<String>,
}

/// What can be done about a restore that is over, or was cut off.
#[derive(Debug, Args)]
#[command(next_help_heading = AFTERWARDS)]
pub struct Afterwards {
    /// Put the old database back under its name, in every state, and start the services
    #[arg(long, conflicts_with_all = ["what", "resume", "cleanup"])]
    pub rollback: bool,
    /// Finish a restore that was killed: swap, start the services, wait for health
    #[arg(long = "continue", id = "resume", conflicts_with_all = ["what", "cleanup"])]
    pub resume: bool,
    /// Drop what earlier restores left, once `keep_old` has passed and a newer backup was verified
    #[arg(long, conflicts_with = "what")]
    pub cleanup: bool,
    /// Roll back this restore, when it is not the newest
    #[arg(long, value_name = "RUN", requires = "rollback")]
    pub run: Option<String>,
}

impl RestoreArgs {
    /// Whether something else than restoring is wanted.
    pub fn is_afterwards(&self) -> bool {
        self.afterwards.rollback || self.afterwards.resume || self.afterwards.cleanup
    }
}
