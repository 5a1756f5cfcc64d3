//! What of a database is dumped, and how patient pg_dump is.

use std::time::Duration;

use backup_core::DumpFilters;

/// How long pg_dump waits for the lock on a table by default. While it waits, nobody else gets
/// the table either: whatever comes later queues up behind it.
pub const LOCK_WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long pg_dump may be silent by default. It writes as it reads, so it is silent only while
/// it waits for locks, reads the catalogs of very many objects, or sorts a TOAST chain.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The longest time PostgreSQL can be told, in milliseconds (about 24 days).
const MAX_MILLISECONDS: u128 = i32::MAX as u128;

/// How a database is dumped; by default all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpOptions {
    /// What of it. A pattern that asks for something and matches nothing is an error, so that a
    /// typing mistake doesn't silently leave tables out.
    pub filters: DumpFilters,
    /// Role to become after the login (`SET ROLE`).
    pub role: Option<String>,
    /// Whether a digest of every table's rows is made on the way.
    pub row_digests: bool,
    /// How long to wait for the lock on a table; zero waits without end.
    pub lock_wait_timeout: Duration,
    /// How long pg_dump may be silent before the dump is given up.
    pub stall_timeout: Duration,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self {
            filters: DumpFilters::default(),
            role: None,
            row_digests: true,
            lock_wait_timeout: LOCK_WAIT_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

impl DumpOptions {
    /// Whether everything in the database is dumped.
    pub fn is_complete(&self) -> bool {
        self.filters.leave_out().is_empty()
    }

    /// pg_dump's arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        let lock_wait = self.lock_wait_timeout.as_millis().min(MAX_MILLISECONDS);
        let mut arguments =
            vec![format!("--lock-wait-timeout={lock_wait}"), "--strict-names".to_owned()];
        let lists = [
            ("schema", &self.filters.schemas),
            ("exclude-schema", &self.filters.exclude_schemas),
            ("table", &self.filters.tables),
            ("exclude-table", &self.filters.exclude_tables),
            ("exclude-table-data", &self.filters.exclude_table_data),
        ];
        for (option, patterns) in lists {
            arguments.extend(patterns.iter().map(|pattern| format!("--{option}={pattern}")));
        }
        // The long names changed in version 16, the short ones did not.
        arguments.extend(
            self.filters.large_objects.map(|wanted| if wanted { "-b" } else { "-B" }.to_owned()),
        );
        arguments.extend(self.role.iter().map(|role| format!("--role={role}")));
        arguments
    }
}
