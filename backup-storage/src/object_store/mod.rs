//! Storages in buckets: S3 and its compatibles, Google Cloud Storage, Azure Blob Storage.
//!
//! ```text
//! S3, Gcs, Azure ── Shared ── Store ──┬─ opendal's Operator   reads, looks, lists
//!                                     └─ Service              writes, deletes, sweeps
//!                                              └─ all through Line: retries, timeouts, TLS
//! ```
//!
//! Architecture invariant: a request is repeated by [`line::Line`] alone, so no state of a
//! half-done operation is ever lost by a retry, and there is one deadline.
//!
//! Architecture invariant: no error of opendal's is handed out. They hold URLs and headers;
//! [`explain`] makes one with the cause in words, and nothing else.

#![cfg_attr(
    not(all(feature = "s3", feature = "gcs", feature = "azure")),
    allow(dead_code, reason = "each service uses its part of what they have in common")
)]

mod address;
mod answer;
#[cfg(feature = "azure")]
mod azure;
mod connect;
mod explain;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(any(feature = "gcs", feature = "s3"))]
mod given;
mod line;
mod parts;
mod probe;
mod reader;
#[cfg(feature = "s3")]
mod s3;
mod service;
mod store;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ByteRange, Creation, ObjectInfo, Result, Sink, SinkWriter, SourceStream, Storage, Versioned,
};
use bytes::Bytes;
use jiff::Timestamp;

use crate::Settings;
pub use probe::Finding;
use store::Shared;

/// A storage on one kind of service: a type, its constructor, and the traits handed on.
macro_rules! storage {
    ($(#[$documentation:meta])* $name:ident, $feature:literal, $store:path) => {
        $(#[$documentation])*
        #[cfg(feature = $feature)]
        #[derive(Debug, Clone)]
        pub struct $name(Shared);

        #[cfg(feature = $feature)]
        impl $name {
            /// The storage `name` of a URL. Nothing is asked yet.
            ///
            /// # Errors
            /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when the URL, an option or a
            /// secret can't be right, or one is missing.
            pub fn from_url(name: impl Into<String>, url: &str, settings: &Settings) -> Result<Self> {
                Ok(Self(Shared(Arc::new($store(name.into(), url, settings)?))))
            }

            /// Tries with a real object what the service keeps of the promises that are relied
            /// on, and removes it again. What is missing comes with what to set.
            ///
            /// # Errors
            /// When not even that object can be written.
            pub async fn probe(&self) -> Result<Vec<Finding>> {
                self.0.0.probe().await
            }
        }

        #[cfg(feature = $feature)]
        #[async_trait]
        impl Sink for $name {
            fn name(&self) -> &str {
                self.0.name()
            }

            async fn begin(&self, key: &str) -> Result<Box<dyn SinkWriter>> {
                self.0.begin(key).await
            }
        }

        #[cfg(feature = $feature)]
        #[async_trait]
        impl Storage for $name {
            async fn open(&self, key: &str, range: ByteRange) -> Result<Box<dyn SourceStream>> {
                self.0.open(key, range).await
            }

            async fn stat(&self, key: &str) -> Result<Option<ObjectInfo>> {
                self.0.stat(key).await
            }

            async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
                self.0.list(prefix).await
            }

            async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
                self.0.folders(prefix).await
            }

            async fn delete(&self, key: &str) -> Result<()> {
                self.0.delete(key).await
            }

            async fn create_new(&self, key: &str, body: Bytes) -> Result<Creation> {
                self.0.create_new(key, body).await
            }

            fn excludes(&self) -> bool {
                self.0.excludes()
            }

            async fn sweep(&self, prefix: &str, older_than: Timestamp) -> Result<u64> {
                self.0.sweep(prefix, older_than).await
            }

            fn versioned(&self) -> Option<&dyn Versioned> {
                self.0.versioned()
            }
        }
    };
}

storage! {
    /// Objects in a bucket of S3 or of a compatible service: `s3://bucket/prefix`.
    ///
    /// - Options: `endpoint`, `region`, `profile`, `virtual_host_style` ("yes" with AWS unless
    ///   the bucket's name has a dot), `part_size` (parts then don't grow), `checksum` ("crc32c"
    ///   or "none"), `conditional` ("yes" or "no", for services without `If-None-Match`),
    ///   `role_arn`, `external_id`, `role_session_name`. Secrets: `access_key_id`,
    ///   `secret_access_key`, `session_token`.
    /// - An object of up to one part (8 MiB) is a single request; a longer one is a multipart
    ///   upload, whose parts double after every 800, up to 1 GiB: so 10,000 parts hold 5 TiB.
    /// - A writer holds the part being gathered and two on their way; of parts above 64 MiB one.
    ///   So 24 MiB up to an object's first 6 GiB, 48 MiB up to 18 GiB, and so on: about
    ///   half a percent of what was written.
    /// - A writer that was dropped leaves an unfinished upload, which no listing of objects
    ///   shows; `sweep` aborts it.
    /// - Writing needs `s3:PutObject` and no other right.
    ///
    /// Absent on purpose: S3 Express buckets.
    S3, "s3", s3::store
}

storage! {
    /// Objects in a bucket of Google Cloud Storage: `gs://bucket/prefix`.
    ///
    /// - Options: `endpoint`, `credential_file`, `anonymous` ("yes" for emulators). Secret:
    ///   `credential_json`.
    /// - An object of up to 8 MiB is a single request, a longer one a resumable upload in steps
    ///   of 8 MiB. Unfinished ones can't be listed and expire within a week: `sweep` says 0.
    /// - A longer object replaces an older one only if that was there when its second part was
    ///   sent; of two writers of one new key the second then fails.
    Gcs, "gcs", gcs::store
}

storage! {
    /// Objects in a container of Azure Blob Storage: `az://container/prefix`.
    ///
    /// - Options: `endpoint`, `account_name`, `part_size`. Secrets: `account_key`, `sas_token`.
    /// - An object of up to one part (8 MiB) is a single request, a longer one a list of blocks,
    ///   which grow as they are used up. Uncommitted blocks expire within a week: `sweep` says 0.
    /// - Uncommitted blocks belong to the key, not to a writer: of two writers of one key with
    ///   objects of several parts, the one that commits last fails.
    Azure, "azure", azure::store
}
