//! Every storage against a real server of its kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "s3")]
mod forgetful;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "local")]
mod local;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod objects;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "s3")]
mod s3_given_up;
#[cfg(feature = "s3")]
mod s3_lacking;
#[cfg(feature = "s3")]
mod s3_lost_answers;
#[cfg(feature = "s3")]
mod s3_settings;
#[cfg(feature = "s3")]
mod s3_versions;
#[cfg(feature = "sftp")]
mod sftp;
#[cfg(all(feature = "s3", feature = "gcs", feature = "azure", feature = "sftp"))]
mod surroundings;

/// An object of a storage, as the source that it is.
#[cfg(any(feature = "local", feature = "sftp"))]
struct Stored<'a>(&'a dyn backup_core::Storage, &'static str);

#[cfg(any(feature = "local", feature = "sftp"))]
#[async_trait::async_trait]
impl backup_core::Source for Stored<'_> {
    fn name(&self) -> &str {
        "stored"
    }

    async fn open(&self) -> backup_core::Result<Box<dyn backup_core::SourceStream>> {
        self.0.open(self.1, backup_core::ByteRange::ALL).await
    }
}
