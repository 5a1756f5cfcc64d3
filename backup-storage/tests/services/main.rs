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
mod s3_settings;
#[cfg(feature = "s3")]
mod s3_versions;
#[cfg(feature = "sftp")]
mod sftp;
#[cfg(all(feature = "s3", feature = "gcs", feature = "azure", feature = "sftp"))]
mod surroundings;
