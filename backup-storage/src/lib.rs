//! Storages for marb-backup: places that keep a backup's objects.
//!
//! Each storage is a cargo feature and implements [`backup_core::Storage`]. The suites
//! `conformance::storage` and `conformance::sink` of `backup-testkit` say in code what every
//! one of them must do.
//!
//! | feature | type | keeps objects in |
//! | --- | --- | --- |
//! | `local` (default) | [`Local`] | a folder of this host: a disk, a mounted share |
//! | `s3` | `S3` | a bucket of S3 or a compatible service |
//! | `gcs` | `Gcs` | a bucket of Google Cloud Storage |
//! | `azure` | `Azure` | a container of Azure Blob Storage |
//! | `sftp` | `Sftp` | a folder of a server that is reached with SSH |

#[cfg(any(
    feature = "local",
    feature = "s3",
    feature = "gcs",
    feature = "azure",
    feature = "sftp"
))]
mod failure;
#[cfg(feature = "local")]
mod local;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod object_store;
#[cfg(any(feature = "local", feature = "sftp"))]
mod partial;
#[cfg(any(feature = "local", feature = "sftp"))]
mod percent;
mod settings;
#[cfg(feature = "sftp")]
mod sftp;

#[cfg(feature = "local")]
pub use local::Local;
#[cfg(feature = "azure")]
pub use object_store::Azure;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
pub use object_store::Finding;
#[cfg(feature = "gcs")]
pub use object_store::Gcs;
#[cfg(feature = "s3")]
pub use object_store::S3;
pub use settings::{
    COMMIT_TIMEOUT, LockMode, ObjectLock, ObjectSettings, REQUEST_TIMEOUT, RETRY_DEADLINE,
    ServerEncryption, Settings,
};
#[cfg(feature = "sftp")]
pub use sftp::{Sftp, SftpServer};
