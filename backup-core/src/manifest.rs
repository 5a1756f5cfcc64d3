//! The manifest: written last, deleted first; a backup exists if and only if it does.
//!
//! docs/format.md describes it field by field. Nothing in it tells about the data; that goes
//! into the encrypted [`Contents`](crate::Contents).

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{BackupId, Digest, Error, Result};

/// The number of the newest manifest format this version reads and the one it writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// How the label of a passphrase starts in [`Part::keys`]; everything else there is the
/// fingerprint of a public key.
pub const PASSPHRASE_KEY: &str = "passphrase";

/// Everything public about one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format number, [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The backup's id.
    pub id: String,
    /// The job that made it.
    pub job: String,
    /// What kind of backup: `logical`, `files`, or `deployment` for both.
    pub kind: String,
    /// When the run started.
    pub started: Timestamp,
    /// When its last part was complete.
    pub finished: Timestamp,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// Host that ran it.
    pub host: String,
    /// What was backed up.
    pub source: SourceIdentity,
    /// The application's own version, where the job asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// Versions on the PostgreSQL side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresVersions>,
    /// Every part, in the order they were written.
    pub parts: Vec<Part>,
    /// The unencrypted companions (`RESTORE.md`) with their digests. `SHA256SUMS` is not among
    /// them: it lists the manifest itself.
    #[serde(default)]
    pub companions: Vec<Companion>,
    /// What one must know before relying on it, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The older backup that this one was made of by `rekey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekeyed: Option<Rekeyed>,
}

/// A backup that holds the data of an older one, encrypted anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// Id of the older one.
    pub from: String,
    /// When the older one's last part was complete: so old is the data.
    pub finished: Timestamp,
    /// When it was encrypted anew.
    pub at: Timestamp,
    /// Name and version of the program that did.
    pub tool: String,
    /// Host that did.
    pub host: String,
}

/// What was backed up. Two backups of one job must agree in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// PostgreSQL's system identifier; of files a name for the machine, `machine-…`. `None` where
    /// that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Database name; empty for files alone.
    pub database: String,
    /// Where the server was, `db.example:5432` or a socket folder. Informative.
    #[serde(default)]
    pub server: String,
}

impl SourceIdentity {
    /// Whether both name the same source. The server's address may change (a failover, a
    /// tunnel); the system identifier and the database may not.
    pub fn same_source(&self, other: &Self) -> bool {
        let same_system = match (&self.system_identifier, &other.system_identifier) {
            (Some(a), Some(b)) => a == b,
            // A server that keeps its identifier to itself is known by its address only.
            _ => self.server == other.server,
        };
        same_system && self.database == other.database
    }
}

/// Versions on the PostgreSQL side, as the programs print them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresVersions {
    /// The server's, `15.18`.
    pub server: String,
    /// pg_dump's, `15.18`.
    pub pg_dump: String,
    /// The archive format's, `1.14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// What a part is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartRole {
    /// A database as a pg_dump archive.
    Database,
    /// Roles, memberships and tablespaces as SQL.
    Globals,
    /// Files as a tar stream.
    Files,
    /// What is inside the other parts.
    Contents,
    /// Something a newer version knows.
    #[serde(other)]
    Other,
}

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// File name in the backup's folder, `marb_risk_engine.dump.zst.gpg`.
    pub file: String,
    /// Name before the transforms, `marb_risk_engine.dump`.
    pub name: String,
    /// What it is for.
    pub role: PartRole,
    /// Names of the transforms in the order they were applied: `["zstd", "openpgp"]`.
    pub transforms: Vec<String>,
    /// Stored size in bytes.
    pub bytes: u64,
    /// SHA-256 of the stored bytes, in hex.
    pub sha256: String,
    /// Who can open it: fingerprints of public keys, or a label for the passphrase. Empty when not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

impl Part {
    /// Digest of the stored bytes.
    pub fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, sha256: self.sha256.clone() }
    }
}

/// An unencrypted file that lies beside the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// File name.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

impl Manifest {
    /// Reads a `manifest.json`. Unknown fields are ignored.
    ///
    /// # Errors
    /// When it is no manifest, is of a newer format, or names files outside its folder.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let manifest: Self = read_document(json, "manifest", MANIFEST_FORMAT)?;
        manifest.backup_id()?;
        crate::layout::check_job_name(&manifest.job)?;
        let files = manifest.parts.iter().map(|p| &p.file);
        for file in files.chain(manifest.companions.iter().map(|c| &c.file)) {
            crate::layout::check_key(file)?;
            if file.contains('/') {
                return Err(Error::damaged(
                    "manifest",
                    format!("names {file:?}, outside its folder"),
                ));
            }
        }
        Ok(manifest)
    }

    /// The document as it is stored.
    ///
    /// # Errors
    /// Never in practice; serialisation can't fail for these types.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::failed("manifest", "could not be written as JSON").caused_by(e))?;
        json.push(b'\n');
        Ok(json)
    }

    /// The id, parsed.
    ///
    /// # Errors
    /// When the document holds something else there.
    pub fn backup_id(&self) -> Result<BackupId> {
        self.id.parse()
    }

    /// The first part with this role.
    pub fn part(&self, role: PartRole) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == role)
    }

    /// Whether any part is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.parts.iter().any(|part| !part.keys.is_empty())
    }

    /// Stored bytes of all parts.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Reads a versioned JSON document: the format number first, so that a newer one is named as
/// such and not as "unknown field".
pub(crate) fn read_document<T: DeserializeOwned>(
    json: &[u8],
    what: &'static str,
    newest: u32,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let no_document =
        |e: serde_json::Error| Error::damaged(what, format!("is no {what} document")).caused_by(e);
    let head: Head = serde_json::from_slice(json).map_err(no_document)?;
    if head.format > newest {
        return Err(Error::new(
            crate::ErrorKind::Unchecked,
            what,
            format!("has format {}, this program reads up to {newest}", head.format),
        )
        .next_step("use a newer marb-backup, or follow the backup's RESTORE.md"));
    }
    serde_json::from_slice(json).map_err(no_document)
}
