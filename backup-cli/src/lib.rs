//! marb-backup as a library: a configuration, and the verbs on it.
//!
//! This is what an application embeds, and what the program `marb-backup` itself stands on. It
//! reads no environment, prints nothing, installs no signal handler and never ends the process;
//! whoever owns the process hands in the [`Environment`](config::Environment) and listens
//! through a [`Context`](backup_core::pipeline::Context).
//!
//! ```no_run
//! use backup_cli::{Deployment, config::{Config, Environment}};
//! use backup_core::pipeline::Context;
//!
//! # async fn example() -> backup_core::Result<()> {
//! let config = Config::read("/etc/marb-backup/config.toml".as_ref())?;
//! let deployment = Deployment::new(config, Environment::new(std::env::vars_os()))?;
//! let report = deployment.backup("database", false, &Context::default()).await?;
//! println!("{} is in {}", report.manifest.id, report.stored_in.join(", "));
//! # Ok(()) }
//! ```

mod adopting;
mod app_version;
pub mod config;
mod copying;
mod deployment;
mod doctor;
pub mod drill;
mod file_source;
mod files_restore;
mod foreign;
mod health;
mod hooks;
mod in_place;
mod job;
mod key_confirmation;
mod key_warnings;
mod keys;
mod lock;
mod machine;
mod opened_source;
mod planning;
mod pruning;
mod reading;
mod recovery;
mod rekeying;
mod restore_from;
mod restoring;
mod safety_backup;
pub mod schedule;
mod sql_check;
mod swapping;
mod verifying;
mod wiring;

pub use adopting::{AdoptOptions, Adoption, Fate, OldFile};
pub use deployment::Deployment;
pub use doctor::{Condition, Diagnosis, Finding};
pub use file_source::FileSource;
pub use files_restore::{FilesRestoreOptions, FilesRestoreSummary};
pub use foreign::{Content, ForeignFile};
pub use in_place::{InPlaceOutlook, InPlaceSummary, SafetyBackup};
pub use key_warnings::KeyWarning;
pub use pruning::{PruneOptions, Pruned};
pub use reading::FileCheck;
pub use recovery::{
    PlannedJob, RecoverOptions, Recovered, RecoveredStep, RecoveryKit, RecoveryPlan,
};
pub use rekeying::{RekeyFate, RekeyOptions, RekeySummary, RekeyedBackup};
pub use restore_from::RestoreFrom;
pub use restoring::{RestoreOptions, RestoreSummary};
pub use swapping::{
    Leftover, PlannedStep, Recovery, SqlCheckPassed, SwapOptions, SwapPlan, SwapReport, SwapTarget,
};
pub use verifying::{Verified, VerifyOptions};

/// Name and version of this program, as manifests record them.
pub const TOOL: &str = concat!("marb-backup ", env!("CARGO_PKG_VERSION"));
