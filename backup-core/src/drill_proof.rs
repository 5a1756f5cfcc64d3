//! The stored record of a drill: a restore that was tried out, and how it went.
//!
//! It lies unencrypted beside the backup, so it tells nothing about the data: no table, no
//! number of rows, no SQL. What those were, the drill's own report says.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::layout::PROOFS;
use crate::{CatalogEntry, Creation, Error, Result, Storage};

/// The number of the newest drill proof format this version reads and the one it writes.
pub const DRILL_PROOF_FORMAT: u32 = 1;

/// The stored record of one drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillProof {
    /// Format number, [`DRILL_PROOF_FORMAT`].
    pub format: u32,
    /// `drill`.
    pub kind: String,
    /// The backup.
    pub backup: String,
    /// The storage whose copy was restored.
    pub storage: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Name and version of the program.
    pub tool: String,
    /// Host that ran it.
    pub host: String,
    /// Whether the backup came back, and everything that was compared is equal.
    pub passed: bool,
    /// What is wrong, a line each, in general words. Empty when `passed`.
    pub problems: Vec<String>,
    /// Version of the server that it was restored to.
    pub server: String,
    /// Whether that server was made for the drill and is gone.
    pub throwaway: bool,
    /// How the tables were compared.
    pub rows: RowProof,
    /// Whether the definitions of all objects were compared.
    pub schema_compared: bool,
    /// The user's own SQL checks that were run.
    pub checks: u64,
    /// Seconds from the first byte asked for to the restored, checked database: the time that a
    /// real restore to such a server takes.
    pub restore_seconds: f64,
    /// Seconds of these in which the restore waited for bytes: download, decryption,
    /// decompression.
    pub waiting_seconds: f64,
    /// Seconds for comparing rows and definitions, and for the checks.
    pub compare_seconds: f64,
}

/// How much is proven about the rows of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowProof {
    /// Each row of every table, by a digest.
    Exact,
    /// Each row of some tables; the others by their number or not at all, as the report says.
    Mostly,
    /// Their number only.
    Counted,
    /// Nothing.
    NotCompared,
}

impl DrillProof {
    /// Its file name: it tells the result, so that a listing does not have to read every proof.
    pub fn file_name(&self) -> String {
        let time = self.started.strftime("%Y%m%dT%H%M%SZ");
        format!("{time}-drill{}.json", if self.passed { "" } else { "-failed" })
    }
}

/// Stores the record of a drill beside the backup in each of these storages. Returns for each
/// whether it could; the drill's result stands in any case.
pub async fn store_drill_proof(
    entry: &CatalogEntry,
    storages: &[Arc<dyn Storage>],
    proof: &DrillProof,
) -> Vec<(String, Result<()>)> {
    let mut stored = Vec::new();
    for storage in storages {
        let result = store(entry, storage.as_ref(), proof).await;
        stored.push((storage.name().to_owned(), result));
    }
    stored
}

async fn store(entry: &CatalogEntry, storage: &dyn Storage, proof: &DrillProof) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(proof)
        .map_err(|e| Error::failed("proof", "could not be written as JSON").caused_by(e))?;
    json.push(b'\n');
    let key = entry.key(&format!("{PROOFS}/{}", proof.file_name()));
    match storage.create_new(&key, Bytes::from(json)).await? {
        Creation::Created => Ok(()),
        Creation::Taken => {
            Err(Error::failed("proof", "another drill of the same second left its proof there")
                .next_step("run the drill again"))
        }
    }
}
