//! Integration tests of marb-backup, against real servers and programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests are tests, too"
)]

mod backup_faults;
mod backup_verb;
mod catalog;
mod command_line;
mod embedding;
mod env_file;
mod failures;
mod hostile;
mod interrupts;
mod memory;
mod pipeline;
mod rig;
mod safety;
mod secrets;
mod stock_tools;
mod support;
mod troubled;
mod verify_verb;
