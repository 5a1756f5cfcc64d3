//! Integration tests of marb-backup, against real servers and programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the helpers of tests are tests, too"
)]

mod adopt;
mod any_place;
mod backup_faults;
mod backup_verb;
mod catalog;
mod catalog_on_s3;
mod catalog_requests;
mod command_line;
mod copies;
mod corruption;
mod credentials;
mod documents;
mod drill;
mod embedding;
mod env_file;
mod failover;
mod failures;
mod fan_out;
mod files;
mod hostile;
mod interrupts;
mod intruders;
mod kept_versions;
mod key_expiry;
mod memory;
mod pipeline;
mod preflight;
mod prune;
mod recover;
mod recovery_kit;
mod rekey;
mod rekey_verb;
mod repairs;
mod restore_flags;
mod restore_looks;
mod restore_modes;
mod restore_unfinished;
mod rig;
mod safety;
mod schedules;
mod secrets;
mod stock_tools;
mod storage_faults;
mod storage_kills;
mod storage_memory;
mod storage_secrets;
mod storage_tls;
mod storages;
mod support;
mod swap;
mod swap_hooks;
mod swap_kills;
mod swap_loop;
mod swap_versions;
mod syncs;
mod throttle;
mod transforms;
mod troubled;
mod verify_levels;
mod verify_verb;
