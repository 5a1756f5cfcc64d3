//! The stored record of a verification.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Level, VerifyReport};
use crate::layout::PROOFS;
use crate::read::BackupReader;
use crate::{Error, ErrorKind, Result};

/// The number of the newest proof format this version reads and the one it writes.
pub const PROOF_FORMAT: u32 = 1;

/// The stored record of a verification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// Format number, [`PROOF_FORMAT`].
    pub format: u32,
    /// `verify`.
    pub kind: String,
    /// How much was looked at; where it does not say, everything was.
    #[serde(default)]
    pub level: Level,
    /// The backup.
    pub backup: String,
    /// The storage whose copy was read.
    pub storage: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Name and version of the program.
    pub tool: String,
    /// Whether everything that the level asks for was checked and found good.
    pub passed: bool,
    /// What is wrong, a line each. Empty when `passed`.
    pub problems: Vec<String>,
}

/// Stores the record of a verification beside the backup. An interrupted one, or one that
/// could not check, proves nothing and is not stored.
///
/// # Errors
/// When it can't be stored; the verification's result stands.
pub async fn store_proof(
    reader: &BackupReader,
    report: &VerifyReport,
    started: Timestamp,
    tool: &str,
) -> Result<()> {
    let worst = report.worst().map(Error::kind);
    if !matches!(worst, None | Some(ErrorKind::Damaged)) {
        return Ok(());
    }
    let problems = report.checks.iter().filter_map(|check| check.result.as_ref().err());
    let proof = Proof {
        format: PROOF_FORMAT,
        kind: "verify".to_owned(),
        level: report.level,
        backup: reader.manifest().id.clone(),
        storage: report.storage.clone(),
        started,
        finished: Timestamp::now().max(started),
        tool: tool.to_owned(),
        passed: worst.is_none(),
        problems: problems.map(ToString::to_string).collect(),
    };
    let json = serde_json::to_vec_pretty(&proof)
        .map_err(|e| Error::failed("proof", "could not be written as JSON").caused_by(e))?;
    // Two proofs of one second say the same about the same bytes; the first one stays.
    let key = reader.key(&format!("{PROOFS}/{}", file_name(&proof)));
    reader.storage().create_new(&key, Bytes::from(json)).await.map(|_| ())
}

/// The name tells level and result, so that a listing does not have to read every proof, and
/// never takes a look at the stored bytes for more.
fn file_name(proof: &Proof) -> String {
    let word = match proof.level {
        Level::Content => "verify",
        Level::Checksums => "checksums",
    };
    let result = if proof.passed { "" } else { "-failed" };
    format!("{}-{word}{result}.json", proof.started.strftime("%Y%m%dT%H%M%SZ"))
}
