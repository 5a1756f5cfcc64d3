//! Flags of `drill`.

use std::path::PathBuf;

use clap::Args;

use super::From;

/// `drill`
#[derive(Debug, Args)]
#[command(after_help = "\
Without a server in the config or in --server, a throwaway PostgreSQL is started on this host: it
listens on a Unix socket in a private folder, and is removed with all its data. On another server
a new database is made and dropped; nothing else there is touched.

Exit codes: 0 passed, 3 passed but a storage did not take the proof, 4 something differs or a check
is not true, 8 could not be told.

Examples:
  marb-backup drill
  marb-backup drill database --report drill.html
  marb-backup drill 20261122T020000Z --server env:STAGING_URL")]
pub struct DrillArgs {
    /// A job (its latest backup), a backup's id, or `latest`
    #[arg(value_name = "JOB|ID", default_value = "latest")]
    pub what: String,
    /// Write a page about it, for whoever has to be shown
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Restore to this server: a URL without a password of any database on it, env:NAME or
    /// file:PATH [default: `[drill] server`, else a throwaway one]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// On another server: create the roles that it lacks (they stay), restore owners and grants
    #[arg(long)]
    pub with_globals: bool,
    /// Go on though it is the very server that was backed up
    #[arg(long)]
    pub same_server: bool,
    /// Restore though nothing proves who wrote the backup
    #[arg(long)]
    pub accept_unsigned: bool,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}
