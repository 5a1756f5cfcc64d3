//! What tells a later call that a run was killed: a note in the state folder, there from before
//! the run touches anything until it has ended in order.
//!
//! The server's markers tell how far a swap is; the data never depends on this note. It keeps a
//! `--rollback` from going back to an *older* swap when the killed run had not swapped yet, and
//! tells that the services may stand still.

use std::path::PathBuf;

use backup_core::{Digest, Error, Result};
use backup_pg::swap::RunId;

use crate::Deployment;
use crate::lock::JobLock;

/// The lock and the note of one live database on this host.
#[derive(Debug)]
pub(super) struct Ticket {
    _lock: JobLock,
    note: PathBuf,
}

impl Ticket {
    /// Takes the lock of a live database. `place` names it together with its server.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`](backup_core::ErrorKind::Locked) when another run holds it.
    pub fn take(deployment: &Deployment, place: &str) -> Result<Self> {
        let digest: String = Digest::of(place.as_bytes()).sha256.chars().take(16).collect();
        let name = format!("restore-{digest}");
        let lock =
            JobLock::take(&deployment.state_dir(), &name).map_err(|error| match error.kind() {
                backup_core::ErrorKind::Locked => Error::new(
                    error.kind(),
                    "lock",
                    "another restore into this database is going on",
                )
                .next_step("wait for it"),
                _ => error,
            })?;
        Ok(Self { _lock: lock, note: deployment.state_file(&format!("{name}.run")) })
    }

    /// The run that was killed, if there is one.
    pub fn killed(&self) -> Option<RunId> {
        std::fs::read_to_string(&self.note).ok()?.trim().parse().ok()
    }

    /// Notes that a run begins.
    ///
    /// # Errors
    /// When the state folder can't be written to.
    pub fn begin(&self, run: &RunId) -> Result<()> {
        let written = std::fs::write(&self.note, format!("{run}\n"));
        written.and_then(|()| std::fs::File::open(&self.note)?.sync_all()).map_err(|e| {
            Error::failed("lock", format!("{} can't be written", self.note.display()))
                .caused_by(e)
                .next_step("set `state_dir` to a folder that this user may write to")
        })
    }

    /// Notes that it ended in order, well or not.
    pub fn end(&self) {
        if let Err(error) = std::fs::remove_file(&self.note) {
            tracing::debug!(%error, "no note to remove");
        }
    }
}
