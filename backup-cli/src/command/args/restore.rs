//! Flags of `restore`.

use clap::Args;

use super::From;

/// `restore`
#[derive(Debug, Args)]
#[command(after_help = "\
The database in --to is created when it does not exist; one with tables in it is refused.
Roles that the server lacks are created, those it has are never changed.

Examples:
  marb-backup restore latest --to postgresql:///claims_restored
  marb-backup restore 20261122T020000Z --to env:STAGING_URL
  marb-backup restore db_backup_20260101_020000.dump.gz --to postgresql:///old")]
pub struct RestoreArgs {
    /// A backup's id, `latest`, or a file, also one that the old scripts wrote
    #[arg(value_name = "ID|FILE")]
    pub what: String,
    /// Database to restore into: a URL without a password, env:NAME or file:PATH
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// Leave roles and tablespaces alone
    #[arg(long)]
    pub no_globals: bool,
    /// Put what lay in tablespace OLD into NEW
    #[arg(long = "tablespace", value_name = "OLD=NEW")]
    pub tablespaces: Vec<String>,
    /// Put everything into the database's default tablespace
    #[arg(long, conflicts_with = "tablespaces")]
    pub no_tablespaces: bool,
    /// Restore though nothing proves who wrote the backup
    #[arg(long)]
    pub accept_unsigned: bool,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}
