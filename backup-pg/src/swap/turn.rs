//! Two databases trade places under the live name: close, end the sessions, rename in one
//! transaction. Both directions go through here.
//!
//! Two runs at once exclude each other by the row of the live database in `pg_database`: every
//! transaction that changes a state first changes that row, which makes the others wait, and
//! then looks whether the names and markers are still those it decided on. No lock has to be
//! held between two calls (each is a session of its own), nothing is lost with a connection,
//! and the maintenance databases need not be the same (advisory locks belong to one database).

use std::time::{Duration, Instant};

use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};
use jiff::Timestamp;

use super::script::{Outcome, Transaction};
use super::sessions::{Ended, SessionEnded};
use super::state::{Look, refuse_unfinished};
use super::{Marker, Phase, STAGE, Swap};
use crate::sql::{quote_ident, quote_literal};

/// How long the outcome of a lost answer, and the opening of the live name, are tried for: time
/// enough for a server that crashed to recover.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

/// How often a transaction begins anew because another session got in between.
pub(super) const TRIES: u32 = 20;
pub(super) const TRY_PAUSE: Duration = Duration::from_millis(50);

/// One exchange of names.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// The database under the live name.
    pub leaving: u32,
    /// The one that gets it.
    pub coming: u32,
    /// The marker of the coming one while the live name is closed.
    pub waiting: Marker,
    /// Its marker when the exchange does not come about.
    pub undone: Marker,
    /// What the leaving one is called afterwards.
    pub parked: String,
    /// Whether a run that crashed has closed the live name for it already.
    pub begun: bool,
}

/// An exchange that came about.
#[derive(Debug)]
pub(super) struct Turned {
    pub closed: Timestamp,
    pub opened: Timestamp,
    /// What the leaving database carries now.
    pub marker: Marker,
    pub ended: Vec<SessionEnded>,
}

impl Turned {
    pub fn closed_for(&self) -> Duration {
        self.opened.duration_since(self.closed).try_into().unwrap_or_default()
    }
}

/// How far an attempt came.
struct Course {
    /// Whether it is certain that this turn has closed nothing.
    untouched: bool,
    ended: Ended,
}

/// What a transaction of a turn led to.
enum Step {
    Done,
    /// Somebody is connected still.
    InUse(String),
    Again,
}

impl Turn {
    /// Carries it out. On an error the live name is open and as it was, or the error says that
    /// this is not known.
    pub async fn run(self, swap: &Swap, cancel: &Cancel) -> Result<Turned> {
        let mut course = Course { untouched: !self.begun, ended: Ended::default() };
        let attempt = self.attempt(swap, cancel, &mut course).await;
        let marker = match attempt {
            Ok(marker) => marker,
            Err(error) if course.untouched => return Err(error),
            Err(error) => match self.settle(swap).await {
                Ok(Some(marker)) => {
                    tracing::debug!(%error, "the databases were swapped all the same");
                    marker
                }
                Ok(None) => return Err(error),
                Err(unsettled) => return Err(unsettled.caused_by(error)),
            },
        };
        let opened = Timestamp::now();
        let closed = marker.closed.unwrap_or(opened);
        Ok(Turned { closed, opened, marker, ended: course.ended.into_list() })
    }

    async fn attempt(&self, swap: &Swap, cancel: &Cancel, course: &mut Course) -> Result<Marker> {
        let oids = [self.leaving, self.coming];
        cancel.guard(swap.refuse_prepared(oids)).await?;
        self.close(swap, cancel, course).await?;
        let deadline = Instant::now() + swap.limits.sessions;
        loop {
            cancel.guard(swap.end_sessions(oids, deadline, &mut course.ended)).await?;
            let look = swap.look().await?;
            self.still_mine(swap, &look)?;
            let marker = self.parked_marker(&look, Timestamp::now());
            // From here on nobody stops it: it ends by itself, and soon.
            let outcome = self.rename(swap, &look, &marker).run(&swap.admin).await?;
            match self.judge(swap, outcome).await? {
                Step::Done => return Ok(marker),
                Step::InUse(message) if Instant::now() >= deadline => {
                    return Err(Error::failed(STAGE, message)
                        .next_step("look for what is connected: select * from pg_stat_activity"));
                }
                Step::InUse(_) | Step::Again => tokio::time::sleep(TRY_PAUSE).await,
            }
            if cancel.is_cancelled() {
                return Err(cancel.error());
            }
        }
    }

    /// Closes both databases and says so on the coming one, if nobody else is at it.
    async fn close(&self, swap: &Swap, cancel: &Cancel, course: &mut Course) -> Result<()> {
        for _ in 0..TRIES {
            if cancel.is_cancelled() {
                return Err(cancel.error());
            }
            let look = swap.look().await?;
            let closed_before = self.may_close(swap, &look)?;
            course.untouched = false;
            let transaction = Transaction::begin(swap.limits.lock)
                .step(&allow(&swap.live, false))
                .step(&allow(&self.waiting.database, false))
                .only_if(&look.unchanged(&swap.live))
                .step(&comment(&self.waiting.database, Some(&self.waiting.text())));
            let outcome = transaction.run(&swap.admin).await?;
            // A clear no leaves everything as it was.
            course.untouched = outcome != Outcome::Done && !closed_before;
            match self.judge(swap, outcome).await? {
                Step::Done => return Ok(()),
                Step::InUse(message) => return Err(Error::failed(STAGE, message)),
                Step::Again => tokio::time::sleep(TRY_PAUSE).await,
            }
        }
        Err(Error::failed(STAGE, "the databases' markers or names change all the time")
            .next_step("see what else renames databases or restores on this server"))
    }

    /// Whether it is closed for this turn already; an error when it may not be closed.
    fn may_close(&self, swap: &Swap, look: &Look) -> Result<bool> {
        refuse_unfinished(&look.state(&swap.live), Some(&self.waiting.run))?;
        self.in_place(swap, look)?;
        let marker = look.numbered(self.coming).and_then(|one| one.marker());
        let phase = marker.filter(|marker| marker.run == self.waiting.run).map(|m| m.phase);
        // A scratch database may be without one still.
        let first = self.undone.phase == Phase::Restored && phase.is_none();
        match phase {
            Some(phase) if phase == self.waiting.phase => Ok(true),
            Some(phase) if phase == self.undone.phase => Ok(false),
            None if first => Ok(false),
            _ => Err(meddled(&self.waiting.database)),
        }
    }

    /// Between closing and renaming: nobody ended this swap.
    fn still_mine(&self, swap: &Swap, look: &Look) -> Result<()> {
        self.in_place(swap, look)?;
        let marker = look.numbered(self.coming).and_then(|one| one.marker());
        match marker {
            Some(marker) if marker == self.waiting => Ok(()),
            _ => Err(meddled(&self.waiting.database)),
        }
    }

    fn in_place(&self, swap: &Swap, look: &Look) -> Result<()> {
        let is = |oid, name: &str| look.numbered(oid).is_some_and(|one| one.name == name);
        match is(self.leaving, &swap.live) && is(self.coming, &self.waiting.database) {
            true => Ok(()),
            false => Err(meddled(&self.waiting.database)),
        }
    }

    fn is_done(&self, swap: &Swap, look: &Look) -> bool {
        let is = |oid, name: &str| look.numbered(oid).is_some_and(|one| one.name == name);
        is(self.leaving, &self.parked) && is(self.coming, &swap.live)
    }

    fn rename(&self, swap: &Swap, look: &Look, marker: &Marker) -> Transaction {
        let (live, coming) = (&swap.live, &self.waiting.database);
        let own = match self.waiting.phase {
            Phase::PuttingBack => self.waiting.comment.as_deref(),
            _ => marker.comment.as_deref(),
        };
        Transaction::begin(swap.limits.lock)
            .step(&allow(live, false))
            .only_if(&look.unchanged(live))
            .step(&rename(live, &self.parked))
            .step(&rename(coming, live))
            .step(&comment(live, own))
            .step(&comment(&self.parked, Some(&marker.text())))
            .step(&allow(live, true))
    }

    /// What the leaving database carries afterwards; `look` tells the user's comment on it.
    fn parked_marker(&self, look: &Look, now: Timestamp) -> Marker {
        let own = look.numbered(self.leaving).and_then(|one| one.comment.clone());
        let marker = Marker { database: self.parked.clone(), comment: own, ..self.waiting.clone() };
        match self.waiting.phase {
            Phase::PuttingBack => Marker { phase: Phase::Failed, put_back: Some(now), ..marker },
            _ => Marker { phase: Phase::Swapped, swapped: Some(now), ..marker },
        }
    }

    async fn judge(&self, swap: &Swap, outcome: Outcome) -> Result<Step> {
        match outcome {
            Outcome::Done => Ok(Step::Done),
            Outcome::Changed => Ok(Step::Again),
            race if race.is_race() => Ok(Step::Again),
            Outcome::Failed { code, message } => match code.as_str() {
                "55006" => Ok(Step::InUse(message)),
                "55P03" => Err(swap.locked([self.leaving, self.coming], &message).await),
                "42501" => Err(Error::failed(STAGE, message).next_step(
                    "let [restore] admin_url log in as a superuser, or as the databases' owner with CREATEDB",
                )),
                _ => Err(Error::failed(STAGE, message)),
            },
        }
    }

    /// Finds out what became of it, and opens the live name again when it did not come about.
    /// Returns the marker of a swap that did.
    pub async fn settle(&self, swap: &Swap) -> Result<Option<Marker>> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let trouble = match self.settle_once(swap).await {
                Ok(Settled::Done(marker)) => return Ok(Some(*marker)),
                Ok(Settled::Undone) => return Ok(None),
                Ok(Settled::Again) => None,
                Err(error) => Some(error),
            };
            if Instant::now() >= deadline {
                let why =
                    trouble.map_or_else(String::new, |error| format!(": {}", error.message()));
                let live = &swap.live;
                return Err(Error::failed(
                    STAGE,
                    format!("the database {live} may be closed, and could not be opened{why}"),
                )
                .next_step(format!(
                    "when the server answers, run `restore --rollback`; it opens {live} again"
                )));
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    async fn settle_once(&self, swap: &Swap) -> Result<Settled> {
        let look = swap.look().await?;
        if self.is_done(swap, &look) {
            let marker = look.numbered(self.leaving).and_then(|one| one.marker());
            let marker = marker.ok_or_else(|| meddled(&self.parked))?;
            return Ok(Settled::Done(Box::new(marker)));
        }
        let coming = look.numbered(self.coming);
        let marker = coming.and_then(|one| one.marker());
        let waiting = marker.is_some_and(|marker| {
            (&marker.run, marker.phase) == (&self.waiting.run, self.waiting.phase)
        });
        // Also when nothing has to be undone: a transaction whose answer was lost may be at
        // work, and holds this row until it is over.
        let mut transaction = Transaction::begin(swap.limits.lock).step(&allow(&swap.live, true));
        if waiting && self.undone.phase == Phase::Restored {
            transaction = transaction.step(&allow(&self.waiting.database, true));
        }
        transaction = transaction.only_if(&look.unchanged(&swap.live));
        if waiting {
            transaction =
                transaction.step(&comment(&self.waiting.database, Some(&self.undone.text())));
        }
        match transaction.run(&swap.admin).await? {
            Outcome::Done => Ok(Settled::Undone),
            Outcome::Changed => Ok(Settled::Again),
            race if race.is_race() => Ok(Settled::Again),
            Outcome::Failed { message, .. } => {
                // What matters most does not wait for the rest: the application.
                swap.admin.execute(&allow(&swap.live, true)).await?;
                Err(Error::failed(STAGE, message))
            }
        }
    }
}

enum Settled {
    Done(Box<Marker>),
    Undone,
    Again,
}

fn meddled(database: &str) -> Error {
    Error::failed(
        STAGE,
        format!("{database} is not what it was: somebody else renamed it or ended this swap"),
    )
    .next_step("look at the databases and their comments with psql's \\l+, then try again")
}

/// Lets connections in or keeps them out, superusers too.
pub(super) fn allow(database: &str, open: bool) -> String {
    format!("ALTER DATABASE {} ALLOW_CONNECTIONS {open}", quote_ident(database))
}

/// Sets a database's comment, or removes it.
pub(super) fn comment(database: &str, text: Option<&str>) -> String {
    let text = text.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON DATABASE {} IS {text}", quote_ident(database))
}

fn rename(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", quote_ident(from), quote_ident(to))
}
