//! What a restore did, and what one has to know about it.

use super::InPlacePlan;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// The database that holds it now.
    pub database: String,
    /// Whether it was made for this.
    pub created: bool,
    /// Version of the pg_restore that did it.
    pub pg_restore: String,
    /// Tables whose rows were counted again and are as many as in the archive.
    pub tables_compared: u64,
    /// Rows in them.
    pub rows_compared: u64,
    /// Large objects, as many as in the archive.
    pub large_objects: u64,
    /// Tables that were not compared, and why: `public.claims: left out of the backup`.
    pub not_compared: Vec<String>,
    /// Roles that were created.
    pub created_roles: Vec<String>,
    /// Created roles that may log in, but the backup has no password for them.
    pub cannot_log_in: Vec<String>,
    /// Bytes that were set aside in a file while it ran.
    pub spooled_bytes: u64,
    /// What a restore in place replaced, and what it left.
    pub in_place: Option<InPlacePlan>,
    /// What else is not as it was: roles that differ, properties that could not be set.
    pub notes: Vec<String>,
}
