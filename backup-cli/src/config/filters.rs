//! What a job leaves out of its backups.

use backup_core::DumpFilters;

use super::PostgresConfig;

impl PostgresConfig {
    /// What the job's dumps are told to take; its backups record it.
    pub fn filters(&self) -> DumpFilters {
        DumpFilters {
            schemas: self.schemas.clone(),
            exclude_schemas: self.exclude_schemas.clone(),
            tables: self.tables.clone(),
            exclude_tables: self.exclude_tables.clone(),
            exclude_table_data: self.exclude_table_data.clone(),
            large_objects: self.large_objects,
        }
    }
}
