//! Stopping a run from outside.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::{Error, ErrorKind};

/// Stops the runs that share it, once and for good. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    reason: Arc<OnceLock<(ErrorKind, String)>>,
    parent: Option<Box<Cancel>>,
}

impl Cancel {
    /// A switch for one run among several: stopping this one stops it too, but not the other
    /// way round.
    #[must_use]
    pub fn child(&self) -> Self {
        let token = self.token.child_token();
        Self { token, reason: Arc::default(), parent: Some(Box::new(self.clone())) }
    }

    /// Asks for a stop, as SIGINT does: [`ErrorKind::Interrupted`].
    pub fn interrupt(&self, reason: impl Into<String>) {
        self.stop(ErrorKind::Interrupted, reason.into());
    }

    /// Asks for a stop because time is up: [`ErrorKind::Failed`].
    pub fn time_out(&self, reason: impl Into<String>) {
        self.stop(ErrorKind::Failed, reason.into());
    }

    fn stop(&self, kind: ErrorKind, reason: String) {
        // The first reason counts.
        let _ = self.reason.set((kind, reason));
        self.token.cancel();
    }

    /// Whether somebody asked for a stop.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until somebody asks for a stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The error that a stopped run returns.
    pub fn error(&self) -> Error {
        if let (None, Some(parent)) = (self.reason.get(), &self.parent) {
            return parent.error();
        }
        let (kind, reason) = self
            .reason
            .get()
            .cloned()
            .unwrap_or_else(|| (ErrorKind::Interrupted, "the run was cancelled".to_owned()));
        Error::new(kind, "run", reason).next_step("nothing half-done was kept; start the run again")
    }

    /// Finishes `work`, or drops it as soon as somebody asks for a stop.
    ///
    /// # Errors
    /// Those of `work`, and [`Cancel::error`].
    pub async fn guard<T>(&self, work: impl Future<Output = crate::Result<T>>) -> crate::Result<T> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(self.error()),
            done = work => done,
        }
    }
}
