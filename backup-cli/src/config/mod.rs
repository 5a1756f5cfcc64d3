//! The configuration, as data: what the file says, checked, with nothing opened yet.

mod drill;
mod env_file;
mod environment;
mod files;
mod filters;
mod load;
mod restore;
mod retention;
mod schedule;
mod storage;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::schedule::Calendar;

pub use drill::{DrillConfig, DrillServerConfig};
pub use environment::Environment;
pub use files::FilesConfig;
pub use load::{DEFAULT_LOCATIONS, find_config};
pub use restore::{
    Argv, DEFAULT_HEALTH_TIMEOUT, DEFAULT_HOOK_TIMEOUT, DEFAULT_KEEP_OLD, DEFAULT_SESSION_TIMEOUT,
    HealthConfig, RestoreConfig,
};
pub use retention::{DEFAULT_MAX_DELETE, RetentionConfig};
pub use schedule::SchedulesConfig;
pub use storage::{ObjectLockConfig, ObjectLockMode, ObjectsConfig, StorageConfig};
pub use value::{FromCommand, FromEnv, FromFile, Value};

/// Longest time one run may take when the job does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A `.env` file whose variables stand behind those of the environment. Read as data.
    pub env_file: Option<PathBuf>,
    /// Where locks and confirmations are kept; no backup depends on it.
    pub state_dir: Option<PathBuf>,
    /// Where PostgreSQL's client programs are, when they are not found by themselves.
    pub postgres_bin_dir: Option<PathBuf>,
    /// Storages by name.
    pub storage: BTreeMap<String, StorageConfig>,
    /// Keys.
    pub encryption: EncryptionConfig,
    /// Jobs by name.
    pub job: BTreeMap<String, JobConfig>,
    /// What surrounds a restore into the application's own database.
    pub restore: RestoreConfig,
    /// Where backups are tried out.
    pub drill: DrillConfig,
    /// What is done on schedules, and when.
    pub schedules: SchedulesConfig,
}

/// `[encryption]`: what encrypts, signs and opens backups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptionConfig {
    /// The passphrase; of a file its first line counts, as gpg reads it.
    pub passphrase: Option<Value>,
    /// Files with public keys that can open every backup.
    pub recipients: Vec<PathBuf>,
    /// File with the private key that signs manifests; for hosts without a passphrase.
    pub signing_key: Option<PathBuf>,
    /// Files with public keys whose signatures are trusted.
    pub trusted_signers: Vec<PathBuf>,
    /// Files with private keys that open backups; not needed to make them.
    pub secret_keys: Vec<PathBuf>,
    /// Opens `secret_keys` and `signing_key` that are protected themselves.
    pub secret_key_passphrase: Option<Value>,
}

/// One `[job.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobConfig {
    /// The database to back up.
    #[serde(default)]
    pub postgres: Option<PostgresConfig>,
    /// The files to back up, with the database or without.
    #[serde(default)]
    pub files: Option<FilesConfig>,
    /// `zstd`, `zstd:9`, `gzip`, `gzip:6`, `none`.
    #[serde(default = "default_compression")]
    pub compression: String,
    /// False must be written out.
    #[serde(default = "yes")]
    pub encrypt: bool,
    /// Allows an unencrypted backup in a storage that is not `file://`, and unencrypted files in any.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Names of the storages, all written at once.
    pub storages: Vec<String>,
    /// How many of them must succeed; all when absent.
    #[serde(default)]
    pub required_storages: Option<usize>,
    /// How objects are kept in some of the storages, by their names; stands over what the
    /// storage says.
    #[serde(default)]
    pub objects: BTreeMap<String, ObjectsConfig>,
    /// Longest time of a run, `"6h"`.
    #[serde(default, deserialize_with = "load::duration")]
    pub timeout: Option<Duration>,
    /// Where the application's version comes from, for the manifest.
    #[serde(default)]
    pub app_version: Option<Value>,
    /// Which backups are kept.
    #[serde(default)]
    pub retention: Option<RetentionConfig>,
    /// When it runs by itself, `"02:00"` or `"Sun 03:00"`.
    #[serde(default)]
    pub schedule: Option<Calendar>,
}

/// What to dump.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Connection URL or `key=value` string; SQLAlchemy's spellings are understood.
    pub url: Value,
    /// Only these schemas (patterns of pg_dump).
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Not these schemas.
    #[serde(default)]
    pub exclude_schemas: Vec<String>,
    /// Only these tables.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Not these tables.
    #[serde(default)]
    pub exclude_tables: Vec<String>,
    /// The definition of these tables, without their rows.
    #[serde(default)]
    pub exclude_table_data: Vec<String>,
    /// Whether large objects are dumped; pg_dump decides by the other filters when absent.
    #[serde(default)]
    pub large_objects: Option<bool>,
    /// Whether roles and tablespaces are saved with it.
    #[serde(default = "yes")]
    pub globals: bool,
    /// Whether a digest of every table's rows is made on the way, which a drill compares. Costs
    /// some percent of the time where rows are short.
    #[serde(default = "yes")]
    pub row_digests: bool,
    /// Longest wait for a table's lock before the dump gives up, `"60s"`.
    #[serde(default, deserialize_with = "load::duration")]
    pub lock_wait_timeout: Option<Duration>,
}

impl JobConfig {
    /// Which backups are kept: what is written, else the default.
    pub fn retention_or_default(&self) -> RetentionConfig {
        self.retention.clone().unwrap_or_default()
    }

    /// A job that backs up a database, with all defaults.
    pub fn new(url: Value, storages: Vec<String>) -> Self {
        let postgres = PostgresConfig {
            url,
            schemas: Vec::new(),
            exclude_schemas: Vec::new(),
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            exclude_table_data: Vec::new(),
            large_objects: None,
            globals: true,
            row_digests: true,
            lock_wait_timeout: None,
        };
        Self {
            postgres: Some(postgres),
            files: None,
            compression: default_compression(),
            encrypt: true,
            allow_plaintext: false,
            storages,
            required_storages: None,
            objects: BTreeMap::new(),
            timeout: None,
            app_version: None,
            retention: None,
            schedule: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn default_compression() -> String {
    "zstd".to_owned()
}
