//! What a run is called, and the databases that belong to it.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

use backup_core::{Digest, Error, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::STAGE;

/// The longest name of a database, in bytes (`NAMEDATALEN` of PostgreSQL, less the NUL).
pub(super) const NAME_BYTES: usize = 63;

/// How a run's moment is written.
const MOMENT: &str = "%Y%m%dt%H%M%Sz";

/// Characters at the end of a run's id.
const RANDOM_CHARACTERS: usize = 4;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Hexadecimal digits of the full name's hash, where a name had to be cut.
const HASH_DIGITS: usize = 8;

/// One restore that is to be swapped in: when it began, and four characters of chance.
///
/// ```
/// use backup_pg::swap::RunId;
/// let run: RunId = "20260730t142501z_k3x9".parse()?;
/// assert_eq!(run.started().to_string(), "2026-07-30T14:25:01Z");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    text: String,
    started: Timestamp,
}

impl RunId {
    /// An id that begins `now`. Two of the same second differ, but for one case in a million:
    /// [`Swap::new_run`](super::Swap::new_run) looks whether it is free.
    pub fn new(now: Timestamp) -> Self {
        let mut chance = RandomState::new().hash_one(now.as_nanosecond());
        let mut text = format!("{}_", now.strftime(MOMENT));
        for _ in 0..RANDOM_CHARACTERS {
            text.push(char::from(ALPHABET[(chance % ALPHABET.len() as u64) as usize]));
            chance /= ALPHABET.len() as u64;
        }
        let started = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self { text, started }
    }

    /// When it began, to the second.
    pub fn started(&self) -> Timestamp {
        self.started
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let started = || -> Option<Timestamp> {
            let (moment, chance) = text.split_once('_')?;
            let known = chance.len() == RANDOM_CHARACTERS
                && chance.bytes().all(|byte| ALPHABET.contains(&byte));
            let civil = DateTime::strptime(MOMENT, moment).ok().filter(|_| known)?;
            let started = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
            (started.strftime(MOMENT).to_string() == moment).then_some(started)
        };
        match started() {
            Some(started) => Ok(Self { text: text.to_owned(), started }),
            None => Err(Error::usage(STAGE, format!("{text:?} is no id of a restore"))
                .next_step("it looks like 20260730t142501z_k3x9; `restore --rollback` without one takes the newest")),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.text
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The databases of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The new one, until it takes the live name.
    pub restoring: String,
    /// The old one, after the swap.
    pub before: String,
    /// The new one, when the old one was put back.
    pub failed: String,
}

impl Names {
    /// The names for a live database and a run. What would be longer than 63 bytes is cut at a
    /// character and gets a hash of the whole live name, so that similar names stay apart.
    pub fn new(live: &str, run: &RunId) -> Self {
        let name = |what| fitting(live, &format!("_{what}_{run}"));
        Self { restoring: name("restoring"), before: name("before"), failed: name("failed") }
    }

    /// All three.
    pub fn all(&self) -> [&str; 3] {
        [&self.restoring, &self.before, &self.failed]
    }

    /// Whether a database is called as some run for this live database would call one.
    pub(super) fn suit(live: &str, name: &str) -> bool {
        let length = MOMENT_CHARACTERS + 1 + RANDOM_CHARACTERS;
        let Some(at) = name.len().checked_sub(length).filter(|at| name.is_char_boundary(*at))
        else {
            return false;
        };
        let run = name[at..].parse::<RunId>();
        run.is_ok_and(|run| Self::new(live, &run).all().contains(&name))
    }
}

/// `20260730t142501z`.
const MOMENT_CHARACTERS: usize = 16;

fn fitting(live: &str, suffix: &str) -> String {
    if live.len() + suffix.len() <= NAME_BYTES {
        return format!("{live}{suffix}");
    }
    let hash = Digest::of(live.as_bytes()).sha256;
    let mut cut = NAME_BYTES - suffix.len() - 1 - HASH_DIGITS;
    while !live.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{}{suffix}", &live[..cut], &hash[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20260730t142501z_k3x9";

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let now: Timestamp = "2026-07-30T14:25:01.987Z".parse().unwrap();
        let ids: std::collections::BTreeSet<RunId> = (0..200).map(|_| RunId::new(now)).collect();
        assert!(ids.len() > 190, "{}", ids.len());
        for id in &ids {
            assert!(id.to_string().starts_with("20260730t142501z_"), "{id}");
            let read: RunId = id.to_string().parse().unwrap();
            assert_eq!((&read, read.started()), (id, id.started()));
        }
        assert!(RunId::new(now) < RunId::new("2026-07-30T14:25:02Z".parse().unwrap()));
        for bad in [
            "",
            "_",
            "20260730t142501z",
            "20260730t142501z_K3x9",
            "20260730t142501z_k3x",
            "20261330t142501z_k3x9",
            "2026730t142501z_k3x9",
            " 20260730t142501z_k3x9",
            "20260730t142501z_k3x9 ",
            "20260730T142501Z_k3x9",
            "20260730t142501z_k\u{e9}x",
        ] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_fit_and_stay_apart() {
        let run: RunId = RUN.parse().unwrap();
        let short = Names::new("claims", &run);
        assert_eq!(short.before, "claims_before_20260730t142501z_k3x9");
        assert_eq!(short.restoring, "claims_restoring_20260730t142501z_k3x9");

        // The longest that fits uncut: 63 - "_restoring_" - 21.
        let edge = "x".repeat(31);
        assert_eq!(Names::new(&edge, &run).restoring, format!("{edge}_restoring_{RUN}"));
        assert_eq!(Names::new(&edge, &run).restoring.len(), NAME_BYTES);

        let mut seen = std::collections::BTreeMap::new();
        let wide = |tail: &str| format!("{}{tail}", "\u{1f600}".repeat(15));
        let lives = ["a", "ab", "abc"].map(wide).into_iter();
        let more = (1..=63).map(|length| "\u{e9}\u{4e2d}z".chars().cycle().take(length).collect());
        for live in lives.chain(more.filter(|live: &String| live.len() <= NAME_BYTES)) {
            let names = Names::new(&live, &run);
            for name in names.all() {
                assert!(name.len() <= NAME_BYTES && name.ends_with(RUN), "{name}");
                assert!(Names::suit(&live, name), "{name}");
                assert!(!Names::suit("other", name), "{name}");
                let before = seen.insert(name.to_owned(), live.clone());
                assert_eq!(before, None, "{name} is of {live} as well");
            }
        }
        for foreign in ["", "claims", "claims_before_", "claims_before_20260730t142501z_k3", "é"] {
            assert!(!Names::suit("claims", foreign));
        }
    }
}
