//! The core of marb-backup: the traits, the pipeline, the manifest, and the verbs on them.
//!
//! Whoever reads this page can draw the system; ARCHITECTURE.md holds the crates around it,
//! docs/format.md the stored documents.
//!
//! # The words
//!
//! | word | meaning | here |
//! | --- | --- | --- |
//! | job | what is backed up, how and where to; its name is a folder | [`BackupPlan::job`] |
//! | backup | one run of a job: a folder in each storage, named by its id | [`BackupId`] |
//! | part | one stored object of a backup, `claims.dump.zst.gpg` | [`Part`], [`PartRole`] |
//! | storage | a place that keeps objects under keys: a folder, a bucket | [`Storage`] |
//! | manifest | `manifest.json`: a backup exists in a storage if and only if this does | [`Manifest`] |
//! | contents | what is inside a backup, stored encrypted like the data | [`Contents`] |
//! | companion | an unencrypted file beside the parts, `RESTORE.md` | [`Companion`] |
//! | proof | the stored record of a verification | [`Proof`] |
//!
//! # One direction, and its mirror
//!
//! ```text
//! backup   Source ─> encode ─> encode ─> fan-out ─┬─> Sink (storage a)
//!          pg_dump    zstd      openpgp           └─> Sink (storage b)
//!
//! verify,  Source ─> decode ─> decode ─> fan-out ───> Sink
//! restore, stored    openpgp    zstd                  an Inspector, pg_restore, stdout
//! cat      object
//! ```
//!
//! Both are one call of [`pipeline::run`], which carries a [`pipeline::Flow`]. The source and
//! every sink run as tasks, every transform on a thread of its own, with bounded pipes between
//! them. Nobody but `run` decides: it waits for all of them, then commits or aborts every sink.
//!
//! # Who calls whom
//!
//! ```text
//! backup(BackupPlan)                                                  backup/mod.rs
//!   ├─ Catalog::query       does this folder belong to this source?   catalog/
//!   ├─ Storage::sweep       what crashed runs left                    backup/sweep.rs
//!   ├─ Storage::create_new  claim.json: an id of one's own            backup/claim.rs
//!   ├─ pipeline::run        once per part, then contents.json,        pipeline/
//!   │                       RESTORE.md, manifest.json.sig, SHA256SUMS
//!   └─ Storage::create_new  manifest.json, last of all                backup/publish.rs
//!
//! Catalog::query(storages, Query) ── list, then read the manifests    catalog/
//! BackupReader ── one copy, or the best with others behind it         read.rs
//!   └─ StoredObject ── goes on where a download broke                 object.rs, download.rs
//! verify_copies(entry, storages) ── each copy by itself: signature,   verify/
//!   └─ verify(BackupReader)         companions, every part to its end
//! repair(copies) ── a good copy's files over another's damaged ones   repair.rs
//! plan_prune, apply_prune ── RetentionPolicy over the catalog, then   prune/
//!                          folder by folder: claim, tombstone, manifest
//! copy(entry, from, to) ── claim, then pipeline::run for each file,   copy.rs
//!                          the manifest last
//! sync(from, to) ── copy of all that belongs there                    sync.rs
//! rekey(RekeyPlan) ── backup() of decoded parts, verify, then the     rekey/
//!                     old copy goes, its manifest first
//! ```
//!
//! The verbs are [`backup`](fn@backup), [`verify`](fn@verify), [`Catalog::query`] (list, show),
//! [`copy`](fn@copy) and [`sync`], [`apply_prune`], [`pin`](fn@pin), [`rekey`](fn@rekey), and [`BackupReader`] (contents, single parts). A restore needs a database, so it lives in
//! `backup-cli`, on [`BackupReader::flow`].
//!
//! The concrete ends come from the other crates: pg_dump and pg_restore from `backup-pg`, a tar
//! stream of files from `backup-files`, zstd and gzip from `backup-compress`, OpenPGP from
//! `backup-crypto`, a folder on disk from `backup-storage`. They know this crate and not each other; `backup-cli` puts them together.
//!
//! # An example
//!
//! Bytes go out through a transform into two sinks at once, and one copy comes back.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::sync::Arc;
//!
//! use backup_core::pipeline::{self, Context, Flow, Stage};
//! use backup_core::{Collect, Digest, Error, InMemory, Result, Transform};
//!
//! /// Flips every bit. Its own inverse.
//! struct Invert;
//!
//! impl Transform for Invert {
//!     fn name(&self) -> &str { "invert" }
//!     fn extension(&self) -> &str { "inv" }
//!     fn encode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
//!         let mut block = [0; 4096];
//!         loop {
//!             let n = input.read(&mut block).map_err(|e| Error::from_io("invert", e))?;
//!             if n == 0 { return Ok(()); }
//!             block[..n].iter_mut().for_each(|byte| *byte = !*byte);
//!             output.write_all(&block[..n]).map_err(|e| Error::from_io("invert", e))?;
//!         }
//!     }
//!     fn decode(&self, input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
//!         self.encode(input, output)
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     let context = Context::default();
//!     let (here, there) = (Collect::default(), Collect::default());
//!     let greeting = Arc::new(InMemory::new("greeting", "hello"));
//!     let mut out = Flow::new("greeting", greeting, Arc::new(here.clone()));
//!     out.sinks.push(Arc::new(there.clone()));
//!     out.stages = vec![Stage::encode(Arc::new(Invert))];
//!     let made = pipeline::run(out, &context).await?;
//!     let stored = here.take().unwrap_or_default();
//!     assert_eq!(stored, b"hello".map(|byte| !byte));
//!     assert_eq!(there.take(), Some(stored.clone()));
//!
//!     let read = Collect::default();
//!     let stored = Arc::new(InMemory::new("greeting", stored));
//!     let mut back = Flow::new("greeting", stored, Arc::new(read.clone()));
//!     back.stages = vec![Stage::decode(Arc::new(Invert))];
//!     // Checked before anything is committed.
//!     back.expected = Some(Digest { bytes: made.read.bytes, sha256: made.read.sha256 });
//!     pipeline::run(back, &context).await?;
//!     assert_eq!(read.take(), Some(b"hello".to_vec()));
//!     Ok(())
//! }
//! ```
//!
//! # Writing one of one's own
//!
//! The suites in `backup-testkit`'s `conformance` say in code what each must do; run the one for
//! your trait first.
//!
//! - **[`Source`]**: `open` starts reading; [`SourceStream::next_chunk`] gives chunks that are
//!   never empty. `Ok(None)` is a promise that the data is complete, so a child process is
//!   waited for inside of it. What was learned on the way is handed over by
//!   [`SourceStream::findings`].
//! - **[`Transform`]**: two functions from a `Read` to a `Write`, synchronous, tested on two
//!   `Vec`s. Read the input to its end; hand on its errors; refuse what is damaged or cut.
//!   [`Transform::name`] goes into the manifest and finds the inverse again.
//! - **[`Sink`]**: `begin` gives a [`SinkWriter`]. Nothing of it is visible before `commit`, and
//!   nothing is left after `abort`. Both take the box, so doing either twice does not compile.
//! - **[`Storage`]**: a sink that can also be read, listed and cleaned.
//!   [`Storage::create_new`] must let one of two callers win: ids and manifests rest on it.
//! - **[`RetentionPolicy`]**: a pure function from backups and a point in time to decisions.
//!
//! # Absent on purpose
//!
//! - No process, no network, no terminal, no clock in a decision: a plan says when a run
//!   started, a policy is told what time it is.
//! - No environment and no user's configuration: values are handed in. Nothing prints; events go
//!   to a [`pipeline::Progress`], details to `tracing`.
//! - No local database of backups: [`Catalog`] reads the storages themselves, so a new host
//!   knows as much as the lost one did.
//! - No temporary files: a part streams from its source into the storages.
//! - No retries of single calls: a [`Storage`] that wants them has them inside. Only a download
//!   that broke in the middle is taken up again ([`Patience`]), which takes a new `open`.
//! - No `unsafe`, and no panic on data: every failure is an [`Error`] that names its stage, its
//!   cause and the next step.

mod authenticate;
mod backup;
mod catalog;
mod copies;
mod copy;
mod decoders;
mod digest;
mod download;
mod drill_proof;
mod error;
mod files_contents;
mod frames;
mod inventory;
pub mod layout;
mod manifest;
mod memory;
mod object;
mod part_at;
mod pin;
pub mod pipeline;
mod proven;
mod prune;
mod read;
mod read_at;
mod reader_mark;
mod rekey;
mod repair;
mod restore_note;
mod retention;
mod sink;
mod source;
mod storage;
mod sync;
mod throttle;
mod transform;
mod unopened;
mod verify;
mod versions;

pub use authenticate::Authenticate;
pub use backup::{BackupPlan, BackupReport, LEGACY, LegacyFile, PartPlan, backup, take_over};
pub use catalog::{Catalog, CatalogEntry, Problem, Query, ReaderSeen, StoredCopy};
pub use copy::{COPY_TIMEOUT, CopyReport, copy};
pub use decoders::Decoders;
pub use digest::{Digest, Digester};
pub use download::Patience;
pub use drill_proof::{DRILL_PROOF_FORMAT, DrillProof, RowProof, store_drill_proof};
pub use error::{Error, ErrorKind, Result};
pub use files_contents::{FileKind, FilesContents, ListedFile};
pub use frames::{FramedOutput, Frames, MAX_FRAME_BYTES, MAX_FRAMES};
pub use inventory::*;
pub use layout::BackupId;
pub use manifest::*;
pub use memory::{Collect, Discard, InMemory};
pub use object::{SMALL_OBJECT_BYTES, StoredObject, read_small};
pub use part_at::PartAt;
pub use pin::{PIN_FORMAT, Pin, Pinned, pin, read_pin, unpin};
pub use proven::{LastProof, Proven};
pub use prune::{
    Foreign, Judged, PrunePlan, PruneReport, PruneRules, PrunedBackup, StoragePlan, StorageReport,
    Verdict, apply_prune, expired_on_arrival, plan_prune,
};
pub use read::{BackupReader, Origin};
pub use read_at::ReadAt;
pub use reader_mark::{READER_TIMEOUT, ReaderMark, ReaderMarks};
pub use rekey::{OldCopy, RekeyPlan, RekeyReport, clear_remains, rekey, successor};
pub use repair::{RepairReport, RepairedFile, UnrepairedFile, repair};
pub use restore_note::restore_note;
pub use retention::{BackupSummary, Decision, HowMany, RetentionPolicy, RetentionRules};
pub use sink::{Committed, Sink, SinkWriter};
pub use source::{Findings, Source, SourceStream};
pub use storage::{ByteRange, Creation, ObjectInfo, ObjectVersion, Protection, Storage, Versioned};
pub use sync::{SyncReport, Unwanted, sync};
pub use throttle::{MIN_RATE, Throttled};
pub use transform::Transform;
pub use unopened::Unopened;
pub use verify::{
    Check, Damage, Inspector, Inspectors, Level, ListedPart, PROOF_FORMAT, Place, Proof,
    Verification, VerifiedCopy, VerifyReport, store_proof, verify, verify_checksums, verify_copies,
};
