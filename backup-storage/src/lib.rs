//! Storages for marb-backup: places that keep a backup's objects.
//!
//! Each storage is a cargo feature and implements [`backup_core::Storage`]. The suites
//! `conformance::storage` and `conformance::sink` of `backup-testkit` say in code what every
//! one of them must do.
//!
//! | feature | type | keeps objects in |
//! | --- | --- | --- |
//! | `local` (default) | [`Local`] | a folder of this host: a disk, a mounted share |

#[cfg(feature = "local")]
mod local;
mod settings;

#[cfg(feature = "local")]
pub use local::Local;
pub use settings::{
    LockMode, ObjectLock, ObjectSettings, REQUEST_TIMEOUT, RETRY_DEADLINE, ServerEncryption,
    Settings,
};
