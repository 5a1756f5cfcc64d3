//! When the server is gone: what one needs then, written while it is still there (`recovery-kit`),
//! and a new server from nothing (`recover`).
//!
//! ```text
//! Deployment::recovery_kit   the configuration without secrets, what backups there are     kit.rs
//!   ├─ redact                the secrets taken out                                          redact.rs
//!   └─ page                  the printable page                                             page.rs
//! Deployment::plan_recovery  the newest backup of each job, whose it is, what is in the way plan.rs
//! Deployment::recover        databases with their roles, files, hooks, health               run.rs
//! ```

mod kit;
mod page;
mod plan;
mod redact;
mod run;

pub use kit::RecoveryKit;
pub use plan::{PlannedJob, RecoverOptions, RecoveryPlan};
pub use run::{Recovered, RecoveredStep};
