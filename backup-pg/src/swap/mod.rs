//! Exchanging a live database for one that was restored beside it, and back.
//!
//! Everything runs over a connection to a maintenance database. What is under way survives a
//! crash as a comment on the database that is not live ([`Marker`]); the two renames, the
//! markers and the user's own comment change in one transaction. So at every moment the live
//! name is the old database or the new one, whole, and [`Swap::put_back`] or [`Swap::resume`]
//! finishes what was left.
//!
//! Who may do it: a superuser; or a role with `CREATEDB` that owns both databases and may end
//! the other sessions (`pg_signal_backend`).
//!
//! Absent on purpose: stopping services, migrations and health checks, which are the caller's.

mod cleanup;
mod exchange;
mod marker;
mod names;
mod properties;
mod script;
mod sessions;
mod settings;
mod state;
mod subscriptions;
mod turn;

#[cfg(test)]
mod tests;

use std::time::Duration;

use backup_core::{Error, Result};
use jiff::Timestamp;

pub use cleanup::{CleanupItem, CleanupOrder, CleanupOutcome};
pub use exchange::{Exchanged, PutBack, Resumed, SwapOrder};
pub use marker::{Marker, Phase};
pub use names::{Names, RunId};
pub use sessions::SessionEnded;
pub use state::{LiveDatabase, MarkedDatabase, SwapState};

use crate::Psql;

const STAGE: &str = "swap";

/// How long one call may take beyond its wait for a lock.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// So many ids are tried until one is free.
const RUN_IDS: u32 = 8;

/// How long a swap waits, with the live name closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapLimits {
    /// Until every session is gone.
    pub sessions: Duration,
    /// For a lock on the databases.
    pub lock: Duration,
}

impl Default for SwapLimits {
    fn default() -> Self {
        Self { sessions: Duration::from_secs(30), lock: Duration::from_secs(10) }
    }
}

/// One live name on a server, and all that can be done with it.
#[derive(Debug, Clone)]
pub struct Swap {
    admin: Psql,
    live: String,
    limits: SwapLimits,
}

impl Swap {
    /// For the database `live`, over `admin`, which leads to a maintenance database.
    pub fn new(admin: Psql, live: impl Into<String>, limits: SwapLimits) -> Self {
        let admin = admin.with_timeout(limits.lock + CALL_TIMEOUT);
        Self { admin, live: live.into(), limits }
    }

    /// The live name.
    pub fn live(&self) -> &str {
        &self.live
    }

    /// An id whose names are free on this server.
    ///
    /// # Errors
    /// When the server can't be asked.
    pub async fn new_run(&self, now: Timestamp) -> Result<RunId> {
        let look = self.look().await?;
        let free = |run: &RunId| {
            Names::new(&self.live, run).all().iter().all(|name| look.named(name).is_none())
        };
        let run = std::iter::repeat_with(|| RunId::new(now)).take(RUN_IDS as usize).find(free);
        run.ok_or_else(|| Error::failed(STAGE, "no name for the new database is free"))
    }
}
