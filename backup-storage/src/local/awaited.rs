//! Whether anybody still waits for what a disk thread does.
//!
//! A future that is dropped doesn't stop its blocking thread. Without asking, that thread would
//! publish an object minutes after its caller gave up on it, and perhaps removed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{Error, ErrorKind, Result};

/// Held by the future: nobody waits any more once it is dropped.
#[derive(Debug, Default)]
pub(super) struct Waiting(Awaited);

/// Held by the disk thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited {
    given_up: Arc<AtomicBool>,
}

impl Waiting {
    /// What to hand to the disk thread.
    pub(super) fn awaited(&self) -> Awaited {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::SeqCst);
    }
}

impl Awaited {
    /// Refuses to go on for nobody.
    pub(super) fn check(&self, stage: &str) -> Result<()> {
        if !self.given_up.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = "not published: its caller stopped waiting";
        Err(Error::new(ErrorKind::Interrupted, stage.to_owned(), message))
    }
}
