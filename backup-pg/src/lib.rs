//! PostgreSQL for marb-backup: sources and sinks over its own client programs.
//!
//! Absent on purpose: a database driver of our own. Queries run through psql, so that every
//! libpq parameter, way to log in and TLS setting means the same for them as for pg_dump.

mod archive;
mod client;
mod connect;
mod database;
mod diagnosis;
mod dump;
mod globals;
mod output;
mod psql;
mod restore;
mod roles;
mod server;
pub mod sql;
#[cfg(test)]
mod test_server;
#[cfg(unix)]
pub mod throwaway;
mod tools;

pub use archive::{
    ARCHIVE_MAGIC, ArchiveCheck, ArchiveCompression, ArchiveHeader, ArchiveReader, ArchiveSummary,
    ArchiveVersion, MAX_TOC_BYTES, Section, Toc, TocEntry,
};
pub use connect::Connection;
pub use database::{DatabasePlan, TablespaceMap, database_facts, plan_database};
pub use dump::{DumpOptions, LOCK_WAIT_TIMEOUT, PgDump, STALL_TIMEOUT};
pub use globals::{Globals, GlobalsPlan, Tablespace, plan_globals};
pub use psql::{LOCK_TIMEOUT, Psql, QUERY_TIMEOUT};
pub use restore::{
    COMMIT_TIMEOUT, PgRestore, RESTORE_TIMEOUT, RestoreOptions, RestoreReport, WORKING_PREFIX,
};
pub use roles::{GlobalsDump, NO_ROLE_PASSWORDS};
pub use server::Server;
pub use tools::{ClientTools, OLDEST_SERVER, ToolSearch, Version};
