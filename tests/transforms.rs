//! The suite of the transforms, run on each of ours.

use std::sync::Arc;

use backup_compress::{Gzip, Zstd};
use backup_core::Transform;
use backup_crypto::{OpenPgp, Passphrase};
use backup_testkit::conformance;

/// On a thread that may block.
async fn conforms(transform: impl Transform + 'static) {
    let transform = Arc::new(transform);
    let run = move || conformance::transform(transform.as_ref());
    tokio::task::spawn_blocking(run).await.unwrap().unwrap();
}

#[tokio::test]
async fn zstd_keeps_its_promises() {
    // With more threads it begins to write after more than the suite's 48 MiB.
    conforms(Zstd { level: 3, threads: 1 }).await;
}

#[tokio::test]
async fn gzip_keeps_its_promises() {
    conforms(Gzip { level: 1, threads: 2 }).await;
}

#[tokio::test]
async fn openpgp_keeps_its_promises() {
    let passphrase = Passphrase::from_file_bytes(b"open sesame\n").unwrap();
    conforms(OpenPgp::new().with_passphrase(passphrase)).await;
}
