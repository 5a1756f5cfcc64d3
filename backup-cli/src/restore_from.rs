//! What a restore reads: a backup of a storage, or a plain file.

use std::path::Path;

use backup_core::CatalogEntry;

/// What a restore reads.
#[derive(Debug, Clone, Copy)]
pub enum RestoreFrom<'a> {
    /// A backup.
    Backup(&'a CatalogEntry),
    /// A pg_dump archive in a plain file, whatever compressed or encrypted it.
    File(&'a Path),
}

impl RestoreFrom<'_> {
    /// The backup's id, or the file.
    pub fn label(&self) -> String {
        match self {
            Self::Backup(entry) => entry.id.to_string(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The backup's id; `None` for a file.
    pub fn backup_id(&self) -> Option<String> {
        match self {
            Self::Backup(entry) => Some(entry.id.to_string()),
            Self::File(_) => None,
        }
    }
}
