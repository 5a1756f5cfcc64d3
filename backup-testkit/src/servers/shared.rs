//! One server for all tests of a process that want it at the same time.

use std::sync::{Arc, Weak};

use backup_core::Result;
use tokio::sync::Mutex;

/// Lives from the first user to the last: a static that kept it would never drop it.
pub(super) struct Shared<S>(Mutex<Weak<S>>);

impl<S> Shared<S> {
    pub(super) const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    /// The running server, or the one that `start` makes; whoever comes meanwhile waits for it.
    pub(super) async fn get(&self, start: impl Future<Output = Result<S>>) -> Result<Arc<S>> {
        let mut slot = self.0.lock().await;
        if let Some(running) = slot.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(start.await?);
        *slot = Arc::downgrade(&started);
        Ok(started)
    }
}
