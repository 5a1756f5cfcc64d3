//! Real storage servers for tests: S3 (SeaweedFS), Azure (Azurite), GCS (fake-gcs-server) and
//! SFTP (OpenSSH), each a process of this machine that listens on free ports of 127.0.0.1.
//!
//! A server lives in a temporary folder of its own. Dropped, it is killed and its folder removed;
//! a watcher does the same when the test's process itself dies, however that happens.
//! `start_again` after `end` gives the same address with the same data, as a restart would.
//!
//! Where the programs are is said by `target/storage-servers.json`, which `cargo xtask setup`
//! writes; `MARB_TEST_STORAGE_SERVERS` names another list.
//!
//! What each costs on a machine of two cores, from start to the first bucket:
//!
//! | server | seconds | memory |
//! | --- | --- | --- |
//! | [`S3Server`] | 2.5 | 120 MB |
//! | [`AzureServer`] | 1 | 95 MB |
//! | [`GcsServer`] | 0.1 | 30 MB |
//! | [`SftpServer`] | 0.1 | 10 MB |
//!
//! What is theirs alone: SeaweedFS wants three characters in a bucket's name; Azurite wants
//! identifiers as metadata keys; fake-gcs-server checks no credentials, enforces no preconditions
//! and refuses batch deletes.

mod azure;
mod gcs;
mod http;
mod process;
mod programs;
mod recorder;
mod s3;
mod sftp;
mod shared;
#[cfg(test)]
mod tests;

pub use azure::AzureServer;
pub use gcs::GcsServer;
pub use recorder::Recorder;
pub use s3::{S3Access, S3Keys, S3Server};
pub use sftp::{SftpOptions, SftpServer};

use backup_core::Error;

/// The bucket or container that every server has from its start.
pub const BUCKET: &str = "backups";

const STAGE: &str = "test storage server";

fn cannot(what: impl Into<String>) -> Error {
    Error::failed(STAGE, what.into())
}
