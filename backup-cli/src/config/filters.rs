//! What a job leaves out of its backups.

use super::PostgresConfig;

impl PostgresConfig {
    /// The keys by which something of the database stays out of the backups: who replaces the
    /// database, or drops what is left of it, loses that.
    pub fn leaves_out(&self) -> Vec<&'static str> {
        [
            ("schemas", !self.schemas.is_empty()),
            ("exclude_schemas", !self.exclude_schemas.is_empty()),
            ("tables", !self.tables.is_empty()),
            ("exclude_tables", !self.exclude_tables.is_empty()),
            ("exclude_table_data", !self.exclude_table_data.is_empty()),
            ("large_objects", self.large_objects == Some(false)),
        ]
        .into_iter()
        .filter_map(|(key, filters)| filters.then_some(key))
        .collect()
    }
}
