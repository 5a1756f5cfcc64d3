//! `[drill]`: where backups are tried out, and what must be true of what comes back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Value, load};

/// `[drill]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrillConfig {
    /// A server to restore to; a throwaway one on this host when absent.
    pub server: Option<DrillServerConfig>,
    /// SQL that must give one true value in the restored database,
    /// `"select count(*) > 0 from claims"`.
    pub checks: Vec<String>,
    /// Longest time for one of the checks, `"10m"`.
    #[serde(deserialize_with = "load::duration")]
    pub check_timeout: Option<Duration>,
    /// The folder of the throwaway server's programs (`initdb`, `postgres`), when the right ones
    /// are not found by themselves.
    pub bin_dir: Option<PathBuf>,
    /// Where the throwaway server keeps its data, for as long as it lives; `/var/tmp` when absent.
    /// It needs as much space as the database, and a short path.
    pub folder: Option<PathBuf>,
    /// Settings of the throwaway server, as in postgresql.conf:
    /// `{ shared_preload_libraries = "timescaledb" }`.
    pub settings: BTreeMap<String, String>,
}

/// `[drill] server`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillServerConfig {
    /// A database on it (`postgres`, say) as a role that may create databases.
    pub url: Value,
}
