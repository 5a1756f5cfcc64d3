//! Flags of `adopt`.

use std::path::PathBuf;

use clap::Args;

/// `adopt`
#[derive(Debug, Args)]
#[command(after_help = "\
Takes over db_backup_YYYYMMDD_HHMMSS.dump and, with --files-job, config_backup_YYYYMMDD_HHMMSS.tar;
each with .gz, .gpg or both, and the .meta beside it. Every file is read to its end before; without
--apply that is all. The files are copied byte for byte, which takes as much space again as they
have; the originals are never touched.

Exit codes: 0 all whole, 3 some could not be taken over, 4 some are damaged.

Examples:
  marb-backup adopt /opt/marb2.0/backups --job database --to local
  marb-backup adopt /opt/marb2.0/backups --job database --files-job config --to local --apply \\
    --time-zone Europe/Berlin")]
pub struct AdoptArgs {
    /// The folder with the old backups
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Job whose backups the dumps become
    #[arg(long, value_name = "NAME")]
    pub job: String,
    /// Job whose backups the archives of configuration files become; it has `files` alone
    #[arg(long, value_name = "NAME")]
    pub files_job: Option<String>,
    /// Storage to copy them to: its name in the config
    #[arg(long, value_name = "STORAGE")]
    pub to: String,
    /// Time zone of the times in the names, `Europe/Berlin` [default: this host's]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Take them over; without it they are only looked at
    #[arg(long)]
    pub apply: bool,
}
