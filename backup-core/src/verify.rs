//! The verb `verify`: reads a copy back, all of it, and says what was found.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::layout::PROOFS;
use crate::pipeline::{self, Context};
use crate::read::BackupReader;
use crate::{
    Authenticate, Contents, Discard, Error, ErrorKind, Inventory, Part, PartRole, Result, Sink,
};

/// The number of the newest proof format this version reads and the one it writes.
pub const PROOF_FORMAT: u32 = 1;

/// Looks at the plain bytes of one part: walks an archive, say.
pub trait Inspector: Send + Sync {
    /// Where the plain bytes go; commits only when they are whole.
    fn sink(&self) -> Arc<dyn Sink>;

    /// What it found, after its sink was committed.
    fn inventory(&self) -> Option<Inventory>;
}

/// Makes an inspector for a part of this role, where one exists.
pub type Inspectors<'a> = &'a (dyn Fn(PartRole) -> Option<Box<dyn Inspector>> + Sync);

/// What a verification found about one copy of a backup.
#[derive(Debug)]
pub struct VerifyReport {
    /// The storage that was read.
    pub storage: String,
    /// What was checked, in order, and how it went.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Debug)]
pub struct Check {
    /// A file of the backup, or `signature`.
    pub what: String,
    /// Plain bytes read, or what is wrong.
    pub result: Result<u64>,
}

impl VerifyReport {
    /// The worst thing that was found: damage before "could not check" before anything else.
    pub fn worst(&self) -> Option<&Error> {
        let rank = |kind: ErrorKind| match kind {
            ErrorKind::Interrupted => 0,
            ErrorKind::Damaged => 1,
            ErrorKind::Refused => 2,
            ErrorKind::Unchecked => 3,
            _ => 4,
        };
        let errors = self.checks.iter().filter_map(|check| check.result.as_ref().err());
        errors.min_by_key(|error| rank(error.kind()))
    }
}

/// The stored record of a verification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// Format number, [`PROOF_FORMAT`].
    pub format: u32,
    /// `verify`.
    pub kind: String,
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
    /// Whether everything was checked and found good.
    pub passed: bool,
    /// What is wrong, a line each. Empty when `passed`.
    pub problems: Vec<String>,
}

/// Reads everything of one copy: signature, companions, and each part through all its inverses.
/// Goes on after damage, so that all of it is named.
pub async fn verify(
    reader: &BackupReader,
    authenticate: Option<&dyn Authenticate>,
    inspectors: Inspectors<'_>,
    context: &Context,
) -> VerifyReport {
    let mut checks = Vec::new();
    let mut note = |what: &str, result: Result<u64>| {
        checks.push(Check { what: what.to_owned(), result: result.map_err(could_not_check) });
    };
    let stop = &context.cancel;

    let contents_part = reader.manifest().part(PartRole::Contents);
    let contents = or_damage(reader, contents_part, reader.contents(context).await, context).await;
    let signature = stop.guard(reader.authenticate(authenticate)).await.map(|()| 0);
    note(
        "signature",
        signature.map_err(|error| match (error.kind(), &contents) {
            // Under a wrong passphrase every signature looks forged; the data can't be opened either.
            (ErrorKind::Refused, Err(closed)) if closed.kind() == ErrorKind::Unchecked => {
                error.with_kind(ErrorKind::Unchecked)
            }
            _ => error,
        }),
    );
    note("companions", stop.guard(reader.check_companions()).await.map(|()| 0));
    let known = contents.as_ref().ok().cloned();
    for part in &reader.manifest().parts {
        if context.cancel.is_cancelled() {
            note(&part.file, Err(context.cancel.error()));
            break;
        }
        if part.role != PartRole::Contents {
            let result = check_part(reader, part, known.as_ref(), inspectors, context).await;
            note(&part.file, or_damage(reader, Some(part), result, context).await);
        }
    }
    note(contents_part.map_or("contents", |part| &part.file), contents.map(|_| 0));
    VerifyReport { storage: reader.storage().name().to_owned(), checks }
}

/// Whatever kept a check from its end, nothing is known then.
fn could_not_check(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::Refused | ErrorKind::Interrupted => error,
        _ => error.with_kind(ErrorKind::Unchecked),
    }
}

/// What can't be decoded here (no key, say) can still be compared with its stored digest:
/// damage is told as damage.
async fn or_damage<T>(
    reader: &BackupReader,
    part: Option<&Part>,
    decoded: Result<T>,
    context: &Context,
) -> Result<T> {
    let (Err(error), Some(part)) = (&decoded, part) else { return decoded };
    if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Interrupted) {
        return decoded;
    }
    match reader.check_stored(part, context).await {
        Err(damage) if damage.kind() == ErrorKind::Damaged => Err(damage),
        _ => decoded,
    }
}

async fn check_part(
    reader: &BackupReader,
    part: &Part,
    contents: Option<&Contents>,
    inspectors: Inspectors<'_>,
    context: &Context,
) -> Result<u64> {
    let inspector = inspectors(part.role);
    let sink = inspector.as_ref().map_or_else(|| Arc::new(Discard) as Arc<dyn Sink>, |i| i.sink());
    let outcome = pipeline::run(reader.flow(part, contents, sink)?, context).await?;
    let recorded = contents.and_then(|contents| contents.part(&part.name));
    match (inspector.and_then(|inspector| inspector.inventory()), recorded) {
        (Some(found), Some(recorded)) if found.tables != recorded.inventory.tables => {
            Err(Error::damaged(
                "archive",
                format!(
                    "{}: the tables or row counts in the archive are not those recorded for the backup",
                    part.file
                ),
            )
            .next_step("do not rely on this backup; take a new one and report this"))
        }
        _ => Ok(outcome.written.bytes),
    }
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
    let name = started.strftime("%Y%m%dT%H%M%SZ");
    // The name tells the result, so that a listing does not have to read every proof.
    let name = format!("{name}-verify{}.json", if proof.passed { "" } else { "-failed" });
    let key = reader.key(&format!("{PROOFS}/{name}"));
    reader.storage().create_new(&key, Bytes::from(json)).await.map(|_| ())
}
