//! The application's own version: recorded with each backup, compared when one is restored.

use backup_core::Manifest;
use backup_core::pipeline::Context;
use secrecy::ExposeSecret;

use crate::Deployment;
use crate::config::{JobConfig, Value};

/// Longest version that is recorded, in characters.
const MAX_APP_VERSION: usize = 200;

impl Deployment {
    /// The application's version. Not knowing it is no reason not to back up.
    pub(crate) async fn app_version(&self, job: &JobConfig, context: &Context) -> Option<String> {
        let value = job.app_version.as_ref()?;
        match self.fetch_version(value).await {
            Ok(version) => Some(version),
            Err(error) => {
                context.warn(&format!("the application's version is not recorded: {error}"));
                None
            }
        }
    }

    /// Warns when the application that runs here is not of the version that a backup was made
    /// of; says so, for a report. Neither is that a reason not to restore, nor not knowing.
    pub(crate) async fn warn_of_other_version(
        &self,
        manifest: &Manifest,
        context: &Context,
    ) -> Option<String> {
        let recorded = manifest.app_version.as_ref()?;
        let job = self.config().job.get(&manifest.job)?;
        let told = match self.fetch_version(job.app_version.as_ref()?).await {
            Ok(running) if running != *recorded => format!(
                "the backup was made of version {recorded:?} of the application, here is {running:?}"
            ),
            Ok(_) => return None,
            Err(error) => format!(
                "the backup was made of version {recorded:?} of the application; which one is \
                 here can't be told: {error}"
            ),
        };
        context.warn(&told);
        Some(told)
    }

    async fn fetch_version(&self, value: &Value) -> backup_core::Result<String> {
        let version = value.fetch("app_version", self.environment()).await?;
        Ok(version.expose_secret().chars().take(MAX_APP_VERSION).collect())
    }
}
