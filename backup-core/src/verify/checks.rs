//! One copy of a backup, looked at file by file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Check, Inspector, Inspectors, Level, ListedPart, SIGNATURE_CHECK, Stored, VerifyReport,
};
use crate::layout::{RESTORE_NOTE, SHA256SUMS};
use crate::pipeline::{self, Context, Event, Flow, Progress};
use crate::read::{BackupReader, Origin};
use crate::{
    Authenticate, Contents, Discard, Error, ErrorKind, Inventory, Part, PartContents, PartRole,
    Result, Sink,
};

/// A copy, and the means to look at it.
pub(super) struct Checking<'a> {
    pub(super) reader: &'a BackupReader,
    pub(super) authenticate: Option<&'a dyn Authenticate>,
    pub(super) context: &'a Context,
}

impl Checking<'_> {
    /// Everything, decoded.
    pub(super) async fn content(&self, inspectors: Inspectors<'_>) -> VerifyReport {
        let (contents, told) = self.contents().await;
        let (origin, signature) = self.signature().await;
        // Under a wrong passphrase every signature looks forged; the data can't be opened either.
        let closed = matches!(&told.result, Err(e) if e.kind() == ErrorKind::Unchecked);
        let signature = signature.map_err(|error| match error.kind() {
            ErrorKind::Refused if closed => error.with_kind(ErrorKind::Unchecked),
            _ => error,
        });
        let mut checks = vec![Check::of_stored(SIGNATURE_CHECK, signature.map(|()| 0))];
        checks.extend(self.companions().await);
        for part in self.reader.manifest().parts.iter().filter(|part| part.file != told.what) {
            if self.context.cancel.is_cancelled() {
                checks.push(Check::of_stored(&part.file, Err(self.context.cancel.error())));
                break;
            }
            checks.push(self.part(part, contents.as_ref(), inspectors).await);
        }
        checks.push(told);
        self.report(Level::Content, origin, checks)
    }

    /// Stored bytes only.
    pub(super) async fn checksums(&self) -> VerifyReport {
        let (origin, signature) = self.signature().await;
        let signature = match signature {
            // That nobody here can tell is said by the origin; no key is needed here.
            Err(_) if origin == Some(Origin::NoKey) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Refused && self.is_closed().await => {
                Err(error.with_kind(ErrorKind::Unchecked))
            }
            other => other,
        };
        let mut checks = vec![Check::of_stored(SIGNATURE_CHECK, signature.map(|()| 0))];
        checks.extend(self.companions().await);
        for part in &self.reader.manifest().parts {
            let stored = self.reader.check_stored(part, self.context).await;
            checks.push(Check::of_stored(&part.file, stored.map(|()| part.bytes)));
            if self.context.cancel.is_cancelled() {
                break;
            }
        }
        self.report(Level::Checksums, origin, checks)
    }

    fn report(&self, level: Level, origin: Option<Origin>, checks: Vec<Check>) -> VerifyReport {
        let storage = self.reader.storage().name().to_owned();
        VerifyReport { storage, level, origin, checks, damage: Vec::new() }
    }

    /// Who wrote it, and whether that is good enough.
    async fn signature(&self) -> (Option<Origin>, Result<()>) {
        let origin = self.context.cancel.guard(self.reader.origin(self.authenticate)).await;
        let known = origin.as_ref().ok().copied();
        let judged = origin.and_then(|origin| match origin {
            Origin::Proven => Ok(()),
            // Nothing here could have signed it.
            Origin::Unsigned if self.authenticate.is_none() => Ok(()),
            unproven => Err(unproven.error()),
        });
        (known, judged)
    }

    /// Whether the keys at hand don't open this backup.
    async fn is_closed(&self) -> bool {
        let contents = self.reader.contents(&self.context.without_progress()).await;
        contents.is_err_and(|error| error.kind() == ErrorKind::Unchecked)
    }

    /// The unencrypted files, against their digests in the manifest, and the manifest against
    /// the list of checksums.
    async fn companions(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for companion in &self.reader.manifest().companions {
            let read = self.context.cancel.guard(self.reader.check_companion(companion)).await;
            checks.push(Check::of_stored(&companion.file, read.map(|()| 0)));
        }
        if !checks.iter().any(|check| check.what == RESTORE_NOTE) {
            let error = Error::damaged("manifest", format!("names no {RESTORE_NOTE}"));
            checks.push(Check::new(RESTORE_NOTE, Err(error), Stored::Unknown));
        }
        let listed = self.context.cancel.guard(self.reader.check_checksum_list()).await;
        checks.push(Check::of_stored(SHA256SUMS, listed.map(|()| 0)));
        checks
    }

    async fn contents(&self) -> (Option<Contents>, Check) {
        let read = BytesRead::default();
        let contents = self.reader.contents(&read.counting(self.context)).await;
        let part = self.reader.manifest().part(PartRole::Contents);
        match (contents, part) {
            (Ok(contents), Some(part)) => {
                (Some(contents), Check::new(&part.file, Ok(0), Stored::Whole))
            }
            (Err(error), Some(part)) => (None, self.explain(part, error, &read).await),
            (contents, None) => {
                (None, Check::new("contents", contents.map(|_| 0), Stored::Unknown))
            }
        }
    }

    async fn part(
        &self,
        part: &Part,
        contents: Option<&Contents>,
        inspectors: Inspectors<'_>,
    ) -> Check {
        let read = BytesRead::default();
        let decoded = self.decode(part, contents, inspectors, &read.counting(self.context)).await;
        match decoded {
            Ok(bytes) => Check::new(&part.file, Ok(bytes), Stored::Whole),
            Err(error) => self.explain(part, error, &read).await,
        }
    }

    async fn decode(
        &self,
        part: &Part,
        contents: Option<&Contents>,
        inspectors: Inspectors<'_>,
        context: &Context,
    ) -> Result<u64> {
        let recorded = contents.and_then(|contents| contents.part(&part.name));
        let inventory = recorded.map(|recorded| &recorded.inventory);
        let inspector =
            inspectors(ListedPart { manifest: self.reader.manifest(), part }, inventory);
        let sink =
            inspector.as_ref().map_or_else(|| Arc::new(Discard) as Arc<dyn Sink>, |i| i.sink());
        let flow = self.reader.flow(part, contents, sink)?;
        let stages = self.reader.decoders.stages_checking(part, recorded)?;
        let outcome = pipeline::run(Flow { stages, ..flow }, context).await?;
        let found = inspector.and_then(|inspector: Box<dyn Inspector>| inspector.inventory());
        check_rows(part, recorded, found.as_ref())?;
        Ok(outcome.written.bytes)
    }

    /// Why a part could not be decoded: are its stored bytes others than those of the manifest?
    /// What can't be decoded here (no key, say) can still be seen to be damaged.
    async fn explain(&self, part: &Part, error: Error, read: &BytesRead) -> Check {
        if error.kind() == ErrorKind::Interrupted {
            return Check::new(&part.file, Err(error), Stored::Unknown);
        }
        let is_damage = error.kind() == ErrorKind::Damaged;
        let stored = self.reader.check_stored(part, &self.context.without_progress()).await;
        match stored {
            Ok(()) if is_damage => {
                Check::new(&part.file, Err(damaged_as_written(part, error)), Stored::Whole)
            }
            Ok(()) => Check::new(&part.file, Err(error), Stored::Whole),
            Err(damage) if damage.kind() == ErrorKind::Damaged => {
                let decoded = is_damage.then(|| read.bytes());
                Check { decoded, ..Check::new(&part.file, Err(damage), Stored::Wrong) }
            }
            Err(stopped) if stopped.kind() == ErrorKind::Interrupted => {
                Check::new(&part.file, Err(stopped), Stored::Unknown)
            }
            Err(_) => Check::new(&part.file, Err(error), Stored::Unknown),
        }
    }
}

/// The files, tables and rows in an archive are those that the backup recorded.
fn check_rows(
    part: &Part,
    recorded: Option<&PartContents>,
    found: Option<&Inventory>,
) -> Result<()> {
    let (Some(found), Some(recorded)) = (found, recorded.map(|recorded| &recorded.inventory))
    else {
        return Ok(());
    };
    let differs = if !same_files(recorded, found) {
        "the files in the archive are not those recorded for the backup"
    } else if !recorded.same_tables(found) {
        "the tables or rows in the archive are not those recorded for the backup"
    } else if !same_blocks(recorded, found) {
        "its tables do not stand where the backup says that they do"
    } else {
        return Ok(());
    };
    Err(Error::damaged("archive", format!("{}: {differs}", part.file))
        .next_step("do not rely on this backup; take a new one and report this"))
}

/// Whether the data stands where it was recorded to stand, where that was: a restore of some tables
/// goes by it.
fn same_blocks(recorded: &Inventory, found: &Inventory) -> bool {
    let both = !recorded.data_blocks.is_empty() && !found.data_blocks.is_empty();
    !both || recorded.data_blocks == found.data_blocks
}

/// Whether the archive holds the files that were recorded, where any were.
fn same_files(recorded: &Inventory, found: &Inventory) -> bool {
    match (&recorded.files, &found.files) {
        (Some(recorded), Some(found)) => recorded.same_files(found),
        (None, None) => true,
        _ => false,
    }
}

fn damaged_as_written(part: &Part, error: Error) -> Error {
    let message = format!(
        "{}: {}, though its stored bytes are those that were written",
        part.file,
        error.message()
    );
    Error::damaged(error.stage().to_owned(), message)
        .next_step(
            "it was written like this, or this host's memory is not to be trusted: verify it on \
             another host, and take a new backup",
        )
        .caused_by(error)
}

/// How far a source was read.
#[derive(Clone, Default)]
struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// The same context, which counts as well.
    fn counting(&self, context: &Context) -> Context {
        let heard = Heard { read: self.clone(), progress: Arc::clone(&context.progress) };
        Context { progress: Arc::new(heard), ..context.clone() }
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Heard {
    read: BytesRead,
    progress: Arc<dyn Progress>,
}

impl Progress for Heard {
    fn event(&self, event: Event<'_>) {
        if let Event::Read { bytes } = event {
            self.read.0.fetch_add(bytes, Ordering::Relaxed);
        }
        self.progress.event(event);
    }
}
