//! The health check of a build without an HTTP client: it refuses to be made.

use std::convert::Infallible;
use std::time::Duration;

use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};

use super::STAGE;

/// Can't be made.
#[derive(Clone)]
pub(crate) struct Health(Infallible);

impl Health {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn new(_url: &str, _limit: Duration) -> Result<Self> {
        Err(Error::usage(STAGE, "this build has no HTTP client to ask `health.url` with")
            .next_step("build with the feature `health`, or remove `health` under [restore]"))
    }

    /// The address.
    pub fn label(&self) -> String {
        match self.0 {}
    }

    /// Waits.
    ///
    /// # Errors
    /// Never.
    pub async fn wait(&self, _cancel: &Cancel) -> Result<()> {
        match self.0 {}
    }
}
