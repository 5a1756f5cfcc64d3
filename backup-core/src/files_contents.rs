//! What is in a part of files: counts, and the names as far as they are few.

use serde::{Deserialize, Serialize};

/// What a part of files holds. Names are as UTF-8; bytes that are none are written `\xFF`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilesContents {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
    /// Entries that a later one of the same name replaces: a large file changed while it was
    /// read, and was read again.
    pub superseded: u64,
    /// The first of them, in the order of the archive.
    pub listed: Vec<ListedFile>,
    /// How many more there are than are listed.
    pub unlisted: u64,
    /// Sockets, fifos and devices, which are not backed up: the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// How many were skipped.
    pub skipped_count: u64,
    /// Patterns of `optional` that matched nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Symbolic links that a pattern matched, and whose target is not in the backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links_outside: Vec<String>,
}

impl FilesContents {
    /// Whether both tell of the same archive. What was left out of it is not compared.
    pub fn same_files(&self, other: &Self) -> bool {
        let counts = |c: &Self| {
            (c.files, c.directories, c.links, c.bytes, c.superseded, c.listed.len(), c.unlisted)
        };
        counts(self) == counts(other) && self.listed == other.listed
    }
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Its path without the leading slash, `etc/nginx/nginx.conf`.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner: the name, or the number where it has none.
    pub owner: String,
    /// Group: the name, or the number where it has none.
    pub group: String,
    /// Size of a regular file in bytes.
    pub bytes: u64,
    /// Where a symbolic link points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something a newer version knows.
    #[serde(other)]
    Other,
}
