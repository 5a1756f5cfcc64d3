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
mod preflight;
mod psql;
mod restore;
mod roles;
mod server;
pub mod sql;
pub mod swap;
#[cfg(test)]
mod test_server;
#[cfg(unix)]
pub mod throwaway;
mod tools;

pub use archive::{
    ARCHIVE_MAGIC, ArchiveCheck, ArchiveCompression, ArchiveHead, ArchiveHeader, ArchiveReader,
    ArchiveSummary, ArchiveVersion, MAX_TOC_BYTES, RowKey, Section, SelectedArchive, SelectedPart,
    Selection, Toc, TocEntry,
};
pub use connect::Connection;
pub use database::{DatabasePlan, TablespaceMap, database_facts, plan_database};
pub use dump::{
    DumpOptions, DumpStream, LOCK_WAIT_TIMEOUT, PgDump, STALL_TIMEOUT, with_recorded_settings,
};
pub use globals::{Globals, GlobalsPlan, Tablespace, plan_globals};
pub use preflight::{
    Finding, Needs, PreflightOptions, RestoreMode, Severity, preflight, refuse_blocking,
};
pub use psql::{LOCK_TIMEOUT, Psql, QUERY_TIMEOUT};
pub use restore::{
    COMMIT_TIMEOUT, InPlacePlan, PgRestore, Purpose, RESTORE_TIMEOUT, RestoreOptions, RestorePlan,
    RestoreReport, WORKING_PREFIX, Working, WorkingMark,
};
pub use roles::{GlobalsDump, NO_ROLE_PASSWORDS};
pub use server::Server;
pub use tools::{ClientTools, OLDEST_SERVER, ToolSearch, Version};
