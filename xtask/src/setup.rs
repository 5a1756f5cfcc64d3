//! `cargo xtask setup`: installs what the other commands need, and nothing else.

use std::collections::BTreeMap;

use crate::Outcome;
use crate::packages::{apt_install, cargo_install, need};
use crate::program::{is_there, output};
use crate::servers::{self, Server};
use crate::storage_servers;

/// The test runner's version; any newer one does too.
const NEXTEST_VERSION: &str = "0.9.143";

/// Installs everything.
pub fn run() -> Outcome {
    programs()?;
    schedule_readers()?;
    servers::ensure().map(|servers| println!("PostgreSQL {}", majors(&servers)))?;
    storage_servers::ensure()?;
    nextest();
    crate::cargo_deny::install().map(|_| println!("Ready."))
}

/// The stock tools: PostgreSQL with its client, gpg, zstd and openssl.
pub fn programs() -> Outcome {
    need(&[
        ("psql", "postgresql-client"),
        ("gpg", "gnupg"),
        ("zstd", "zstd"),
        ("openssl", "openssl"),
    ])?;
    // A server's programs are not on the PATH.
    if servers::any_in_the_system() { Ok(()) } else { apt_install(&["postgresql"]) }
}

/// What reads schedules, for the tests of them; neither systemd nor cron has to run.
pub fn schedule_readers() -> Outcome {
    need(&[("systemd-analyze", "systemd"), ("crontab", "cron")])
}

/// Whether cargo-nextest is there or could be built; plain `cargo test` serves without it.
pub fn nextest() -> bool {
    if is_there("cargo-nextest") || output("cargo", &["nextest", "--version"]).is_ok() {
        return true;
    }
    cargo_install("cargo-nextest", NEXTEST_VERSION)
        .inspect_err(|error| println!("{error}; `cargo test` is used instead."))
        .is_ok()
}

/// "14, 15, 16".
pub fn majors(servers: &BTreeMap<u32, Server>) -> String {
    servers.keys().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
