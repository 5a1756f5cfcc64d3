//! `prune`, `pin`, `unpin`.

use clap::Args;

/// `prune`
#[derive(Debug, Args)]
#[command(after_help = "\
Needs no database and no key: whose the backups are say their manifests. Each storage of a job is
pruned by itself. What is pinned, locked or just being read stays.

Exit codes: 0 done, or nothing to do, 3 a storage could not be pruned, 6 refused by a safety check,
7 another run of the job holds the lock, 8 no storage could be read.

Examples:
  marb-backup prune
  marb-backup prune database --apply
  marb-backup prune --apply --max-delete 100")]
pub struct PruneArgs {
    /// Jobs of the config [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Remove it
    #[arg(long)]
    pub apply: bool,
    /// Remove nothing of a job when more than N of its backups would go; stands over the config
    #[arg(long, value_name = "N")]
    pub max_delete: Option<usize>,
    /// Judge backups of another database or cluster than the newest one's like the others
    #[arg(long)]
    pub adopt: bool,
}

/// `pin`
#[derive(Debug, Args)]
#[command(after_help = "\
Pins every copy, and holds its files where the storage has locks. Exit code 3 when some copies could
not be pinned; one pinned copy keeps the backup in every storage.

Examples:
  marb-backup pin latest --reason 'before the migration to 3.0'
  marb-backup pin 20261122T020000Z --reason 'audit 2026'")]
pub struct PinArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why it is to be kept
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Where it is.
    #[command(flatten)]
    pub place: Place,
}

/// `unpin`
#[derive(Debug, Args)]
#[command(after_help = "\
Takes it from every copy. Exit code 3 when some copies could not be unpinned: one pinned copy keeps
the backup in every storage.

Example:
  marb-backup unpin 20261122T020000Z")]
pub struct UnpinArgs {
    /// A backup's id, or `latest`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where it is.
    #[command(flatten)]
    pub place: Place,
}

/// Where a backup to be pinned is.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Storage: a URL; may be given several times [default: those of the config]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub from: Vec<String>,
    /// Only backups of this job
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
}

impl Place {
    /// As the verbs that read take it.
    pub fn as_from(&self) -> super::From {
        super::From { from: self.from.clone(), job: self.job.clone(), ..super::From::default() }
    }
}
